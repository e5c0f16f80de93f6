"""Who votes is a function of the log."""

from typing import TYPE_CHECKING

from penstock.raft.core import MEMBERSHIP
from penstock.raft.membership import Change, Membership
from tests.simulation.consensus.invariants.base import Invariant

if TYPE_CHECKING:
    from tests.simulation.consensus.node import Node


class ConfigurationOfLog(Invariant):
    """The configuration in force is that of the log's last change, committed or not, also right after a restart."""

    def on_start(self, node: "Node") -> None:
        self._check(node)

    def on_configure(self, node: "Node") -> None:
        self._check(node)

    def _check(self, node: "Node") -> None:
        log = node.journal
        first = log[0].index
        base = log.snapshot.index if log.snapshot is not None else first
        membership: Membership = self.history.membership_at(base)
        for entry in log[base + 1 - first :]:
            if entry.command[:1] == MEMBERSHIP:
                membership = membership.after(Change.decode(entry.command[1:]))
        if node.membership != membership:
            self.fail(f"node {node.id} has {node.membership.addresses}, its log says {membership.addresses}")
        others = set(node.machine._SyncObj__otherNodes) | {node.id}
        if others != set(membership.addresses) | {node.id}:
            self.fail(f"node {node.id} counts {sorted(others)}, its log says {sorted(membership.addresses)}")


class OneChangeAtATime(Invariant):
    """No log has two changes that are not committed: two majorities could do without each other."""

    def on_configure(self, node: "Node") -> None:
        log, committed = node.journal, self.history.highest
        first = log[0].index
        pending = [entry.index for entry in log[max(0, committed + 1 - first) :] if entry.command[:1] == MEMBERSHIP]
        if len(pending) > 1:
            self.fail(f"the log of node {node.id} has changes at {pending}, committed is {committed}")


class ChangesAfterOwnEntry(Invariant):
    """A leader changes the configuration only after an entry of its own term is committed (Ongaro's correction)."""

    def on_configure(self, node: "Node") -> None:
        log = node.journal
        last = node.machine._configurations[-1][0]
        if last <= node.last_change or last < log[0].index or not node.machine._isLeader():
            return
        term = log[last - log[0].index].term
        if term == node.machine.raftCurrentTerm and term not in self._terms():
            self.fail(f"leader {node.id} changes the configuration at {last} before it has committed in term {term}")

    def _terms(self) -> set[int]:
        return {term for term, _ in self.history.committed.values()}


class LeaderVotes(Invariant):
    """Who leads is a voter of the configuration in force: it counts itself."""

    def on_commit(self, node: "Node", before: int, now: int) -> None:
        if node.machine._isLeader() and node.membership.voter(node.id) is None:
            self.fail(f"node {node.id} leads and commits {now}, but its log says that it is no voter")
