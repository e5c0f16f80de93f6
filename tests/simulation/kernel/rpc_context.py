"""One call on the serving side of the simulated gRPC: the context that its handler gets, and the handler's run.

See rpc_server for what was taken from the real one.
"""

import asyncio
import functools
import inspect
import logging
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import grpc

from tests.simulation.kernel.rpc_wire import EOF, HEADERS, STATUS, ExecuteBatchError, Frame, Incoming, Outgoing, cygrpc

if TYPE_CHECKING:
    from tests.simulation.kernel.rpc_server import ServerConnection, SimServer

LOG = logging.getLogger(__name__)


class ServerCall:
    """One call, and the context that its handler gets."""

    def __init__(self, connection: "ServerConnection", frame: Frame) -> None:
        _, number, method, metadata, timeout, payload = frame
        loop = connection.loop
        self.method: str = method
        self.task: asyncio.Task[None] | None = None
        self.incoming = Incoming(loop, connection.wire, number)
        self.outgoing = Outgoing(loop, connection.wire, number)
        self.client_gone = False
        self._running = False
        self.request_deserializer: Callable[[bytes], Any] | None = None
        self.response_serializer: Callable[[Any], bytes] | None = None
        self._connection = connection
        self._loop = loop
        self._number: int = number
        self._metadata: tuple[Any, ...] = metadata
        self._deadline: float | None = None
        self._entry = 0
        self._status_sent = False
        self._headers_sent = False
        self._abort: BaseException | None = None
        self._code: Any = None
        self._details = ""
        self._trailing: tuple[Any, ...] = ()
        self._callbacks: list[Callable[[], Any]] = []
        if timeout is not None:
            self._deadline = loop.time() + timeout
            self._entry = connection.deadlines.add(self._deadline, self)
        if payload is not None:
            self.incoming.put(payload)
            self.incoming.end()

    # ---- what handlers use

    async def read(self) -> Any:
        """Give the next request, or EOF."""
        self._check()
        payload = await self.incoming.get()
        self._check()
        if payload is None:
            return EOF
        return payload if self.request_deserializer is None else self.request_deserializer(payload)

    async def write(self, message: Any) -> None:
        """Send a response. ExecuteBatchError where the client is gone."""
        self._check()
        payload = message if self.response_serializer is None else self.response_serializer(message)
        if self.client_gone:
            raise ExecuteBatchError('Failed "execute_batch": the client is gone')
        if not self._headers_sent:
            self._send_headers(())
        await self.outgoing.send(payload)

    def _check(self) -> None:
        if self._abort is not None:
            raise self._abort
        if self._status_sent:
            raise cygrpc.UsageError("RPC already finished.")

    def _send_headers(self, metadata: tuple[Any, ...]) -> None:
        self._headers_sent = True
        self._connection.wire.send((HEADERS, self._number, metadata))

    async def send_initial_metadata(self, metadata: Any) -> None:
        self._check()
        if self._headers_sent:
            raise cygrpc.UsageError("Send initial metadata failed: already sent")
        self._send_headers(tuple(metadata))

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> None:
        """End the call with this status; raises AbortError."""
        if self._abort is not None:
            raise cygrpc.UsageError("Abort already called!")
        self._abort = cygrpc.AbortError("Locally aborted.")
        self._trailing = tuple(trailing_metadata) or self._trailing
        self._details = details or self._details
        self._code = code
        if self.client_gone:
            raise ExecuteBatchError('Failed "execute_batch": the client is gone')
        self.send_status(code, self._details, self._trailing)
        raise self._abort

    async def abort_with_status(self, status: Any) -> None:
        await self.abort(status.code, status.details, status.trailing_metadata)

    def set_trailing_metadata(self, metadata: Any) -> None:
        self._trailing = tuple(metadata)

    def trailing_metadata(self) -> tuple[Any, ...]:
        return self._trailing

    def invocation_metadata(self) -> tuple[Any, ...]:
        return self._metadata

    def set_code(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> Any:
        return self._code

    def set_details(self, details: str) -> None:
        self._details = details

    def details(self) -> str:
        return self._details

    def set_compression(self, compression: Any) -> None:
        """Nothing is compressed."""

    def disable_next_message_compression(self) -> None:
        """Nothing is compressed."""

    def peer(self) -> str:
        return f"ipv4:{self._connection.end.peer.host}:0"

    def peer_identities(self) -> None:
        return None

    def peer_identity_key(self) -> None:
        return None

    def auth_context(self) -> dict[str, Any]:
        return {}

    def time_remaining(self) -> float | None:
        return None if self._deadline is None else max(self._deadline - self._loop.time(), 0)

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._callbacks.append(functools.partial(callback, self))

    def done(self) -> bool:
        return self._status_sent

    def cancelled(self) -> bool:
        return self._code is grpc.StatusCode.CANCELLED

    # ---- the run of the handler

    def send_status(self, code: Any, details: str, trailing: tuple[Any, ...], payload: bytes | None = None) -> None:
        """Say how the call ended, for a unary response together with it."""
        if not self._status_sent:
            self._status_sent = True
            self._connection.wire.send((STATUS, self._number, code, details, trailing, payload))

    async def run(self, server: "SimServer") -> None:
        """Find the handler and perform it."""
        self._running = True
        try:
            handler = server.resolved.get(self.method)
            if handler is None:
                handler = await server.resolve(self.method, self._metadata)
            if handler is None:
                self.send_status(grpc.StatusCode.UNIMPLEMENTED, "Method not found!", ())
                return
            await self._perform(handler)
        except cygrpc.AbortError:
            return
        except asyncio.CancelledError:
            return  # without a status, as in gRPC
        except Exception as error:  # noqa: BLE001  the boundary: what escapes a handler is its client's to know
            self._escaped(error)
        finally:
            self._finished()

    async def _perform(self, handler: Any) -> None:
        self.request_deserializer = handler.request_deserializer
        self.response_serializer = handler.response_serializer
        request: Any
        if handler.request_streaming:
            request = _Requests(self)
            function = handler.stream_stream if handler.response_streaming else handler.stream_unary
        else:
            request = await self.read()
            if request is EOF:
                return
            function = handler.unary_stream if handler.response_streaming else handler.unary_unary
        if not handler.response_streaming:
            response = await function(request, self)
            self._check()
            encode = self.response_serializer
            if self._code in {None, grpc.StatusCode.OK}:
                self._answer(response if encode is None else encode(response))
            else:
                self._answer(None)
            return
        if inspect.isasyncgenfunction(function):
            async for message in function(request, self):
                await self.write(message)
        else:
            await function(request, self)
        self._check()
        self._answer(None)

    def _answer(self, payload: bytes | None) -> None:
        self.send_status(self._code or grpc.StatusCode.OK, self._details, self._trailing, payload)

    def _escaped(self, error: Exception) -> None:
        if isinstance(error, ExecuteBatchError) and self.client_gone:
            return
        LOG.exception("Unexpected [%s] raised by servicer method [%s]", type(error).__name__, self.method)
        code = self._code if self._code not in {None, grpc.StatusCode.OK} else grpc.StatusCode.UNKNOWN
        self.send_status(code, f"Unexpected {type(error)}: {error}", self._trailing)

    def _finished(self) -> None:
        if self._entry:
            self._connection.deadlines.remove(self._entry)
        if self._status_sent:
            self._connection.calls.pop(self._number, None)
        self._connection.server.active.pop(self, None)
        for callback in self._callbacks:
            callback()

    # ---- the client's end

    def expire(self) -> None:
        """The client's deadline has come."""
        self.leave()

    def leave(self) -> None:
        """The client is gone, or wants no answer any more."""
        self._connection.calls.pop(self._number, None)
        if self.client_gone:
            return
        self.client_gone = True
        self.outgoing.end()
        self.incoming.end(discard=True)
        if self.task is not None and not self._status_sent:
            self.task.cancel()
            if not self._running:  # cancelled before its first step: `run` is never entered
                self._finished()

    def refuse(self) -> None:
        """The server cancels the call."""
        if not self._status_sent:
            self._connection.wire.send(
                (STATUS, self._number, grpc.StatusCode.UNAVAILABLE, "Cancelling all calls", (), None)
            )
        self.leave()


class _Requests:
    """The request iterator of a streaming handler."""

    def __init__(self, call: ServerCall) -> None:
        self._call = call

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        message = await self._call.read()
        if message is EOF:
            raise StopAsyncIteration
        return message
