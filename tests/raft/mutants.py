"""RaftMachine with single overrides switched off: what the library does instead, or the same without the fix.

Only the tests know these. Each must make the simulator or a focused test fail: tests/raft/test_machine_mutants.
"""

import collections
import dataclasses
from typing import Any

import pysyncobj

from penstock.raft.core import CANDIDATE
from penstock.raft.errors import JournalWriteError
from penstock.raft.journal import NO_OP, RaftJournal, StoredSnapshot
from penstock.raft.machine import RaftMachine
from penstock.raft.outbox import Message, Outbox
from penstock.raft.peer import PeerNode

# ruff: noqa: N802


class VotesNotVoters(RaftMachine):
    """double_vote, foreign_vote: the library counts each answer."""

    def _on_response_vote(self, node: PeerNode, message: Message) -> None:
        self._handle_by_library(node, message)


class AckWithoutTerm(RaftMachine):
    """late_ack: the library's acknowledgements carry no term."""

    def _on_append_answer(self, node: PeerNode, message: Message) -> None:
        super()._on_append_answer(node, message | {"term": self.raftCurrentTerm})


class TruncateAlways(RaftMachine):
    """truncated_tail: the library cuts its log behind the previous entry of each message."""

    def _append_fresh(self, entries: list[Any]) -> None:
        if entries:
            log = self._SyncObj__raftLog
            if entries[0].index <= log[-1].index:
                log.deleteEntriesFrom(entries[0].index - log[0].index)
        super()._append_fresh(entries)


class CommitUnverified(RaftMachine):
    """ghost_commit: the library commits up to the end of its log."""

    def _on_append_entries(self, node: PeerNode, message: Message) -> None:
        super()._on_append_entries(node, message)
        if message["term"] == self.raftCurrentTerm:
            self._commit_to(min(message["commit_index"], self._SyncObj__raftLog[-1].index))


class ResetRewrites(RaftMachine):
    """stuck_follower: the library lets each rejected message say where to go on, forwards too."""

    def _on_append_answer(self, node: PeerNode, message: Message) -> None:
        self._floors.pop(node, None)
        super()._on_append_answer(node, message)
        if message["reset"] and node in self._floors:
            self._SyncObj__raftNextIndex[node] = message["next_node_idx"]


class NoPreVote(RaftMachine):
    """no_pre_vote, returning_node: the library stands at once."""

    def _consider_election(self) -> None:
        pass


class StaleLeaderNotTold(RaftMachine):
    """stale_leader: with pre-vote and no answer, a node of a higher term stays out for ever."""

    def _follow(self, node: PeerNode, message: Message) -> bool:
        return message["term"] >= self.raftCurrentTerm and super()._follow(node, message)


class ForwardWaitsForEver(RaftMachine):
    """forward_disconnect: the library does not tell who waits for a leader that is gone."""

    def _SyncObj__onNodeDisconnected(self, node: PeerNode) -> None:
        self._SyncObj__connectedNodes.discard(node)


class ForwardUnsentWaitsForEver(RaftMachine):
    """forward_unsent: the library ignores that a message did not leave."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._SyncObj__transport.take_unsent = list


class ApplyAgainAfterCallbackError(RaftMachine):
    """callback_error: the library counts an entry as applied only after its waiters were told."""

    def _SyncObj__applyLogEntries(self) -> Any:
        return pysyncobj.SyncObj._SyncObj__applyLogEntries(self)

    def _SyncObj__doApplyCommand(self, command: bytes) -> Any:
        return 1, self._apply(self._entry(self._SyncObj__raftLastApplied + 1))


class ChangesUnguarded(RaftMachine):
    """two_changes: the library's guard is dead code."""

    def _SyncObj__changeCluster(self, change: Any) -> bool:
        self._change_index = 0
        self._SyncObj__noopIDx = 1
        return bool(super()._SyncObj__changeCluster(change))


