"""The consensus machine, part one: pysyncobj's SyncObj set up on our journal, transport and time.

`core`, `voting`, `appending` and `machine` are one class in four steps, each a subclass of the one before. **Every
step is named SyncObj** so that Python's mangling of private names reaches the library's private members:
`self.__raftLog` here is the library's, and a method `__onMessageReceived` here overrides the library's.
`machine.RaftMachine` is the whole. The library itself is untouched; `raft.audit` refuses any other version of it.

An override says which fault of the library it mends, and names the test that fails without it:
tests/raft/test_machine_mutants switches overrides off one by one.

Invariants: the log is never empty. The configuration in force is the latest in the log, committed or not.
"""

import queue
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import pysyncobj
from pysyncobj import syncobj as library

from penstock.internal.v1 import raft_pb2
from penstock.raft import audit
from penstock.raft.errors import InvariantViolation
from penstock.raft.journal import FIRST_INDEX, Entry, RaftJournal
from penstock.raft.membership import Change, Membership
from penstock.raft.outbox import Message, Outbox
from penstock.raft.peer import PeerNode
from penstock.raft.snapshot import CHUNK_BYTES, Frame

MAX_COMMAND_BYTES = 1024 * 1024
MAX_FORWARDED = 100_000  # commands of other nodes that may wait here

FOLLOWER = pysyncobj._RAFT_STATE.FOLLOWER  # noqa: SLF001  exported by the library under this name
CANDIDATE = pysyncobj._RAFT_STATE.CANDIDATE  # noqa: SLF001  exported by the library under this name
LEADER = pysyncobj._RAFT_STATE.LEADER  # noqa: SLF001  exported by the library under this name
COMMAND = b"\x00"  # the library's command types, a log entry's first byte; NO_OP is 1
MEMBERSHIP = b"\x02"

Callback = Callable[[tuple[int, bytes] | None, int], None]
"""Told (index, result) and SUCCESS, or None and another of the library's FAIL_REASON."""


class StateMachine(Protocol):
    """What consensus replicates. Called on the consensus thread only, in log order."""

    def apply(self, index: int, command: bytes) -> bytes:
        """Apply the command at this log index. Total and deterministic: bad input is a result, never an exception."""
        ...

    def snapshot(self) -> bytes:
        """Return the whole state, deterministically encoded."""
        ...

    def restore(self, index: int, data: bytes) -> None:
        """Replace the whole state by a snapshot taken after the command at `index` was applied."""
        ...


@dataclass(frozen=True)
class Settings:
    """How a machine runs. Times are seconds."""

    node_id: int
    voters: Membership  # where the log begins, if the journal does not know better
    election_timeout_s: tuple[float, float] = (0.3, 0.6)
    heartbeat_s: float = 0.05
    snapshot_entries: int = 8192
    snapshot_tail: int = 1024
    batch_entries: int = 4096  # in one message
    chunk_bytes: int = CHUNK_BYTES  # of a snapshot, in one message


class _CommandQueue(deque[tuple[bytes, Any]]):
    """The library's queue of commands without its lock: only the consensus thread comes here."""

    def put_nowait(self, item: tuple[bytes, Any]) -> None:
        """Add a command, if there is room."""
        if len(self) >= MAX_FORWARDED:
            raise queue.Full
        self.append(item)

    def get_nowait(self) -> tuple[bytes, Any]:
        """Take the oldest command, if there is one."""
        if not self:
            raise queue.Empty
        return self.popleft()


class _NoPoller:
    """The library polls sockets at the end of a tick; it has none here."""

    def poll(self, timeout: float) -> None:
        """Return at once."""


def clock() -> float:
    """Return the library's monotonic time, which the simulator replaces."""
    return float(library.monotonicTime())


