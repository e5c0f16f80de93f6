"""The blocking face: `Producer`, `Consumer`, `Admin` of `penstock.client` with the same names and no async.

Same core, on a background event loop (loop_thread). A Producer or Admin may be shared between threads, a Consumer not.
Callbacks run on the background thread: keep them short, and never wait for a client inside one. Ctrl-C interrupts every
wait, and loses no record that was read. The face is one module because it is one list of the same names.
"""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias, TypeVar, Unpack

import grpc

from penstock.client import admin as _admin
from penstock.client import consumer as _consumer
from penstock.client import producer as _producer
from penstock.client.cursor import FetchedBatch
from penstock.client.descriptions import (
    BrokerDescription,
    ClusterDescription,
    HealthReport,
    PartitionOffset,
    TopicDescription,
)
from penstock.client.errors import BufferFullError, ClientClosedError
from penstock.client.loop_thread import LoopThread
from penstock.client.options import ConsumerOptions, OnDelivery, ProducerOptions
from penstock.client.records import Delivery, Headers, Isolation, NewRecord, Position, Record, Timestamp, TopicPartition
from penstock.client.topic_config import ConfigValue
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason

T = TypeVar("T")

HANDOVER_RECORDS = 10_000
"""Records handed to the background thread and not yet taken over by the producer there, at most."""
HANDOVER_BYTES = 8 * 1024 * 1024
"""Bytes of them, at most, beyond the first."""
LOOKAHEAD_RECORDS = 500
"""Records that iterating takes from the background thread at once."""
ITERATION_WAIT_S = 60.0
RECORDS_A_TURN = 500
"""Records that the background thread takes over before it lets its event loop run."""

_Handed: TypeAlias = tuple[str, bytes | None, bytes | None, Headers, int, int | None, OnDelivery | None]


