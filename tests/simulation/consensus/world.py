"""A world: virtual time, some nodes, the network, clients, and a plan of faults, all from one seed.

A node is the real machine on the real journal over a simulated disk. It runs a round when something arrives (not at
once: what arrives in between is taken together) and when its next deadline is due, as the consensus thread does.
"""

import heapq
import random
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pysyncobj.syncobj as library

from penstock.raft import messages
from penstock.raft.core import COMMAND, MEMBERSHIP, Settings
from penstock.raft.journal import RaftJournal
from penstock.raft.machine import DEFINITE, Connected, Disconnected, Event, RaftMachine, Received, Submission
from penstock.raft.membership import Change, Membership, Voter
from penstock.raft.outbox import Message, Outbox
from tests.simulation.consensus.disk import MemoryDisk, MirroredDisk, PowerLoss
from tests.simulation.consensus.invariants import Invariants, Violation
from tests.simulation.consensus.network import Network

HEAL_BOUND_S = 12.0  # after healing, everything has converged and serves within this
_DIGEST = struct.Struct(">QI")
_FAULTS = {
    "crash": 5,
    "power": 5,
    "bounce": 5,
    "storm": 5,
    "all": 1,
    "start": 14,
    "cut": 6,
    "heal": 10,
    "isolate": 5,
    "pause": 4,
}


@dataclass(frozen=True)
class Options:
    """What a world is like. `of` derives them from the seed."""

    voters: int = 3
    observers: int = 0
    seconds: float = 20.0
    snapshot_entries: int = 1_000_000
    snapshot_tail: int = 0
    batch_entries: int = 4096
    chunk_bytes: int = 64
    faults_per_s: float = 1.0
    commands_per_s: float = 4.0
    slow_network: bool = False
    codec: bool = False
    machine: type[RaftMachine] = RaftMachine  # the mutants' tests put others in place
    journal: type[RaftJournal] = RaftJournal
    outbox: type[Outbox] = Outbox
    lmdb: Path | None = None  # also keep each journal in LMDB, below this folder

    @classmethod
    def of(cls, seed: int, **given: Any) -> "Options":
        rng = random.Random(seed ^ 0x5EED)
        drawn: dict[str, Any] = {
            "voters": 5 if rng.random() < 0.15 else 3,
            "observers": 2 if rng.random() < 0.2 else 0,
            "batch_entries": rng.choice((1, 3, 4096)),
            "slow_network": rng.random() < 0.5,
            "codec": rng.random() < 0.1,
            "faults_per_s": rng.choice((0.4, 1.0, 2.0)),
            "commands_per_s": rng.choice((2.0, 4.0, 8.0)),
        }
        if rng.random() < 0.6:
            drawn |= {"snapshot_entries": rng.choice((5, 12, 40)), "snapshot_tail": rng.choice((0, 3, 10))}
        return cls(**(drawn | given))


class Ledger:
    """The replicated state: how many commands, and a digest over them."""

    def __init__(self, node: "Node") -> None:
        self.node = node
        self.count = 0
        self.digest = 0

    def apply(self, index: int, command: bytes) -> bytes:
        self.count += 1
        self.digest = zlib.crc32(command, self.digest)
        self.node.world.invariants.on_apply(self.node, index, command, self.digest)
        return b""

    def snapshot(self) -> bytes:
        return _DIGEST.pack(self.count, self.digest) + b"." * 200

    def restore(self, index: int, data: bytes) -> None:
        self.count, self.digest = _DIGEST.unpack_from(data)
        self.node.world.invariants.on_restore(self.node, index, self.digest)


