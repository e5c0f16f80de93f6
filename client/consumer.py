"""The asyncio consumer without a group: reads the partitions it is told to, wherever their leaders go.

Shell around Cursor (pure) and one ConsumeStream a broker. It commits nothing: positions are the application's. Tasks:
one a stream, two of the metadata, one for each partition whose assignment is being mended; `close` awaits all.
Cancelling a poll or an iteration loses nothing: a record is given out or stays.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Self, Unpack

from penstock.client.catalog import KnownTopic
from penstock.client.connection import parse_bootstrap
from penstock.client.cursor import Cursor
from penstock.client.errors import ClientClosedError, InvalidRequestError, LogDamagedError
from penstock.client.fetched import FetchedBatch
from penstock.client.fetcher import Fetcher
from penstock.client.group.listener import Drainer
from penstock.client.offsets import list_offsets
from penstock.client.options import ConsumerConfig, ConsumerOptions
from penstock.client.processing.adapter import ConsumerSource
from penstock.client.processing.dead_letters import DELIVERY_TIMEOUT_MS
from penstock.client.processing.options import Handler, ProcessConfig, ProcessOptions
from penstock.client.processing.processor import Ground, Processor
from penstock.client.processing.statistics import ProcessingStatistics
from penstock.client.producer import Producer
from penstock.client.records import CommitPoint, Position, Record, TopicPartition
from penstock.client.seams import Seams
from penstock.client.session import ClientSession
from penstock.protocol.reasons import Reason

__all__ = ["Consumer", "FetchedBatch"]


class Consumer:
    """Reads partitions. Use it as an async context manager, from one event loop. Keyword arguments: ConsumerConfig.

    Records of one partition come in the order of their offsets; partitions take turns. An error of a partition is
    raised once, by the next poll; that partition then waits for a `seek`, the others go on.
    """

    def __init__(self, bootstrap: str | Sequence[str], **options: Unpack[ConsumerOptions]) -> None:
        self.config = ConsumerConfig(**options)
        self._bootstrap = parse_bootstrap(bootstrap)
        self._seams = Seams()
        self._is_open = False
        self.processor = self._make_processor()
        self._turn: deque[Cursor] = deque()
        self._left: Iterator[Record] = iter(())
        """Of the cursor that iterating read last: what is left of its open batch. The cursor's own iterator."""

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Start. Needs no broker yet."""
        self._session = ClientSession(self._bootstrap, self.config.credentials, self._seams, self.config.address_map)
        self._fetcher = Fetcher(self.config, self._session)
        self._session.start()
        self._is_open = True

    async def close(self) -> None:
        """Stop reading and end all tasks."""
        if not self._is_open:
            return
        await self.processor.end()
        self._is_open = False
        await self._fetcher.close()
        await self._session.close()

    # -- what to read

    async def assign(
        self, partitions: Iterable[TopicPartition] | Mapping[TopicPartition, Position], start: Position = "latest"
    ) -> None:
        """Read these partitions and no others, each from `start` or from its own position in a mapping."""
        self._check_open()
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
        self._fetcher.seek(self._cursor(partition), offsets[cursor.partition])

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
        """Give the offset of the next record to be given out."""
        return self._cursor(partition).position

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
            if done is not None:
                self._fetcher.give_back(cursor, [done])
        return out

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Record:
        """Give out one record, waiting for it as long as it takes."""
        for record in self._left:  # the next one; this is run once a record, so all else is elsewhere
            return record
        while True:
            await self._wait_for_data(None)
            records = self._take(1)
            if records:
                self._left = self._turn[0].left
                return records[0]

    async def process(self, handler: Handler, **options: Unpack[ProcessOptions]) -> ProcessingStatistics:
        """Call `handler` for every record, several at a time; commit what is done. Keyword arguments: ProcessConfig.

        Records of one key (of one partition) are handled one after the other, in their order. Committed is what lies
        below the first record that is not done, in the background, when partitions are given up, and at the end: each
        record is handled at least once. Without a group nothing is committed. A coroutine function runs on the event
        loop, any other handler in a thread.

        Runs until `stop`, `close`, a record that `on_failure` stops at (HandlerError), an error of a poll, or
        cancelling; then the consumer stands at the first record that is not done. Gives what was done.
        """
        self._check_open()
        return await self.processor.run(handler, ProcessConfig(**options))

    def stop(self) -> None:
        """Have process() end: what was begun is finished and committed. Does not wait; handlers may call it."""
        self.processor.stop()

    def statistics(self) -> ProcessingStatistics:
        """Give what process() has done so far, or the last one did."""
        return self.processor.statistics

    async def earliest_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Give the log start offsets, asked of the leaders."""
        return await self._resolve({TopicPartition(*partition): "earliest" for partition in partitions})

    async def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Give the offset after the last record that this isolation sees, asked of the leaders."""
        return await self._resolve({TopicPartition(*partition): "latest" for partition in partitions})

    async def lag(self) -> dict[TopicPartition, int]:
        """Give the number of offsets between position and end for each partition, asked of the leaders."""
        ends = await self.end_offsets(self.assignment())
        return {partition: max(0, end - self._cursor(partition).position) for partition, end in ends.items()}

    # -- inside

    def _make_processor(self) -> Processor:
        source = ConsumerSource(self, None, self._commit_processed, self._drive)
        return Processor(source, Ground(lambda: self._seams, self._make_producer, self._metadata_topic))

    async def _commit_processed(self, points: Mapping[TopicPartition, CommitPoint]) -> None:
        """Without a group there is nowhere to commit."""

    def _drive(self, drainer: Drainer | None) -> None:
        """Without a group nothing is revoked."""

    def _make_producer(self) -> Producer:
        """For dead letters."""
        config = self.config
        producer = Producer(
            self._bootstrap,
            delivery_timeout_ms=DELIVERY_TIMEOUT_MS,
            credentials=config.credentials,
            address_map=config.address_map,
        )
        producer._seams = self._seams  # noqa: SLF001 - one world for both
        return producer

    async def _wait_for_data(self, timeout_s: float | None) -> bool:
        self._check_open()
        await asyncio.sleep(0)  # the streams go on reading while the application is busy with what it got
        self._check_open()
        self._raise_error()
        if self._fetcher.ready:
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await self._fetcher.wait()
        except TimeoutError:
            return False
        self._check_open()
        self._raise_error()
        return bool(self._fetcher.ready)

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
            if isinstance(at, int) and at < 0:
                raise InvalidRequestError(Reason.INVALID_ARGUMENT, f"offset {at} of {partition} is negative")
        found = await list_offsets(self._session, ask, self.config.isolation, self.config.request_timeout_ms)
        return {p: at if isinstance(at, int) else found[p].offset for p, at in wanted.items()}

    def _cursor(self, partition: TopicPartition) -> Cursor:
        self._check_open()
        cursor = self._fetcher.cursors.get(TopicPartition(*partition))
        if cursor is None:
            raise InvalidRequestError(Reason.INVALID_ARGUMENT, f"{partition} is not assigned")
        return cursor

    def _check_open(self) -> None:
        if not self._is_open:
            raise ClientClosedError(Reason.NOT_SERVING, "the consumer is not open")
