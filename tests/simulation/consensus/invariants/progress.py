"""What keeps a cluster going: elections only with cause, and a sender that neither floods nor wanders."""

from typing import TYPE_CHECKING

from tests.simulation.consensus.invariants.base import Invariant, Message

if TYPE_CHECKING:
    from tests.simulation.consensus.node import Node
    from tests.simulation.consensus.world import World


PATIENCE_S = 0.5  # to be looked at again; and what a leader may be late


def _situation(node: "Node", peer: int) -> object:
    """What a leader knows of a peer lasts as long as all of this: process, term, configuration and stream."""
    machine, streams = node.machine, node.world.network.streams
    return node.generation, machine.raftCurrentTerm, machine._configurations[-1][0], streams.get((node.id, peer))


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
        self._heard: dict[tuple[int, int], tuple[float, int]] = {}  # (node, who asks) -> when a leader was heard before

    def on_receive(self, node: "Node", sender: int, message: Message) -> None:
        if message["type"] == "request_pre_vote":
            self._heard[node.id, sender] = node.heard_at, node.heard_term
        elif message["term"] >= node.machine._SyncObj__raftCurrentTerm:
            node.heard_at, node.heard_from, node.heard_term = self.world.now, sender, message["term"]

    def on_send(self, node: "Node", receiver: int, message: Message) -> None:
        if not message["granted"]:
            return
        machine = node.machine
        if machine._isLeader() and machine.raftCurrentTerm == node.led_term:
            self.fail(f"leader {node.id} would vote for node {receiver}")
        if machine.leader is None or machine.raftCurrentTerm != node.term:
            return  # it lost its leader, or found another in this very round
        if receiver == machine.leader:
            return  # which has stepped down and stands again
        if machine._leader_heard_at >= self.world.now:
            return  # it may have lost its leader and heard it again in this very round
        low = self.world.settings(node.id).election_timeout_s[0]
        at, term = self._heard[node.id, receiver]
        at = min(at, node.heard_at)  # a storm may have come between question and answer
        if term == node.term and self.world.now - at < low - node.reaction_s:
            self.fail(f"node {node.id} hears from leader {machine.leader} and would vote for {receiver}")


class ProbeGoesBack(Invariant):
    """While a leader looks for the place where a follower's log agrees, it does not go forwards again."""

    sends = ("append_entries",)
    receives = ("next_node_idx",)

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._probes: dict[tuple[int, int], _Probe] = {}  # (leader, follower)
        self._agreed: dict[tuple[int, int], object] = {}  # (leader, follower) -> what came in for the same round

    def on_receive(self, node: "Node", sender: int, message: Message) -> None:
        machine, key = node.machine, (node.id, sender)
        if message["success"]:
            self._probes.pop(key, None)
            self._agreed[key] = node.inbox
        elif self._agreed.get(key) is node.inbox:
            pass  # what the leader sends in this round may be for the one or for the other
        elif message["reset"] and machine._isLeader() and message["term"] == machine.raftCurrentTerm:
            situation = _situation(node, sender)
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
        if probe.situation != _situation(node, receiver):
            return
        place = message["prevLogIdx"]
        if probe.place is not None and place > probe.place:
            self.fail(f"leader {node.id} asked node {receiver} for {probe.place}, was refused, and asks for {place}")
        probe.place = place


class _Probe:
    """One search of a leader in a follower's log: within a process, a term and a stream."""

    def __init__(self, situation: object) -> None:
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
        if (node.id, sender) in self._sent:
            self._answered.add((node.id, sender))

    def on_send(self, node: "Node", receiver: int, message: Message) -> None:
        key = (node.id, receiver)
        way = _situation(node, receiver), message["chunk"].index  # a newer snapshot is begun at once
        at, former = self._sent.get(key, (0.0, None))
        heartbeat = self.world.settings(node.id).heartbeat_s
        if former == way and key not in self._answered and self.world.now - at < heartbeat - 1e-6:
            self.fail(f"leader {node.id} sends node {receiver} another part before it has answered")
        self._answered.discard(key)
        self._sent[key] = (self.world.now, way)


