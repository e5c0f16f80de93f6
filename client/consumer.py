"""The asyncio consumer: reads the partitions it is told to, or those its group gives it, wherever their leaders go.

Shell around Cursor (pure) and one ConsumeStream a broker. Without a group it commits nothing: positions are the
application's. Tasks: one a stream, two of the metadata, one for each partition whose assignment is being mended, and
those of the membership (group.reader); `close` awaits all. Cancelling a poll or an iteration loses nothing: a record is
given out or stays.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Self, Unpack

from penstock.client.catalog import KnownTopic
from penstock.client.checks import MAX_OFFSET
from penstock.client.connection import parse_bootstrap
from penstock.client.cursor import Cursor
from penstock.client.errors import InvalidRequestError, LogDamagedError
from penstock.client.fetched import FetchedBatch
from penstock.client.fetcher import Fetcher
from penstock.client.group.face import GroupFace
from penstock.client.group.options import split
from penstock.client.group.reader import GroupReader
from penstock.client.offsets import list_offsets
from penstock.client.options import ConsumerConfig, ConsumerOptions
from penstock.client.processing.adapter import processor_of
from penstock.client.processing.face import ProcessingFace
from penstock.client.records import Position, Record, TopicPartition
from penstock.client.seams import Seams
from penstock.client.session import ClientSession
from penstock.protocol.reasons import Reason

__all__ = ["Consumer", "FetchedBatch"]


class Consumer(ProcessingFace, GroupFace):
    """Reads partitions. Use it as an async context manager, from one event loop.

    Keyword arguments: ConsumerConfig; with `group` those of GroupConfig too, and the group gives the partitions.
    Records of one partition come in the order of their offsets; partitions take turns. An error of a partition is
    raised once, by the next poll; that partition then waits for a `seek`, the others go on.
    """

    def __init__(self, bootstrap: str | Sequence[str], **options: Unpack[ConsumerOptions]) -> None:
        plain, self.group_config = split(options)
        self.config = ConsumerConfig(**plain)
        self._bootstrap = parse_bootstrap(bootstrap)
        self._seams = Seams()
        self._is_open = False
        self._turn: deque[Cursor] = deque()
        self._left: Iterator[Record] = iter(())
        """Of the cursor that iterating read last: what is left of its open batch. The cursor's own iterator."""
        self._left_in_group: Iterator[Record] = self._left
        """The same in a group, where more is done for each record; all of one partition."""
        self._left_partition = TopicPartition("", 0)
        self._group: GroupReader | None = None
        self._hands_out = True
        """What is taken is handed out."""
        self._tells_changes = True
        """Else the blocking face does, and every wait ends when there is something to be told."""
        self.processor = processor_of(self)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Start. Needs no broker yet."""
        self._session = ClientSession(self._bootstrap, self.config.credentials, self._seams, self.config.address_map)
        self._fetcher = Fetcher(self.config, self._session, deletions_are_normal=self.group_config is not None)
        self._session.start()
        self._is_open = True
        if self.group_config is not None:
            self._group = GroupReader(self.group_config, self.config, self._seams, self._session, self._fetcher)
            self._group.start()

    async def close(self, *, leave: bool = True) -> None:
        """Stop reading and end all tasks. In a group: commit what was asked past (auto_commit), then leave.

        A static member keeps its partitions for its session timeout. Without `leave` any member does.
        """
        await self._close(leave=leave, told=False)

    async def _close(self, *, leave: bool, told: bool) -> None:
        """`told`: the listener knows that all partitions are given up."""
        if not self._is_open:
            return
        self.processor.check_ending()
        group = self._group
        try:
            await self.processor.end()
            if group is not None:
                await group.finish(told=told)
        finally:  # also where it is cancelled
            try:
                if group is not None:
                    await group.depart(leave=leave)
            finally:
                await self._end()

    async def _end(self) -> None:
        self._is_open = False
        await self._fetcher.close()
        await self._session.close()

    # -- what to read

    async def assign(
        self, partitions: Iterable[TopicPartition] | Mapping[TopicPartition, Position], start: Position = "latest"
    ) -> None:
        """Read these partitions and no others, each from `start` or from its own position in a mapping."""
        self._check_open()
        if self._group is not None:
            raise InvalidRequestError(Reason.INVALID_ARGUMENT, "the group assigns the partitions: use subscribe()")
        if isinstance(partitions, Mapping):
            wanted: dict[TopicPartition, Position] = {TopicPartition(*p): at for p, at in partitions.items()}
        else:
            wanted = {TopicPartition(*p): start for p in partitions}
        offsets = await self._resolve(wanted)
        self._turn.clear()
        self._fetcher.replace(offsets)

    async def assign_topics(self, topics: Iterable[str], start: Position = "latest") -> None:
        """Read all present partitions of these topics and no others. One name alone works too."""
        names = [topics] if isinstance(topics, str) else list(topics)
        partitions = []
        for name in names:
            known = await self._metadata_topic(name)
            partitions += [TopicPartition(name, index) for index in range(len(known.partitions))]
        await self.assign(partitions, start)

    def assignment(self) -> tuple[TopicPartition, ...]:
        """Give the partitions being read."""
        return tuple(self._fetcher.cursors) if self._is_open else ()

    async def seek(self, partition: TopicPartition, to: Position) -> None:
        """Read this partition from elsewhere; what was fetched of it is dropped."""
        cursor = self._cursor(partition)
        offsets = await self._resolve({cursor.partition: to})
        self._move(cursor.partition, offsets[cursor.partition])

    def _move(self, partition: TopicPartition, offset: int) -> None:
        cursor = self._cursor(partition)
        self._fetcher.seek(cursor, offset)
        if self._group is not None:
            self._group.positions.seek(cursor.partition, offset)

    def pause(self, *partitions: TopicPartition) -> None:
        """Give out no records of these until they are resumed."""
        for partition in partitions:
            self._fetcher.pause(self._cursor(partition))

    def resume(self, *partitions: TopicPartition) -> None:
        """Go on where the pause began."""
        for partition in partitions:
            self._fetcher.resume(self._cursor(partition))

    def paused(self) -> tuple[TopicPartition, ...]:
        """Give the partitions that are paused."""
        return tuple(partition for partition, cursor in self._fetcher.cursors.items() if cursor.paused)

    def position(self, partition: TopicPartition) -> int:
        """Give the offset of the next record to be given out; in a group also of what is being given up."""
        cursor = self._cursor(partition)
        if self._group is not None and cursor.partition in self._fetcher.aside:
            handed_out = self._group.positions.position(cursor.partition)  # the cursor is after what another thread had
            return cursor.position if handed_out is None else handed_out
        return cursor.position

    # -- reading

    async def poll(self, max_records: int = 500, timeout: float = 1.0) -> list[Record]:  # noqa: ASYNC109 - wait bound
        """Give out what is there, at most `max_records`; waits `timeout` seconds at most for the first one.

        Gives out nothing before that time, too, where the position has passed records that compaction removed.
        """
        if await self._wait_for_data(timeout):
            return self._take(max_records)
        return []

    async def poll_batches(
        self,
        max_batches: int = 100,
        timeout: float = 1.0,  # noqa: ASYNC109 - wait bound
    ) -> list[FetchedBatch]:
        """Like poll, by whole batches: the fastest way, as records are parsed only when they are asked for."""
        out: list[FetchedBatch] = []
        if not await self._wait_for_data(timeout):
            return out
        while len(out) < max_batches:
            cursor = self._next_cursor()
            if cursor is None:
                break
            batch, done = cursor.take_batch()
            if batch is not None:
                out.append(batch)
            self._handed_out(cursor)
            if done is not None:
                self._fetcher.give_back(cursor, [done])
        return out

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Record:
        """Give out one record, waiting for it as long as it takes."""
        for record in self._left:  # the next one; this is run once a record, so all else is elsewhere
            return record
        if self._group is not None:
            return await self._next_in_group(self._group)
        while True:
            await self._wait_for_data(None)
            records = self._take(1)
            if records:
                self._left = self._turn[0].left
                return records[0]

    async def earliest_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Give the log start offsets, asked of the leaders."""
        return await self._resolve({TopicPartition(*partition): "earliest" for partition in partitions})

    async def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Give the offset after the last record that this isolation sees, asked of the leaders."""
        return await self._resolve({TopicPartition(*partition): "latest" for partition in partitions})

    async def lag(self) -> dict[TopicPartition, int]:
        """Give the number of offsets between position and end for each partition, asked of the leaders."""
        ends = await self.end_offsets(self.assignment())
        cursors = self._fetcher.cursors  # a group may have taken some away meanwhile
        return {p: max(0, end - cursors[p].position) for p, end in ends.items() if p in cursors}

    # -- inside

    async def _wait_for_data(self, timeout_s: float | None) -> bool:
        self._check_open()
        self.processor.check_reader()
        await asyncio.sleep(0)  # the streams go on reading while the application is busy with what it got
        self._check_open()
        if self._group is not None:
            return await self._wait_in_group(self._group, timeout_s)
        self._raise_error()
        if self._fetcher.ready:
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await self._fetcher.wait(lambda: bool(self._fetcher.ready))
        except TimeoutError:
            return False
        self._check_open()
        self._raise_error()
        return bool(self._fetcher.ready)

    async def _wait_in_group(self, group: GroupReader, timeout_s: float | None) -> bool:
        """The same in a group: what the application must hear of its partitions comes first, however long it takes."""
        if not group.is_subscribed:
            raise InvalidRequestError(Reason.INVALID_SUBSCRIPTION, "nothing is subscribed: give topics or a pattern")
        fetcher = self._fetcher
        until = None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s
        group.ask()
        is_over = False
        while True:
            if self._tells_changes:
                await group.rebalances.tell_all()
            elif group.is_pending:
                return False
            self._check_open()
            self._raise_error()
            if fetcher.ready and group.may_give():
                return True
            if is_over:
                return False
            try:
                with group.waiting():
                    async with asyncio.timeout_at(until):
                        await fetcher.wait(lambda: group.is_pending or (bool(fetcher.ready) and group.may_give()))
            except TimeoutError:
                is_over = True

    async def _poll_ahead(self, max_records: int, timeout_s: float) -> list[Record]:
        """Poll in a group for another thread, which hands the records out one by one."""
        group = self._in_group()
        self.processor.check_reader()
        if not await self._wait_in_group(group, timeout_s):
            return []
        self._hands_out = False
        try:
            records = self._take(max_records)
        finally:
            self._hands_out = True
        group.positions.send_ahead({TopicPartition(*record[:2]) for record in records})
        return records

    def _rewind(self, partition: TopicPartition, offset: int) -> None:
        """Fetch again what was taken and not handed out."""
        cursor = self._fetcher.cursors.get(partition)
        if cursor is not None:
            self._fetcher.seek(cursor, offset)

    async def _next_in_group(self, group: GroupReader) -> Record:
        while True:
            if group.goes_on():
                for record in self._left_in_group:
                    group.positions.hand_out(self._left_partition, record.offset + 1, record.leader_epoch)
                    return record
            if await self._wait_for_data(None):
                records = self._take(1)
                if records:
                    self._left_in_group, self._left_partition = self._turn[0].left, self._turn[0].partition
                    return records[0]

    def _handed_out(self, cursor: Cursor) -> None:
        if self._group is not None and self._hands_out:
            self._group.positions.hand_out(cursor.partition, cursor.position, cursor.given_epoch)

    def _take(self, max_records: int) -> list[Record]:
        out: list[Record] = []
        while len(out) < max_records:
            cursor = self._next_cursor()
            if cursor is None:
                break
            try:
                records, opened = cursor.take(max_records - len(out))
            except LogDamagedError as error:
                self._fetcher.stop(cursor, error)
                continue
            out += records
            self._handed_out(cursor)
            self._fetcher.give_back(cursor, opened)
        if not out:
            self._raise_error()
        return out

    def _next_cursor(self) -> Cursor | None:
        """Give the cursor whose turn it is; those without data leave the round until they have some."""
        if self._turn and not self._turn[0].has_data:
            self._fetcher.ready.pop(self._turn.popleft(), None)
        while not self._turn or not self._turn[0].has_data:
            if self._turn:
                self._fetcher.ready.pop(self._turn.popleft(), None)
            elif self._fetcher.ready:
                self._turn.extend(self._fetcher.ready)
            else:
                return None
        return self._turn[0]

    def _raise_error(self) -> None:
        if self._fetcher.errors:
            raise self._fetcher.errors.popleft()

    async def _metadata_topic(self, name: str) -> KnownTopic:
        self._check_open()
        return await self._session.metadata.topic(name, self.config.request_timeout_ms)

    async def _resolve(self, wanted: Mapping[TopicPartition, Position]) -> dict[TopicPartition, int]:
        """Offsets of positions; names are checked even where no leader has to be asked."""
        ask = {partition: at for partition, at in wanted.items() if not isinstance(at, int)}
        for partition, at in wanted.items():
            await self._metadata_topic(partition.topic)
            if isinstance(at, int) and not 0 <= at <= MAX_OFFSET:
                text = f"offset {at} of {partition} is not 0 or more, and below 2**63"
                raise InvalidRequestError(Reason.INVALID_ARGUMENT, text)
        found = await list_offsets(self._session, ask, self.config.isolation, self.config.request_timeout_ms)
        return {p: at if isinstance(at, int) else found[p].offset for p, at in wanted.items()}

    def _cursor(self, partition: TopicPartition) -> Cursor:
        self._check_open()
        known = TopicPartition(*partition)
        cursor = self._fetcher.cursors.get(known) or self._fetcher.aside.get(known)
        if cursor is None:
            raise InvalidRequestError(Reason.INVALID_ARGUMENT, f"{partition} is not assigned")
        return cursor
