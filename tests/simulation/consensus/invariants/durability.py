"""Nothing is said that power loss could take back. What is on the simulated disk is compared with what leaves."""

from typing import TYPE_CHECKING

from tests.simulation.consensus.invariants.base import Invariant, Message

if TYPE_CHECKING:
    from tests.simulation.consensus.node import Node
    from tests.simulation.consensus.world import World

_WITH_TERM = (
    "request_vote",
    "response_vote",
    "request_pre_vote",
    "pre_vote_answer",
    "timeout_now",
    "append_entries",
    "snapshot_chunk",
    "next_node_idx",
    "snapshot_progress",
)


class TermIsDurable(Invariant):
    """A node speaks in no term that is not on its disk, and from one journal never in a lower one than before."""

    sends = _WITH_TERM

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._spoken: dict[tuple[int, bytes], int] = {}

    def on_send(self, node: "Node", receiver: int, message: Message) -> None:
        disk, term = node.disk, message["term"]
        if term > disk.state.term:
            self.fail(f"node {node.id} speaks in term {term}, on disk is {disk.state.term}")
        key = (node.id, disk.identity.journal_id)
        spoken = self._spoken.get(key, 0)
        if term > spoken:
            self._spoken[key] = term
        elif term < spoken and message["type"] != "response_vote":
            self.fail(f"node {node.id} went back from term {spoken} to {term}")


class VoteIsDurable(Invariant):
    """A vote is on disk when it is given, and no node votes twice in a term, whatever became of its disk."""

    sends = ("request_vote", "response_vote")

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._votes: dict[tuple[int, int], int] = {}  # (term, voter) -> candidate

    def on_send(self, node: "Node", receiver: int, message: Message) -> None:
        term, state = message["term"], node.disk.state
        candidate = node.id if message["type"] == "request_vote" else receiver
        if term == state.term and state.voted_for != candidate:
            self.fail(f"node {node.id} votes for {candidate} in term {term}, on disk is {state.voted_for}")
        if self._votes.setdefault((term, node.id), candidate) != candidate:
            self.fail(f"node {node.id} votes for {self._votes[term, node.id]} and {candidate} in term {term}")


class AckIsDurable(Invariant):
    """What a follower acknowledges is on its disk, as it is in its log."""

    sends = ("next_node_idx",)

    def on_send(self, node: "Node", receiver: int, message: Message) -> None:
        disk = node.disk
        if not message["success"] or message["term"] != disk.state.term:
            return  # in a later term the log may have been cut again, within the same round
        index = message["next_node_idx"] - 1
        entries = disk.entries
        if not entries or index > entries[-1].index:
            self.fail(f"node {node.id} acknowledges {index}, on disk is {disk.last_index}")
        if index >= entries[0].index:
            log = node.journal
            if log[index - log[0].index] != entries[index - entries[0].index]:
                self.fail(f"node {node.id} acknowledges {index}, on disk is another entry")


class OnlyAdmittedVote(Invariant):
    """A journal formatted to join votes only when a change named it, and none in whose place another is (rule 27).

    Who stands counts: one that does not know yet that the voter was removed may get the former journal's vote. It
    cannot win, as whoever else would have to vote for it has the removal, and so a longer log.
    """

    sends = ("request_vote", "response_vote", "pre_vote_answer")

    def on_send(self, node: "Node", receiver: int, message: Message) -> None:
        if not message.get("granted", True):
            return
        disk = node.disk
        ours = disk.identity.journal_id
        if not disk.founding and ours not in self.history.named:
            self.fail(f"node {node.id} votes with a journal that no configuration names")
        candidate = node if message["type"] == "request_vote" else self.world.nodes[receiver]
        voter = candidate.machine.membership.voter(node.id) if candidate.up else None
        if voter is not None and voter.journal_id not in (b"", ours):
            self.fail(f"node {node.id} votes with a journal in whose place another was admitted")


class CommitIsDurable(Invariant):
    """A leader counts itself only for what is on its disk: what it commits is on a majority's disks."""

    def on_commit(self, node: "Node", before: int, now: int) -> None:
        if node.machine._isLeader() and node.disk.last_index < now:
            self.fail(f"leader {node.id} commits {now}, on its disk is {node.disk.last_index}")
