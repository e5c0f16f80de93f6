"""What keeps a cluster going: elections only with cause, and a sender that neither floods nor wanders."""

from typing import TYPE_CHECKING

from tests.simulation.consensus.invariants.base import Invariant, Message

if TYPE_CHECKING:
    from tests.simulation.consensus.node import Node
    from tests.simulation.consensus.world import World


class StandsAfterPreVote(Invariant):
    """Who stands for election was told by a majority that it would vote so, or by the leader to take over."""

    sends = ("request_vote",)
    receives = ("pre_vote_answer", "timeout_now")

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._granted: dict[tuple[int, int, int], set[int]] = {}  # (node, generation, term) -> who

    def on_receive(self, node: "Node", sender: int, message: Message) -> None:
        if message["type"] == "timeout_now":
            self._of(node, message["term"]).update(self.world.nodes)
        elif message["granted"]:
            self._of(node, message["asked_term"]).add(sender)

    def _of(self, node: "Node", term: int) -> set[int]:
        return self._granted.setdefault((node.id, node.generation, term), {node.id})

    def on_send(self, node: "Node", receiver: int, message: Message) -> None:
        voters = node.membership.addresses
        would = self._of(node, message["term"] - 1) & voters.keys()
        if 2 * len(would) <= len(voters):
            self.fail(f"node {node.id} stands in term {message['term']}, only {sorted(would)} would vote for it")


class LeaderIsKept(Invariant):
    """Nobody would vote for another while it hears from a leader: who comes back does not depose one."""

    sends = ("pre_vote_answer",)
    receives = ("append_entries", "snapshot_chunk", "request_pre_vote")

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._heard: dict[tuple[int, int], float] = {}  # (node, who asks) -> when its leader was heard before

    def on_receive(self, node: "Node", sender: int, message: Message) -> None:
        if message["type"] == "request_pre_vote":
            self._heard[node.id, sender] = node.heard_at
        elif message["term"] >= node.machine._SyncObj__raftCurrentTerm:
            node.heard_at, node.heard_from = self.world.now, sender

    def on_send(self, node: "Node", receiver: int, message: Message) -> None:
        if not message["granted"]:
            return
        machine = node.machine
        if machine._isLeader() and machine.raftCurrentTerm == node.led_term:
            self.fail(f"leader {node.id} would vote for node {receiver}")
        if machine.leader is None or machine.raftCurrentTerm != node.term:
            return  # it lost its leader, or found another in this very round
        low = self.world.settings(node.id).election_timeout_s[0]
        if self.world.now - self._heard[node.id, receiver] < low - node.reaction_s:
            self.fail(f"node {node.id} hears from leader {machine.leader} and would vote for {receiver}")


class ProbeGoesBack(Invariant):
    """While a leader looks for the place where a follower's log agrees, it does not go forwards again."""

    sends = ("append_entries",)
    receives = ("next_node_idx",)

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._probes: dict[tuple[int, int], _Probe] = {}  # (leader, follower)

    def on_receive(self, node: "Node", sender: int, message: Message) -> None:
        machine, key = node.machine, (node.id, sender)
        if message["success"]:
            self._probes.pop(key, None)
        elif message["reset"] and machine._isLeader() and message["term"] == machine.raftCurrentTerm:
            situation = (node.generation, message["term"], self.world.network.streams.get(key))
            probe = self._probes.get(key)
            if probe is None or probe.situation != situation:
                probe = self._probes[key] = _Probe(situation)
            probe.is_refused = True

    def on_send(self, node: "Node", receiver: int, message: Message) -> None:
        if not self._probes:
            return
        key = (node.id, receiver)
        probe = self._probes.get(key)
        if probe is None or not probe.is_refused:
            return
        probe.is_refused = False
        if probe.situation != (node.generation, message["term"], self.world.network.streams.get(key)):
            return
        place = message["prevLogIdx"]
        if probe.place is not None and place > probe.place:
            self.fail(f"leader {node.id} asked node {receiver} for {probe.place}, was refused, and asks for {place}")
        probe.place = place


class _Probe:
    """One search of a leader in a follower's log: within a process, a term and a stream."""

    def __init__(self, situation: tuple[object, ...]) -> None:
        self.situation = situation
        self.place: int | None = None
        self.is_refused = False


class ChunksOnRequest(Invariant):
    """A follower that needs a snapshot gets one part for each of its answers, or one question a heartbeat."""

    sends = ("snapshot_chunk",)
    receives = ("snapshot_progress", "next_node_idx")

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._sent: dict[tuple[int, int], tuple[float, object]] = {}  # (leader, follower) -> when, on which stream
        self._answered: set[tuple[int, int]] = set()

    def on_receive(self, node: "Node", sender: int, message: Message) -> None:
        self._answered.add((node.id, sender))

    def on_send(self, node: "Node", receiver: int, message: Message) -> None:
        key = (node.id, receiver)
        way = (node.generation, message["term"], self.world.network.streams.get(key))
        at, former = self._sent.get(key, (0.0, None))
        heartbeat = self.world.settings(node.id).heartbeat_s
        if former == way and key not in self._answered and self.world.now - at < heartbeat - 1e-6:
            self.fail(f"leader {node.id} sends node {receiver} another part before it has answered")
        self._answered.discard(key)
        self._sent[key] = (self.world.now, way)
