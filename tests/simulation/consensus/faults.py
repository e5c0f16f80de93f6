"""What an action does to a world: a method for each kind. `plan` draws their arguments.

Nothing is drawn here. An action that cannot happen when its time comes (the node is down, there is no leader) does
nothing.
"""

from typing import TYPE_CHECKING, Any

from penstock.raft.machine import Transfer
from penstock.raft.voting import NEVER
from tests.simulation.consensus.node import Node

if TYPE_CHECKING:
    from tests.simulation.consensus.world import World

IMPATIENT_S = 0.02  # after a storm began, and no longer, a node may disregard its leader
RETURN_S = 0.05  # after which who lost power in a storm is back


class Faults:
    """All kinds of actions on one world."""

    def __init__(self, world: "World") -> None:
        self._world = world

    # --- processes ---------------------------------------------------------------------------------------------------

    def crash(self, node: Node, silently: bool) -> None:
        """A process dies; silently: with its machine, so that nobody is told."""
        self._world.lose(node, silently=silently)

    def crash_some(self, _: Node, who: tuple[int, ...]) -> None:
        """Several die at once."""
        for node_id in who:
            self._world.lose(self._world.nodes[node_id], silently=False)

    def crash_all(self, _: Node) -> None:
        """The power of all goes."""
        for node in self._world.nodes.values():
            self._world.lose(node, silently=True)

    def start(self, _: Node) -> None:
        """All that are down start again."""
        for node in self._world.nodes.values():
            self._world.start(node)

    def bounce(self, _: Node, who: tuple[tuple[int, float], ...]) -> None:
        """Some processes die and are back at once, with the election, or the session, still going on elsewhere."""
        world = self._world
        for node_id, delay in who:
            world.lose(world.nodes[node_id], silently=False)
            world.at(world.now + delay, world.start, world.nodes[node_id])

    def power(self, node: Node, commits: int, durable: bool) -> None:
        """The power goes in one of the next commits."""
        if node.up:
            node.disk.armed = (commits, durable)

    def fail(self, node: Node, commits: int) -> None:
        """One of the next commits fails: the node must stop."""
        if node.up:
            node.disk.failing = commits

    def storm(self, _: Node, who: tuple[tuple[int, float, tuple[int, bool] | None], ...]) -> None:
        """All lose patience at about the same time; some lose power in the election."""
        world = self._world
        for node_id, delay, power in who:
            node = world.nodes[node_id]
            if not node.up:
                continue
            machine = node.machine
            machine._SyncObj__raftElectionDeadline = world.now + delay
            machine._leader_heard_at = NEVER
            node.heard_at = NEVER
            node.expect(world.now + delay + 1e-6)
            if power is not None:
                node.disk.armed = power
                world.at(world.now + RETURN_S + 10 * delay, world.start, node)

    def pause(self, node: Node, seconds: float) -> None:
        """A process stands still, and then takes in all that has come meanwhile."""
        if node.up:
            node.paused_until = self._world.now + seconds

    def slow(self, node: Node, reaction_s: float, seconds: float) -> None:
        """A node needs long for each round."""
        if node.up:
            node.reaction_s = reaction_s
            self._world.at(self._world.now + seconds, self._quick, node)

    def _quick(self, node: Node) -> None:
        node.reaction_s = self._world.options.reaction_s

    # --- disks -------------------------------------------------------------------------------------------------------

    def wipe(self, node: Node) -> None:
        """A disk is lost, and the node comes back with a new journal: one at a time (ADR 7)."""
        world = self._world
        if world.outstanding is None and not world.options.observers:
            world.lose(node, silently=False)
            node.wipe()
            world.outstanding = node
            world.watch_admission()

    def found(self, node: Node) -> None:
        """The disk that was lost is found, and put back although the node was admitted with another one."""
        world = self._world
        if node.former is not None and world.outstanding is None:
            world.lose(node, silently=False)
            node.disk, node.former = node.former, node.disk
            world.outstanding = node
            world.watch_admission()

    # --- links -------------------------------------------------------------------------------------------------------

    def cut(self, node: Node, step: int, ways: int, hang: bool, keeps: bool) -> None:
        """One pair, one way or both."""
        self._cut(node.id, self._other(node, step), ways, hang=hang, keeps=keeps)

    def isolate(self, node: Node, ways: int, hang: bool, keeps: bool) -> None:
        """One node from all others; perhaps it only hears, or is only heard."""
        for peer in self._world.nodes:
            if peer != node.id:
                self._cut(node.id, peer, ways, hang=hang, keeps=keeps)

    def split(self, _: Node, group: int, hang: bool, keeps: bool) -> None:
        """Two groups (`group` has a bit for each node of the one)."""
        nodes = self._world.nodes
        for one in nodes:
            for other in nodes:
                if group >> (one - 1) & 1 and not group >> (other - 1) & 1:
                    self._cut(one, other, 3, hang=hang, keeps=keeps)

    def bridge(self, node: Node, hang: bool, keeps: bool) -> None:
        """All others in two groups that only this node connects; with three nodes: each end sees only the middle."""
        others = [peer for peer in self._world.nodes if peer != node.id]
        for one in others[::2]:
            for other in others[1::2]:
                self._cut(one, other, 3, hang=hang, keeps=keeps)

    def blink(self, node: Node, step: int, ways: int, keeps: bool) -> None:
        """Streams of a pair break and are opened again at once."""
        other = self._other(node, step)
        for bit, (sender, receiver) in ((1, (node.id, other)), (2, (other, node.id))):
            if ways & bit:
                self._world.network.break_stream(sender, receiver, keeps=keeps)

    def full(self, node: Node, seconds: float) -> None:
        """The queues to the peers are full: messages are refused."""
        if node.up:
            node.full_until = self._world.now + seconds

    def echo(self, _: Node, seconds: float) -> None:
        """Many messages come twice. The transport promises otherwise; consensus must stand it all the same."""
        self._world.network.echoes_until = self._world.now + seconds

    def heal(self, _: Node) -> None:
        """The network is whole again."""
        self._world.network.heal()

    def _cut(self, one: int, other: int, ways: int, **how: bool) -> None:
        if ways & 1:
            self._world.network.cut(one, other, hang=how["hang"], keeps=how["keeps"])
        if ways & 2:
            self._world.network.cut(other, one, hang=how["hang"], keeps=how["keeps"])

    def _other(self, node: Node, step: int) -> int:
        return (node.id - 1 + step) % len(self._world.nodes) + 1

    # --- clients and operators ---------------------------------------------------------------------------------------

    def transfer(self, _: Node, to: int) -> None:
        """The leader hands over, to whom it likes best (0) or to a certain voter."""
        leader = self._world.leader()
        if leader is not None:
            leader.take(Transfer(to or None, _ignore))

    def submit(self, node: Node, count: int, again: bool) -> None:
        """A client's commands; again: tried until they are acknowledged, and to be applied once."""
        for _ in range(count):
            self._world.clients.submit(node, again=again)

    def change(self, node: Node, twice: bool) -> None:
        """A voter comes or goes; twice: and with it the next node, at the same time."""
        self._world.operator.change(node)
        if twice:
            self._world.operator.change(self._world.nodes[self._other(node, 1)])


def _ignore(*_: Any) -> None:
    """Whether a transfer was begun shows by who leads."""
