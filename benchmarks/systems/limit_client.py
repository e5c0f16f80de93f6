"""The ceiling's client: batches of upb records, at most IN_FLIGHT of a partition under way, and callbacks.

What Penstock's producer does, without all that makes it safe: no metadata, retries, sequence numbers, checks.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Self, TypeAlias

import grpc
import grpc.aio

from benchmarks.systems.limit_wire import CHANNEL_OPTIONS, CONSUME, FRAME, LIVE, PRODUCE, REPLY, Outbox, end, method
from benchmarks.workloads import Workload
from penstock.v1 import record_pb2 as pb

IN_FLIGHT = 5
BUFFER_BYTES = 64 * 1024 * 1024
RECORD_OVERHEAD = 26
"""As Penstock's accumulator counts a record, so that batches hold as many."""

OnRecord: TypeAlias = Callable[[int, int], None]
"""Called with partition and offset."""
OnBatch: TypeAlias = Callable[[int, int, int], None]
"""Called with partition, base offset and number of records."""


class Batch:
    """Records of one partition; `add` while it is open, `payload` afterwards."""

    __slots__ = ("add", "count", "lane", "payload", "record_set", "size", "waiters")

    def __init__(self, lane: "Lane") -> None:
        self.lane = lane
        self.record_set = pb.RecordSet()
        self.add = self.record_set.records.add
        self.size = 0
        self.count = 0
        self.waiters: list[OnRecord] = []
        self.payload = b""

    def seal(self) -> None:
        """Make the payload."""
        if not self.payload:
            self.payload = self.record_set.SerializeToString()
            self.count = len(self.waiters)
            del self.record_set, self.add


class Lane:
    """One partition."""

    __slots__ = ("closed", "in_flight", "is_due", "link", "open", "partition")

    def __init__(self, link: "Link", partition: int) -> None:
        self.link = link
        self.partition = partition
        self.open: Batch | None = None
        self.is_due = False
        """The open batch goes as soon as there is room in the window."""
        self.closed: deque[Batch] = deque()
        self.in_flight = 0


class Link:
    """The stream to one server."""

    def __init__(self, address: str, answered: Callable[[bytes], None]) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        self._call: Any = self._channel.stream_stream(method(PRODUCE))(wait_for_ready=True)
        self._answered = answered
        self.outbox = Outbox(self._call.write)
        self._tasks = (asyncio.create_task(self.outbox.run()), asyncio.create_task(self._read()))

    async def _read(self) -> None:
        while (message := await self._call.read()) is not grpc.aio.EOF:
            self._answered(message)

    async def close(self) -> None:
        """End the stream."""
        await end(*self._tasks)
        await self._channel.close()

    def check(self) -> None:
        """Raise what ended the stream."""
        for task in self._tasks:
            if task.done():
                task.result()
                raise ConnectionError("a server ended the stream")


