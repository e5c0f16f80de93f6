"""Moves batches: from lanes to the stream of their leader, and answers back. The producer's inner shell.

Owns the routes, the streams, the producer id, the timer, and the tasks of all of them. Everything runs on one event
loop; nothing awaits between a check and the act that rests on it.
"""

import asyncio
import math
from collections.abc import Iterable
from typing import TypeAlias

from penstock.client.accumulator import Accumulator, PendingBatch, Waiter
from penstock.client.catalog import KnownTopic, Leadership
from penstock.client.deliveries import Deliveries
from penstock.client.errors import (
    OutcomeUnknownError,
    UnavailableError,
    UnknownTopicError,
    error_of,
)
from penstock.client.held import Held, HeldRecords
from penstock.client.options import ACKS, ProducerConfig
from penstock.client.produce_stream import UNANSWERED_GRACE_MS, LeaderStream, SendLane, end
from penstock.client.producer_ids import ProducerIds
from penstock.client.retry import Backoff
from penstock.client.routing import Route
from penstock.client.sequencing import Settled, Window
from penstock.client.session import ClientSession
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.v1 import producer_service_pb2 as pb

EXPIRY_INTERVAL_MS = 100
"""How often deadlines are looked at."""
STUCK_MS = 1_000
"""A batch unanswered for this long makes the metadata be asked for again, from another broker."""

Done: TypeAlias = Settled[PendingBatch, pb.BatchAppended | None]
_MOVED = frozenset({Reason.NOT_LEADER, Reason.STALE_LEADER_EPOCH})
_GONE = frozenset({Reason.UNKNOWN_TOPIC, Reason.UNKNOWN_PARTITION})


