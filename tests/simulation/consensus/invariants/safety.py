"""Raft's own properties (Ongaro and Ousterhout, figure 3), and what the state machine rests on."""

from collections import defaultdict
from typing import TYPE_CHECKING

from tests.simulation.consensus.invariants.base import Invariant, Message

if TYPE_CHECKING:
    from tests.simulation.consensus.node import Node
    from tests.simulation.consensus.world import World


class ElectionSafety(Invariant):
    """At most one node leads in a term."""

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._leaders: dict[int, int] = {}

    def on_lead(self, node: "Node", term: int) -> None:
        if self._leaders.setdefault(term, node.id) != node.id:
            self.fail(f"nodes {self._leaders[term]} and {node.id} lead in term {term}")


class ElectedByMajority(Invariant):
    """Who leads has the votes of a majority of its voters, each counted once, all of this term."""

    receives = ("response_vote",)

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._votes: defaultdict[tuple[int, int], set[int]] = defaultdict(set)  # (candidate, term) -> voters

    def on_receive(self, node: "Node", sender: int, message: Message) -> None:
        self._votes[node.id, message["term"]].add(sender)

    def on_lead(self, node: "Node", term: int) -> None:
        voters = node.membership.addresses
        votes = (self._votes[node.id, term] | {node.id}) & voters.keys()
        if 2 * len(votes) <= len(voters):
            self.fail(f"node {node.id} leads in term {term} by the votes of {sorted(votes)} of {sorted(voters)}")


class AckIsVerified(Invariant):
    """What a follower acknowledges is what its leader has there."""

    sends = ("next_node_idx",)

    def on_send(self, node: "Node", receiver: int, message: Message) -> None:
        leader = self.world.nodes[receiver]
        term = message["term"]
        if not message["success"] or not leader.up or leader.led_term != term:
            return
        if node.machine.raftCurrentTerm != term or leader.machine.raftCurrentTerm != term:
            return  # in a later term the log may have been cut again, within the same round
        index, ours, theirs = message["next_node_idx"] - 1, node.journal, leader.journal
        first = max(ours[0].index, theirs[0].index)
        if first <= index <= ours.last_index:
            mine = ours[index - ours[0].index]
            if index > theirs.last_index or theirs[index - theirs[0].index].term != mine.term:
                self.fail(f"node {node.id} acknowledges {index}, where leader {leader.id} has another entry")


class LeaderCompleteness(Invariant):
    """A leader has every entry that was committed in an earlier term."""

    def on_lead(self, node: "Node", term: int) -> None:
        log, committed, committed_in = node.journal[:], self.history.committed, self.history.committed_in
        first = log[0].index
        for index in range(first + 1, self.history.highest + 1):
            if committed_in[index] >= term:
                continue  # a leader that learns of its votes late says nothing about later terms
            if index - first >= len(log):
                self.fail(f"node {node.id} leads in term {term} without committed entry {index}")
            entry = log[index - first]
            if (entry.term, entry.command) != committed[index]:
                self.fail(f"node {node.id} leads in term {term} with another entry at committed {index}")


class LogMatching(Invariant):
    """If two logs have the same term at an index, they agree up to there."""

    def at_end(self) -> None:
        nodes = list(self.world.nodes.values())
        for place, one in enumerate(nodes):
            for other in nodes[place + 1 :]:
                self._compare(one, other)

    def _compare(self, one: "Node", other: "Node") -> None:
        ours, theirs = one.journal[:], other.journal[:]
        low = max(ours[0].index, theirs[0].index) + 1
        high = min(ours[-1].index, theirs[-1].index)
        mine, others = ours[low - ours[0].index : high + 1 - ours[0].index], theirs[low - theirs[0].index :]
        matched = False
        for entry, another in zip(reversed(mine), reversed(others[: len(mine)]), strict=True):
            matched = matched or entry.term == another.term
            if matched and entry != another:
                self.fail(f"nodes {one.id} and {other.id} differ at {entry.index}")


class CommittedPrefix(Invariant):
    """What is committed anywhere is the same everywhere: one entry at an index."""

    def on_commit(self, node: "Node", before: int, now: int) -> None:
        log, committed = node.journal, self.history.committed
        first = log[0].index
        for index in range(max(before, first) + 1, now + 1):
            entry = log[index - first]
            if committed[index] != (entry.term, entry.command):
                self.fail(f"node {node.id} committed another entry at {index}")


class CommitMonotonic(Invariant):
    """The commit index of a process never goes back, and never lies outside its log."""

    def on_commit(self, node: "Node", before: int, now: int) -> None:
        if now < before:
            self.fail(f"of node {node.id} it went back from {before} to {now}")
        if now > node.journal.last_index:
            self.fail(f"of node {node.id} it is {now}, behind the log's end {node.journal.last_index}")


class StateMachineSafety(Invariant):
    """All nodes go through the same states (metadata prefix equality), each in order and each index once."""

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._applied: dict[tuple[int, int], int] = {}  # (node, generation) -> index

    def on_apply(self, node: "Node", index: int, command: bytes, state: tuple[int, bytes, bool]) -> None:
        if self.history.states.get(index, state) != state:
            self.fail(f"node {node.id} has another state after {index}")
        key = (node.id, node.generation)
        if index <= self._applied.get(key, 0):
            self.fail(f"node {node.id} applies {index} after {self._applied[key]}")
        self._applied[key] = index
        known = self.history.committed.get(index)
        if known is not None and known[1][1:] != command:
            self.fail(f"node {node.id} applies another command than the committed one at {index}")

    def on_restore(self, node: "Node", index: int, digest: int) -> None:
        self._applied[node.id, node.generation] = index


class SnapshotIsReplay(Invariant):
    """A state from a snapshot is the one that replay of the log gives."""

    def on_restore(self, node: "Node", index: int, digest: int) -> None:
        states = self.history.states
        while index not in states and index > 0:
            index -= 1  # entries that are no commands leave the state as it was
        if index in states and states[index][0] != digest:
            self.fail(f"node {node.id} restored another state as of {index}")


class SnapshotKeepsTail(Invariant):
    """Entries behind a received snapshot stay if the log has its last entry: they were acknowledged."""

    def on_restore(self, node: "Node", index: int, digest: int) -> None:
        disk, log = node.disk.entries, node.journal
        if not disk or not disk[0].index <= log.last_index < disk[-1].index:
            return
        if disk[log.last_index - disk[0].index].term == log[-1].term:
            self.fail(f"node {node.id} drops {log.last_index + 1} to {disk[-1].index} for a snapshot up to {index}")
