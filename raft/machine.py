"""The consensus machine, last part: commands, applying, snapshots, and the round that drives it all.

Sans-IO: `round` takes what happened (connections, messages, submissions), ticks the library, and lets the outbox go.
The same class runs under `raft.cluster` and in the simulator. See `raft.core` for the name of the class.

Invariants: each committed entry is applied once, in order. Anything unexpected while applying (an error of the state
machine, an unknown kind of command) leaves `round` as an exception: the caller stops the node for good.
"""

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pysyncobj import FAIL_REASON

from penstock.raft import appending
from penstock.raft.core import COMMAND, LEADER, MAX_COMMAND_BYTES, MEMBERSHIP, Callback
from penstock.raft.errors import InvariantViolation
from penstock.raft.journal import NO_OP, Entry, RaftJournal
from penstock.raft.membership import Change
from penstock.raft.outbox import Message, Outbox
from penstock.raft.peer import PeerNode
from penstock.raft.snapshot import Frame

APPLY_PER_ROUND = 4096
CATCH_UP_ENTRIES = 1024  # an observer may be this far behind when it becomes a voter

DEFINITE = frozenset(
    {
        FAIL_REASON.QUEUE_FULL,
        FAIL_REASON.MISSING_LEADER,
        FAIL_REASON.DISCARDED,
        FAIL_REASON.NOT_LEADER,
        FAIL_REASON.REQUEST_DENIED,
    }
)
"""Reasons that say: not applied, now or later. All others but SUCCESS are ambiguous."""


@dataclass
class Submission:
    """A command on its way into the log. Either the machine claims it, or who submitted it takes it back."""

    entry: bytes  # kind and command
    callback: Callback
    _free: threading.Lock = field(default_factory=threading.Lock)

    def claim(self) -> bool:
        """Whether the caller is the first to ask."""
        return self._free.acquire(blocking=False)


@dataclass(frozen=True, slots=True)
class Connected:
    """Messages can be sent to this peer."""

    peer: int


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection to this peer ended, and what was under way is lost."""

    peer: int


class Received(NamedTuple):
    """A peer's message, in order."""

    peer: int
    message: Message


@dataclass(frozen=True, slots=True)
class Transfer:
    """Hand leadership to this voter, or to the fittest."""

    to: int | None
    callback: Callback


Event = Connected | Disconnected | Received | Submission | Transfer


_HANDLERS = {
    "request_vote": "_on_request_vote",
    "response_vote": "_on_response_vote",
    "request_pre_vote": "_on_request_pre_vote",
    "pre_vote_answer": "_on_pre_vote_answer",
    "timeout_now": "_on_timeout_now",
    "append_entries": "_on_append_entries",
    "snapshot_chunk": "_on_snapshot_chunk",
    "next_node_idx": "_on_append_answer",
    "snapshot_progress": "_on_snapshot_progress",
    "apply_command": "_on_apply_command",
    "apply_command_response": "_handle_by_library",
}


def is_command(entry: bytes) -> bool:
    """Whether a log entry is of a kind that a peer may ask for."""
    if len(entry) > MAX_COMMAND_BYTES + 1:
        return False
    if entry[:1] != MEMBERSHIP:
        return entry[:1] == COMMAND or entry == NO_OP
    try:
        Change.decode(entry[1:])
    except ValueError:
        return False
    return True


