"""The serving side of the simulated gRPC: a look-alike of grpc.aio.Server and of its ServicerContext.

As grpc.aio 1.85 does (tried on loopback): an exception that escapes a handler is UNKNOWN "Unexpected <class ...>: ...";
a call whose client cancels, goes or runs out of time has its write fail with ExecuteBatchError, its read give EOF and
then its handler's task cancelled, in this order; a handler that is cancelled by its own side ends without a word, so
that the client waits on; `stop` cancels what is left with UNAVAILABLE "Cancelling all calls".
Unlike it: what the interceptors answer is asked once for each method.
"""

import asyncio
import functools
from collections.abc import Sequence
from typing import Any

import grpc

from tests.simulation.kernel.network import End, Network
from tests.simulation.kernel.rpc_context import ServerCall
from tests.simulation.kernel.rpc_wire import (
    CREDIT,
    GOAWAY,
    HALF_CLOSE,
    MESSAGE,
    RESET,
    SETTINGS,
    START,
    STATUS,
    Deadlines,
    Frame,
    Wire,
    cygrpc,
    pass_turn,
)

FIRST_FREE_PORT = 50_000


class HandlerCallDetails(grpc.HandlerCallDetails):
    """What an interceptor gets to know of a call."""

    def __init__(self, method: str, invocation_metadata: tuple[Any, ...]) -> None:
        self.method = method
        self.invocation_metadata = invocation_metadata


class ServerConnection:
    """One connection that was accepted, and its calls."""

    def __init__(self, server: "SimServer", end: End, loop: asyncio.AbstractEventLoop) -> None:
        self.server = server
        self.end = end
        self.loop = loop
        self.wire = Wire(server.network, loop, end)
        self.calls: dict[int, ServerCall] = {}
        self.deadlines = Deadlines(loop)
        self.wire.open(self._take, self._lost)
        loop.call_soon(self.wire.send, (SETTINGS, 0))

    def _take(self, frame: Frame) -> None:
        kind, number = frame[0], frame[1]
        if kind == START:
            if self.server.is_stopping:
                self.wire.send((STATUS, number, grpc.StatusCode.UNAVAILABLE, "GOAWAY received", (), None))
                return
            call = self.calls[number] = ServerCall(self, frame)
            self.server.active[call] = None
            call.task = self.loop.create_task(call.run(self.server))
            return
        known = self.calls.get(number)
        if known is None:
            return
        if kind == MESSAGE:
            known.incoming.put(frame[2])
        elif kind == CREDIT:
            known.outgoing.credit(frame[2], frame[3])
        elif kind == HALF_CLOSE:
            known.incoming.end()
        elif kind == RESET:
            known.leave()

    def _lost(self, _: str) -> None:
        self.server.connections.pop(self, None)
        self.deadlines.close()
        for call in list(self.calls.values()):
            call.leave()


class SimServer:
    """See the module. `host` is the name of the process; addresses name the port only."""

    def __init__(self, network: Network, host: str, interceptors: Sequence[Any] = ()) -> None:
        self.network = network
        self.host = host
        self.resolved: dict[str, Any] = {}
        """Handlers by method, wrapped by the interceptors."""
        self.active: dict[ServerCall, None] = {}
        """Calls whose handler has not ended."""
        self.connections: dict[ServerConnection, None] = {}
        self.is_stopping = False
        self._interceptors = tuple(interceptors)
        self._generic: list[Any] = []
        self._registered: dict[str, Any] = {}
        self._ports: list[int] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._backlog: list[End] = []
        self._stopped = False

    # ---- before the start

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[Any]) -> None:
        self._generic.extend(generic_rpc_handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: dict[str, Any]) -> None:
        for name, handler in method_handlers.items():
            self._registered[f"/{service_name}/{name}"] = handler

    def add_insecure_port(self, address: str) -> int:
        """Listen on this process's host. RuntimeError where the port is taken; port 0 takes a free one."""
        port = int(address.rpartition(":")[2])
        if port == 0:
            port = FIRST_FREE_PORT
            while self.network.is_listening(self.host, port):
                port += 1
        if self.network.is_listening(self.host, port):
            raise RuntimeError(
                f"Failed to bind to address {address}; set GRPC_VERBOSITY=debug to see detailed message."
            )
        self.network.listen(self.host, port, self._accept)
        self._ports.append(port)
        return port

    def _accept(self, end: End) -> None:
        loop = self._loop
        if loop is None:
            self._backlog.append(end)
        elif loop.is_closed():
            end.close("connection reset")
        else:
            self.connections[ServerConnection(self, end, loop)] = None

    # ---- life

    async def start(self) -> None:
        """Serve, on the running loop."""
        if self._stopped:
            raise cygrpc.UsageError("Server not in ready state")
        self._loop = asyncio.get_running_loop()
        backlog, self._backlog = self._backlog, []
        for end in backlog:
            self._accept(end)

    async def stop(self, grace: float | None) -> None:
        """Take no more calls and cancel those that do not end within `grace` seconds; handlers end a little later."""
        if self._loop is None or self._stopped:
            return
        self.is_stopping = True
        for port in self._ports:
            self.network.unlisten(self.host, port)
        for connection in self.connections:
            connection.wire.send((GOAWAY, 0))
        if grace is not None and self.active:
            await asyncio.wait(self._tasks(), timeout=grace)
        for connection in self.connections:
            for call in list(connection.calls.values()):
                call.refuse()
        self._stopped = True
        await pass_turn()
        for connection in list(self.connections):
            connection.wire.close()
        self.connections.clear()

    def _tasks(self) -> "list[asyncio.Task[None]]":
        return [call.task for call in self.active if call.task is not None]

    async def wait_for_termination(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109  grpc's name
        raise NotImplementedError("stop the process instead")

    # ---- handlers

    async def resolve(self, method: str, metadata: tuple[Any, ...]) -> Any:
        """Find the handler of a method through the interceptors."""
        handler = await self._intercept(0, HandlerCallDetails(method, metadata))
        if handler is not None:
            self.resolved[method] = handler
        return handler

    async def _intercept(self, index: int, details: Any) -> Any:
        if index == len(self._interceptors):
            return self._find(details)
        following = functools.partial(self._intercept, index + 1)
        return await self._interceptors[index].intercept_service(following, details)

    def _find(self, details: Any) -> Any:
        handler = self._registered.get(details.method)
        if handler is not None:
            return handler
        for generic in self._generic:
            handler = generic.service(details)
            if handler is not None:
                return handler
        return None
