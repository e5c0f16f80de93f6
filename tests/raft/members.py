"""Three or more real RaftNodes over real gRPC on loopback, in one process. For tests of the whole of consensus.

Leadership may move at any time: a process that is not scheduled for a second, or a slow sync, is enough. So commands
are submitted by `Members.submit`, which goes on until one is applied, and ledgers are checked by `Members.applied`.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import grpc.aio

from penstock.internal.v1 import raft_pb2_grpc
from penstock.raft.cluster import Applied, OutcomeUnknown, RaftConfig, RaftNode, SubmitRefused
from penstock.raft.journal import RaftJournal

T = TypeVar("T")
WAIT_S = 60.0
RETRY_S = 0.01


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
        self.config = {"election_timeout_s": (0.3, 0.6), "heartbeat_s": 0.05} | config
        self.members = {node_id: Member(node_id, root, **self.config) for node_id in range(1, count + 1)}
        self.attempts: Counter[bytes] = Counter()

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
        async with asyncio.timeout(WAIT_S):
            while True:
                for member in self.members.values():
                    if member.server is not None and member.node.is_leader:
                        return member
                await asyncio.sleep(0.01)  # leadership is announced on each node's own list; polling is simpler here

    async def restart(self, member: Member) -> None:
        await member.bind()
        await member.run(self.voters)

    async def submit(self, member: Member, command: bytes) -> Applied:
        """Submit there until it is known to be applied. What is of unknown outcome may be applied once an attempt."""

        async def attempt() -> Applied:
            self.attempts[command] += 1
            try:
                return await member.node.submit(command, WAIT_S)
            except SubmitRefused:
                self.attempts[command] -= 1
                raise

        return await settled(attempt)

    def applied(self, member: Member) -> list[bytes]:
        """The commands that it has applied, each where it was applied first; none is there without an attempt."""
        for command, count in Counter(member.ledger.commands).items():
            assert count <= self.attempts[command], f"{command[:20]!r} was applied {count} times"
        return list(dict.fromkeys(member.ledger.commands))

    async def hand_over(self, to: int) -> None:
        """Have this node lead; whoever leads is asked as long as it takes, for another may win meanwhile."""
        async with asyncio.timeout(WAIT_S):
            while not self.members[to].node.is_leader:
                present = await self.leader()
                if present.node_id != to:
                    with contextlib.suppress(SubmitRefused, TimeoutError):
                        await present.node.transfer_leadership(to)
                    await asyncio.sleep(RETRY_S)


async def settled(work: Callable[[], Awaitable[T]]) -> T:
    """Do what may be repeated without harm until no change of leadership comes in between."""
    async with asyncio.timeout(WAIT_S):
        while True:
            with contextlib.suppress(OutcomeUnknown, SubmitRefused):
                return await work()
            await asyncio.sleep(RETRY_S)


async def until(condition: object, timeout_s: float = WAIT_S) -> None:
    """Wait until condition() holds."""
    assert callable(condition)
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  conditions of all kinds: there is no one event to wait for
            await asyncio.sleep(RETRY_S)