class ConfigurationForgotten(RaftMachine):
    """A configuration change in the log is not in force after a restart (the library's: not until applied again)."""

    def _begin_configuration(self, index: int, membership: Any) -> None:
        self._configurations = [(index, membership)]
        self._enter_configuration()


class JoinedVotes(RaftMachine):
    """joined_voter_votes: rule 27 switched off."""

    def __init__(self, settings: Any, journal: RaftJournal, *rest: Any) -> None:
        journal.admit()
        super().__init__(settings, journal, *rest)


class FormerJournalVotes(RaftMachine):
    """Rule 27: a journal that may vote keeps doing so when the configuration names another one for its node."""

    def _may_vote(self, named: bytes) -> bool:
        return self.may_vote or super()._may_vote(named)


class RequestIdsRestart(RaftMachine):
    """forward_after_restart: the library counts requests from 0 in each process."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._SyncObj__commandsLocalCounter = 0


class SnapshotBusy(RaftMachine):
    """busy_snapshot: the library sends without waiting for an answer."""

    def _send_snapshot(self, node: PeerNode) -> None:
        for _ in range(10):
            self._sending.pop(node, None)
            super()._send_snapshot(node)


class SnapshotWithoutMembership(RaftMachine):
    """The configuration is not in the snapshot."""

    def _membership_at(self, index: int) -> Any:
        return self._settings.voters


class SnapshotWaitersForgotten(RaftMachine):
    """snapshot_waiters: the library forgets who waits for an entry that a snapshot skips."""

    def _install(self, snapshot: StoredSnapshot) -> None:
        machine: Any = self
        waiting = machine._SyncObj__commandsWaitingCommit
        machine._SyncObj__commandsWaitingCommit = collections.defaultdict(list)
        super()._install(snapshot)
        machine._SyncObj__commandsWaitingCommit = waiting


class TailDroppedJournal(RaftJournal):
    """snapshot_tail: the library drops the log behind a snapshot that it receives."""

    def install_snapshot(self, snapshot: StoredSnapshot) -> None:
        super().install_snapshot(snapshot)
        self.clear()
        self.add(NO_OP, snapshot.index, snapshot.term)


class ForgetfulJournal(RaftJournal):
    """The vote is not durable."""

    def sync(self) -> None:
        state, self._state = self._state, self._state._replace(voted_for=None)
        super().sync()
        self._state = state


class EagerOutbox(Outbox):
    """Messages leave before the journal is durable."""

    def flush(self, journal: RaftJournal) -> None:
        pending, self._pending = self._pending, []
        self._wire.post(pending)
        journal.sync()


class DeposedLeaderStays(RaftMachine):
    """deposed_leader: the library's leader believes in itself for 30 s."""

    @staticmethod
    def _library_conf(settings: Any) -> Any:
        conf = RaftMachine._library_conf(settings)
        conf.leaderFallbackTimeout = 30.0
        return conf


class VotesOfAnyTerm(RaftMachine):
    """double_vote: votes of an earlier term stay counted."""

    def _SyncObj__setCurrentTerm(self, *vote: Any) -> None:
        votes = self._votes
        super()._SyncObj__setCurrentTerm(*vote)
        self._votes = votes

    def _on_response_vote(self, node: PeerNode, message: Message) -> None:
        machine: Any = self
        super()._on_response_vote(node, message)
        if machine._SyncObj__raftState == CANDIDATE and 2 * (len(self._votes) + 1) > len(machine._SyncObj__otherNodes):
            machine._SyncObj__onBecomeLeader()


class VotesOfAnybody(RaftMachine):
    """foreign_vote: who is no voter counts."""

    def _on_response_vote(self, node: PeerNode, message: Message) -> None:
        if message["term"] == self.raftCurrentTerm and node not in self._votes:
            self._votes |= {node}
            self._handle_by_library(node, message)