class _Face:
    """What the three faces share: the loop thread, and the context manager."""

    def __init__(self) -> None:
        self._thread: LoopThread | None = None

    def _start(self, opening: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._thread = LoopThread.acquire()
        try:
            self._run(opening())
        except BaseException:
            self._stop()
            raise

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if self._thread is None:
            coroutine.close()
            raise ClientClosedError(Reason.NOT_SERVING, "the client is not open")
        return self._thread.run(coroutine)

    def _stop(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.release()


class Producer(_Face):
    """Appends records; see penstock.client.Producer. `send` and `send_nowait` cost no switch of threads a record."""

    def __init__(self, bootstrap: str | Sequence[str], **options: Unpack[ProducerOptions]) -> None:
        super().__init__()
        self._inner = _producer.Producer(bootstrap, **options)
        self._changed = threading.Condition()
        self._handed: deque[_Handed] = deque()
        self._handed_bytes = 0
        self._drainer: asyncio.Task[None] | None = None
        self._drain_due = False
        self._refusal: PenstockError | None = ClientClosedError(Reason.NOT_SERVING, "the producer is not open")

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Close; with an exception under way (Ctrl-C too) without waiting for deliveries."""
        if kind is None:
            self.close()
        else:
            with contextlib.suppress(PenstockError):
                self._close(self._abandon())

    def open(self) -> None:
        """Start. Needs no broker yet."""
        self._start(self._inner.open)
        self._refusal = None

    def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Headers = (),
        timestamp_ms: int | None = None,
        partition: int | None = None,
    ) -> "Future[Delivery]":
        """Hand a record over, waiting for memory only. `result()` of the future gives the delivery, or raises."""
        future: Future[Delivery] = Future()

        def settle(delivery: Delivery | None, error: PenstockError | None) -> None:
            if not future.set_running_or_notify_cancel():
                return
            if delivery is None:
                future.set_exception(error)
            else:
                future.set_result(delivery)

        stamp = time.time_ns() // 1_000_000 if timestamp_ms is None else timestamp_ms
        self._hand_over((topic, value, key, headers, stamp, partition, settle), wait=True)
        return future

    def send_nowait(  # noqa: PLR0913 - the fields of a record, by keyword
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Headers = (),
        timestamp_ms: int | None = None,
        partition: int | None = None,
        on_delivery: OnDelivery | None = None,
    ) -> None:
        """Hand a record over at once; BufferFullError when there is no room (see wait_for_room).

        What is wrong with the record itself is reported to `on_delivery`, else by the next flush.
        """
        stamp = time.time_ns() // 1_000_000 if timestamp_ms is None else timestamp_ms
        self._hand_over((topic, value, key, headers, stamp, partition, on_delivery), wait=False)

    def wait_for_room(self) -> None:
        """Wait until send_nowait has room again."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_room() or self._refusal is not None)

    def append(
        self,
        topic: str,
        partition: int,
        records: Sequence[NewRecord],
        *,
        expected_offset: int | None = None,
        timeout: float = 30.0,
    ) -> list[Delivery]:
        """See penstock.client.Producer.append."""
        return self._run(
            self._inner.append(topic, partition, records, expected_offset=expected_offset, timeout=timeout)
        )

    def flush(self, timeout: float | None = None) -> None:
        """See penstock.client.Producer.flush."""
        self._run(self._flush(timeout))

    def close(self, timeout: float = 30.0) -> None:
        """See penstock.client.Producer.close."""
        self._close(self._finish(timeout))

    # -- inside

    def _hand_over(self, record: _Handed, *, wait: bool) -> None:
        with self._changed:
            while self._refusal is None and not self._has_room():
                if not wait:
                    raise BufferFullError(Reason.OVERLOADED, f"{len(self._handed)} records wait to be taken over")
                self._changed.wait()
            if self._refusal is not None or self._thread is None:
                raise self._refusal or ClientClosedError(Reason.NOT_SERVING, "the producer is closed")
            self._handed.append(record)
            self._handed_bytes += _size(record)
            if not self._drain_due:
                self._drain_due = True
                self._thread.call_soon(self._begin_drain)

    def _has_room(self) -> bool:
        return len(self._handed) < HANDOVER_RECORDS and self._handed_bytes < HANDOVER_BYTES

    def _begin_drain(self) -> None:
        """On the loop: take over what was handed over. One task while there is something, not one a record."""
        self._drainer = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        while True:
            with self._changed:
                batch = [self._handed.popleft() for _ in range(min(RECORDS_A_TURN, len(self._handed)))]
                self._handed_bytes -= sum(map(_size, batch))
                self._changed.notify_all()
                if not batch:
                    self._drain_due = False
                    return
            for record in batch:
                await self._take_over(record)
            await asyncio.sleep(0)

    async def _take_over(self, record: _Handed) -> None:
        topic, value, key, headers, stamp, partition, waiter = record
        while True:
            try:
                self._inner.send_nowait(
                    topic, value, key=key, headers=headers, timestamp_ms=stamp, partition=partition, on_delivery=waiter
                )
            except BufferFullError:
                with contextlib.suppress(ClientClosedError):
                    await self._inner.wait_for_room()
            except PenstockError as error:
                self._inner.refuse(waiter, error)
                return
            else:
                return

    async def _drained(self) -> None:
        """Return when all that was handed over before is the producer's."""
        await asyncio.sleep(0)  # the drainer may only be due to begin
        if self._drainer is not None:
            await asyncio.wait([self._drainer])

    async def _flush(self, timeout_s: float | None) -> None:
        began = time.monotonic()
        with contextlib.suppress(TimeoutError):  # the producer's own flush then says what is left
            async with asyncio.timeout(timeout_s):
                await self._drained()
        await self._inner.flush(None if timeout_s is None else max(0.0, timeout_s - (time.monotonic() - began)))

    async def _finish(self, timeout_s: float) -> None:
        try:
            await self._flush(timeout_s)
        except TimeoutError:
            await self._inner.close(0)
        else:
            await self._inner.close(timeout_s)
        finally:
            await self._drained()

    async def _abandon(self) -> None:
        await self._inner.abandon()
        await self._drained()

    def _close(self, closing: Coroutine[Any, Any, None]) -> None:
        with self._changed:
            already = self._refusal is not None
            self._refusal = ClientClosedError(Reason.NOT_SERVING, "the producer is closed")
            self._changed.notify_all()
        if already or self._thread is None:
            closing.close()
            return
        try:
            self._run(closing)
        except KeyboardInterrupt:
            self._run(self._abandon())
            raise
        finally:
            self._stop()


class Consumer(_Face):
    """Reads partitions; see penstock.client.Consumer. Iterating gives records without end."""

    def __init__(self, bootstrap: str | Sequence[str], **options: Unpack[ConsumerOptions]) -> None:
        super().__init__()
        self._inner = _consumer.Consumer(bootstrap, **options)
        self._lookahead: deque[Record] = deque()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Record]:
        """Give records as they come. Leaving the loop loses none: positions are those of the records given."""
        while True:
            while self._lookahead:
                yield self._lookahead.popleft()
            self._run(self._fill(LOOKAHEAD_RECORDS, ITERATION_WAIT_S))

    def open(self) -> None:
        """Start. Needs no broker yet."""
        self._start(self._inner.open)

    def close(self) -> None:
        """Stop reading."""
        if self._thread is not None:
            try:
                self._run(self._inner.close())
            finally:
                self._stop()

    def assign(
        self, partitions: Iterable[TopicPartition] | Mapping[TopicPartition, Position], start: Position = "latest"
    ) -> None:
        """See penstock.client.Consumer.assign."""
        self._run(self._inner.assign(partitions, start))
        self._lookahead.clear()

    def assign_topics(self, topics: Iterable[str], start: Position = "latest") -> None:
        """See penstock.client.Consumer.assign_topics."""
        self._run(self._inner.assign_topics(topics, start))
        self._lookahead.clear()

    def assignment(self) -> tuple[TopicPartition, ...]:
        """See penstock.client.Consumer.assignment."""
        return self._inner.assignment()

    def seek(self, partition: TopicPartition, to: Position) -> None:
        """See penstock.client.Consumer.seek."""
        self._run(self._inner.seek(partition, to))
        self._lookahead = deque(record for record in self._lookahead if record[:2] != tuple(partition))

    def pause(self, *partitions: TopicPartition) -> None:
        """See penstock.client.Consumer.pause."""
        self._put_back()
        self._run(_soon(lambda: self._inner.pause(*partitions)))

    def resume(self, *partitions: TopicPartition) -> None:
        """See penstock.client.Consumer.resume."""
        self._run(_soon(lambda: self._inner.resume(*partitions)))

    def paused(self) -> tuple[TopicPartition, ...]:
        """See penstock.client.Consumer.paused."""
        return self._run(_soon(self._inner.paused))

    def position(self, partition: TopicPartition) -> int:
        """See penstock.client.Consumer.position."""
        ahead = (record.offset for record in self._lookahead if record[:2] == tuple(partition))
        first = next(ahead, None)
        return self._run(_soon(lambda: self._inner.position(partition))) if first is None else first

    def poll(self, max_records: int = 500, timeout: float = 1.0) -> list[Record]:
        """See penstock.client.Consumer.poll."""
        if not self._lookahead:
            self._run(self._fill(max_records, timeout))
        return [self._lookahead.popleft() for _ in range(min(max_records, len(self._lookahead)))]

    def poll_batches(self, max_batches: int = 100, timeout: float = 1.0) -> list[FetchedBatch]:
        """See penstock.client.Consumer.poll_batches."""
        self._put_back()
        return self._run(self._inner.poll_batches(max_batches, timeout))

    async def _fill(self, max_records: int, timeout_s: float) -> None:
        """Put what is read where an interrupted wait leaves it for the next one."""
        self._lookahead.extend(await self._inner.poll(max_records, timeout_s))

    def _put_back(self) -> None:
        """Read again, later, what was taken from the background thread and not given out."""
        firsts: dict[TopicPartition, int] = {}
        for record in self._lookahead:
            firsts.setdefault(TopicPartition(record.topic, record.partition), record.offset)
        for partition, offset in firsts.items():
            self._run(self._inner.seek(partition, offset))
        self._lookahead.clear()

    def earliest_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """See penstock.client.Consumer.earliest_offsets."""
        return self._run(self._inner.earliest_offsets(partitions))

    def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """See penstock.client.Consumer.end_offsets."""
        return self._run(self._inner.end_offsets(partitions))

    def lag(self) -> dict[TopicPartition, int]:
        """See penstock.client.Consumer.lag."""
        ends = self.end_offsets(self.assignment())
        return {partition: max(0, end - self.position(partition)) for partition, end in ends.items()}


class Admin(_Face):
    """Creates, changes and describes; see penstock.client.Admin."""

    def __init__(
        self,
        bootstrap: str | Sequence[str],
        *,
        timeout_ms: int = 30_000,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        super().__init__()
        self._inner = _admin.Admin(bootstrap, timeout_ms=timeout_ms, credentials=credentials)

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Start. Needs no broker yet."""
        self._start(self._inner.open)

    def close(self) -> None:
        """Close the connections."""
        if self._thread is not None:
            try:
                self._run(self._inner.close())
            finally:
                self._stop()

    def create_topic(
        self,
        name: str,
        partitions: int | None = None,
        replication_factor: int | None = None,
        config: Mapping[str, ConfigValue] | None = None,
        assignments: Sequence[Sequence[int]] | None = None,
        *,
        validate_only: bool = False,
    ) -> TopicDescription:
        """See penstock.client.Admin.create_topic."""
        return self._run(
            self._inner.create_topic(
                name, partitions, replication_factor, config, assignments, validate_only=validate_only
            )
        )

    def delete_topic(self, name: str, *, validate_only: bool = False) -> None:
        """See penstock.client.Admin.delete_topic."""
        self._run(self._inner.delete_topic(name, validate_only=validate_only))

    def list_topics(self, *, include_internal: bool = False) -> list[TopicDescription]:
        """See penstock.client.Admin.list_topics."""
        return self._run(self._inner.list_topics(include_internal=include_internal))

    def describe_topic(self, name: str) -> TopicDescription:
        """See penstock.client.Admin.describe_topic."""
        return self._run(self._inner.describe_topic(name))

    def alter_topic(
        self,
        name: str,
        config: Mapping[str, ConfigValue] | None = None,
        *,
        reset: Iterable[str] = (),
        validate_only: bool = False,
    ) -> TopicDescription:
        """See penstock.client.Admin.alter_topic."""
        return self._run(self._inner.alter_topic(name, config, reset=reset, validate_only=validate_only))

    def add_partitions(self, name: str, partitions: int, *, validate_only: bool = False) -> TopicDescription:
        """See penstock.client.Admin.add_partitions."""
        return self._run(self._inner.add_partitions(name, partitions, validate_only=validate_only))

    def describe_cluster(self) -> ClusterDescription:
        """See penstock.client.Admin.describe_cluster."""
        return self._run(self._inner.describe_cluster())

    def list_brokers(self) -> list[BrokerDescription]:
        """See penstock.client.Admin.list_brokers."""
        return self._run(self._inner.list_brokers())

    def health(self) -> HealthReport:
        """See penstock.client.Admin.health."""
        return self._run(self._inner.health())

    def list_offsets(
        self,
        topic: str,
        position: Literal["earliest", "latest"] | Timestamp = "latest",
        *,
        partitions: Iterable[int] | None = None,
        isolation: Isolation = "read_uncommitted",
    ) -> list[PartitionOffset]:
        """See penstock.client.Admin.list_offsets."""
        return self._run(self._inner.list_offsets(topic, position, partitions=partitions, isolation=isolation))


def _size(record: _Handed) -> int:
    return len(record[1] or b"") + len(record[2] or b"")


async def _soon(act: Callable[[], T]) -> T:
    """Run on the loop what must not run beside it."""
    return act()
