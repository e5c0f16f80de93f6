"""Keeps every cursor of a consumer assigned to the leader of its partition, and mends what goes wrong.

Owns the cursors, the streams and the mending tasks. What the leader answers is turned into one of: go on at the new
leader, go on after a wait, go on elsewhere (by the policies of ConsumerConfig), or an error for the application.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from penstock.client.catalog import KnownTopic
from penstock.client.consume_stream import ConsumeStream
from penstock.client.cursor import NO_EPOCH, Cursor
from penstock.client.errors import LogDamagedError, UnknownPartitionError, UnknownTopicError, is_retriable, is_unknown
from penstock.client.fetched import FetchedBatch
from penstock.client.offsets import list_offsets
from penstock.client.options import ISOLATIONS, ConsumerConfig
from penstock.client.produce_stream import end
from penstock.client.records import TopicPartition
from penstock.client.retry import Backoff
from penstock.client.session import ClientSession
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.v1 import consumer_service_pb2 as pb

MAX_ABOVE_END = 5
"""Times that a leader may say that its log ends before the position, before the application is told."""
MAX_FAULTS = 8
"""Times in a row that a server may fail at a partition (INTERNAL and the like) before the application is told."""
MIN_WINDOW_BYTES = 1
_LOG = logging.getLogger("penstock.client")


class Fetcher:
    """See the module. Used from one event loop."""

    def __init__(self, config: ConsumerConfig, session: ClientSession, *, deletions_are_normal: bool = False) -> None:
        """With `deletions_are_normal` a deleted topic is no error: somebody else takes its partitions away."""
        self.cursors: dict[TopicPartition, Cursor] = {}
        self.aside: dict[TopicPartition, Cursor] = {}
        """Where reading stands that was put aside: perhaps it goes on."""
        self.ready: dict[Cursor, None] = {}
        """Cursors that have something to give out."""
        self.errors: deque[PenstockError] = deque()
        """For the application, each once."""
        self.on_cut: Callable[[TopicPartition, int], None] | None = None
        """Told where reading goes on when the log no longer has what was given out."""
        self._config = config
        self._session = session
        self._deletions_are_normal = deletions_are_normal
        self._is_closed = False
        self._news = asyncio.Event()
        self._streams: dict[str, ConsumeStream] = {}
        self._places: dict[Cursor, ConsumeStream] = {}
        self._backoffs: dict[Cursor, Backoff] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._ending: dict[asyncio.Task[None], None] = {}
        """Cancelled, and not ended yet."""
        self._mending: dict[Cursor, asyncio.Task[None]] = {}
        session.metadata.listeners.append(self._metadata_changed)

    # -- what the consumer calls

    async def wait(self, is_enough: Callable[[], bool]) -> None:
        """Return when there is an error, when this holds (it is looked at after each change), or after `close`."""
        while not (self.errors or self._is_closed or is_enough()):
            self._news.clear()
            await self._news.wait()

    def wake(self) -> None:
        """Something has changed for who waits."""
        self._news.set()

    def add(self, partition: TopicPartition, offset: int, last_epoch: int | None = None) -> Cursor:
        """Read this partition too, from `offset`, before which stands a record of `last_epoch`."""
        cursor = Cursor(self._known(partition).topic_id, partition, offset)
        if last_epoch is not None:
            cursor.expect_after(last_epoch)
        self.remove(partition)
        self.cursors[partition] = cursor
        self._place(cursor)
        return cursor

    def remove(self, partition: TopicPartition) -> None:
        """Read this partition no more; what was fetched of it is dropped. The others do not notice."""
        self.aside.pop(partition, None)
        cursor = self.cursors.pop(partition, None)
        if cursor is not None:
            self._drop(cursor)

    def put_aside(self, partition: TopicPartition) -> None:
        """The same, but that it may go on: until it is removed it can be sought, paused and resumed."""
        cursor = self.cursors.pop(partition, None)
        if cursor is not None:
            self._drop(cursor)
            self.aside[partition] = cursor

    def go_on(self, partition: TopicPartition, position: int) -> None:
        """Read on what was put aside, from this position, before which stands what was given out before."""
        former = self.aside.pop(partition, None)
        if former is not None:
            cursor = self.cursors[partition] = former.again(position)
            self._place(cursor)
            if former.error is not None:
                self._stop(cursor, former.error)  # which was taken back, and may not have been raised

    def replace(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Read these partitions from these offsets, and no others. Their topics are known to the metadata."""
        cursors = {}
        for partition, offset in offsets.items():
            known = self._known(partition)
            cursors[partition] = Cursor(known.topic_id, partition, offset)
        for cursor in list(self.cursors.values()):
            self._drop(cursor)
        self.errors.clear()
        self.cursors = cursors
        for cursor in cursors.values():
            self._place(cursor)

    def seek(self, cursor: Cursor, offset: int) -> None:
        """Read from elsewhere; an error of where it was read before means nothing any more."""
        topic_id = self._known(cursor.partition).topic_id
        self._end_mending(cursor)
        self._take_error_back(cursor)
        cursor.topic_id = topic_id
        self._move(cursor, offset)

    def pause(self, cursor: Cursor) -> None:
        """Drop what was fetched (its credit is needed by others) and fetch no more."""
        if not cursor.paused:
            cursor.paused = True
            self._leave(cursor)
            self.give_back(cursor, cursor.rewind())

    def resume(self, cursor: Cursor) -> None:
        """Fetch again from the position."""
        if cursor.paused:
            cursor.paused = False
            self._place(cursor)

    def stop(self, cursor: Cursor, error: PenstockError) -> None:
        """Read the partition no more until a seek: what was fetched of it cannot be given out."""
        self._stop(cursor, error)
        self.give_back(cursor, cursor.rewind())

    def give_back(self, cursor: Cursor, batches: Iterable[FetchedBatch]) -> None:
        """Return the credit of batches that are given out or dropped."""
        for stream in self._streams.values():
            for batch in batches:
                stream.give_back(batch.source, batch.size)
        if not cursor.has_data:
            self.ready.pop(cursor, None)

    async def close(self) -> None:
        """End all tasks, and every wait."""
        self._is_closed = True
        self._session.metadata.listeners.remove(self._metadata_changed)
        await end([*self._mending.values(), *self._ending, *self._tasks])
        self._news.set()

    # -- what streams call (StreamReader)

    def received(self, cursor: Cursor, consumed: pb.ConsumedPartition, source: object) -> None:
        """See StreamReader."""
        if cursor.is_stale(consumed):
            self._place(cursor)
            return
        try:
            cursor.accept(consumed, source, check_crc=self._config.check_crc)
        except LogDamagedError as error:
            self._stop(cursor, error)
            return
        self._backoffs.pop(cursor, None)
        if cursor.has_data:
            self.ready[cursor] = None
            self._news.set()

    def failed(self, cursor: Cursor, error: PenstockError) -> None:
        """See StreamReader."""
        self._places.pop(cursor, None)
        former = self._mending.get(cursor)
        if former is None or former.done():
            self._mending[cursor] = asyncio.create_task(self._mend(cursor, error))

    def broken(self, address: str, cursors: Sequence[Cursor], fault: PenstockError | None) -> None:
        """See StreamReader."""
        self._session.metadata.refresh_soon()
        if fault is None:
            return
        _LOG.warning("the stream from %s, with %d partitions, failed: %s", address, len(cursors), fault)
        for cursor in cursors:
            if self._is_too_often(cursor):
                self._stop(cursor, _failed(cursor, fault))

    # -- placing

    def _known(self, partition: TopicPartition) -> KnownTopic:
        known = self._session.metadata.catalog.topics.get(partition.topic)
        if known is None:
            raise UnknownTopicError(Reason.UNKNOWN_TOPIC, f"topic {partition.topic!r} does not exist")
        if not 0 <= partition.partition < len(known.partitions):
            message = f"topic {partition.topic!r} has {len(known.partitions)} partitions, not {partition.partition}"
            raise UnknownPartitionError(Reason.UNKNOWN_PARTITION, message)
        return known

    def _place(self, cursor: Cursor) -> None:
        """Assign the cursor anew, at its partition's leader."""
        self._leave(cursor)
        if cursor.paused or cursor.stopped or self.cursors.get(cursor.partition) is not cursor:
            return
        catalog = self._session.metadata.catalog
        topic = catalog.topic_of(cursor.topic_id)
        if topic is None:
            message = f"topic {cursor.partition.topic!r} was deleted"
            self._stop(cursor, UnknownTopicError(Reason.UNKNOWN_TOPIC, message))
            return
        leadership = topic.partitions[cursor.partition.partition]
        address = catalog.leader_address(leadership)
        if address is None:
            self._session.metadata.refresh_soon()
            return
        cursor.leader_epoch = max(cursor.leader_epoch, leadership.leader_epoch)
        stream = self._stream_to(address)
        self._places[cursor] = stream
        stream.assign(cursor)

    def _leave(self, cursor: Cursor) -> None:
        stream = self._places.pop(cursor, None)
        if stream is not None:
            stream.unassign(cursor)

    def _drop(self, cursor: Cursor) -> None:
        self._leave(cursor)
        self.give_back(cursor, cursor.rewind())
        self._backoffs.pop(cursor, None)
        self._end_mending(cursor)
        self._take_error_back(cursor)

    def _take_error_back(self, cursor: Cursor) -> None:
        """It means nothing any more to the application, where that was not told yet."""
        if cursor.error is not None and cursor.error in self.errors:
            self.errors.remove(cursor.error)

    def _end_mending(self, cursor: Cursor) -> None:
        task = self._mending.pop(cursor, None)
        if task is not None:
            task.cancel()
            self._ending[task] = None
            task.add_done_callback(self._ending.pop)

    def _move(self, cursor: Cursor, offset: int) -> None:
        self.give_back(cursor, cursor.move(offset))
        self._place(cursor)

    def _stop(self, cursor: Cursor, error: PenstockError) -> None:
        self._leave(cursor)
        cursor.stopped = True
        if isinstance(error, UnknownTopicError) and self._deletions_are_normal:
            _LOG.warning("%s", error)
            return
        cursor.error = error
        self.errors.append(error)
        self._news.set()

    def _stream_to(self, address: str) -> ConsumeStream:
        stream = self._streams.get(address)
        if stream is None:
            brokers = max(1, len(self._session.metadata.catalog.brokers))
            start = pb.ConsumeStart(
                isolation=ISOLATIONS[self._config.isolation], max_response_bytes=self._config.max_response_bytes
            )
            window_bytes = max(MIN_WINDOW_BYTES, self._config.prefetch_bytes // brokers)
            stream = ConsumeStream(address, self, start, window_bytes, self._session.clock)
            self._streams[address] = stream
            self._tasks.append(asyncio.create_task(stream.run(self._session.connections, self._session.rng)))
        return stream

    def _metadata_changed(self) -> None:
        catalog = self._session.metadata.catalog
        for cursor in list(self.cursors.values()):
            if cursor.paused or cursor.stopped:
                continue
            topic = catalog.topics.get(cursor.partition.topic)
            if topic is None or topic.topic_id != cursor.topic_id:
                self._place(cursor)
                continue
            leadership = topic.partitions[cursor.partition.partition]
            place = self._places.get(cursor)
            moved = place is None or place.address != catalog.leader_address(leadership)
            if leadership.leader_epoch > cursor.leader_epoch or (moved and cursor not in self._mending):
                self._place(cursor)

    # -- mending

    async def _mend(self, cursor: Cursor, error: PenstockError) -> None:
        try:
            if await self._recover(cursor, error):
                await self._session.clock.sleep_ms(self._backoff(cursor).next_ms())
                if cursor not in self._places:
                    self._place(cursor)
        except PenstockError as raised:
            self._stop(cursor, raised)
        finally:
            if self._mending.get(cursor) is asyncio.current_task():
                del self._mending[cursor]

    def _backoff(self, cursor: Cursor) -> Backoff:
        return self._backoffs.setdefault(cursor, Backoff(self._session.rng))

    async def _recover(self, cursor: Cursor, error: PenstockError) -> bool:
        """Act on an error; True: try again after a wait. Raises what the application has to see."""
        metadata = self._session.metadata
        reason = error.reason
        if reason in {Reason.NOT_LEADER, Reason.STALE_LEADER_EPOCH}:
            metadata.learn_leader(cursor.topic_id, cursor.partition.partition, error.metadata)
            return cursor not in self._places
        if reason is Reason.OFFSET_BELOW_START:
            return await self._reset(cursor, error)
        if reason is Reason.OFFSET_ABOVE_END:
            return await self._above_end(cursor, error)
        if reason is Reason.DIVERGED:
            return self._diverged(cursor, error)
        gone = reason in {Reason.UNKNOWN_TOPIC, Reason.UNKNOWN_PARTITION}
        if is_unknown(error):
            _LOG.warning("reading %s from offset %d failed: %s", cursor.partition, cursor.fetch_offset, error)
            if self._is_too_often(cursor):
                raise _failed(cursor, error)
        elif not (is_retriable(error) or (gone and metadata.catalog.topic_of(cursor.topic_id))):
            raise error
        metadata.refresh_soon()
        return True

    def _is_too_often(self, cursor: Cursor) -> bool:
        return cursor.count_fault(self._session.clock.monotonic_ms()) >= MAX_FAULTS

    async def _reset(self, cursor: Cursor, error: PenstockError) -> bool:
        """Retention has dropped what was to be read next."""
        if self._config.auto_offset_reset == "error":
            raise error
        to: Literal["earliest", "latest"] = "earliest" if self._config.auto_offset_reset == "earliest" else "latest"
        before = cursor.fetch_offset
        offset = await self._offset(cursor, to)
        if cursor.fetch_offset == before and cursor not in self._places:
            cursor.skip_to(offset)
            self._place(cursor)
        return False

    async def _above_end(self, cursor: Cursor, error: PenstockError) -> bool:
        """The log ends before the position: never a reset (DESIGN rule 23).

        Where something was read, the assignment carries its epoch, so the leader says DIVERGED if it is so; the answer
        now means that this leader does not know better yet. Where nothing was read, the position was wrong.
        """
        cursor.above_end += 1
        self._session.metadata.refresh_soon()
        if cursor.last_epoch == NO_EPOCH and await self._offset(cursor, "latest") < cursor.fetch_offset:
            raise error
        if cursor.above_end >= MAX_ABOVE_END:
            raise error
        return True

    def _diverged(self, cursor: Cursor, error: PenstockError) -> bool:
        """What was fetched last is not in the log. What was not given out is fetched again, and the rest checked so."""
        if cursor.fetch_offset > cursor.position:
            self.give_back(cursor, cursor.rewind())
            self._place(cursor)
            return False
        try:
            end_offset = int(error.metadata["end_offset"])
        except (KeyError, ValueError):
            raise error from None
        if self._config.on_divergence == "error":
            raise error
        self._move(cursor, min(end_offset, cursor.position))
        if self.on_cut is not None:
            self.on_cut(cursor.partition, cursor.position)
        return False

    async def _offset(self, cursor: Cursor, position: Literal["earliest", "latest"]) -> int:
        wanted: dict[TopicPartition, Literal["earliest", "latest"]] = {cursor.partition: position}
        found = await list_offsets(self._session, wanted, self._config.isolation, self._config.request_timeout_ms)
        return found[cursor.partition].offset


def _failed(cursor: Cursor, error: PenstockError) -> PenstockError:
    """What the application is told: a read has no outcome that could be unknown, so it is no OutcomeUnknownError."""
    text = (
        f"reading {cursor.partition} from offset {cursor.fetch_offset} failed {MAX_FAULTS} times in a row; the last: "
    )
    return PenstockError(error.reason, text + error.message, error.metadata)