class VotesTwice(RaftMachine):
    """A vote in this term does not keep from another: the library relies on what the journal remembers."""

    def _on_request_vote(self, node: PeerNode, message: Message) -> None:
        self._SyncObj__votedForNodeId = None
        super()._on_request_vote(node, message)


class PreVoteAlways(RaftMachine):
    """no_pre_vote: who hears from a leader would vote for another all the same."""

    def _on_request_pre_vote(self, node: PeerNode, message: Message) -> None:
        self._leader_heard_at = float("-inf")
        super()._on_request_pre_vote(node, message)


class PreVotesNotCounted(RaftMachine):
    """no_pre_vote: one answer is enough to stand."""

    def _on_pre_vote_answer(self, node: PeerNode, message: Message) -> None:
        if message["granted"] and self._pre_votes and message["term"] == self.raftCurrentTerm:
            self._pre_votes = frozenset(self._SyncObj__otherNodes)
        super()._on_pre_vote_answer(node, message)


class LeaderChangeNotTold(RaftMachine):
    """forward_disconnect: nobody is told that the leader is another."""

    def _SyncObj__onLeaderChanged(self) -> None:
        pass


class NextIndexBack(RaftMachine):
    """next_index_back: each acknowledgement says where to send from."""

    def _on_append_answer(self, node: PeerNode, message: Message) -> None:
        super()._on_append_answer(node, message)
        if message["success"] and self._is_answer_to_leader(node, message):
            self._SyncObj__raftNextIndex[node] = max(message["next_node_idx"], self._SyncObj__raftLog[0].index + 1)


class AcksUnverified(RaftMachine):
    """ghost_commit: the library acknowledges up to the end of its log."""

    def _answer(self, node: PeerNode, next_index: int, *, success: bool, reset: bool = False) -> None:
        if success:
            next_index = self._SyncObj__raftLog[-1].index + 1
        super()._answer(node, next_index, success=success, reset=reset)


class ChunkCommits(RaftMachine):
    """ghost_commit: a part of a snapshot moves the commit index over a log that was not verified."""

    def _on_snapshot_chunk(self, node: PeerNode, message: Message) -> None:
        super()._on_snapshot_chunk(node, message)
        if message["term"] == self.raftCurrentTerm:
            self._commit_to(min(message["chunk"].index, self._SyncObj__raftLog[-1].index))


class ChunksUnordered(RaftMachine):
    """Parts of a snapshot are put together as they come, and any answer asks for the next."""

    def _on_snapshot_chunk(self, node: PeerNode, message: Message) -> None:
        if self._receiving is not None and message["chunk"].data:
            chunk = message["chunk"]
            message = message | {"chunk": dataclasses.replace(chunk, position=len(self._receiving._data))}
        super()._on_snapshot_chunk(node, message)

    def _on_snapshot_progress(self, node: PeerNode, message: Message) -> None:
        sending = self._sending.get(node)
        if sending is not None:
            sending._awaiting, message = True, message | {"sequence": sending._sequence}
        super()._on_snapshot_progress(node, message)


class CommitBack(RaftMachine):
    """The commit index is what the last message said."""

    def _commit_to(self, index: int) -> None:
        self._SyncObj__raftCommitIndex = index
        self._SyncObj__raftLog.setRaftCommitIndex(index)


class ChangeNotNoted(RaftMachine):
    """A follower's configuration changes only when the entry is applied, as in the library."""

    def _append_fresh(self, entries: list[Any]) -> None:
        before = list(self._configurations)
        super()._append_fresh(entries)
        if len(self._configurations) > len(before):
            self._configurations = before
            self._enter_configuration()


class ChangeNotUndone(RaftMachine):
    """A change that is cut off stays in force."""

    def _forget_changes_from(self, index: int) -> None:
        pass


class ChangeAtOnce(RaftMachine):
    """change_before_no_op: a leader need not have committed anything of its own."""

    def _SyncObj__changeCluster(self, change: Any) -> bool:
        if self._SyncObj__raftLastApplied >= self._change_index:
            self._SyncObj__noopIDx = 1
        return bool(super()._SyncObj__changeCluster(change))


