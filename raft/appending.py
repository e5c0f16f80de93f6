"""The consensus machine, part three: the log's way from leader to follower (see `raft.core` for the classes' name).

Invariants: a follower acknowledges, and commits, at most what it has verified against this leader in this term. It cuts
its log only where a term differs, never at or below its commit index. What a leader knows of a follower only grows
within a term; where it probes, it goes back only.
"""

import itertools
from typing import Any

from pysyncobj import FAIL_REASON

from penstock.raft import voting
from penstock.raft.core import FOLLOWER, LEADER, Callback, clock
from penstock.raft.errors import InvariantViolation
from penstock.raft.journal import Entry, RaftJournal, StoredSnapshot
from penstock.raft.outbox import Message, Outbox
from penstock.raft.peer import PeerNode
from penstock.raft.snapshot import Chunk, Frame, Receiving, Sending

BATCH_BYTES = 1024 * 1024  # of commands in a message; a single larger command travels alone
PIPELINE_ENTRIES = 65_536  # sent to a follower and not acknowledged yet


class SyncObj(voting.SyncObj):
    """Replication of log and snapshot."""

    __raftState: int
    __raftCurrentTerm: int
    __raftLeader: PeerNode | None
    __raftElectionDeadline: float
    __transferInProgress: bool
    __newAppendEntriesTime: float
    __raftLog: RaftJournal
    __raftCommitIndex: int
    __raftLastApplied: int
    __otherNodes: set[PeerNode]
    __readonlyNodes: set[PeerNode]
    __connectedNodes: set[PeerNode]
    __raftNextIndex: dict[PeerNode, int]
    __raftMatchIndex: dict[PeerNode, int]
    __lastResponseTime: dict[PeerNode, float]
    __commandsWaitingCommit: dict[int, list[tuple[int, Callback]]]
    __transport: Outbox

    def __init__(self, *args: Any) -> None:
        self._floors: dict[PeerNode, int] = {}  # followers being probed: where to send from; only goes back
        self._sending: dict[PeerNode, Sending] = {}
        self._sequences = itertools.count(1)  # of messages about snapshots
        self._receiving: Receiving | None = None
        super().__init__(*args)

    def _new_term(self) -> None:
        self._floors.clear()
        self._sending.clear()
        self._receiving = None

    def _forget_progress(self, node: PeerNode) -> None:
        self._floors.pop(node, None)
        self._sending.pop(node, None)

    # --- the leader sends ------------------------------------------------------------------------------------------
    # Faults: send() == False is ignored; a follower that needs a snapshot is spun upon for 100 ms a tick with thousands
    # of empty messages; the set's order depends on the hash seed. Tests: busy_snapshot, full_queue.

    def __sendAppendEntries(self) -> None:
        self.__newAppendEntriesTime = clock() + self._settings.heartbeat_s
        for node in sorted((self.__otherNodes | self.__readonlyNodes) & self.__connectedNodes):
            self._send_log(node)

    def _send_log(self, node: PeerNode) -> None:
        if self.__raftNextIndex[node] <= self.__raftLog[0].index:
            self._send_snapshot(node)
            return
        self._sending.pop(node, None)
        entries = self._batch(node)
        while self._send_entries(node, entries):
            if not entries or node in self._floors:
                return
            entries = self._batch(node)
            if not entries:
                return

    def _batch(self, node: PeerNode) -> list[Entry]:
        start, first = self.__raftNextIndex[node], self.__raftLog[0].index
        if start > max(self.__raftMatchIndex[node], first) + PIPELINE_ENTRIES:
            return []
        entries = self.__raftLog[start - first : start - first + self._settings.batch_entries]
        size = 0
        for count, entry in enumerate(entries):
            size += len(entry.command)
            if size > BATCH_BYTES:
                return entries[: max(1, count)]
        return entries

    def _send_entries(self, node: PeerNode, entries: list[Entry]) -> bool:
        previous = self._entry(self.__raftNextIndex[node] - 1)
        message = {
            "type": "append_entries",
            "term": self.__raftCurrentTerm,
            "commit_index": self.__raftCommitIndex,
            "entries": entries,
            "prevLogIdx": previous.index,
            "prevLogTerm": previous.term,
        }
        if not self.__transport.send(node, message):
            return False
        self.__raftNextIndex[node] += len(entries)
        return True

    def _send_snapshot(self, node: PeerNode) -> None:
        """Ask the follower how far it is: its answer asks for the next chunk. The question is the heartbeat too."""
        sending = self._sending.get(node)
        if sending is None:
            snapshot = self.__raftLog.snapshot
            if snapshot is None:
                raise InvariantViolation(f"node {node} needs a snapshot, but the log begins without one")
            sending = self._sending[node] = Sending(snapshot, self._settings.chunk_bytes, self._sequences)
        if sending.is_due(clock(), self._settings.heartbeat_s):
            self._send_chunk(node, sending, None)

    def _send_chunk(self, node: PeerNode, sending: Sending, position: int | None) -> None:
        chunk = sending.next(position, clock())
        self.__transport.send(node, {"type": "snapshot_chunk", "term": self.__raftCurrentTerm, "chunk": chunk})

    def _on_snapshot_progress(self, node: PeerNode, message: Message) -> None:
        if self._adopt_term(message["term"]) or not self._is_answer_to_leader(node, message):
            return
        self.__lastResponseTime[node] = clock()
        sending = self._sending.get(node)
        if sending is not None and sending.is_answer(message["index"], message["sequence"]):
            self._send_chunk(node, sending, message["received"])

    def _on_append_answer(self, node: PeerNode, message: Message) -> None:
        """Take an acknowledgement, or the place to send from instead.

        Faults: an acknowledgement carries no term, so a late one counts in a later term (late_ack); `reset` rewrites
        nextIndex for each of many rejected messages, so a returning leader is stuck (stuck_follower); nextIndex moves
        back at each acknowledgement (next_index_back).
        """
        if self._adopt_term(message["term"]) or not self._is_answer_to_leader(node, message):
            return
        self.__lastResponseTime[node] = clock()
        following = message["next_node_idx"]
        match = self.__raftMatchIndex[node]
        if message["success"]:
            if following > self.__raftLog[-1].index + 1:
                raise InvariantViolation(f"node {node} acknowledges up to {following - 1}, beyond this leader's log")
            self.__raftMatchIndex[node] = match = max(match, following - 1)
            self.__raftNextIndex[node] = max(self.__raftNextIndex[node], match + 1)
            self._resume(node, match)
        elif message["reset"]:
            before = self._floors.get(node, self.__raftLog[-1].index + 2)
            floor = min(before, max(following, match + 1))
            self._floors[node] = self.__raftNextIndex[node] = floor
            if floor < before:
                self._send_log(node)

    def _resume(self, node: PeerNode, match: int) -> None:
        """The probe, or the snapshot, has met the follower's log: send what is behind it."""
        sending = self._sending.get(node)
        installed = sending is not None and sending.snapshot.index <= match
        if installed:
            del self._sending[node]
        if self._floors.pop(node, None) is not None or installed:
            self._send_log(node)

    def _is_answer_to_leader(self, node: PeerNode, message: Message) -> bool:
        return (
            self.__raftState == LEADER and message["term"] == self.__raftCurrentTerm and node in self.__raftMatchIndex
        )

    # --- the follower receives -------------------------------------------------------------------------------------

    def _follow(self, node: PeerNode, message: Message) -> bool:
        """Accept the sender as leader of its term; False if its term is over.

        Fault: a stale leader is not told, which with pre-vote would leave a node of a higher term out for ever
        (stale_leader).
        """
        term = message["term"]
        if term < self.__raftCurrentTerm:
            self._answer(node, 0, success=False)
            return False
        if term == self.__raftCurrentTerm and (self.__raftState == LEADER or self.__raftLeader not in (None, node)):
            raise InvariantViolation(f"nodes {node} and {self.__raftLeader} both lead in term {term}")
        if not self._adopt_term(term):
            self.__raftState = FOLLOWER
        self._leader_heard_at = clock()
        self._may_campaign = False
        self._pre_votes = frozenset()
        if not self.__transferInProgress:
            self._postpone_election(self._leader_heard_at)
        if self.__raftLeader != node:
            self.__onLeaderChanged()
            self.__raftLeader = node
        return True

    def _answer(self, node: PeerNode, next_index: int, *, success: bool, reset: bool = False) -> None:
        message = {
            "type": "next_node_idx",
            "term": self.__raftCurrentTerm,
            "next_node_idx": next_index,
            "success": success,
            "reset": reset,
        }
        self.__transport.send(node, message)

    def _on_append_entries(self, node: PeerNode, message: Message) -> None:
        """Append what is new.

        Faults: the log is cut without a conflict, applied entries included (truncated_tail); what was not verified is
        acknowledged and committed (ghost_commit).
        """
        if not self._follow(node, message):
            return
        log, previous = self.__raftLog, message["prevLogIdx"]
        first, end = log[0].index, log[-1].index
        if previous > end:
            self._answer(node, end + 1, success=False, reset=True)
            return
        if previous < first or log[previous - first].term != message["prevLogTerm"]:
            if first <= previous <= self.__raftCommitIndex:
                raise InvariantViolation(f"leader {node} has another term than this node at committed {previous}")
            # Up to the commit index every leader's log is the same, so that is where to go on.
            self._answer(node, self.__raftCommitIndex + 1, success=False, reset=True)
            return
        entries = message["entries"]
        self._append_fresh(entries)
        verified = previous + len(entries)
        self._answer(node, verified + 1, success=True)
        self._commit_to(min(message["commit_index"], verified))

    def _append_fresh(self, entries: list[Entry]) -> None:
        log = self.__raftLog
        first, end = log[0].index, log[-1].index
        known = 0
        while (
            known < len(entries)
            and entries[known].index <= end
            and (log[entries[known].index - first].term == entries[known].term)
        ):
            known += 1
        fresh = entries[known:]
        if fresh and fresh[0].index <= end:
            self._truncate(fresh[0].index)
        changed = False
        for entry in fresh:
            log.add(*entry)
            changed |= self._note_change(entry)
        if changed:
            self._enter_configuration()

    def _truncate(self, index: int) -> None:
        if index <= self.__raftCommitIndex:
            raise InvariantViolation(f"the log would be cut at {index}, committed up to {self.__raftCommitIndex}")
        self.__raftLog.deleteEntriesFrom(index - self.__raftLog[0].index)
        self._forget_changes_from(index)

    def _commit_to(self, index: int) -> None:
        if index > self.__raftCommitIndex:
            self.__raftCommitIndex = index
            self.__raftLog.setRaftCommitIndex(index)

    def _on_snapshot_chunk(self, node: PeerNode, message: Message) -> None:
        """Take a part of a snapshot.

        Faults: a part moves the commit index over a log that was not verified (ghost_commit); a dump lowers the term,
        drops the tail behind it, and leaves waiters of skipped entries hanging (snapshot_tail, snapshot_waiters).
        """
        if not self._follow(node, message):
            return
        chunk: Chunk = message["chunk"]
        if chunk.index <= self.__raftCommitIndex:
            self._receiving = None
            self._answer(node, self.__raftCommitIndex + 1, success=True)
            return
        if self._receiving is None or not self._receiving.is_of(node, chunk):
            self._receiving = Receiving(node, chunk)
        received = self._receiving.add(chunk)
        snapshot = self._receiving.complete()
        if snapshot is None:
            progress = {"type": "snapshot_progress", "term": self.__raftCurrentTerm, "index": chunk.index}
            self.__transport.send(node, progress | {"received": received, "sequence": chunk.sequence})
            return
        self._receiving = None
        self._install(snapshot)
        self._answer(node, snapshot.index + 1, success=True)

    def _install(self, snapshot: StoredSnapshot) -> None:
        frame = Frame.decode(snapshot)
        self.__raftLog.install_snapshot(snapshot)
        self._state.restore(frame.index, frame.state)
        self.__raftLastApplied = frame.index
        self._commit_to(frame.index)
        self._begin_configuration(frame.index, frame.membership)
        self._admit_if_named(frame.membership.voter(self._me))
        skipped = [index for index in self.__commandsWaitingCommit if index <= frame.index]
        for index in sorted(skipped):
            for _, callback in self.__commandsWaitingCommit.pop(index):
                callback(None, FAIL_REASON.UNKNOWN_OUTCOME)

    def _admit_if_named(self, voter: Any) -> None:
        """Vote from now on, if a committed configuration names this very journal (rule 27)."""
        if voter is not None and voter.journal_id and voter.journal_id == self.__raftLog.identity.journal_id:
            self.__raftLog.admit()
