"""A world: virtual time, some nodes, the network, clients, and a plan of what is done to them, all from one seed.

After the plan's time everything is healed, and the world must converge and serve: then all invariants are checked once
more.
"""

import functools
import heapq
import zlib
from collections.abc import Callable
from typing import Any

import pysyncobj.syncobj as library

from penstock.raft import messages
from penstock.raft.core import LEADER, Settings
from penstock.raft.machine import Received
from penstock.raft.membership import Membership
from tests.simulation.consensus.clients import Clients, Operator, Request
from tests.simulation.consensus.disk import MirroredDisk
from tests.simulation.consensus.faults import Faults
from tests.simulation.consensus.invariants import ALL, Checks, History, Violation
from tests.simulation.consensus.network import Network
from tests.simulation.consensus.node import Node
from tests.simulation.consensus.options import Options
from tests.simulation.consensus.plan import Action, Plan, draw_plan

RESUBMIT_S = 3.0
HEAL_BOUND_S = 12.0  # after healing, everything has converged and serves within this
LAST_ANSWERS_S = 1.0  # after which whatever was under way has arrived
START = 1000.0

__all__ = ["Options", "World"]


class World:
    """Runs one seed to its end. Raises Violation."""

    def __init__(
        self, seed: int, options: Options | None = None, *, plan: Plan | None = None, record: bool = False
    ) -> None:
        self.seed = seed
        self.options = options or Options.of(seed)
        self.plan = draw_plan(seed, self.options) if plan is None else plan
        self.now = START
        self.hash = 0
        self.steps = 0
        self.lines: list[str] | None = [] if record else None
        self.events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self.sequence = 0
        self.founders = Membership.of({node_id: f"n{node_id}" for node_id in range(1, self.options.voters + 1)})
        self._settings = {node_id: self._settings_of(node_id) for node_id in range(1, self.options.nodes + 1)}
        self.outstanding: Node | None = None  # whose new journal is not admitted yet
        self.history = History(self.founders)
        self.clients = Clients(self)
        self.operator = Operator(self)
        self.checks = Checks(self, ALL)
        self.network = Network(self, seed)
        self.network.slow = self.options.slow_network
        self._faults = Faults(self)
        self.nodes = {i: Node(self, i, founding=i <= self.options.voters) for i in self._settings}

    # --- what all parts use ------------------------------------------------------------------------------------------

    def _settings_of(self, node_id: int) -> Settings:
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

    def settings(self, node_id: int) -> Settings:
        """How the node's machine runs."""
        return self._settings[node_id]

    def at(self, time: float, function: Callable[..., None], *arguments: Any) -> None:
        """Call this then."""
        self.sequence += 1
        heapq.heappush(self.events, (time, self.sequence, function, arguments))

    def trace(self, *facts: object) -> None:
        """Something of note."""
        line = " ".join(map(str, facts))
        self.hash = zlib.crc32(line.encode(), self.hash)
        if self.lines is not None:
            self.note(line)

    def note(self, line: str) -> None:
        """For the reader of a recorded world only."""
        if self.lines is not None:
            self.lines.append(f"{self.now - START:.6f} {line}")

    def is_up(self, node_id: int) -> bool:
        """Whether the process runs."""
        return self.nodes[node_id].up

    def notify(self, node_id: int, peer: int, *, up: bool) -> None:
        """Tell a node about its own stream to a peer."""
        self.nodes[node_id].notify(peer, up=up)

    def deliver(self, receiver: int, sender: int, message: Any) -> None:
        """A message has arrived."""
        node = self.nodes[receiver]
        if node.up:
            if self.options.codec:
                message = messages.decode(message)
            for check in self.checks.received[message["type"]]:
                check(node, sender, message)
            node.take(Received(sender, message))

    def leader(self) -> Node | None:
        """Who leads in the highest term."""
        best, term = None, -1
        for node in self.nodes.values():
            if node.up and node.machine._SyncObj__raftState == LEADER and node.machine.raftCurrentTerm > term:
                best, term = node, node.machine.raftCurrentTerm
        return best

    # --- processes ---------------------------------------------------------------------------------------------------

    def start(self, node: Node) -> None:
        """Start a process, if it is down; it dials all, and all dial it."""
        if node.up:
            return
        self.trace("start", node.id)
        node.start()
        for peer in self.nodes:
            if peer != node.id:
                self.network.dial_soon(node.id, peer)
                self.network.dial_soon(peer, node.id)

    def lose(self, node: Node, *, silently: bool) -> None:
        """End a process, if it is up."""
        if node.up:
            self.trace("lose", node.id, silently)
            node.stop()
            self.network.lose_node(node.id, silently=silently, keeps=node.generation % 2 == 0)

    def watch_admission(self) -> None:
        """Let the operator see to the node whose journal is new."""
        self.at(self.now + 0.1, self.operator.admit)

    # --- running -----------------------------------------------------------------------------------------------------

    def run(self) -> "World":
        """Run the plan, heal, and check that everything converges."""
        patched, library.monotonicTime = library.monotonicTime, lambda: self.now
        try:
            for node in self.nodes.values():
                self.start(node)
            for action in self.plan:
                self.at(START + action.at, self._act, action)
            self._run_until(START + self.options.seconds)
            self._heal()
            self.checks.at_end()
        finally:
            library.monotonicTime = patched
            for node in self.nodes.values():
                if isinstance(node.disk, MirroredDisk):
                    node.disk.release()
        return self

    def _act(self, action: Action) -> None:
        node = self.nodes[action.node]
        if action.leads:
            node = self.leader() or node
        self.trace(action.kind, node.id, *action.arguments)
        getattr(self._faults, action.kind)(node, *action.arguments)

    def _run_until(self, end: float, done: Callable[[], bool] | None = None) -> bool:
        """Run up to a time, or until something is so. Whether it is."""
        events, pop = self.events, heapq.heappop
        while events and events[0][0] <= end:
            if done is not None and done():
                return True
            self.now, _, function, arguments = pop(events)
            function(*arguments)
        self.now = max(self.now, end)
        return done is not None and done()

    def _heal(self) -> None:
        self.trace("healed")
        self.network.slow = False
        for node in self.nodes.values():
            node.disk.repair()
            self.start(node)
            node.heal()
        self.network.heal()
        end = self.now + HEAL_BOUND_S
        if not self._run_until(end, self._converged):
            raise Violation(f"Liveness: not converged {HEAL_BOUND_S} s after healing: {self._describe()}")
        if not self._passes_command(end):
            raise Violation(f"Liveness: no command passes after healing: {self._describe()}")
        self._run_until(self.now + LAST_ANSWERS_S, self.clients.all_answered)

    def _passes_command(self, end: float) -> bool:
        """Submit a command, and again where it is lost with a leader that goes, as a client does."""
        while self.now < end:
            request = self.clients.submit(self.leader() or self.nodes[1])
            passes = functools.partial(self._has_passed, request)
            if self._run_until(min(end, self.now + RESUBMIT_S), passes):
                return True
        return False

    def _has_passed(self, request: Request | None) -> bool:
        return request is not None and request.index is not None and self._converged()

    def _converged(self) -> bool:
        if self.outstanding is not None:
            return False
        first = None
        for node in self.nodes.values():
            machine = node.machine
            if machine._SyncObj__raftLeader is None:
                return False
            place = (machine._SyncObj__raftLastApplied, node.journal.last_index, machine.leader)
            if first is None:
                first = place
            elif place != first:
                return False
        return True

    def _describe(self) -> list[tuple[Any, ...]]:
        return [
            (n.id, n.machine.leader, n.machine.raftCurrentTerm, n.machine.raftLastApplied, n.journal.last_index)
            for n in self.nodes.values()
        ]
