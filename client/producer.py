"""The asyncio producer: records in, deliveries out.

Shell around accumulator, routing, sequencing (pure) and one LeaderStream a broker. It owns no task per record: one task
a stream, two of the metadata, one a producer id, one a topic's first use; all are awaited by `close`. One timer serves
linger, retries and expiry. Every record handed in is settled exactly once: its future, callback or batch callback is
told; failures that nobody is told of are raised by the next `flush` or `close`.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Self, Unpack

from penstock.client.accumulator import RECORD_OVERHEAD, Accumulator, AccumulatorLimits, Waiter
from penstock.client.connection import parse_bootstrap
from penstock.client.dispatch import Dispatcher
from penstock.client.errors import BufferFullError, ClientClosedError, RequestTimeoutError
from penstock.client.options import ProducerConfig, ProducerOptions
from penstock.client.records import Delivery, Headers, NewRecord
from penstock.client.retry import CallPolicy
from penstock.client.routing import Route
from penstock.client.seams import Seams
from penstock.client.session import ClientSession
from penstock.protocol.compression import COMPRESSIONS
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.v1 import producer_service_pb2 as pb

FLUSH_AT_CLOSE_S = 30.0


class Producer:
    """Appends records to topics. Use it as an async context manager, from one event loop.

    Keyword arguments: see ProducerConfig. Ordering: records of one partition are appended in the order of the calls.
    """

    def __init__(self, bootstrap: str | Sequence[str], **options: Unpack[ProducerOptions]) -> None:
        self.config = ProducerConfig(**options)
        self._bootstrap = parse_bootstrap(bootstrap)
        self._seams = Seams()
        self._wall_ms = self._seams.clock.wall_ms
        self._refusal: PenstockError | None = ClientClosedError(Reason.NOT_SERVING, "the producer is not open")
        self._routes: Mapping[str, Route] = {}

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        """Close; with an exception under way without waiting for deliveries."""
        if kind is None:
            await self.close()
        else:
            await self.abandon()

    async def open(self) -> None:
        """Start. Needs no broker yet: records wait in memory for one."""
        config = self.config
        limits = AccumulatorLimits(
            config.batch_bytes,
            config.buffer_bytes,
            config.linger_ms,
            config.delivery_timeout_ms,
            COMPRESSIONS[config.compression],
        )
        seams = self._seams
        self._wall_ms = seams.clock.wall_ms  # bound once: it is called for each record
        self._session = ClientSession(self._bootstrap, config.credentials, seams, config.address_map)
        self._accumulator = Accumulator(limits, seams.clock.monotonic_ms)
        self._dispatcher = Dispatcher(config, self._session, self._accumulator)
        self._routes = self._dispatcher.routes
        self._session.start()
        self._dispatcher.start()
        self._loop = asyncio.get_running_loop()
        self._refusal = None

    async def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Headers = (),
        timestamp_ms: int | None = None,
        partition: int | None = None,
    ) -> "asyncio.Future[Delivery]":
        """Hand a record over, waiting for memory only. The future gives the delivery or raises PenstockError."""
        future: asyncio.Future[Delivery] = self._open_loop().create_future()
        while True:
            try:
                self.send_nowait(
                    topic,
                    value,
                    key=key,
                    headers=headers,
                    timestamp_ms=timestamp_ms,
                    partition=partition,
                    on_delivery=future,
                )
            except BufferFullError:
                await self.wait_for_room()
            else:
                break
        if self._dispatcher.wants_turn:
            self._dispatcher.wants_turn = False
            await asyncio.sleep(0)  # a batch is ready: let it go
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
        on_delivery: Waiter = None,
    ) -> None:
        """Hand a record over at once; `on_delivery(delivery, error)` is called on the event loop.

        Nothing is sent before the caller gives the event loop a turn. Raises BufferFullError when the memory is full
        (see wait_for_room), RecordTooLargeError, UnknownPartitionError, InvalidRequestError; then nothing was taken.
        """
        if timestamp_ms is None:
            timestamp_ms = self._wall_ms()
        route = self._routes.get(topic)
        if route is None:  # also when closed, or when nothing can be sent any more: then there are no routes
            if self._refusal is not None or self._dispatcher.fatal is not None:
                raise self._refused()
            self._dispatcher.held.hold(topic, (value, key, headers, timestamp_ms, partition, on_delivery))
            return
        lane = route.sticky
        batch = lane.open
        if (
            key is not None
            or partition is not None
            or value is None
            or batch is None
            or batch.room < RECORD_OVERHEAD + len(value)
        ):
            lane = route.lane_of(key, partition, value)  # as it would say of all others, too: a call saved for each
        if self._accumulator.append(lane, key, value, headers, timestamp_ms, on_delivery):
            self._dispatcher.begun(lane)

    def send_many_nowait(self, topic: str, values: Sequence[bytes], *, partition: int | None = None) -> int:
        """Hand over many records without keys at once, in order; how many were taken: fewer where the memory is full.

        The fastest way: what is done for each record is counting its bytes. All have the present time. Deliveries are
        told by `on_batch`; failures otherwise by the next `flush`. Raises as `send_nowait` does, but BufferFullError;
        the records before the one that is wrong may have been taken then.
        """
        taken, route = 0, self._routes.get(topic)
        try:
            while taken < len(values):
                self.send_nowait(topic, values[taken], partition=partition)
                taken += 1
                if route is not None:
                    taken += self._accumulator.extend(route.last_lane(partition), values, taken)
        except BufferFullError:
            pass
        return taken

    async def wait_for_room(self) -> None:
        """Wait until a part of the memory is free again. Lets the event loop run in any case."""
        self._open_loop()
        await self._dispatcher.wait_for_room()

    async def append(
        self,
        topic: str,
        partition: int,
        records: Sequence[NewRecord],
        *,
        expected_offset: int | None = None,
        timeout: float = 30.0,  # noqa: ASYNC109 - the deadline of the whole call, retries included
    ) -> list[Delivery]:
        """Append at once as one batch, past the batching and its order; acknowledged by every in-sync replica.

        With `expected_offset`: only if the log end is there, else ExpectedOffsetMismatchError. It is repeated under one
        request id, so that a lost answer does not append twice; OutcomeUnknownError when none came in time.
        """
        self._open_loop()
        now_ms = self._wall_ms()
        stamps = [now_ms if record.timestamp_ms is None else record.timestamp_ms for record in records]
        request = pb.PublishRequest(
            topic=topic, partition=partition, request_id=self._session.unique(), expected_offset=expected_offset
        )
        for record, stamp in zip(records, stamps, strict=True):
            new = request.records.add(key=record.key, value=record.value, timestamp_ms=stamp)
            for name, content in record.headers:
                new.headers.add(key=name, value=content)
        answer = await self._session.caller.call(
            lambda c: c.producer.Publish, request, pb.PublishResponse, CallPolicy(int(timeout * 1000), write=True)
        )
        return [
            Delivery(topic, done.partition, done.offset, stamp)
            for done, stamp in zip(answer.records, stamps, strict=True)
        ]

    async def flush(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - also of the blocking face
        """Wait until every record handed over before is settled; nothing lingers.

        Raises RequestTimeoutError after `timeout` seconds (the records stay on their way), and the first failure of a
        record that was sent without a future or callback.
        """
        self._open_loop()
        try:
            async with asyncio.timeout(timeout):
                await self._dispatcher.flush()
        except TimeoutError:
            left = self._dispatcher.unsettled_records()
            message = f"{left} records are not acknowledged after {timeout} s"
            raise RequestTimeoutError(Reason.LEADER_NOT_AVAILABLE, message) from None
        self._dispatcher.raise_unobserved()

    async def close(self, timeout: float = FLUSH_AT_CLOSE_S) -> None:  # noqa: ASYNC109 - also of the blocking face
        """Take no more records, flush within `timeout` seconds, end.

        What is not acknowledged by then is reported to its future or callback: OutcomeUnknownError where it may have
        been appended, else ClientClosedError. Raises as `flush` does, after everything has ended.
        """
        if self._refusal is not None:
            return
        self._refuse_more()
        try:
            async with asyncio.timeout(timeout):
                await self._dispatcher.flush()
                await self._dispatcher.finish()
        except TimeoutError:
            pass
        finally:
            await self._end()
        self._dispatcher.raise_unobserved()

    async def abandon(self) -> None:
        """End at once, without waiting for deliveries; all that is not acknowledged is reported as by `close`."""
        if self._refusal is None:
            await self._end()

    def refuse(self, waiter: Waiter, error: PenstockError) -> None:
        """Report a record that could not be handed over: to its waiter, else by the next flush."""
        self._dispatcher.refuse(waiter, error)

    async def _end(self) -> None:
        self._refuse_more()
        await self._dispatcher.end(self._refused())
        await self._session.close()

    def _refuse_more(self) -> None:
        self._refusal = ClientClosedError(Reason.NOT_SERVING, "the producer is closed")
        self._routes = {}

    def _open_loop(self) -> asyncio.AbstractEventLoop:
        if self._refusal is not None:
            raise self._refused()
        return self._loop

    def _refused(self) -> PenstockError:
        return self._refusal or self._dispatcher.fatal or ClientClosedError(Reason.NOT_SERVING, "not open")
