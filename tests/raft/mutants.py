"""RaftMachine with single overrides switched off: what the library does instead, or the same without the fix.

Only the tests know these. Each must make the simulator or a focused test fail: tests/raft/test_machine_mutants.
"""

import collections
from typing import Any

import pysyncobj
from pysyncobj.node import Node

from penstock.raft.journal import NO_OP, RaftJournal, StoredSnapshot
from penstock.raft.machine import RaftMachine
from penstock.raft.outbox import Message, Outbox

# ruff: noqa: N802


class VotesNotVoters(RaftMachine):
    """double_vote, foreign_vote: the library counts each answer."""

    def _on_response_vote(self, node: Node, message: Message) -> None:
        self._handle_by_library(node, message)


class AckWithoutTerm(RaftMachine):
    """late_ack: the library's acknowledgements carry no term."""

    def _on_append_answer(self, node: Node, message: Message) -> None:
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

    def _on_append_entries(self, node: Node, message: Message) -> None:
        super()._on_append_entries(node, message)
        if message["term"] == self.raftCurrentTerm:
            self._commit_to(min(message["commit_index"], self._SyncObj__raftLog[-1].index))


class ResetRewrites(RaftMachine):
    """stuck_follower: the library lets each rejected message say where to go on, forwards too."""

    def _on_append_answer(self, node: Node, message: Message) -> None:
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

    def _follow(self, node: Node, message: Message) -> bool:
        return message["term"] >= self.raftCurrentTerm and super()._follow(node, message)


class ForwardWaitsForEver(RaftMachine):
    """forward_disconnect: the library does not tell who waits for a leader that is gone."""

    def _SyncObj__onNodeDisconnected(self, node: Node) -> None:
        self._SyncObj__connectedNodes.discard(node)


class ForwardUnsentWaitsForEver(RaftMachine):
    """forward_unsent: the library ignores that a message did not leave."""

    def _checkCommandsToApply(self) -> None:
        for submission in self._submitted:
            self._applyCommand(submission.entry, submission.callback)
        self._submitted.clear()
        pysyncobj.SyncObj._checkCommandsToApply(self)


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

    def _send_snapshot(self, node: Node) -> None:
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
