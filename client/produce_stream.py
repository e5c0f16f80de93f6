"""One Produce stream to one broker: whatever gathered while the last write was under way goes into one request.

Owns the stream's task and the attempts under way on it. Every attempt ends in exactly one of: an answer, or `lost` (the
stream broke, or answered nothing for too long). Attempts go out only on a connected channel.
"""

import asyncio
import contextlib
import random
from collections.abc import Iterable
from typing import Any, Protocol

import grpc

from penstock.client.accumulator import Accumulator, Lane, PendingBatch
from penstock.client.clock import Clock
from penstock.client.connection import Connections
from penstock.client.errors import (
    OutcomeUnknownError,
    UnavailableError,
)
from penstock.client.failures import error_of_call
from penstock.client.produce_request import ProduceRequest, open_call
from penstock.client.retry import Backoff
from penstock.client.sequencing import Flight, Window
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.v1 import common_pb2
from penstock.v1 import producer_service_pb2 as pb

MAX_REQUEST_BYTES = 8 * 1024 * 1024
"""A request is closed once its batches come to this much."""
HOLD_MS = 50
"""A request waits so long at most for the answer to the one before it: meanwhile its batches go on filling. On a quiet
cluster the answer is there before the next batch is due; on a busy one requests and batches grow instead of becoming
more. Bounded, because an answer can be far away, or wait for one partition's replicas while other partitions are well.
"""
UNANSWERED_GRACE_MS = 2_000
"""How much longer than the server's own timeout the client waits before it takes the stream for dead."""


class SendLane(Lane):
    """A lane with its window and the stream to its leader."""

    def __init__(self, topic_id: bytes, topic: str, partition: int) -> None:
        super().__init__(topic_id, topic, partition)
        self.window: Window[PendingBatch, pb.BatchAppended | None]
        self.stream: LeaderStream | None = None
        self.leader_epoch = -1
        self.append_time = False


class StreamOwner(Protocol):
    """What a stream tells its producer."""

    def answered(self, lane: SendLane, attempt: int, result: pb.BatchResult) -> None:
        """A result came."""

    def written(self, lane: SendLane, attempt: int) -> None:
        """With acks none: the batch went out, and no answer will come."""

    def lost(self, lanes: Iterable[SendLane], error: PenstockError) -> None:
        """The attempts of these lanes on this stream will not be answered."""

    def unreachable(self) -> None:
        """The broker cannot be connected to."""

    def next_attempt(self) -> int:
        """A number never used before."""


