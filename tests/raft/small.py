"""Machines driven by hand: virtual time, a network that delivers when told, journals in memory."""

import random
from collections import deque
from collections.abc import Sequence
from typing import Any

import pysyncobj.syncobj as library
import pytest

from penstock.raft.core import COMMAND, Settings
from penstock.raft.journal import RaftJournal
from penstock.raft.machine import Connected, Disconnected, RaftMachine, Received, Submission
from penstock.raft.membership import Membership
from penstock.raft.outbox import Message, Outbox
from tests.simulation.consensus.disk import MemoryDisk


class Recorder:
    """A state machine that keeps its commands; `fails` is raised by the next apply."""

    def __init__(self) -> None:
        self.commands: list[bytes] = []
        self.fails: BaseException | None = None

    def apply(self, index: int, command: bytes) -> bytes:
        if self.fails is not None:
            raise self.fails
        self.commands.append(command)
        return b"%d" % len(self.commands)

    def snapshot(self) -> bytes:
        return b"\n".join(self.commands)

    def restore(self, index: int, data: bytes) -> None:
        self.commands = data.split(b"\n") if data else []


class Peer:
    """One machine and its wire."""

    def __init__(self, bench: "Bench", node_id: int, disk: MemoryDisk, machine: type[RaftMachine]) -> None:
        self.bench = bench
        self.id = node_id
        self.disk = disk
        self.sent: deque[tuple[int, Message]] = deque()
        self.full = False
        self.recorder = Recorder()
        self.journal = bench.journal(disk)
        self.answers: list[tuple[Any, int]] = []
        bench.starts += 1
        rng = random.Random(bench.starts)
        self.machine: Any = machine(bench.settings(node_id), self.journal, Outbox(self), self.recorder, rng)

    def post(self, batch: Sequence[tuple[int, Message]]) -> None:
        self.sent.extend(batch)

    def has_room(self, peer: int) -> bool:
        return not self.full

    def set_voters(self, addresses: dict[int, str]) -> None:
        pass

    def round(self, *events: Any) -> None:
        self.machine.round(events)

    def receive(self, sender: int, message: Message) -> None:
        self.round(Received(sender, message))

    def submit(self, command: bytes, kind: bytes = COMMAND) -> None:
        self.round(Submission(kind + command, lambda result, reason: self.answers.append((result, reason))))


class Bench:
    """Some machines, connected."""

    def __init__(self, patch: pytest.MonkeyPatch, machine: type[RaftMachine] = RaftMachine, count: int = 3) -> None:
        self.now = 1000.0
        self.starts = 0
        patch.setattr(library, "monotonicTime", lambda: self.now)
        self.machine = machine
        self.journal: type[RaftJournal] = RaftJournal
        self.options: dict[str, Any] = {}
        self.founders = Membership.of({node_id: f"n{node_id}" for node_id in range(1, count + 1)})
        self.disks: dict[int, MemoryDisk] = {}
        self.peers: dict[int, Peer] = {}
        self.cut: set[tuple[int, int]] = set()

    def settings(self, node_id: int) -> Settings:
        return Settings(node_id, self.founders, election_timeout_s=(0.4, 0.8), heartbeat_s=0.1, **self.options)

    def start(self, *node_ids: int, founding: bool = True) -> None:
        """Start (again) these nodes and connect all to all."""
        for node_id in node_ids:
            disk = self.disks.setdefault(node_id, MemoryDisk(node_id, bytes([node_id]) * 16, founding=founding))
            self.peers[node_id] = Peer(self, node_id, disk, self.machine)
        for peer in self.peers.values():
            for other in self.peers:
                if other != peer.id and (other in node_ids or peer.id in node_ids):
                    peer.round(Connected(other))

    def isolate(self, node_id: int) -> None:
        for other in self.peers:
            if other != node_id:
                self.cut |= {(node_id, other), (other, node_id)}
                self.peers[other].round(Disconnected(node_id))
                self.peers[node_id].round(Disconnected(other))

    def rejoin(self, node_id: int) -> None:
        for other in self.peers:
            if other != node_id:
                self.cut -= {(node_id, other), (other, node_id)}
                self.peers[other].round(Connected(node_id))
                self.peers[node_id].round(Connected(other))

    def deliver(self) -> int:
        """Deliver what was sent until nothing is under way. Returns how many messages."""
        count = 0
        while any(peer.sent for peer in self.peers.values()):
            for peer in list(self.peers.values()):
                while peer.sent:
                    receiver, message = peer.sent.popleft()
                    if receiver in self.peers and (peer.id, receiver) not in self.cut:
                        count += 1
                        self.peers[receiver].receive(peer.id, message)
        return count

    def run(self, seconds: float, step: float = 0.02) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += step
            for peer in list(self.peers.values()):
                peer.round()
            self.deliver()

    def elect(self, node_id: int) -> Peer:
        """Let this node win an election."""
        for peer in self.peers.values():
            peer.machine._SyncObj__raftElectionDeadline = self.now + (0.0 if peer.id == node_id else 9.0)
            peer.machine._leader_heard_at = float("-inf")
        self.run(0.2)
        assert self.peers[node_id].machine._isLeader()
        return self.peers[node_id]
