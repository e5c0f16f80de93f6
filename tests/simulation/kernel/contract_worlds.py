"""The two worlds of the contract tests: real grpc.aio on loopback, and the look-alike in virtual time.

A scenario is one coroutine that runs as the client. It starts and stops the server through the world.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from penstock.node.api.status import StatusInterceptor
from penstock.node.peers import CHANNEL_OPTIONS
from tests.simulation.kernel.loop import SimLoop
from tests.simulation.kernel.network import Network
from tests.simulation.kernel.rpc import SimChannel, SimServer
from tests.simulation.kernel.scheduler import Scheduler

LIMIT_S = 30.0


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    while not condition():  # noqa: ASYNC110  what it waits for happens in another process
        await asyncio.sleep(0.002)


class RealWorld:
    """grpc.aio on loopback."""

    def __init__(self) -> None:
        self._port = 0
        self._channels: list[Any] = []
        self._server: Any = None

    def run(self, scenario: Callable[["RealWorld"], Awaitable[None]]) -> None:
        async def whole() -> None:
            async with asyncio.timeout(LIMIT_S):
                try:
                    await scenario(self)
                finally:
                    for channel in self._channels:
                        await channel.close()
                    await self.stop(None)

        asyncio.run(whole())

    async def start(self, *handlers: Any, with_status: bool = False) -> None:
        interceptors = (StatusInterceptor(),) if with_status else ()
        self._server = grpc.aio.server(interceptors=interceptors, options=(("grpc.so_reuseport", 0),))
        self._server.add_generic_rpc_handlers(handlers)
        self._port = self._server.add_insecure_port(f"127.0.0.1:{self._port}")
        await self._server.start()

    async def stop(self, grace: float | None) -> None:
        if self._server is not None:
            await self._server.stop(grace)

    async def reserve(self) -> None:
        """Know a port that refuses connections."""
        await self.start()
        await self.stop(None)

    def channel(self) -> Any:
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{self._port}", CHANNEL_OPTIONS)
        self._channels.append(channel)
        return channel


class SimWorld:
    """The look-alike: a client process "c" and a server process "s"."""

    def __init__(self, seed: int = 1) -> None:
        self.scheduler = Scheduler(seed)
        self.network = Network(self.scheduler, self.scheduler.rng("network"))
        rng = self.scheduler.rng("lag")
        self.client = SimLoop(self.scheduler, "c", lambda: 1e-5 + 1e-4 * rng.random())
        self.served = SimLoop(self.scheduler, "s", lambda: 1e-5 + 1e-4 * rng.random())
        self.server: SimServer | None = None

    def run(self, scenario: Callable[["SimWorld"], Awaitable[None]]) -> None:
        async def whole() -> None:
            async with asyncio.timeout(LIMIT_S):
                await scenario(self)

        task = self.client.run(self.client.create_task, whole())
        self.scheduler.run_until(self.scheduler.now + 2 * LIMIT_S, task.done)
        task.result()
        assert not self.client.errors
        assert not self.served.errors
        self.client.close()
        self.served.close()

    async def on_server(self, work: Any) -> None:
        """Run a coroutine as the server's process."""
        task = self.served.create_task(work)
        await until(task.done)
        task.result()

    async def start(self, *handlers: Any, with_status: bool = False) -> None:
        self.server = server = SimServer(self.network, "s", (StatusInterceptor(),) if with_status else ())
        server.add_generic_rpc_handlers(handlers)
        server.add_insecure_port("0.0.0.0:7000")
        await self.on_server(server.start())

    async def stop(self, grace: float | None) -> None:
        assert self.server is not None
        await self.on_server(self.server.stop(grace))

    async def reserve(self) -> None:
        """Know a port that refuses connections: any."""

    def channel(self) -> Any:
        return SimChannel(self.network, "c", "s:7000", CHANNEL_OPTIONS)