class Dispatcher:
    """See the module."""

    def __init__(self, config: ProducerConfig, session: ClientSession, accumulator: Accumulator) -> None:
        self.routes: dict[str, Route] = {}
        """Topics that records can be put into at once."""
        self._known: dict[str, Route] = {}
        """These, and those whose held records are still being put in."""
        self.fatal: PenstockError | None = None
        """Why nothing can be sent any more: the producer was fenced, or is refused by the cluster."""
        self.wants_turn = False
        """A batch was filled since the flag was last cleared: the event loop should run."""
        self._config = config
        self._session = session
        self._clock = session.clock
        self._accumulator = accumulator
        self._deliveries = Deliveries(config.on_batch)
        self._loop = asyncio.get_running_loop()
        self._streams: dict[str, LeaderStream] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._ids = ProducerIds(session, self._adopted, self._fail)
        self.held = HeldRecords(session.metadata, self, session.clock, config.buffer_bytes, config.delivery_timeout_ms)
        self._retrying: dict[SendLane, None] = {}
        self._room: list[asyncio.Future[None]] = []
        self._flushes: list[tuple[dict[PendingBatch, None], asyncio.Future[None]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_ms = 0.0
        self._next_expiry_ms = 0.0
        self._last_attempt = 0

    # -- what the producer calls

    def start(self) -> None:
        """Follow the metadata; ask for a producer id."""
        self._session.metadata.listeners.append(self._metadata_changed)
        if self._config.is_idempotent:
            self._ids.renew()

    def begun(self, lane: SendLane) -> None:
        """A batch was begun in this lane; the one before it may be full."""
        if lane.closed:
            self.wants_turn = True
            self._mark(lane)
        self._arm(self._clock.monotonic_ms() + self._config.linger_ms)

    async def wait_for_room(self) -> None:
        """Return when memory is free again; let the event loop run in any case."""
        if self._has_room():
            await asyncio.sleep(0)
            return
        self._flush_open()
        waiter = self._loop.create_future()
        self._room.append(waiter)
        await waiter

    async def flush(self) -> None:
        """Return when all that was handed over before is settled."""
        await self.held.handed_over()
        self._flush_open()
        if self._accumulator.live:
            entry = (dict(self._accumulator.live), self._loop.create_future())
            self._flushes.append(entry)
            try:
                await entry[1]
            finally:
                self._flushes.remove(entry)

    async def finish(self) -> None:
        """Return when all that was written has been read, where no acknowledgement says so (acks none)."""
        if self._config.acks == "none" and self._streams:
            await asyncio.gather(*(stream.finish() for stream in self._streams.values()))

    def unsettled_records(self) -> int:
        """Records handed over and not settled."""
        return self.held.count + sum(batch.record_count for batch in self._accumulator.live)

    def raise_unobserved(self) -> None:
        """Raise the first failure nobody was told of since the last time."""
        error = self._deliveries.take_unobserved()
        if error is not None:
            raise error

    def refuse(self, waiter: Waiter, error: PenstockError) -> None:
        """Tell of a record that never got into a batch."""
        self._deliveries.refuse(waiter, error)

    async def end(self, error: PenstockError) -> None:
        """End all tasks; settle what is left with `error`, or as unknown where it may have been appended."""
        if self._metadata_changed in self._session.metadata.listeners:
            self._session.metadata.listeners.remove(self._metadata_changed)
        await self._ids.close()
        await self.held.close()
        await end(self._tasks)
        self._fail(error)
        if self._timer is not None:
            self._timer.cancel()

    # -- what streams call (StreamOwner)

    def next_attempt(self) -> int:
        """See StreamOwner."""
        self._last_attempt += 1
        return self._last_attempt

    def answered(self, lane: SendLane, attempt: int, result: pb.BatchResult) -> None:
        """See StreamOwner."""
        if result.HasField("appended"):
            self._after(lane, lane.window.appended(attempt, result.appended))
            return
        error = error_of(result.error)
        metadata = self._session.metadata
        if error.reason in _MOVED:
            metadata.learn_leader(lane.topic_id, lane.partition, error.metadata)
        elif error.reason in _GONE and metadata.catalog.topic_of(lane.topic_id) is not None:
            # The metadata has the topic: this broker has not applied its creation yet, or we not its deletion.
            error = UnavailableError(Reason.METADATA_BEHIND, str(error), error.metadata)
            metadata.refresh_soon()
        elif isinstance(error, UnavailableError | OutcomeUnknownError):
            metadata.refresh_soon()
        self._after(lane, lane.window.failed(attempt, error, self._clock.monotonic_ms()))

    def written(self, lane: SendLane, attempt: int) -> None:
        """See StreamOwner."""
        self._after(lane, lane.window.appended(attempt, None))

    def lost(self, lanes: Iterable[SendLane], error: PenstockError) -> None:
        """See StreamOwner."""
        self._session.metadata.refresh_soon()
        for lane in lanes:
            self._after(lane, lane.window.lost(error, self._clock.monotonic_ms()))

    def unreachable(self) -> None:
        """See StreamOwner."""
        self._session.metadata.refresh_soon()

    # -- what the held records call (Host)

    def begin_route(self, known: KnownTopic) -> Route:
        """See Host."""
        route = self._known[known.name] = Route(known.topic_id, known.name, self._accumulator, self._session.rng)
        self._lead(route, known.partitions)
        return route

    def put(self, route: Route, record: Held, deadline_ms: int) -> None:
        """See Host."""
        value, key, headers, timestamp_ms, partition, waiter = record
        lane = route.lane_of(key, partition, value)
        if self._accumulator.append(lane, key, value, headers, timestamp_ms, waiter):
            self.begun(lane)
        if lane.open is not None:
            lane.open.deadline_ms = min(lane.open.deadline_ms, deadline_ms)

    def open_route(self, route: Route) -> None:
        """See Host."""
        self.routes[route.topic] = route

    # -- settling

    def _after(self, lane: SendLane, settled: list[Done]) -> None:
        """Settle, then see what the lane can send now."""
        if settled:
            self._settle(settled, append_time=lane.append_time)
        window = lane.window
        if window.waits_to_retry and window.retry_at_ms > self._clock.monotonic_ms():
            self._retrying[lane] = None
            self._arm(window.retry_at_ms)
        elif lane.open is not None or not window.is_empty:
            self._mark(lane)
        if window.needs_producer and not self._ids.is_renewing and self.fatal is None:
            self._ids.renew()

    def _settle(self, settled: list[Done], *, append_time: bool) -> None:
        fenced: PenstockError | None = None
        for batch, answer, error in settled:
            self._accumulator.release(batch)
            if error is not None and error.reason is Reason.PRODUCER_FENCED:
                fenced = error
            self._deliveries.tell(batch, answer, error, append_time=append_time)
            for waiting, future in self._flushes:
                waiting.pop(batch, None)
                if not waiting and not future.done():
                    future.set_result(None)
        self.memory_freed()
        if fenced is not None and self.fatal is None:
            self._fail(fenced)

    def _fail(self, error: PenstockError) -> None:
        """Nothing can be sent any more: settle everything."""
        self.fatal = error
        self.held.refuse_all(error)
        for route in list(self._known.values()):
            self._abort(route, error)
        for waiter in self._room:
            if not waiter.done():
                waiter.set_result(None)
        self._room.clear()

    def _abort(self, route: Route, error: PenstockError) -> None:
        self.routes.pop(route.topic, None)
        self._known.pop(route.topic, None)
        route.is_closed = True
        for lane in route.lanes:
            self._accumulator.close(lane)
            self._retrying.pop(lane, None)
            if lane.stream is not None:
                lane.stream.forget(lane)
            self._settle(lane.window.abort(error), append_time=False)

    def _has_room(self) -> bool:
        return self._accumulator.has_room() and self.held.bytes_held <= self._config.buffer_bytes * 3 // 4

    def memory_freed(self) -> None:
        """See Host; also whenever a batch is settled."""
        if self._room and self._has_room():
            for waiter in self._room:
                if not waiter.done():
                    waiter.set_result(None)
            self._room.clear()

    # -- time

    def _arm(self, at_ms: float) -> None:
        at_ms = math.ceil(at_ms)  # the clock counts whole ms: a fraction would fire early, again and again
        if self._timer is not None:
            if self._timer_at_ms <= at_ms:
                return
            self._timer.cancel()
        self._timer_at_ms = at_ms
        self._timer = self._loop.call_later(max(0.0, at_ms - self._clock.monotonic_ms()) / 1000, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now_ms = self._clock.monotonic_ms()
        for lane in self._accumulator.take_due(now_ms):
            if isinstance(lane, SendLane):
                self._mark(lane)
        for retrying in [lane for lane in self._retrying if lane.window.retry_at_ms <= now_ms]:
            del self._retrying[retrying]
            self._mark(retrying)
        if now_ms >= self._next_expiry_ms:
            self._next_expiry_ms = now_ms + EXPIRY_INTERVAL_MS
            self._expire(now_ms)
        if self._accumulator.live:
            self._arm(self._next_expiry_ms)
        due_ms = self._accumulator.next_due_ms()
        if due_ms is not None:
            self._arm(due_ms)
        for lane in self._retrying:
            self._arm(lane.window.retry_at_ms)

    def _expire(self, now_ms: float) -> None:
        for lane in dict.fromkeys(batch.lane for batch in self._accumulator.live):
            if not isinstance(lane, SendLane):
                continue
            if lane.open is not None and lane.open.deadline_ms <= now_ms:
                self._accumulator.close(lane)
            settled = lane.window.expire(now_ms)
            if settled:
                self._after(lane, settled)
            if lane.stream is None:
                self._session.metadata.refresh_soon()
        for stream in self._streams.values():
            oldest_ms = stream.oldest_attempt_ms()
            if oldest_ms is None:
                continue
            if now_ms - oldest_ms > self._config.request_timeout_ms + UNANSWERED_GRACE_MS:
                stream.break_off()
            elif now_ms - oldest_ms > STUCK_MS:
                self._session.metadata.refresh_soon()

    # -- leaders

    def _mark(self, lane: SendLane) -> None:
        if lane.stream is not None:
            lane.stream.mark(lane)

    def _flush_open(self) -> None:
        lanes = [batch.lane for batch in self._accumulator.live]
        self._accumulator.flush(lanes)
        for lane in lanes:
            if isinstance(lane, SendLane):
                self._mark(lane)

    def _metadata_changed(self) -> None:
        topics = self._session.metadata.catalog.topics
        for route in list(self._known.values()):
            known = topics.get(route.topic)
            if known is None or known.topic_id != route.topic_id:
                message = f"topic {route.topic!r} was deleted"
                self._abort(route, UnknownTopicError(Reason.UNKNOWN_TOPIC, message, {"topic": route.topic}))
            else:
                self._lead(route, known.partitions)

    def _lead(self, route: Route, leaders: tuple[Leadership, ...]) -> None:
        known = self._session.metadata.catalog.topics[route.topic]
        for partition in range(len(route.lanes), len(leaders)):
            lane = SendLane(route.topic_id, route.topic, partition)
            lane.window = Window(
                lane.closed,
                Backoff(self._session.rng),
                idempotent=self._config.is_idempotent,
                max_in_flight=self._config.max_in_flight,
            )
            if self._ids.present is not None:
                lane.window.adopt(*self._ids.present)
            route.add(lane)
        route.require_keys(known.compacted)
        for lane, leadership in zip(route.lanes, leaders, strict=False):
            lane.append_time = known.append_time
            self._accumulator.fit(lane, known.max_batch_bytes)
            if leadership.leader_epoch >= lane.leader_epoch:
                self._follow(lane, leadership)

    def _follow(self, lane: SendLane, leadership: Leadership) -> None:
        address = self._session.metadata.catalog.leader_address(leadership)
        stream = self._stream_to(address) if address is not None else None
        if stream is lane.stream and leadership.leader_epoch == lane.leader_epoch:
            return
        former, lane.stream = lane.stream, stream
        lane.leader_epoch = leadership.leader_epoch
        lane.window.retry_now()
        self._retrying.pop(lane, None)
        settled: list[Done] = []
        if former is not None and former is not stream and self._config.is_idempotent:
            former.forget(lane)
            message = f"the leader of {lane.topic}-{lane.partition} changed before it answered"
            settled = lane.window.lost(OutcomeUnknownError(Reason.OUTCOME_UNKNOWN, message), self._clock.monotonic_ms())
            lane.window.retry_now()
        self._after(lane, settled)

    def _stream_to(self, address: str) -> LeaderStream:
        stream = self._streams.get(address)
        if stream is None:
            template = pb.ProduceRequest(acks=ACKS[self._config.acks])
            template.timeout.FromMilliseconds(self._config.request_timeout_ms)
            stream = LeaderStream(address, self, self._accumulator, template, self._clock)
            self._streams[address] = stream
            self._tasks.append(asyncio.create_task(stream.run(self._session.connections, self._session.rng)))
        return stream

    def _adopted(self) -> None:
        """There is a producer id: lanes that wait for one go on."""
        if self._ids.present is None:
            return
        for route in self._known.values():
            for lane in route.lanes:
                if lane.window.needs_producer:
                    lane.window.adopt(*self._ids.present)
                    self._mark(lane)
