"""The invariants of consensus that are cheap in whole-system worlds; the consensus worlds have all, on more seeds."""

from typing import TYPE_CHECKING, Any

from penstock.raft.core import MEMBERSHIP
from penstock.raft.membership import Change, Membership
from tests.simulation.cluster.checks import Invariant

if TYPE_CHECKING:
    from tests.simulation.cluster.consensus import SimRaft
    from tests.simulation.cluster.machine import Machine

Message = dict[str, Any]


class ElectionSafety(Invariant):
    """At most one node leads in a term."""

    def __init__(self, checks: Any) -> None:
        super().__init__(checks)
        self._leaders: dict[int, int] = {}

    def on_round(self, machine: "Machine", raft: "SimRaft") -> None:
        core: Any = raft.raft
        if core._isLeader():
            term = core.raftCurrentTerm
            if self._leaders.setdefault(term, machine.node_id) != machine.node_id:
                self.breach(f"nodes {self._leaders[term]} and {machine.node_id} lead in term {term}")


class OneCommittedLog(Invariant):
    """What is committed anywhere is the same everywhere and in every later leader's log; no commit index goes back."""

    def __init__(self, checks: Any) -> None:
        super().__init__(checks)
        self._committed: dict[int, tuple[int, bytes, int]] = {}
        """Index -> term and command, and the term in which it was first seen to be committed."""
        self._seen: dict[tuple[int, int], int] = {}  # (node, generation) -> commit index
        self._led: dict[int, int] = {}  # node -> last term that was looked at

    def on_round(self, machine: "Machine", raft: "SimRaft") -> None:
        core: Any = raft.raft
        place, now = (machine.node_id, machine.generations), core.raftCommitIndex
        before = self._seen.get(place, 0)
        if now != before:
            self._seen[place] = now
            self._moved(machine, raft, before, now)
        term = core.raftCurrentTerm
        if core._isLeader() and self._led.get(machine.node_id, -1) != term:
            self._led[machine.node_id] = term
            self._leads(machine, raft, term)

    def _moved(self, machine: "Machine", raft: "SimRaft", before: int, now: int) -> None:
        log, core = raft.journal, raft.raft
        who = f"of node {machine.node_id}"
        if now < before:
            self.breach(f"the commit index {who} went back from {before} to {now}")
        if now > log.last_index:
            self.breach(f"the commit index {who} is {now}, its log ends at {log.last_index}")
            return
        if core._isLeader() and machine.journal_disk.last_index < now:
            self.breach(f"leader {machine.node_id} commits {now}, on its disk is {machine.journal_disk.last_index}")
        first = log[0].index
        for index in range(max(before, first) + 1, now + 1):
            entry = log[index - first]
            known = self._committed.setdefault(index, (entry.term, entry.command, core.raftCurrentTerm))
            if known[:2] != (entry.term, entry.command):
                self.breach(f"node {machine.node_id} committed another entry at {index}")
                return

    def _leads(self, machine: "Machine", raft: "SimRaft", term: int) -> None:
        log = raft.journal
        first = log[0].index
        for index, (entry_term, command, committed_in) in self._committed.items():
            if committed_in >= term or index <= first:
                continue  # who learns of its votes late says nothing about later terms
            entry = log[index - first] if index <= log.last_index else None
            if entry is None or (entry.term, entry.command) != (entry_term, command):
                self.breach(f"node {machine.node_id} leads in term {term} without the committed entry {index}")
                return


class TermIsDurable(Invariant):
    """A node speaks in no term that is not on its disk, and from one journal never in a lower one than before."""

    def __init__(self, checks: Any) -> None:
        super().__init__(checks)
        self._spoken: dict[bytes, int] = {}

    def on_send(self, machine: "Machine", peer: int, message: Message) -> None:
        term = message.get("term")
        if term is None:
            return
        disk = machine.journal_disk
        if term > disk.state.term:
            self.breach(f"node {machine.node_id} speaks in term {term}, on disk is {disk.state.term}")
        spoken = self._spoken.get(disk.identity.journal_id, 0)
        if term > spoken:
            self._spoken[disk.identity.journal_id] = term
        elif term < spoken and message["type"] != "response_vote":
            self.breach(f"node {machine.node_id} went back from term {spoken} to {term}")