class LeaderStream:
    """See the module. Used from one event loop."""

    def __init__(
        self, address: str, owner: StreamOwner, accumulator: Accumulator, request: pb.ProduceRequest, clock: Clock
    ) -> None:
        self.address = address
        self._owner = owner
        self._accumulator = accumulator
        self._template = request.SerializeToString()
        self._clock = clock
        self._acked = request.acks != common_pb2.ACKS_NONE
        self._dirty: dict[SendLane, None] = {}
        self._attempts: dict[int, tuple[SendLane, float, int]] = {}
        """Under way, in order: when it went, and in which request."""
        self._requests = 0
        self._sent_ms = 0.0
        """When the last request went out."""
        self._unanswered = 0
        """Its attempts without an answer."""
        self._hold: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None
        self._finishing = False
        self._finished = asyncio.Event()
        self._finished.set()

    def mark(self, lane: SendLane) -> None:
        """Look at this lane for something to send."""
        self._dirty[lane] = None
        self._wake.set()

    def forget(self, lane: SendLane) -> None:
        """The lane has gone to another leader; its attempts here do not count any more."""
        self._dirty.pop(lane, None)
        for attempt in [n for n, entry in self._attempts.items() if entry[0] is lane]:
            self._take(attempt)

    def oldest_attempt_ms(self) -> float | None:
        """When the oldest attempt without an answer went out."""
        for _, sent_ms, _ in self._attempts.values():
            return sent_ms
        return None

    def break_off(self) -> None:
        """Take the stream for dead; what is under way counts as lost."""
        if self._serving is not None:
            self._serving.cancel()

    async def finish(self) -> None:
        """Say that nothing more is coming, and return when the server has read all of it."""
        self._finishing = True
        self._wake.set()
        await self._finished.wait()

    async def run(self, connections: Connections, rng: random.Random) -> None:
        """Serve until cancelled: connect when there is something to send, again after each break."""
        backoff = Backoff(rng)
        while True:
            await self._wake.wait()
            try:
                connection = await connections.ready(self.address)
            except UnavailableError:
                self._owner.unreachable()
                await self._clock.sleep_ms(backoff.next_ms())
                continue
            backoff.reset()
            error = await self._serve(open_call(connection.channel))
            self._owner.lost(self._take_all(), error)
            await self._clock.sleep_ms(backoff.next_ms())

    async def _serve(self, call: Any) -> PenstockError:
        """Write and read until one of the two ends; say why."""
        self._serving = asyncio.create_task(self._read(call))
        writer = asyncio.create_task(self._write(call))
        tasks = (self._serving, writer)
        self._finished.clear()
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if writer.done() and not writer.cancelled() and writer.exception() is None:
                await asyncio.wait({self._serving})
        finally:
            self._serving = None
            self._finished.set()
            for task in tasks:
                task.cancel()
            call.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, grpc.aio.AioRpcError):
                return error_of_call(result, write=True)
        return OutcomeUnknownError(Reason.OUTCOME_UNKNOWN, f"the stream to {self.address} ended without an answer")

    async def _write(self, call: Any) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._may_send() and (request := self._collect()) is not None:
                await call.write(request)
                if not self._acked:
                    self._all_written()
            if self._finishing:
                await call.done_writing()
                return

    async def _read(self, call: Any) -> None:
        async for response in call:
            for result in response.results:
                lane = self._take(result.batch_number)
                if lane is not None:
                    self._owner.answered(lane, result.batch_number, result)

    def _take(self, attempt: int) -> SendLane | None:
        """Take an attempt out; None where it is not known any more."""
        lane, _, request = self._attempts.pop(attempt, (None, 0, 0))
        if lane is None:
            return None
        if request == self._requests:
            self._unanswered -= 1
            if self._dirty and not self._unanswered:
                self._wake.set()
        return lane

    def _take_all(self) -> list[SendLane]:
        """Take all attempts out; their lanes."""
        lanes = list(dict.fromkeys(lane for lane, _, _ in self._attempts.values()))
        self._attempts.clear()
        self._unanswered = 0
        if self._dirty:
            self._wake.set()
        return lanes

    def _all_written(self) -> None:
        written = [(attempt, lane) for attempt, (lane, _, _) in self._attempts.items()]
        self._take_all()
        for attempt, lane in written:
            self._owner.written(lane, attempt)

    def _may_send(self) -> bool:
        """Whether the last request is answered, or has been for too long not; sees to it that this is asked again."""
        wait_ms = self._sent_ms + HOLD_MS - self._clock.monotonic_ms()
        if not self._unanswered or wait_ms <= 0:
            return True
        if self._hold is None:
            self._hold = asyncio.get_running_loop().call_later(wait_ms / 1000, self._end_hold)
        return False

    def _end_hold(self) -> None:
        self._hold = None
        self._wake.set()

    def _collect(self) -> bytes | None:
        """Take what the marked lanes may send now, up to MAX_REQUEST_BYTES."""
        now_ms = self._clock.monotonic_ms()
        request = ProduceRequest(self._template)
        self._requests += 1
        self._sent_ms, self._unanswered = now_ms, 0
        while self._dirty and request.size < MAX_REQUEST_BYTES:
            lane = next(iter(self._dirty))
            flight = self._next_of(lane, now_ms)
            if flight is None:
                del self._dirty[lane]
                continue
            self._add(request, lane, flight, now_ms)
        return request.serialized() if request.size else None

    def _next_of(self, lane: SendLane, now_ms: float) -> Flight[PendingBatch] | None:
        flight = lane.window.next_to_send(now_ms)
        if flight is None and lane.open is not None and lane.open.due and lane.window.has_room and not lane.closed:
            self._accumulator.close(lane)
            flight = lane.window.next_to_send(now_ms)
        return flight

    def _add(self, request: ProduceRequest, lane: SendLane, flight: Flight[PendingBatch], now_ms: float) -> None:
        attempt = self._owner.next_attempt()
        place = pb.PartitionBatch(
            batch_number=attempt,
            topic_id=lane.topic_id,
            partition=lane.partition,
            leader_epoch=lane.leader_epoch if lane.leader_epoch >= 0 else None,
        )
        request.add(place, flight.batch.sealed, flight.stamp)
        lane.window.sent(flight, attempt)
        self._attempts[attempt] = (lane, now_ms, self._requests)
        self._unanswered += 1


async def end(tasks: Iterable["asyncio.Task[None]"]) -> None:
    """Cancel the tasks and wait for their end."""
    waiting = list(tasks)
    for task in waiting:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*waiting, return_exceptions=True)