class LeaderRemovesItself(RaftMachine):
    """A leader that is no voter any more counts itself."""

    def _is_fit(self, change: Any) -> bool:
        return super()._is_fit(change) or change.voter.node_id == self._me


class ProgressKept(RaftMachine):
    """Rule 27: what a removed voter's former journal acknowledged is still believed, as long as it is connected."""

    def _drop_voter(self, node: PeerNode) -> None:
        machine: Any = self
        places = machine._SyncObj__raftNextIndex.get(node), machine._SyncObj__raftMatchIndex.get(node)
        super()._drop_voter(node)
        if node in machine._SyncObj__connectedNodes:
            machine._SyncObj__raftNextIndex[node], machine._SyncObj__raftMatchIndex[node] = places


class NewsWait(RaftMachine):
    """New entries and the commit index wait for the next heartbeat."""

    def _checkCommandsToApply(self) -> None:
        self._announced = self.raftCommitIndex
        super()._checkCommandsToApply()


class AnyEntryAnswers(RaftMachine):
    """Who waits for an index is told success, whatever entry is there."""

    def _SyncObj__applyLogEntries(self) -> Any:
        machine: Any = self
        waiting = machine._SyncObj__commandsWaitingCommit
        for index in list(waiting):
            if self.raftLastApplied < index <= self.raftCommitIndex:
                term = self._entry(index).term
                waiting[index] = [(term, callback) for _, callback in waiting[index]]
        return super()._SyncObj__applyLogEntries()


class AppliesAhead(RaftMachine):
    """Entries are applied as soon as they are in the log."""

    def _SyncObj__applyLogEntries(self) -> Any:
        machine: Any = self
        commit, machine._SyncObj__raftCommitIndex = self.raftCommitIndex, machine._SyncObj__raftLog[-1].index
        try:
            return super()._SyncObj__applyLogEntries()
        finally:
            machine._SyncObj__raftCommitIndex = commit


class TermForgottenJournal(RaftJournal):
    """The term is not durable."""

    def sync(self) -> None:
        state = self._state
        if self.dirty:
            self._state = state._replace(term=self._entries[-1].term, voted_for=None)
        super().sync()
        self._state = state


class TwoTransactionsJournal(RaftJournal):
    """A snapshot and the truncation that it allows are not one transaction."""

    def sync(self) -> None:
        snapshot, self._new_snapshot = self._new_snapshot, None
        super().sync()
        if snapshot is not None:
            self._new_snapshot, self._dirty = snapshot, True
            super().sync()


class TermAfterEntriesJournal(RaftJournal):
    """Entries become durable before the term that they are of."""

    def __init__(self, disk: Any) -> None:
        super().__init__(disk)
        self._durable_state = self._state

    def sync(self) -> None:
        state = self._state
        if self.dirty and state.term != self._durable_state.term:
            self._state = self._durable_state
            super().sync()
            self._state, self._dirty = state, True
        super().sync()
        self._durable_state = self._state


class CutNotWrittenJournal(RaftJournal):
    """Entries that take the place of others are not written, because entries of that index are there."""

    def deleteEntriesFrom(self, position: int) -> None:
        clean = self._clean_to
        super().deleteEntriesFrom(position)
        self._clean_to = clean


class FailureSwallowedJournal(RaftJournal):
    """After a failed commit the node goes on."""

    def sync(self) -> None:
        try:
            super().sync()
        except JournalWriteError:
            self._clean_to = self.last_index
            self._dirty = self._soft = self._urgent = False
            self._new_snapshot = None


class NotUrgentOutbox(Outbox):
    """Messages that speak of no entries leave before a new term is durable."""

    def flush(self, journal: RaftJournal) -> None:
        journal._urgent = False
        super().flush(journal)