class SyncObj(appending.SyncObj):
    """The whole machine."""

    __raftState: int
    __raftCurrentTerm: int
    __raftLeader: PeerNode | None
    __raftLog: RaftJournal
    __raftCommitIndex: int
    __raftLastApplied: int
    __raftMatchIndex: dict[PeerNode, int]
    __otherNodes: set[PeerNode]
    __readonlyNodes: set[PeerNode]
    __noopIDx: int | None
    __commandsWaitingCommit: dict[int, list[tuple[int, Callback]]]
    __commandsWaitingReply: dict[int, Callback]
    __commandsQueue: deque[tuple[bytes, Any]]
    __transport: Outbox

    def __init__(self, *args: Any) -> None:
        self._submitted: deque[Submission] = deque()
        self._announced = 0  # the commit index that the followers were last sent
        self._change_index = 0  # the last configuration change that this leader appended
        super().__init__(*args)

    # --- driving ---------------------------------------------------------------------------------------------------

    def round(self, events: Iterable[Event]) -> None:
        """Take the events, tick, and let the messages go, durability first. Any exception is final."""
        for event in events:
            self._take(event)
        self._onTick()
        self.__transport.flush(self.__raftLog)

    @property
    def busy(self) -> bool:
        """Whether another round has work to do at once."""
        alone = self.__raftState == LEADER and not self.__otherNodes
        goal = self.__raftLog[-1].index if alone else self.__raftCommitIndex
        return self.__raftLastApplied < goal

    @property
    def may_vote(self) -> bool:
        """Whether the journal was founding, or admitted since (rule 27)."""
        return self.__raftLog.may_vote

    @property
    def leader(self) -> int | None:
        """The node believed to lead."""
        return None if self.__raftLeader is None else int(self.__raftLeader)

    def _take(self, event: Event) -> None:
        match event:
            case Received(peer, message):
                self.__onMessageReceived(self.__transport.node(peer), message)
            case Submission():
                self._submitted.append(event)
            case Connected():
                self.__transport.connected(event.peer)
            case Disconnected():
                self.__transport.disconnected(event.peer)
            case Transfer():
                self.transferLeadership(None if event.to is None else PeerNode(event.to), event.callback)

    def __onMessageReceived(self, node: PeerNode, message: Message) -> None:
        getattr(self, _HANDLERS[message["type"]])(node, message)

    # --- commands --------------------------------------------------------------------------------------------------

    def _checkCommandsToApply(self) -> None:
        """Take commands in, and send at once what is new.

        Faults: a forwarded command whose message could not leave waits for ever (forward_unsent); followers learn of
        new entries and of the commit index one heartbeat late.
        """
        if self.__raftLeader is not None:
            while self._submitted:
                submission = self._submitted.popleft()
                if submission.claim():
                    self._applyCommand(submission.entry, submission.callback)
        end = self.__raftLog[-1].index
        if self.__commandsQueue:
            super()._checkCommandsToApply()
        for request_id in self.__transport.take_unsent():
            callback = self.__commandsWaitingReply.pop(request_id, None)
            if callback is not None:
                callback(None, FAIL_REASON.MISSING_LEADER)
        news = self.__raftLog[-1].index != end or self.__raftCommitIndex != self._announced
        if self.__raftState == LEADER and news:
            self._announced = self.__raftCommitIndex
            self.__sendAppendEntries()

    def _on_apply_command(self, node: PeerNode, message: Message) -> None:
        """A peer's command. Fault: any bytes are accepted, and unpickled on every node. Test: forwarded_garbage."""
        if is_command(message["command"]):
            self._handle_by_library(node, message)
        else:
            answer = {"type": "apply_command_response", "request_id": message["request_id"]}
            self.__transport.send(node, answer | {"error": FAIL_REASON.REQUEST_DENIED})

    def __changeCluster(self, change: Change) -> bool:
        """Accept a configuration change as this leader's next entry, or refuse it.

        Fault: the guard against a second change under way is dead code. Tests: two_changes, change_before_no_op.
        """
        settled = self.__noopIDx is not None and self.__raftLastApplied >= max(self.__noopIDx, self._change_index)
        if not settled or not self._is_fit(change):
            return False
        self._change_index = self.__raftLog[-1].index + 1
        self._configurations.append((self._change_index, self.membership.after(change)))
        self._enter_configuration()
        return True

    def _is_fit(self, change: Change) -> bool:
        node_id = change.voter.node_id
        present = self.membership.voter(node_id) is not None
        if not change.adding:
            return present and node_id != self._me
        node = PeerNode(node_id)
        behind = self.__raftCommitIndex - self.__raftMatchIndex.get(node, 0)
        return not present and node in self.__readonlyNodes and behind <= CATCH_UP_ENTRIES

    # --- applying --------------------------------------------------------------------------------------------------

    def __applyLogEntries(self) -> bool:
        """Apply what is committed.

        Faults: an error in apply is logged and the entry tried again for ever; an error in a callback applies the entry
        twice. Tests: apply_error, callback_error.
        """
        goal = min(self.__raftCommitIndex, self.__raftLastApplied + APPLY_PER_ROUND)
        while self.__raftLastApplied < goal:
            entry = self._entry(self.__raftLastApplied + 1)
            result = self._apply(entry)
            self.__raftLastApplied = entry.index
            for term, callback in self.__commandsWaitingCommit.pop(entry.index, ()):
                if term == entry.term:
                    callback((entry.index, result), FAIL_REASON.SUCCESS)
                else:
                    callback(None, FAIL_REASON.DISCARDED)
        return False

    def _apply(self, entry: Entry) -> bytes:
        kind = entry.command[:1]
        if kind == COMMAND:
            return self._state.apply(entry.index, entry.command[1:])
        if kind == MEMBERSHIP:
            change = Change.decode(entry.command[1:])
            if change.adding:
                self._admit_if_named(change.voter)
        elif kind != NO_OP:
            raise InvariantViolation(f"entry {entry.index} has a kind unknown to this version: {kind.hex() or 'none'}")
        return b""

    # --- snapshots -------------------------------------------------------------------------------------------------

    def __tryLogCompaction(self) -> None:
        """Store a snapshot when one is due.

        Faults: fork and files, an acknowledged tail lost when killed between dump and log; no tail kept for a follower
        a little behind. Snapshot and truncation are one transaction of the journal. Tests: test_machine_snapshot.
        """
        log = self.__raftLog
        since = log.snapshot.index if log.snapshot is not None else log[0].index
        applied = self.__raftLastApplied
        if applied - since < self._settings.snapshot_entries:
            return
        membership = self._membership_at(applied)
        frame = Frame(applied, self._entry(applied).term, membership, self._state.snapshot())
        log.store_snapshot(frame.encode(), keep_from=applied - self._settings.snapshot_tail)
        later = [item for item in self._configurations if item[0] > applied]
        self._configurations = [(applied, membership), *later]


RaftMachine = SyncObj
