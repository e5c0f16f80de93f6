"""What all calls of the simulated gRPC have, on the calling side: beginning, end, status, and streaming requests.

See rpc_client for what was taken from the real ones.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from grpc import StatusCode
from grpc.aio import AioRpcError, Metadata

from tests.simulation.kernel.rpc_wire import (
    CREDIT,
    HALF_CLOSE,
    HEADERS,
    MESSAGE,
    RESET,
    START,
    ExecuteBatchError,
    Frame,
    Outgoing,
    cygrpc,
    pass_turn,
)

if TYPE_CHECKING:
    from tests.simulation.kernel.rpc_channel import Transport
    from tests.simulation.kernel.rpc_client import Method

LOCALLY_CANCELLED = "Locally cancelled by application!"
NO_METADATA: tuple[Any, ...] = ()
Status = tuple[StatusCode, str, tuple[Any, ...]]
WRITE_FAILED: Status = (StatusCode.INTERNAL, "Internal error from Core", NO_METADATA)


class Call:
    """What all calls have."""

    def __init__(
        self, method: "Method", request: Any, timeout: float | None, metadata: tuple[Any, ...], *, wait_for_ready: bool
    ) -> None:
        channel = method.channel
        self.wait_for_ready = wait_for_ready
        self._channel = channel
        self._loop = channel.loop
        self._method = method
        self._metadata = metadata
        self._payload: bytes | None = None
        self._transport: Transport | None = None
        self._number = 0
        self._outgoing: Outgoing | None = None
        self._status: Status | None = None
        self._initial: tuple[Any, ...] | None = None
        self._locally_cancelled = False
        self._half_closed = False
        self._waiters: list[asyncio.Future[None]] = []
        """Of the call's beginning and of its end."""
        self._callbacks: list[Callable[[Any], Any]] = []
        self._deadline: float | None = None
        self._entry = 0
        self._poller: asyncio.Task[None] | None = None
        if timeout is not None:
            self._deadline = self._loop.time() + timeout
            self._entry = channel.deadlines.add(self._deadline, self)
        if not method.request_streaming:
            self._payload = request if method.encode is None else method.encode(request)
            self._half_closed = True
        elif request is not None:
            self._poller = self._loop.create_task(self._send_all(request))
        channel.submit(self)

    # ---- what the channel tells

    def begin(self, transport: "Transport") -> None:
        """Send the first frame; with a unary request it is the only one."""
        if self._status is not None:
            return
        self._transport = transport
        self._number = transport.add(self)
        left = None if self._deadline is None else max(self._deadline - self._loop.time(), 0)
        transport.wire.send((START, self._number, self._method.name, self._metadata, left, self._payload))
        self._payload = None
        self._begun(transport)
        if self._method.request_streaming:
            self._outgoing = Outgoing(self._loop, transport.wire, self._number)
            self._wake()

    def _begun(self, transport: "Transport") -> None:
        """Take the connection."""

    def take(self, frame: Frame) -> None:
        """Take a frame of the server's."""
        kind = frame[0]
        if kind == CREDIT:
            if self._outgoing is not None:
                self._outgoing.credit(frame[2], frame[3])
        elif kind == MESSAGE:
            self._message(frame[2])
        elif kind == HEADERS:
            self._initial = frame[2]
            self._wake()
        else:
            _, _, code, details, trailing, payload = frame
            self._ended(code, details, trailing, payload)

    def _message(self, payload: bytes) -> None:
        """A response came."""

    def _ended(self, code: StatusCode, details: str, trailing: tuple[Any, ...], payload: bytes | None) -> None:
        """The server said how it ended."""
        raise NotImplementedError

    def expire(self) -> None:
        """The deadline has come."""
        self._reset()
        self.finish(StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")

    def lost(self, details: str) -> None:
        """The connection is gone."""
        self._close(StatusCode.UNAVAILABLE, details, NO_METADATA)

    def finish(self, code: StatusCode, details: str, trailing: tuple[Any, ...] = NO_METADATA) -> None:
        """The call is over."""
        if self._outgoing is not None and self._outgoing.is_blocked and not self._locally_cancelled:
            code, details, trailing = WRITE_FAILED
        self._close(code, details, trailing)

    def _close(self, code: StatusCode, details: str, trailing: tuple[Any, ...]) -> None:
        if self._status is not None:
            return
        outgoing = self._outgoing
        self._status = (code, details, trailing)
        if self._initial is None:
            self._initial = NO_METADATA
        if self._entry:
            self._channel.deadlines.remove(self._entry)
        if self._transport is not None:
            self._transport.remove(self._number)
        else:
            self._channel.pending.pop(self, None)
        if outgoing is not None:
            outgoing.end()
        self._settled()
        self._wake()
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)

    def _settled(self) -> None:
        """The status is known."""

    def _wake(self) -> None:
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def _wait(self) -> None:
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        await waiter

    def _reset(self) -> None:
        if self._transport is not None and self._status is None:
            self._transport.wire.send((RESET, self._number))

    # ---- what grpc.aio.Call has

    def done(self) -> bool:
        return self._status is not None

    def cancelled(self) -> bool:
        return self._status is not None and self._status[0] is StatusCode.CANCELLED

    def cancel(self) -> bool:
        """End the call from here; False where it has ended."""
        if self._status is not None:
            return False
        self._locally_cancelled = True
        self._reset()
        self.finish(StatusCode.CANCELLED, LOCALLY_CANCELLED)
        if self._poller is not None:
            self._poller.cancel()
        return True

    def add_done_callback(self, callback: Callable[[Any], Any]) -> None:
        if self._status is not None:
            callback(self)
        else:
            self._callbacks.append(callback)

    def time_remaining(self) -> float | None:
        return None if self._deadline is None else max(self._deadline - self._loop.time(), 0)

    async def _end(self) -> Status:
        while self._status is None:
            await self._wait()
        return self._status

    async def initial_metadata(self) -> Metadata:
        while self._initial is None:
            await self._wait()
        return Metadata.from_tuple(self._initial)

    async def trailing_metadata(self) -> Metadata:
        return Metadata.from_tuple((await self._end())[2])

    async def code(self) -> StatusCode:
        return (await self._end())[0]

    async def details(self) -> str:
        return (await self._end())[1]

    async def debug_error_string(self) -> str:
        return (await self._end())[1]

    async def wait_for_connection(self) -> None:
        while self._transport is None and self._status is None:
            await self._wait()
        if self._status is not None:
            self._raise_for_status()

    def _error(self, status: Status | None) -> AioRpcError:
        code, details, trailing = status or (StatusCode.UNKNOWN, "", NO_METADATA)
        return AioRpcError(
            code,
            Metadata.from_tuple(self._initial or ()),
            Metadata.from_tuple(trailing),
            details=details,
            debug_error_string=details,
        )

    def _raise_for_status(self) -> None:
        if self._locally_cancelled:
            raise asyncio.CancelledError
        if self._status is not None and self._status[0] is not StatusCode.OK:
            raise self._error(self._status)

    # ---- streaming requests

    async def write(self, request: Any) -> None:
        """Send a message; returns when there was room for it."""
        if self._poller is not None:
            raise cygrpc.UsageError("The iterator and read/write APIs may not be mixed on a single RPC.")
        await self._write(request)

    async def _write(self, request: Any) -> None:
        if self._status is not None:
            raise asyncio.InvalidStateError("RPC already finished.")
        if self._half_closed:
            raise asyncio.InvalidStateError('RPC is half closed after calling "done_writing".')
        while self._outgoing is None:
            await self._wait()
            if self.done():
                self._raise_for_status()
                return
        encode = self._method.encode
        try:
            await self._outgoing.send(request if encode is None else encode(request))
        except ExecuteBatchError:
            if self._locally_cancelled:
                raise asyncio.CancelledError from None
            raise self._error(WRITE_FAILED) from None
        except asyncio.CancelledError:
            self.cancel()
            raise

    async def done_writing(self) -> None:
        """Say that no more messages come."""
        if self._status is not None or self._half_closed:
            return
        while self._transport is None:
            await self._wait()
            if self.done():
                return
        self._half_closed = True
        self._transport.wire.send((HALF_CLOSE, self._number))
        await pass_turn()

    async def _send_all(self, requests: Any) -> None:
        try:
            if hasattr(requests, "__aiter__"):
                async for request in requests:
                    await self._write(request)
            else:
                for request in requests:
                    await self._write(request)
            await self.done_writing()
        except AioRpcError:
            return
        except Exception:  # noqa: BLE001  as gRPC does: whatever the iterator raises cancels the call
            self.cancel()