class SyncObj(pysyncobj.SyncObj):  # type: ignore[misc]  # the library has no types
    """Construction, and the configuration as a function of the log."""

    __raftState: int
    __raftCurrentTerm: int
    __votedForNodeId: int | None
    __raftLeader: PeerNode | None
    __raftLog: RaftJournal
    __raftCommitIndex: int
    __raftLastApplied: int
    __raftNextIndex: dict[PeerNode, int]
    __raftMatchIndex: dict[PeerNode, int]
    __lastResponseTime: dict[PeerNode, float]
    __otherNodes: set[PeerNode]
    __readonlyNodes: set[PeerNode]
    __connectedNodes: set[PeerNode]
    __commandsQueue: deque[tuple[bytes, Any]]
    __transport: Outbox

    def __init__(
        self, settings: Settings, journal: RaftJournal, outbox: Outbox, state: StateMachine, rng: random.Random
    ) -> None:
        audit.check()
        self._settings = settings
        self._random = rng
        self._state = state
        self._me = settings.node_id
        super().__init__(PeerNode(self._me), [], self._library_conf(settings), transport=outbox)
        outbox.name_journal = self._name_journal
        self._poller = _NoPoller()
        self.__commandsQueue = _CommandQueue()
        # Fault: request ids restart at 0, so an answer to the incarnation before a restart is taken for this one's.
        self.__commandsLocalCounter = rng.getrandbits(52)
        self.__raftLog = journal
        self.__raftCurrentTerm = journal.getCurrentTerm()
        self.__votedForNodeId = journal.getVotedForNodeId()
        if journal[-1].term > self.__raftCurrentTerm:
            raise InvariantViolation(f"the log's last term {journal[-1].term} is above the journal's term")
        self.__raftCommitIndex = journal.getRaftCommitIndex()
        self.__raftLastApplied = FIRST_INDEX
        self._configurations: list[tuple[int, Membership]] = []
        self._restore()

    def __dir__(self) -> Iterable[str]:
        """Hide all from the library's constructor, which reads each attribute in search of replicated methods."""
        return super().__dir__() if hasattr(self, "_configurations") else ()

    @staticmethod
    def _library_conf(settings: Settings) -> Any:
        low, high = settings.election_timeout_s
        return pysyncobj.SyncObjConf(
            autoTick=False,
            raftMinTimeout=low,
            raftMaxTimeout=high,
            appendEntriesPeriod=settings.heartbeat_s,
            # Fault: a deposed leader believes in itself for 30 s.
            leaderFallbackTimeout=high,
            connectionTimeout=max(high, 3.5),
            # Fault: larger entries travel pickled. Commands are smaller than this, and there is no form for such parts.
            appendEntriesBatchSizeBytes=2 * MAX_COMMAND_BYTES,
            dynamicMembershipChange=True,
            useFork=False,
        )

    def _restore(self) -> None:
        journal = self.__raftLog
        base, membership = FIRST_INDEX, self._settings.voters
        if journal.snapshot is not None:
            frame = Frame.decode(journal.snapshot)
            self._state.restore(frame.index, frame.state)
            self.__raftLastApplied = base = frame.index
            membership = frame.membership
        elif journal.membership is not None:
            membership = Membership.decode(raft_pb2.RaftMembership.FromString(journal.membership))
        else:
            journal.found(membership.encode().SerializeToString(deterministic=True))
        self._begin_configuration(base, membership)

    # --- the log ---------------------------------------------------------------------------------------------------

    def _entry(self, index: int) -> Entry:
        return self.__raftLog[index - self.__raftLog[0].index]

    @property
    def membership(self) -> Membership:
        """The configuration in force: the latest in the log."""
        return self._configurations[-1][1] if getattr(self, "_configurations", None) else self._settings.voters

    # --- the configuration -----------------------------------------------------------------------------------------
    # Fault: configurations are pickled, are not in force after a restart until applied again, and a snapshot's is
    # ignored by half of the code. Here they are a stack beside the log. Tests: test_machine_membership.

    def _begin_configuration(self, index: int, membership: Membership) -> None:
        """Start the stack anew with the configuration as of `index`; then come the log's changes behind it."""
        self._configurations = [(index, membership)]
        first = self.__raftLog[0].index
        for entry in self.__raftLog[max(0, index + 1 - first) :]:
            self._note_change(entry)
        self._enter_configuration()

    def _note_change(self, entry: Entry) -> bool:
        if entry.command[:1] != MEMBERSHIP:
            return False
        change = Change.decode(entry.command[1:])
        self._configurations.append((entry.index, self.membership.after(change)))
        return True

    def _forget_changes_from(self, index: int) -> None:
        """The log was cut at `index`."""
        if self._configurations[-1][0] >= index:
            while self._configurations[-1][0] >= index:
                self._configurations.pop()
            self._enter_configuration()

    def _name_journal(self, peer: int) -> bytes:
        """Return the journal that the configuration in force names for a voter."""
        voter = self.membership.voter(peer)
        return voter.journal_id if voter is not None else b""

    def _membership_at(self, index: int) -> Membership:
        return next(membership for at, membership in reversed(self._configurations) if at <= index)

    def _enter_configuration(self) -> None:
        addresses = self.membership.addresses
        addresses.pop(self._me, None)
        others = {PeerNode(node_id) for node_id in sorted(addresses)}
        for node in others - self.__otherNodes:
            self.__readonlyNodes.discard(node)
            self.__raftNextIndex.setdefault(node, self.__raftLog[-1].index + 1)
            self.__raftMatchIndex.setdefault(node, 0)
            self.__lastResponseTime[node] = clock()
        for node in self.__otherNodes - others:
            self._drop_voter(node)
        self.__otherNodes = others
        self.__transport.set_voters(addresses)

    def _drop_voter(self, node: PeerNode) -> None:
        """A former voter is an observer as long as it is connected.

        What its journal acknowledged is forgotten: it may have another one by now (rule 27). If the progress stayed, a
        wiped voter would never be filled, and would be taken for caught up.
        """
        self._forget_progress(node)
        if node in self.__connectedNodes:
            self.__readonlyNodes.add(node)
            self.__raftNextIndex[node] = self.__raftLog[-1].index + 1
            self.__raftMatchIndex[node] = 0
        else:
            self.__raftNextIndex.pop(node, None)
            self.__raftMatchIndex.pop(node, None)

    # --- the library's own ways that must never be taken ------------------------------------------------------------
    # Fault: commands, configurations and dumps are pickled. Test: test_machine_no_pickle.

    def __doApplyCommand(self, _command: bytes) -> None:
        raise InvariantViolation("the library would unpickle a command")

    def __loadDumpFile(self, **_: object) -> None:
        raise InvariantViolation("the library would unpickle a dump")

    def __doChangeCluster(self, _request: object, **_: object) -> None:
        raise InvariantViolation("the library would change the configuration by itself")

    def __parseChangeClusterRequest(self, command: bytes) -> Change | None:
        """Return the change that the command asks for. The library unpickles here."""
        return Change.decode(command[1:]) if command[:1] == MEMBERSHIP else None

    def __generateRaftTimeout(self) -> float:
        """Draw an election timeout. The library uses the process's random numbers."""
        return self._random.uniform(*self._settings.election_timeout_s)

    def _handle_by_library(self, node: PeerNode, message: Message) -> None:
        pysyncobj.SyncObj._SyncObj__onMessageReceived(self, node, message)  # noqa: SLF001  the overridden method
