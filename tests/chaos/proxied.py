"""Nodes that only echo, behind the real Toxiproxy: what the tests of links and of their faults share."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from penstock.chaos.cluster import Action
from penstock.chaos.links import Link, Links
from penstock.chaos.roles import Roles
from penstock.chaos.toxics import OURS
from penstock.chaos.toxiproxy import ToxiproxyMissingError, ToxiproxyServer, find_binary

PATIENCE_S = 60.0


def binary() -> Path:
    """Find Toxiproxy; skip the test where there is none."""
    try:
        return find_binary()
    except ToxiproxyMissingError as error:
        pytest.skip(str(error))


def started(folder: Path) -> Iterator[ToxiproxyServer]:
    """Start a server for a fixture."""
    binary()
    server = ToxiproxyServer.start(folder / "toxiproxy.log")
    try:
        yield server
    finally:
        server.close()


class Echo:
    """A node: sends back what it gets, and remembers how much that was."""

    def __init__(self) -> None:
        self.received = 0
        self.address = ""
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await until(self._is_idle)

    async def _is_idle(self) -> bool:
        return not self._writers

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                self.received += len(data)
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
        self._writers.discard(writer)


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    @contextlib.asynccontextmanager
    async def to(cls, address: str) -> "AsyncIterator[Client]":
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            yield cls(reader, writer)
        finally:
            writer.transport.abort()

    async def echo(self, data: bytes = b"hello") -> None:
        """Send, and wait for the echo."""
        self.writer.write(data)
        async with asyncio.timeout(PATIENCE_S):
            assert await self.reader.readexactly(len(data)) == data

    async def end(self) -> bytes:
        """Wait for the end of the connection; what came before it."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.read()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until an async condition holds, for a minute."""
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():  # noqa: ASYNC110  it is the state of other processes
            await asyncio.sleep(0.01)


def disturbed(server: ToxiproxyServer, links: Links) -> dict[Link, object]:
    """Ask Toxiproxy itself: "refuse", or our toxics as (kind, stream), of each link that is not as it should be."""
    found: dict[Link, object] = {}
    for link in links.all:
        shown = server.api.get(f"/proxies/{link}")
        toxics = {(toxic["type"], toxic["stream"]) for toxic in shown["toxics"] if toxic["name"].startswith(OURS)}
        if not shown["enabled"] or toxics:
            found[link] = toxics if shown["enabled"] else "refuse"
    return found


class EchoCluster:
    """A Cluster whose nodes echo: for faults that do nothing to the nodes themselves."""

    def __init__(self, nodes: dict[int, Echo]) -> None:
        self.nodes = nodes
        self.down: set[int] = set()

    @property
    def node_ids(self) -> tuple[int, ...]:
        return tuple(self.nodes)

    @property
    def voters(self) -> tuple[int, ...]:
        return tuple(self.nodes)

    @property
    def bootstrap(self) -> str:
        return ",".join(node.address for node in self.nodes.values())

    def client_address(self, node_id: int) -> str:
        return self.nodes[node_id].address

    def peer_address(self, node_id: int) -> str | None:
        return self.nodes[node_id].address

    def missing(self, action: Action) -> str | None:
        return f"{action}: these nodes only echo"

    async def do(self, action: Action, node_id: int) -> None:
        raise AssertionError(f"{action} of node {node_id}: faults of links leave nodes alone")

    async def is_running(self, node_id: int) -> bool:
        return node_id not in self.down

    def data_dir(self, node_id: int) -> Path | None:
        return None

    def log_path(self, node_id: int) -> Path | None:
        return None


class KnownRoles(Roles):
    """Node 1 leads, node 2 controls: echoing nodes cannot be asked."""

    async def controller(self) -> int | None:
        return 2

    async def busiest_leader(self) -> int | None:
        return 1