class Node:
    """One node, up or down. A Wire for its own machine."""

    def __init__(self, world: "World", node_id: int, *, founding: bool) -> None:
        self.world = world
        self.id = node_id
        self.disk = self._make_disk(founding=founding)
        self.up = False
        self.generation = 0

    def _make_disk(self, *, founding: bool) -> MemoryDisk:
        journal_id, path = self.world.draw_bytes(), self.world.options.lmdb
        if path is None:
            return MemoryDisk(self.id, journal_id, founding=founding)
        return MirroredDisk(self.id, journal_id, founding=founding, path=path)

    def start(self) -> None:
        world = self.world
        self.generation += 1
        self.up = True
        self.inbox: list[Event] = []
        self.round_at = float("inf")
        self.paused_until = 0.0
        self.dialed: set[int] = set()
        self.led_term = -1
        self.journal = world.options.journal(self.disk)
        rng = random.Random(world.rng.getrandbits(64))
        outbox = world.options.outbox(self)
        self.machine = world.options.machine(world.settings(self.id), self.journal, outbox, Ledger(self), rng)
        self.seen_commit = self.machine.raftLastApplied
        self.schedule(world.now)

    def stop(self) -> None:
        """The process is gone; so is all that was not on disk."""
        self.up = False
        self.generation += 1
        self.inbox = []

    # --- rounds ------------------------------------------------------------------------------------------------------

    def schedule(self, time: float) -> None:
        time = max(time, self.paused_until)
        if time < self.round_at:
            self.round_at = time
            self.world.at(time, self._round, self.generation, time)

    def take(self, event: Event) -> None:
        self.inbox.append(event)
        self.schedule(self.world.now + 0.0005)

    def _round(self, generation: int, time: float) -> None:
        if generation != self.generation or time != self.round_at:
            return
        self.round_at = float("inf")
        if time < self.paused_until:
            self.schedule(self.paused_until)
            return
        events, self.inbox = self.inbox, []
        world, machine = self.world, self.machine
        try:
            machine.round(events)
        except PowerLoss:
            world.lose(self, silently=True)
            return
        world.invariants.after_round(self)
        world.trace(self.id, machine.raftCurrentTerm, machine.raftCommitIndex, self.journal.last_index)
        self.schedule(world.now + 0.0001 if machine.busy else self._next_deadline())

    def _next_deadline(self) -> float:
        machine: Any = self.machine
        if machine._isLeader():
            return machine._SyncObj__newAppendEntriesTime + 1e-6  # type: ignore[no-any-return]
        return max(machine._SyncObj__raftElectionDeadline, self.world.now) + 1e-6  # type: ignore[no-any-return]

    # --- the machine's wire ------------------------------------------------------------------------------------------

    def post(self, batch: Sequence[tuple[int, Message]]) -> None:
        world = self.world
        for receiver, message in batch:
            world.invariants.on_send(self, receiver, message)
            world.network.send(self.id, receiver, messages.encode(message) if world.options.codec else message)

    def has_room(self, peer: int) -> bool:
        return self.world.network.has_stream(self.id, peer)

    def set_voters(self, addresses: dict[int, str]) -> None:
        """Dial all that are new; an observer is reached over the stream that it dialed, here: a stream of its own."""
        for peer in sorted(set(addresses) - self.dialed):
            self.world.dial_soon(self.id, peer)
            self.world.dial_soon(peer, self.id)
        self.dialed = set(addresses)