class Client:
    """See the module. Async context manager."""

    def __init__(self, bootstrap: str, workload: Workload, on_batch: OnBatch | None = None) -> None:
        self._addresses = bootstrap.split(",")
        self._on_batch = on_batch
        self._count = workload.partitions
        self._full = workload.batch_bytes
        self._linger_s = workload.linger_ms / 1000
        self._pending: dict[int, Batch] = {}
        self._number = 0
        self._used = 0
        self._open: dict[Lane, None] = {}
        """Lanes whose batch lingers, the oldest first."""
        self._timer: asyncio.TimerHandle | None = None
        self._room: asyncio.Future[None] | None = None
        self._sticky = 0

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._links = [Link(address, self._answered) for address in self._addresses]
        self.lanes = [Lane(self._links[index % len(self._links)], index) for index in range(self._count)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for link in self._links:
            await link.close()

    def send(self, value: bytes, waiter: OnRecord) -> bool:
        """Put a record in the sticky partition; True when a batch is full: let the loop run then, and see `room`."""
        lane = self.lanes[self._sticky]
        size = len(value) + RECORD_OVERHEAD
        batch = lane.open
        rolled = False
        if batch is None or batch.size + size > self._full:
            if batch is not None:
                self._close(lane)
                self._sticky = (self._sticky + 1) % self._count
                lane = self.lanes[self._sticky]
                rolled = True
            batch = lane.open or self._begin(lane)
        waiters = batch.waiters
        batch.add(offset_delta=len(waiters), value=value)
        waiters.append(waiter)
        batch.size += size
        return rolled

    def send_to(self, partition: int, value: bytes, waiter: OnRecord) -> None:
        """Put a record in a partition."""
        lane = self.lanes[partition]
        size = len(value) + RECORD_OVERHEAD
        batch = lane.open
        if batch is not None and batch.size + size > self._full:
            self._close(lane)
            batch = None
        if batch is None:
            batch = self._begin(lane)
        batch.add(offset_delta=len(batch.waiters), value=value)
        batch.waiters.append(waiter)
        batch.size += size

    def send_batch(self, partition: int, payload: bytes, count: int) -> None:
        """Send a batch that is made already."""
        lane = self.lanes[partition]
        batch = Batch(lane)
        batch.payload, batch.count, batch.size = payload, count, len(payload)
        self._used += batch.size
        lane.closed.append(batch)
        self._pump(lane)

    @property
    def has_room(self) -> bool:
        """Say whether more may be sent."""
        return self._used < BUFFER_BYTES

    async def room(self) -> None:
        """Wait until three quarters of the memory at most are in use."""
        await self._below(BUFFER_BYTES * 3 // 4)

    async def flush(self) -> None:
        """Wait until everything is answered."""
        for lane in list(self._open):
            self._due(lane)
        self._open.clear()
        await self._below(0)

    async def _below(self, used: int) -> None:
        while self._used > used:
            for link in self._links:
                link.check()
            self._room = self._loop.create_future()
            self._room_at = used
            async with asyncio.timeout(60):
                await self._room

    def _begin(self, lane: Lane) -> Batch:
        batch = lane.open = Batch(lane)
        lane.is_due = not self._linger_s
        if self._linger_s:
            self._open[lane] = None
            if self._timer is None:
                self._timer = self._loop.call_later(self._linger_s, self._on_timer)
        else:
            self._loop.call_soon(self._due, lane)
        return batch

    def _on_timer(self) -> None:
        """Whatever lingers goes, so that it goes in few messages: the linger is a bound."""
        self._timer = None
        lanes = list(self._open)
        self._open.clear()
        for lane in lanes:
            self._due(lane)

    def _due(self, lane: Lane) -> None:
        if lane.open is not None:
            lane.is_due = True
            self._pump(lane)

    def _close(self, lane: Lane) -> None:
        batch = lane.open
        if batch is None:
            return
        lane.open = None
        lane.is_due = False
        self._open.pop(lane, None)
        batch.seal()
        batch.size = len(batch.payload)
        self._used += batch.size
        lane.closed.append(batch)
        self._pump(lane)

    def _pump(self, lane: Lane) -> None:
        while lane.in_flight < IN_FLIGHT:
            if not lane.closed:
                if not lane.is_due:
                    return
                self._close(lane)  # calls this again
                return
            batch = lane.closed.popleft()
            lane.in_flight += 1
            self._number = number = (self._number + 1) & 0xFFFFFFFF
            self._pending[number] = batch
            header = FRAME.pack(number, lane.partition, batch.count, len(batch.payload))
            lane.link.outbox.put_frame(header, batch.payload)

    def _answered(self, message: bytes) -> None:
        on_batch = self._on_batch
        for number, offset in REPLY.iter_unpack(message):
            batch = self._pending.pop(number)
            lane = batch.lane
            lane.in_flight -= 1
            self._used -= batch.size
            if lane.closed or lane.is_due:
                self._pump(lane)
            partition = lane.partition
            if on_batch is not None:
                on_batch(partition, offset, batch.count)
            for place, waiter in enumerate(batch.waiters, offset):
                waiter(partition, place)
        if self._room is not None and self._used <= self._room_at:
            if not self._room.done():
                self._room.set_result(None)
            self._room = None


class Reader:
    """Streams of all servers, read into one queue."""

    def __init__(self, bootstrap: str, request: bytes, on_message: Callable[[bytes], None]) -> None:
        self._channels = [
            grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) for address in bootstrap.split(",")
        ]
        self._request = request
        self._on_message = on_message
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Subscribe; with LIVE every server is listening when it returns."""
        calls: list[Any] = []
        for channel in self._channels:
            call: Any = channel.stream_stream(method(CONSUME))(wait_for_ready=True)
            await call.write(self._request)
            calls.append(call)
        if self._request == LIVE:
            for call in calls:
                await call.initial_metadata()
        self._tasks = [asyncio.create_task(self._read(call)) for call in calls]

    async def _read(self, call: Any) -> None:
        while (message := await call.read()) is not grpc.aio.EOF:
            self._on_message(message)

    async def ended(self) -> None:
        """Wait until every server has sent everything."""
        await asyncio.gather(*self._tasks)

    async def close(self) -> None:
        """End the streams."""
        await end(*self._tasks)
        for channel in self._channels:
            await channel.close()
