"""What both sides of the simulated gRPC share: frames in packets, windows of messages, deadlines.

A frame is a tuple: its kind, the number of its call, and what belongs to it. Messages travel as bytes. What a process
sends over a connection within one moment goes as one packet, and a packet that arrives is one handle of the loop.
"""

import asyncio
import heapq
import importlib
import types
from collections import deque
from collections.abc import Callable, Generator
from typing import Any, Protocol

from tests.simulation.kernel.network import End, Network

WINDOW_MESSAGES = 8
"""Messages of one call and direction that may be sent and not yet read."""
WINDOW_BYTES = 64 * 1024
"""As gRPC's initial window: a message goes out only while less than this is unread; it may be larger itself."""

SETTINGS, GOAWAY, START, MESSAGE, HALF_CLOSE, CREDIT, RESET, HEADERS, STATUS = range(9)
Frame = tuple[Any, ...]
cygrpc: Any = importlib.import_module("grpc._cython.cygrpc")
"""The real exceptions and EOF; it has no types."""
EOF = cygrpc.EOF
ExecuteBatchError: type[Exception] = cygrpc.ExecuteBatchError


@types.coroutine
def pass_turn() -> Generator[None, None, None]:
    """Let the loop run what is ready: no operation of gRPC's completes at once."""
    yield


class Wire:
    """Packs the frames that go out over one end, and hands those that come in to the loop, a packet at a time."""

    __slots__ = ("_at", "_end", "_loop", "_network", "_packet", "_take")

    def __init__(self, network: Network, loop: asyncio.AbstractEventLoop, end: End) -> None:
        self._network = network
        self._loop = loop
        self._end = end
        self._packet: list[Frame] = []
        self._at = -1.0
        self._take: Callable[[Frame], None] = _ignore

    def open(self, take: Callable[[Frame], None], lost: Callable[[str], None]) -> None:
        """Give each frame to `take`, and the end of the connection to `lost`, both on the loop."""
        self._take = take
        self._end.on_frame = self._arrived
        self._end.on_close = lambda reason: _soon(self._loop, lost, reason)

    def _arrived(self, packet: list[Frame]) -> None:
        if self._loop.is_closed():
            self._end.close("connection reset")
        else:
            self._loop.call_soon(self._unpack, packet)

    def _unpack(self, packet: list[Frame]) -> None:
        take = self._take
        for frame in packet:
            take(frame)

    def send(self, frame: Frame) -> None:
        """Send a frame, in the packet of this moment."""
        now = self._network.now
        if self._loop.is_closed() or not self._end.is_open:
            return
        if self._at == now:
            self._packet.append(frame)
        else:
            self._at = now
            self._packet = [frame]
            self._end.send(self._packet)

    def close(self) -> None:
        """Close the connection; nothing is heard from it any more."""
        self._take = _ignore
        if not self._loop.is_closed():
            self._end.close()


def _ignore(_: Frame) -> None:
    """Nothing is heard any more."""


def _soon(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *arguments: Any) -> None:
    if not loop.is_closed():
        loop.call_soon(function, *arguments)


class Outgoing:
    """Messages of a call that go out in one direction. One sender at a time, as in gRPC."""

    __slots__ = ("_bytes", "_frames", "_loop", "_number", "_waiter", "_wire")

    def __init__(self, loop: asyncio.AbstractEventLoop, wire: Wire, number: int) -> None:
        self._loop = loop
        self._wire = wire
        self._number = number
        self._frames = 0
        self._bytes = 0
        self._waiter: asyncio.Future[bool] | None = None

    @property
    def is_blocked(self) -> bool:
        """A sender waits for room."""
        return self._waiter is not None

    async def send(self, payload: bytes) -> None:
        """Send when there is room. ExecuteBatchError where the call ends meanwhile: then it was not sent."""
        while self._frames >= WINDOW_MESSAGES or self._bytes >= WINDOW_BYTES:
            if self._waiter is not None:
                raise ExecuteBatchError("a write is under way")
            self._waiter = self._loop.create_future()
            try:
                alive = await self._waiter
            finally:
                self._waiter = None
            if not alive:
                raise ExecuteBatchError('Failed "execute_batch": the call has ended')
        self._frames += 1
        self._bytes += len(payload)
        self._wire.send((MESSAGE, self._number, payload))
        await pass_turn()

    def credit(self, frames: int, size: int) -> None:
        """The other side read this much."""
        self._frames -= frames
        self._bytes -= size
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(True)

    def end(self) -> None:
        """Nothing goes out any more; who waits for room fails."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(False)


class Incoming:
    """Messages of a call that have come in, in order, and their one reader."""

    __slots__ = ("_bytes", "_frames", "_loop", "_number", "_waiter", "_wire", "ended", "messages")

    def __init__(self, loop: asyncio.AbstractEventLoop, wire: Wire | None, number: int) -> None:
        self._loop = loop
        self._wire = wire
        self._number = number
        self.messages: deque[bytes] = deque()
        self.ended = False
        self._frames = 0  # read, and not yet told to the sender
        self._bytes = 0
        self._waiter: asyncio.Future[None] | None = None

    def connect(self, wire: Wire, number: int) -> None:
        """Say where credit goes."""
        self._wire, self._number = wire, number

    def put(self, payload: bytes) -> None:
        """A message came."""
        if not self.ended:
            self.messages.append(payload)
            self.wake()

    def end(self, *, discard: bool = False) -> None:
        """No more will come. `discard`: nor are those that wait still read."""
        self.ended = True
        if discard:
            self.messages.clear()
        self.wake()

    def wake(self) -> None:
        """Let the reader look."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self) -> bytes | None:
        """Give the next message; None at the end."""
        while not self.messages:
            if self.ended:
                return None
            if self._waiter is not None:
                raise ExecuteBatchError("a read is under way")
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        payload = self.messages.popleft()
        self._frames += 1
        self._bytes += len(payload)
        if (2 * self._frames >= WINDOW_MESSAGES or 2 * self._bytes >= WINDOW_BYTES) and not self.ended:
            if self._wire is not None:
                self._wire.send((CREDIT, self._number, self._frames, self._bytes))
            self._frames = self._bytes = 0
        return payload


class Timed(Protocol):
    """What has a deadline."""

    def expire(self) -> None:
        """The deadline has come."""


class Deadlines:
    """Calls by deadline behind one timer, so that a call that ends in time costs no timer of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._heap: list[tuple[float, int]] = []
        self._calls: dict[int, Timed] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._last = 0

    def add(self, when: float, call: Timed) -> int:
        """Expire a call at a time of the loop's; gives the entry, for `remove`."""
        self._last += 1
        self._calls[self._last] = call
        heapq.heappush(self._heap, (when, self._last))
        if self._timer is None or self._timer.when() > when:
            self._arm(when)
        return self._last

    def remove(self, entry: int) -> None:
        """The call ended."""
        self._calls.pop(entry, None)

    def _arm(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._fire, when)

    def _fire(self, when: float) -> None:
        self._timer = None
        heap, now = self._heap, max(self._loop.time(), when)
        while heap and (heap[0][0] <= now or heap[0][1] not in self._calls):
            call = self._calls.pop(heapq.heappop(heap)[1], None)
            if call is not None:
                call.expire()
        if heap and self._timer is None:
            self._arm(heap[0][0])

    def close(self) -> None:
        """Expire nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._heap.clear()
        self._calls.clear()