class World:
    """Runs one seed to its end. Raises Violation."""

    def __init__(self, seed: int, options: Options | None = None, *, record: bool = False) -> None:
        self.seed = seed
        self.options = options or Options.of(seed)
        self.rng = random.Random(seed)
        self.now = 1000.0
        self.hash = 0
        self.lines: list[str] | None = [] if record else None
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = 0
        self.submitted = 0
        self.invariants = Invariants()
        self.network = Network(self)
        self.network.slow = self.options.slow_network
        self.founders = Membership.of({node_id: f"n{node_id}" for node_id in range(1, self.options.voters + 1)})
        count = self.options.voters + self.options.observers
        self.nodes = {i: Node(self, i, founding=i <= self.options.voters) for i in range(1, count + 1)}

    # --- what all parts use ------------------------------------------------------------------------------------------

    def settings(self, node_id: int) -> Settings:
        options = self.options
        return Settings(
            node_id,
            self.founders,
            election_timeout_s=(0.65, 1.3),
            heartbeat_s=0.2,
            snapshot_entries=options.snapshot_entries,
            snapshot_tail=options.snapshot_tail,
            batch_entries=options.batch_entries,
            chunk_bytes=options.chunk_bytes,
        )

    def draw_bytes(self) -> bytes:
        return self.rng.getrandbits(128).to_bytes(16, "big")

    def at(self, time: float, function: Callable[..., None], *arguments: Any) -> None:
        self._sequence += 1
        heapq.heappush(self._events, (time, self._sequence, function, arguments))

    def trace(self, *facts: object) -> None:
        line = f"{self.now:.6f} {facts}"
        self.hash = zlib.crc32(line.encode(), self.hash)
        if self.lines is not None:
            self.lines.append(line)

    def is_up(self, node_id: int) -> bool:
        return self.nodes[node_id].up

    def notify(self, node_id: int, peer: int, *, up: bool) -> None:
        """Tell a node about its own stream to a peer."""
        node = self.nodes[node_id]
        if node.up:
            node.take(Connected(peer) if up else Disconnected(peer))
            if not up:
                self.dial_soon(node_id, peer)

    def deliver(self, receiver: int, sender: int, message: Any) -> None:
        node = self.nodes[receiver]
        if node.up:
            node.take(Received(sender, messages.decode(message) if self.options.codec else message))

    def dial_soon(self, sender: int, receiver: int) -> None:
        self.at(self.now + 0.02 + 0.1 * self.rng.random(), self.network.connect, sender, receiver)

    # --- faults ------------------------------------------------------------------------------------------------------

    def start(self, node: Node) -> None:
        if node.up:
            return
        self.trace("start", node.id)
        node.start()
        for peer in self.nodes:
            if peer != node.id:
                self.dial_soon(node.id, peer)
                self.dial_soon(peer, node.id)

    def lose(self, node: Node, *, silently: bool) -> None:
        if node.up:
            self.trace("lose", node.id, silently)
            node.stop()
            self.network.lose_node(node.id, silently=silently)

    def _some_fault(self) -> None:
        rng = self.rng
        nodes = list(self.nodes.values())
        kind = rng.choices(tuple(_FAULTS), tuple(_FAULTS.values()))[0]
        node = rng.choice(nodes)
        if rng.random() < 0.4:  # leaders are where it hurts
            node = next((other for other in nodes if other.up and other.machine._isLeader()), node)
        self.trace("fault", kind, node.id)
        getattr(self, f"_fault_{kind}")(node)

    def _fault_crash(self, node: Node) -> None:
        self.lose(node, silently=False)

    def _fault_power(self, node: Node) -> None:
        node.disk.armed = (self.rng.randrange(3), self.rng.random() < 0.5)

    def _fault_bounce(self, _: Node) -> None:
        """One or more processes die and are back at once, with the election still going on elsewhere."""
        for node in list(self.nodes.values()):
            if self.rng.random() < 0.5:
                self.lose(node, silently=False)
                self.at(self.now + 0.005 + 0.1 * self.rng.random(), self.start, node)

    def _fault_storm(self, _: Node) -> None:
        """All lose patience at about the same time; some power losses on top."""
        for node in self.nodes.values():
            if node.up:
                machine: Any = node.machine
                machine._SyncObj__raftElectionDeadline = self.now + 0.01 * self.rng.random()
                machine._leader_heard_at = float("-inf")
                node.schedule(machine._SyncObj__raftElectionDeadline + 1e-6)
                if self.rng.random() < 0.3:
                    self._fault_power(node)
                    self.at(self.now + 0.02 + 0.1 * self.rng.random(), self.start, node)

    def _fault_all(self, _: Node) -> None:
        for other in self.nodes.values():
            self.lose(other, silently=True)

    def _fault_start(self, _: Node) -> None:
        for other in self.nodes.values():
            self.start(other)

    def _fault_cut(self, node: Node) -> None:
        self._cut(node.id, self.rng.choice([peer for peer in self.nodes if peer != node.id]))

    def _fault_heal(self, _: Node) -> None:
        self._heal_network()

    def _fault_isolate(self, node: Node) -> None:
        for peer in self.nodes:
            if peer != node.id:
                self._cut(node.id, peer)

    def _fault_pause(self, node: Node) -> None:
        if node.up:
            node.paused_until = self.now + 2.5 * self.rng.random()

    def _cut(self, one: int, other: int) -> None:
        directions = self.rng.choice(([(one, other)], [(other, one)], [(one, other), (other, one)]))
        hang = self.rng.random() < 0.5
        for sender, receiver in directions:
            self.network.cut(sender, receiver, hang=hang)

    def _heal_network(self) -> None:
        for sender, receiver in sorted(self.network.cuts):
            self.network.heal(sender, receiver)

    # --- clients and operators ---------------------------------------------------------------------------------------

    def submit(self, node: Node, timeout_s: float = 3.0) -> bytes:
        self.submitted += 1
        command = b"%d" % self.submitted
        submission = Submission(COMMAND + command, lambda result, reason: self._answer(command, result, reason))
        node.take(submission)
        self.at(self.now + timeout_s, self._take_back, submission, command)
        return command

    def _answer(self, command: bytes, result: tuple[int, bytes] | None, reason: int) -> None:
        if result is not None:
            self.invariants.on_answer(command, result[0])
        elif reason in DEFINITE:
            self.invariants.on_answer(command, None)

    def _take_back(self, submission: Submission, command: bytes) -> None:
        if submission.claim():
            self.invariants.on_answer(command, None)

    def _change_membership(self) -> None:
        node = self.rng.choice(list(self.nodes.values()))
        leader = self.leader()
        if leader is None or not node.up:
            return
        present = leader.machine.membership.voter(node.id) is not None
        if present and len(leader.machine.membership.voters) <= 2:
            return
        voter = Voter(node.id, f"n{node.id}", b"" if present else node.disk.identity.journal_id)
        self.trace("change", node.id, not present)
        leader.take(Submission(MEMBERSHIP + Change(not present, voter).encode(), lambda *_: None))

    def leader(self) -> Node | None:
        leaders = [node for node in self.nodes.values() if node.up and node.machine._isLeader()]
        return max(leaders, key=lambda node: node.machine.raftCurrentTerm, default=None)

    # --- running -----------------------------------------------------------------------------------------------------

    def run(self) -> "World":
        """Run the plan, heal, and check that everything converges."""
        patched, library.monotonicTime = library.monotonicTime, lambda: self.now
        try:
            for node in self.nodes.values():
                self.start(node)
            self._plan()
            self._run_until(1000.0 + self.options.seconds)
            self._heal()
            self.invariants.at_end(list(self.nodes.values()))
        finally:
            library.monotonicTime = patched
            for node in self.nodes.values():
                if isinstance(node.disk, MirroredDisk):
                    node.disk.release()
        return self

    def _plan(self) -> None:
        rng, options = self.rng, self.options
        for rate, action in ((options.faults_per_s, self._some_fault), (options.commands_per_s, self._some_commands)):
            time = 1000.5
            while (time := time + rng.expovariate(rate)) < 1000.0 + options.seconds:
                self.at(time, action)
        if options.observers:
            time = 1002.0
            while (time := time + rng.expovariate(0.7)) < 1000.0 + options.seconds:
                self.at(time, self._change_membership)

    def _some_commands(self) -> None:
        node = self.rng.choice(list(self.nodes.values()))
        if node.up:
            for _ in range(self.rng.choice((1, 1, 1, 5))):
                self.submit(node)

    def _run_until(self, end: float, done: Callable[[], bool] = lambda: False) -> None:
        events = self._events
        while events and events[0][0] <= end and not done():
            self.now, _, function, arguments = heapq.heappop(events)
            function(*arguments)
        self.now = max(self.now, end) if not done() else self.now

    def _heal(self) -> None:
        self.network.slow = False
        for node in self.nodes.values():
            node.disk.armed = None
            node.paused_until = 0.0
            self.start(node)
        self._heal_network()
        end = self.now + HEAL_BOUND_S
        self._run_until(end, lambda: self.leader() is not None and self._converged())
        leader = self.leader()
        if leader is None or not self._converged():
            raise Violation(f"liveness: not converged {HEAL_BOUND_S} s after healing: {self._describe()}")
        command = self.submit(leader)
        self._run_until(end, lambda: command in self.invariants.acknowledged and self._converged())
        if command not in self.invariants.acknowledged or not self._converged():
            raise Violation(f"liveness: no command passes after healing: {self._describe()}")

    def _converged(self) -> bool:
        places = {(n.machine.raftLastApplied, n.journal.last_index, n.machine.leader) for n in self.nodes.values()}
        return len(places) == 1

    def _describe(self) -> list[tuple[Any, ...]]:
        return [
            (n.id, n.machine.leader, n.machine.raftCurrentTerm, n.machine.raftLastApplied, n.journal.last_index)
            for n in self.nodes.values()
        ]