class VoteIsDurable(Invariant):
    """A vote is on disk when it is given, and no node votes twice in a term, whatever became of its disk."""

    def __init__(self, checks: Any) -> None:
        super().__init__(checks)
        self._votes: dict[tuple[int, int], int] = {}  # (term, voter) -> candidate

    def on_send(self, machine: "Machine", peer: int, message: Message) -> None:
        kind = message["type"]
        if kind not in {"request_vote", "response_vote"}:
            return
        term, state, node_id = message["term"], machine.journal_disk.state, machine.node_id
        candidate = node_id if kind == "request_vote" else peer
        if term == state.term and state.voted_for != candidate:
            self.breach(f"node {node_id} votes for {candidate} in term {term}, on disk is {state.voted_for}")
        if self._votes.setdefault((term, node_id), candidate) != candidate:
            self.breach(f"node {node_id} votes for {self._votes[term, node_id]} and {candidate} in term {term}")


class AckIsDurable(Invariant):
    """What a follower acknowledges is on its disk, as it is in its log."""

    def on_send(self, machine: "Machine", peer: int, message: Message) -> None:
        if message["type"] != "next_node_idx" or not message["success"]:
            return
        disk, broker = machine.journal_disk, machine.broker
        if broker is None or message["term"] != disk.state.term:
            return  # in a later term the log may have been cut again, within the same round
        index, entries, log = message["next_node_idx"] - 1, disk.entries, broker.raft.journal
        if not entries or index > entries[-1].index:
            self.breach(f"node {machine.node_id} acknowledges {index}, on disk is {disk.last_index}")
        elif index >= entries[0].index and log[index - log[0].index] != entries[index - entries[0].index]:
            self.breach(f"node {machine.node_id} acknowledges {index}, on disk is another entry")


class OnlyAdmittedVote(Invariant):
    """A journal formatted to join votes only when a change named it, and none in whose place another is (rule 27)."""

    def __init__(self, checks: Any) -> None:
        super().__init__(checks)
        self._named: set[bytes] = set()
        self._seen: dict[int, tuple[int, Membership]] = {}  # node -> its log's last change
        self._newest: tuple[int, Membership | None] = (0, None)
        """The last committed change, and who votes since."""

    def on_round(self, machine: "Machine", raft: "SimRaft") -> None:
        core: Any = raft.raft
        stack: list[tuple[int, Membership]] = core._configurations
        if self._seen.get(machine.node_id) is not stack[-1]:
            self._seen[machine.node_id] = stack[-1]
            for _, membership in stack:
                self._named |= {voter.journal_id for voter in membership.voters}
        for index, membership in stack:
            if self._newest[0] < index <= core.raftCommitIndex:
                self._newest = (index, membership)

    def on_send(self, machine: "Machine", peer: int, message: Message) -> None:
        if message["type"] == "append_entries":
            for entry in message["entries"]:
                if entry.command[:1] == MEMBERSHIP:
                    self._named.add(Change.decode(entry.command[1:]).voter.journal_id)
        elif message["type"] in {"request_vote", "response_vote", "pre_vote_answer"} and message.get("granted", True):
            self._check(machine)

    def _check(self, machine: "Machine") -> None:
        disk, newest = machine.journal_disk, self._newest[1]
        ours = disk.identity.journal_id
        if not disk.founding and ours not in self._named:
            self.breach(f"node {machine.node_id} votes with a journal that no configuration names")
        voter = None if newest is None else newest.voter(machine.node_id)
        if voter is not None and voter.journal_id not in {b"", ours}:
            self.breach(f"node {machine.node_id} votes with a journal in whose place another was admitted")


RAFT_INVARIANTS = (
    ElectionSafety,
    OneCommittedLog,
    TermIsDurable,
    VoteIsDurable,
    AckIsDurable,
    OnlyAdmittedVote,
)
