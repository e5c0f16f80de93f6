"""Three or more real RaftNodes over real gRPC on loopback, in one process. For tests of the whole of consensus."""

import asyncio
from pathlib import Path

import grpc.aio

from penstock.internal.v1 import raft_pb2_grpc
from penstock.raft.cluster import RaftConfig, RaftNode
from penstock.raft.journal import RaftJournal


class Ledger:
    """A state machine that remembers all commands, and answers how many there are."""

    def __init__(self) -> None:
        self.commands: list[bytes] = []
        self.index = 0

    def apply(self, index: int, command: bytes) -> bytes:
        assert index > self.index
        self.index = index
        self.commands.append(command)
        return str(len(self.commands)).encode()

    def snapshot(self) -> bytes:
        return b"\n".join(self.commands)

    def restore(self, index: int, data: bytes) -> None:
        self.index = index
        self.commands = data.split(b"\n") if data else []


class Member:
    """One node: its server, its RaftNode, its directory. May be started and stopped again and again."""

    def __init__(self, node_id: int, root: Path, **config: object) -> None:
        self.node_id = node_id
        self.root = root / f"node{node_id}"
        self.config = config
        self.port = 0
        self.node: RaftNode
        self.ledger: Ledger
        self.server: grpc.aio.Server | None = None

    def format(self, *, founding: bool = True, cluster_id: str = "test") -> None:
        RaftJournal.format(self.root / "raft", cluster_id, self.node_id, founding)

    async def bind(self) -> None:
        """Start the listener, to learn the port; consensus answers UNAVAILABLE until `run`."""
        self.ledger = Ledger()
        self._servicer_holder = RaftNode(RaftConfig(self.node_id, self.root, {}), self.ledger)
        self.server = grpc.aio.server()
        self.proxy = self._servicer_holder.servicer()
        raft_pb2_grpc.add_RaftServiceServicer_to_server(self.proxy, self.server)
        self.port = self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self.server.start()

    async def run(self, voters: dict[int, str]) -> None:
        config = RaftConfig(self.node_id, self.root, voters, **self.config)  # type: ignore[arg-type]
        self.node = RaftNode(config, self.ledger)
        self.node._servicer = self.proxy
        await self.node.start()

    async def stop(self) -> None:
        await self.node.stop()
        if self.server is not None:
            await self.server.stop(None)
            self.server = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


class Members:
    """A cluster of them."""

    def __init__(self, root: Path, count: int = 3, **config: object) -> None:
        self.root = root
        self.config = {"election_timeout_s": (0.15, 0.3), "heartbeat_s": 0.03} | config
        self.members = {node_id: Member(node_id, root, **self.config) for node_id in range(1, count + 1)}

    async def __aenter__(self) -> "Members":
        for member in self.members.values():
            member.format()
            await member.bind()
        for member in self.members.values():
            await member.run(self.voters)
        return self

    async def __aexit__(self, *_: object) -> None:
        for member in self.members.values():
            if member.server is not None:
                await member.stop()

    @property
    def voters(self) -> dict[int, str]:
        return {member.node_id: member.address for member in self.members.values()}

    async def leader(self) -> Member:
        async with asyncio.timeout(20):
            while True:
                for member in self.members.values():
                    if member.server is not None and member.node.is_leader:
                        return member
                await asyncio.sleep(0.01)  # leadership is announced on each node's own list; polling is simpler here

    async def restart(self, member: Member) -> None:
        await member.bind()
        await member.run(self.voters)


async def until(condition: object, timeout_s: float = 20.0) -> None:
    """Wait until condition() holds."""
    assert callable(condition)
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  conditions of all kinds: there is no one event to wait for
            await asyncio.sleep(0.01)
