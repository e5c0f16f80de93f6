"""The channel of the simulated gRPC: a look-alike of grpc.aio.Channel with one connection, dialled again with backoff.

As grpc.aio 1.85 does (tried on loopback): a failed attempt makes TRANSIENT_FAILURE, which stays until an attempt
succeeds, while attempts go on by themselves; a lost connection makes IDLE, and the next call dials. A connection counts
when the server's first frame is there, so a process that stands still is not READY.
Unlike it: a call that is dropped without being awaited or cancelled lives on until the channel closes.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import grpc
from grpc import ChannelConnectivity as State

from tests.simulation.kernel.network import Dial, End, Network
from tests.simulation.kernel.rpc_client import Method
from tests.simulation.kernel.rpc_wire import (
    CREDIT,
    GOAWAY,
    HEADERS,
    MESSAGE,
    SETTINGS,
    STATUS,
    Deadlines,
    Frame,
    Wire,
    cygrpc,
)

INITIAL_BACKOFF_MS, MIN_CONNECT_MS, MAX_BACKOFF_MS = 50, 50, 1_000
"""As between nodes (node.peers); the options of a channel name others."""
MULTIPLIER = 1.6
LOST = {
    "connection reset": "Stream removed (recvmsg:Connection reset by peer)",
    "connection timed out": "keepalive watchdog timeout",
}


class ChannelCall(Protocol):
    """What the channel tells a call."""

    def begin(self, transport: "Transport") -> None:
        """Send the call's first frame."""

    def finish(self, code: grpc.StatusCode, details: str, trailing: tuple[Any, ...] = ()) -> None:
        """It ended, and not by the server's word."""

    def lost(self, details: str) -> None:
        """Its connection is gone."""

    def take(self, frame: Frame) -> None:
        """A frame of the server's."""

    def cancel(self) -> bool:
        """Cancel it."""


class Transport:
    """One connection and the calls on it; it may outlive its use by the channel, after the server's GOAWAY."""

    def __init__(self, channel: "SimChannel", end: End, loop: asyncio.AbstractEventLoop) -> None:
        self.wire = Wire(channel.network, loop, end)
        self.calls: dict[int, ChannelCall] = {}
        self._channel = channel
        self._last = 0
        self.wire.open(self._take, self._lost)

    def add(self, call: ChannelCall) -> int:
        """Number a call."""
        self._last += 1
        self.calls[self._last] = call
        return self._last

    def remove(self, number: int) -> None:
        """A call ended."""
        self.calls.pop(number, None)
        if not self.calls and self._channel.transport is not self:
            self._channel.retired.pop(self, None)
            self.wire.close()

    def _take(self, frame: Frame) -> None:
        kind = frame[0]
        if kind in {MESSAGE, STATUS, CREDIT, HEADERS}:
            call = self.calls.get(frame[1])
            if call is not None:
                call.take(frame)
        elif kind == SETTINGS:
            self._channel.connected(self)
        elif kind == GOAWAY:
            self._channel.disconnected(self)
            if not self.calls:
                self.wire.close()

    def _lost(self, reason: str) -> None:
        self._channel.disconnected(self)
        self._channel.retired.pop(self, None)
        calls, self.calls = self.calls, {}
        for call in calls.values():
            call.lost(LOST.get(reason, "Stream removed (Socket closed)"))