class SentOnce(Invariant):
    """A leader sends a follower nothing twice, as long as the stream lasts and nothing was refused on it."""

    sends = ("append_entries",)
    receives = ("next_node_idx",)

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._ends: dict[tuple[int, int], tuple[object, int]] = {}  # (leader, follower) -> (situation, last index)
        self._refused: dict[tuple[int, int], object] = {}  # (leader, follower) -> situation

    def _way(self, node: "Node", peer: int) -> object:
        return node.machine.raftCurrentTerm, self.world.network.streams.get((node.id, peer))

    def on_receive(self, node: "Node", sender: int, message: Message) -> None:
        if not message["success"]:
            self._refused[node.id, sender] = self._way(node, sender)

    def on_send(self, node: "Node", receiver: int, message: Message) -> None:
        entries = message["entries"]
        if not entries:
            return
        key, situation = (node.id, receiver), self._way(node, receiver)
        known, end = self._ends.get(key, (None, 0))
        if known == situation and entries[0].index <= end and self._refused.get(key) != situation:
            self.fail(f"leader {node.id} sends node {receiver} entry {entries[0].index} again")
        self._ends[key] = (situation, entries[-1].index)


class CommitIsTold(Invariant):
    """Followers hear of a leader's commit index in the round in which it moves, not one heartbeat later."""

    sends = ("append_entries",)

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._told: dict[tuple[int, int], int] = {}

    def on_send(self, node: "Node", receiver: int, message: Message) -> None:
        self._told[node.id, receiver] = message["commit_index"]

    def on_commit(self, node: "Node", before: int, now: int) -> None:
        machine = node.machine
        if node.is_busy or not machine._isLeader() or self.world.now < node.full_until:
            return
        for peer in machine._SyncObj__otherNodes & machine._SyncObj__connectedNodes:
            if self._told.get((node.id, peer), now) < now and self._is_reached(node, peer):
                self.fail(f"leader {node.id} committed {now} and does not tell node {peer}")

    def _is_reached(self, node: "Node", peer: int) -> bool:
        machine = node.machine
        return self.world.network.has_stream(node.id, peer) and (
            machine._SyncObj__raftNextIndex[peer] > node.journal[0].index
        )


class LeaderStepsDown(Invariant):
    """A leader that is cut off from the majority gives up within one election timeout."""

    sends = ("append_entries",)
    receives = ("next_node_idx", "snapshot_progress")

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._heard: dict[int, dict[int, float]] = {}
        self._checked: dict[int, float] = {}

    def on_lead(self, node: "Node", term: int) -> None:
        self._heard[node.id] = dict.fromkeys(self.world.nodes, self.world.now)

    def on_configure(self, node: "Node") -> None:
        self._heard[node.id] = dict.fromkeys(self.world.nodes, self.world.now)

    def on_receive(self, node: "Node", sender: int, message: Message) -> None:
        if node.id in self._heard:
            self._heard[node.id][sender] = self.world.now

    def on_send(self, node: "Node", receiver: int, message: Message) -> None:
        now = self.world.now
        if message["term"] != node.led_term or now < self._checked.get(node.id, 0.0) + PATIENCE_S:
            return
        self._checked[node.id] = now
        low = now - self.world.settings(node.id).election_timeout_s[1] - PATIENCE_S
        if node.paused_until > low or node.reaction_s > PATIENCE_S / 10:
            return  # it takes in late what it heard
        if node.machine._configurations[-1][0] != node.last_change:
            return  # others vote since this very round
        voters = node.membership.addresses
        heard = [peer for peer in voters if peer == node.id or self._heard[node.id][peer] > low]
        if 2 * len(heard) <= len(voters):
            self.fail(f"leader {node.id} goes on although it hears only from {heard} of {sorted(voters)}")
