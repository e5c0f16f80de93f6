"""The calling side of the simulated gRPC: look-alikes of the calls that grpc.aio's stubs give.

As grpc.aio 1.85 does (tried on loopback): nothing ends before the loop has run once; a local cancel raises
CancelledError in whoever awaits; cancelling a task within read, write or an awaited call cancels the call; a write that
waits for room when the call ends raises INTERNAL "Internal error from Core", which also becomes the call's status
unless the connection broke; a status is known only when all messages before it were read, but a broken connection or a
deadline throws away what was not read.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Generator
from typing import TYPE_CHECKING, Any

from grpc import StatusCode

from tests.simulation.kernel.rpc_call import Call, Status
from tests.simulation.kernel.rpc_wire import EOF, Incoming, cygrpc

if TYPE_CHECKING:
    from tests.simulation.kernel.rpc_channel import SimChannel, Transport


class Method:
    """What a channel gives for a method: called, it makes a call."""

    __slots__ = ("channel", "decode", "encode", "name", "request_streaming", "response_streaming")

    def __init__(
        self,
        channel: "SimChannel",
        name: str,
        encode: Callable[[Any], bytes] | None,
        decode: Callable[[bytes], Any] | None,
        kind: str,
    ) -> None:
        self.channel = channel
        self.name = name
        self.encode = encode
        self.decode = decode
        self.request_streaming = kind[0] == "s"
        self.response_streaming = kind[1] == "s"

    def __call__(
        self,
        request: Any = None,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Any:
        """Begin a call. `request` is the message, an iterator of messages, or None."""
        del credentials, compression
        make = _StreamCall if self.response_streaming else _UnaryCall
        return make(self, request, timeout, tuple(metadata or ()), wait_for_ready=bool(wait_for_ready))


class _UnaryCall(Call):
    """A call with one response, to be awaited."""

    def __init__(
        self, method: Method, request: Any, timeout: float | None, metadata: tuple[Any, ...], *, wait_for_ready: bool
    ) -> None:
        self._future: asyncio.Future[Any] = method.channel.loop.create_future()
        super().__init__(method, request, timeout, metadata, wait_for_ready=wait_for_ready)

    def _ended(self, code: StatusCode, details: str, trailing: tuple[Any, ...], payload: bytes | None) -> None:
        if payload is not None and code is StatusCode.OK and not self._future.done():
            decode = self._method.decode
            self._future.set_result(payload if decode is None else decode(payload))
        self.finish(code, details, trailing)

    def _settled(self) -> None:
        if not self._future.done():
            if self._locally_cancelled:
                self._future.cancel()
            else:
                self._future.set_result(EOF)

    def __await__(self) -> Generator[Any, None, Any]:
        try:
            response = yield from self._future
        except asyncio.CancelledError:
            self.cancel()
            raise
        if response is EOF:
            raise self._error(self._status)
        return response


class _StreamCall(Call):
    """A call with any number of responses, to be read or iterated over."""

    def __init__(
        self, method: Method, request: Any, timeout: float | None, metadata: tuple[Any, ...], *, wait_for_ready: bool
    ) -> None:
        self._incoming = Incoming(method.channel.loop, None, 0)
        self._final: Status | None = None
        """What the server said at the end, while messages before it wait to be read."""
        self._iterator: AsyncIterator[Any] | None = None
        self._reads = False
        super().__init__(method, request, timeout, metadata, wait_for_ready=wait_for_ready)

    def _begun(self, transport: "Transport") -> None:
        self._incoming.connect(transport.wire, self._number)

    def _message(self, payload: bytes) -> None:
        self._incoming.put(payload)

    def _ended(self, code: StatusCode, details: str, trailing: tuple[Any, ...], payload: bytes | None) -> None:
        if self._incoming.messages:
            self._final = (code, details, trailing)
            self._incoming.end()
        else:
            self.finish(code, details, trailing)

    def lost(self, details: str) -> None:
        if self._final is None:  # else it had ended before, and what waits is still read
            super().lost(details)

    def _settled(self) -> None:
        self._incoming.end(discard=True)

    async def _read(self) -> Any:
        try:
            payload = await self._incoming.get()
        except asyncio.CancelledError:
            self.cancel()
            raise
        if payload is None:
            return EOF
        if self._final is not None and not self._incoming.messages:
            self.finish(*self._final)
        decode = self._method.decode
        return payload if decode is None else decode(payload)

    async def read(self) -> Any:
        """Give the next response; EOF where the call ended well, AioRpcError where it did not."""
        if self._status is not None:
            self._raise_for_status()
            return EOF
        if self._iterator is not None:
            raise cygrpc.UsageError("The iterator and read/write APIs may not be mixed on a single RPC.")
        self._reads = True
        message = await self._read()
        if message is EOF:
            self._raise_for_status()
        return message

    async def _responses(self) -> AsyncIterator[Any]:
        while (message := await self._read()) is not EOF:
            yield message
        self._raise_for_status()

    def __aiter__(self) -> AsyncIterator[Any]:
        if self._reads:
            raise cygrpc.UsageError("The iterator and read/write APIs may not be mixed on a single RPC.")
        if self._iterator is None:
            self._iterator = self._responses()
        return self._iterator