class SimChannel:
    """See the module. `host` is the dialing process, `target` is "host:port", `options` are as gRPC takes them."""

    def __init__(self, network: Network, host: str, target: str, options: Sequence[tuple[str, Any]] = ()) -> None:
        self.network = network
        self.host = host
        self.transport: Transport | None = None
        """The connection that new calls use; READY then."""
        self.retired: dict[Transport, None] = {}
        """Connections that the server will close, with calls still on them."""
        self.loop = asyncio.get_running_loop()
        self.deadlines = Deadlines(self.loop)
        self.pending: dict[ChannelCall, None] = {}
        """Calls that wait for a connection."""
        self._target_host, _, port = target.rpartition(":")
        self._target_port = int(port)
        given = dict(options)
        self._initial_s = given.get("grpc.initial_reconnect_backoff_ms", INITIAL_BACKOFF_MS) / 1000
        self._connect_s = given.get("grpc.min_reconnect_backoff_ms", MIN_CONNECT_MS) / 1000
        self._max_s = given.get("grpc.max_reconnect_backoff_ms", MAX_BACKOFF_MS) / 1000
        self._backoff_s = self._initial_s
        self._state = State.IDLE
        self._failure = ""
        self._attempt = 0
        """Number of the attempt under way, or last made."""
        self._attempted_at = 0.0
        self._dial_under_way: Dial | None = None
        self._dialled: Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watchers: list[asyncio.Future[None]] = []

    # ---- state

    def get_state(self, try_to_connect: bool = False) -> State:
        """Give the state; an idle channel begins to connect after that."""
        state = self._state
        if try_to_connect and state is State.IDLE:
            self._dial()
        return state

    async def wait_for_state_change(self, last_observed_state: State) -> None:
        """Return when the state is another one."""
        if self._state is State.SHUTDOWN:
            raise cygrpc.UsageError("Channel is closed.")
        while self._state is last_observed_state:
            watcher = self.loop.create_future()
            self._watchers.append(watcher)
            await watcher

    async def channel_ready(self) -> None:
        """Return when connected, however long that takes."""
        state = self.get_state(try_to_connect=True)
        while state is not State.READY:
            await self.wait_for_state_change(state)
            state = self.get_state(try_to_connect=True)

    def _change(self, state: State) -> None:
        if state is self._state:
            return
        self._state = state
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            if not watcher.done():
                watcher.set_result(None)

    # ---- connecting

    def _dial(self) -> None:
        if self._state is State.IDLE:
            self._change(State.CONNECTING)
        self._attempt += 1
        self._attempted_at = self.loop.time()
        limit = max(self._connect_s, self._backoff_s)
        self._timer = self.loop.call_later(limit, self._failed, self._attempt, "connect timed out")
        attempt = self._attempt

        def answered(answer: End | str) -> None:
            if self.loop.is_closed():
                if isinstance(answer, End):
                    answer.close("connection reset")
            elif isinstance(answer, End):
                self._dialled = Transport(self, answer, self.loop)
            else:
                self.loop.call_soon(self._failed, attempt, "Connection refused")

        if not self.loop.is_closed():
            self._dial_under_way = self.network.connect(self.host, self._target_host, self._target_port, answered)

    def connected(self, transport: Transport) -> None:
        """The server's first frame came."""
        if transport is not self._dialled:
            transport.wire.close()
            return
        self._cancel_timer()
        self._dialled = None
        self._backoff_s = self._initial_s
        self.transport = transport
        self._change(State.READY)
        pending, self.pending = self.pending, {}
        for call in pending:
            call.begin(transport)

    def _failed(self, attempt: int, why: str) -> None:
        if attempt != self._attempt or self._state in {State.READY, State.SHUTDOWN, State.IDLE}:
            return
        self._attempt += 1  # what still comes of this attempt is late
        self._cancel_timer()
        self._give_up()
        address = f"ipv4:{self._target_host}:{self._target_port}"
        self._failure = (
            "failed to connect to all addresses; last error: "
            f"UNKNOWN: {address}: Failed to connect to remote host: {why}"
        )
        self._change(State.TRANSIENT_FAILURE)
        again = max(self._attempted_at + self._backoff_s, self.loop.time())
        self._backoff_s = min(self._backoff_s * MULTIPLIER, self._max_s)
        self._timer = self.loop.call_at(again, self._dial)
        for call in list(self.pending):
            self.fail(call)

    def _give_up(self) -> None:
        """End the attempt under way."""
        if self._dial_under_way is not None:
            self._dial_under_way.give_up()
        if self._dialled is not None:
            self._dialled.wire.close()
        self._dial_under_way = self._dialled = None

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def disconnected(self, transport: Transport) -> None:
        """The connection ended, or the server wants no more calls on it."""
        if transport is self._dialled:
            self._failed(self._attempt, "Socket closed")
        elif transport is self.transport:
            self.transport = None
            self.retired[transport] = None
            self._change(State.IDLE)

    # ---- calls

    def submit(self, call: ChannelCall) -> None:
        """Begin a call now, or when the channel is connected."""
        if self._state is State.SHUTDOWN:
            raise cygrpc.UsageError("Channel is closed.")
        if self.transport is not None:
            call.begin(self.transport)
            return
        self.pending[call] = None
        if self._state is State.TRANSIENT_FAILURE:
            self.loop.call_soon(self.fail, call)
        elif self._state is State.IDLE:
            self._dial()

    def fail(self, call: ChannelCall) -> None:
        """Fail a call that waits, unless it waits for a connection however long that takes."""
        if call in self.pending and not getattr(call, "wait_for_ready", False):
            del self.pending[call]
            call.finish(grpc.StatusCode.UNAVAILABLE, self._failure)

    async def close(self, grace: float | None = None) -> None:
        """Cancel all calls and close the connection."""
        del grace
        if self._state is State.SHUTDOWN:
            return
        self._change(State.SHUTDOWN)
        self._cancel_timer()
        transports = list(self.retired)
        if self.transport is not None:
            transports.append(self.transport)
        calls = list(self.pending)
        for transport in transports:
            calls.extend(transport.calls.values())
        for call in calls:
            call.cancel()
        self._give_up()
        self.transport = None
        for transport in transports:
            transport.wire.close()
        self.retired.clear()
        self.pending.clear()
        self.deadlines.close()

    async def __aenter__(self) -> "SimChannel":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # ---- methods

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool = False,
    ) -> "Method":
        return Method(self, method, request_serializer, response_deserializer, "uu")

    def unary_stream(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool = False,
    ) -> "Method":
        return Method(self, method, request_serializer, response_deserializer, "us")

    def stream_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool = False,
    ) -> "Method":
        return Method(self, method, request_serializer, response_deserializer, "su")

    def stream_stream(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool = False,
    ) -> "Method":
        return Method(self, method, request_serializer, response_deserializer, "ss")
