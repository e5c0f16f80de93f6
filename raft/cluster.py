"""One member of the consensus cluster: lifecycle, and the bridge between the event loop and the consensus thread.

Owns: the thread that runs the consensus machine (its fsyncs must not block the event loop), the waiters of submitted
commands, and what the event loop may read about consensus (leader, term, applied index).

Invariants: the state machine is called on the consensus thread only, in log order, each index once. Every wait has a
deadline. A command's outcome is one of three: applied (with its result), refused (definitely not applied, now or
later), unknown. The first error of journal, snapshot or apply stops the node for good (`on_fatal`); nothing is retried.

Never: gates safety on `is_leader`, which may be out of date by an election timeout. Commands carry compare-and-set;
a linearizable read calls `barrier` first.
"""

import asyncio
import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import grpc
from pysyncobj import FAIL_REASON

from penstock.raft.core import COMMAND, MAX_COMMAND_BYTES, MEMBERSHIP, Settings, StateMachine
from penstock.raft.errors import OutcomeUnknown, RaftError, SubmitRefused
from penstock.raft.journal import NO_OP, RaftJournal
from penstock.raft.machine import DEFINITE, Event, RaftMachine, Received, Submission, Transfer
from penstock.raft.membership import Change, Membership, Voter
from penstock.raft.outbox import Outbox
from penstock.raft.transport import Inbox, PeerTransport, RaftServicer

__all__ = ["Applied", "OutcomeUnknown", "RaftConfig", "RaftNode", "StateMachine", "SubmitRefused"]

MAX_WAITING = 50_000  # commands submitted here and not answered
INBOX_MESSAGES = 10_000  # received and not taken by the consensus thread; then reading pauses
HANDOVER_S = 0.2  # for which a hand-over waits until another voter has everything
RETRY_S = 0.02  # between two attempts of a command that was definitely refused for want of a leader
_WORTH_RETRYING = frozenset({FAIL_REASON.MISSING_LEADER, FAIL_REASON.NOT_LEADER, FAIL_REASON.DISCARDED})
_NAMES = {value: name for name, value in vars(FAIL_REASON).items() if isinstance(value, int)}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Applied:
    """A command's certain outcome: it is in the log at `index`, and this node's state machine answered `result`."""

    index: int
    result: bytes


@dataclass(frozen=True)
class RaftConfig:
    """How this member runs. Times are seconds."""

    node_id: int
    data_dir: Path  # the journal is in data_dir/"raft", made by RaftJournal.format
    voters: Mapping[int, str]  # node id -> "host:port" of its peer listener; the configuration in the journal wins
    dial_overrides: Mapping[int, str] = field(default_factory=dict)  # dial these addresses instead
    observer: bool = False  # receives the log; never votes or counts (until it is added as a voter)
    election_timeout_s: tuple[float, float] = (0.3, 0.6)
    heartbeat_s: float = 0.05
    tick_s: float = 0.02
    snapshot_entries: int = 8192  # entries applied since the last snapshot that make the next one due
    snapshot_tail: int = 1024  # entries kept before a snapshot, so that a follower a little behind needs none
    credentials: grpc.ChannelCredentials | None = None
    seed: int | None = None  # of the random numbers behind timeouts; None: the system's


class _Status(NamedTuple):
    """What the event loop may know; replaced as a whole after a round."""

    leader: int | None = None
    is_leader: bool = False
    term: int = 0
    applied_index: int = 0
    membership: Membership = Membership(())
    may_vote: bool = False


class RaftNode:
    """A member of the cluster. Built, started, used and stopped on one event loop."""

    on_leadership: list[Callable[[int | None, int], None]]  # (leader, term), on the event loop at each change
    on_fatal: list[Callable[[BaseException], None]]  # on the event loop, once: consensus here has stopped for good

    def __init__(self, config: RaftConfig, machine: StateMachine) -> None:
        self.config = config
        self.machine = machine
        self.on_leadership = []
        self.on_fatal = []
        self._status = _Status()
        self._announced: tuple[int | None, int] = (None, 0)
        self._servicer = RaftServicer()
        self._rng = random.Random(config.seed)  # noqa: S311  jitter, not secrets
        self._events: deque[Event] = deque()
        self._wake = threading.Event()
        self._stopping = False
        self._running = False
        self._thread: threading.Thread | None = None
        self._waiting: dict[asyncio.Future[tuple[object, int]], Submission] = {}
        self._answers: list[tuple[asyncio.Future[tuple[object, int]], object, int]] = []

    # --- what may be read at any time --------------------------------------------------------------------------------

    @property
    def leader(self) -> int | None:
        """The node believed to lead, if any is known."""
        return self._status.leader

    @property
    def is_leader(self) -> bool:
        """Whether this node believes that it leads. Call `barrier` before acting on what it has applied."""
        return self._status.is_leader

    @property
    def term(self) -> int:
        """The current term."""
        return self._status.term

    @property
    def applied_index(self) -> int:
        """Index of the last log entry that this node's state machine has applied."""
        return self._status.applied_index

    @property
    def cluster_id(self) -> str:
        """The cluster that the journal belongs to. Known once started."""
        return self._transport.identity.cluster_id

    @property
    def journal_id(self) -> bytes:
        """Random 16 bytes, drawn when the journal was formatted. Known once started."""
        return self._transport.identity.journal_id

    @property
    def voters(self) -> Mapping[int, str]:
        """The voters of the latest configuration in this node's log, and their peer addresses."""
        return self._status.membership.addresses

    @property
    def voter_journals(self) -> Mapping[int, bytes]:
        """Voters as `voters`, and the ids of the journals that the configuration names; b"" for a founding one."""
        return {voter.node_id: voter.journal_id for voter in self._status.membership.voters}

    @property
    def may_vote(self) -> bool:
        """Whether this node's journal was founding, or was admitted since (rule 27)."""
        return self._status.may_vote

    def servicer(self) -> RaftServicer:
        """Return the RaftService implementation; add it to the peer gRPC server before that starts."""
        return self._servicer

    # --- lifecycle ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the journal, restore the state machine, dial the peers. Raises JournalError when it cannot."""
        self._loop = asyncio.get_running_loop()
        path = self.config.data_dir / "raft"
        journal = await asyncio.to_thread(RaftJournal.open, path, self.config.node_id)
        self._inbox = Inbox(self._deliver)
        self._transport = PeerTransport(
            journal.identity, self.config.dial_overrides, self.config.credentials, self._inbox, self._rng
        )
        started = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(journal, started), name="raft", daemon=True)
        self._thread.start()
        try:
            await started
        except BaseException:
            await self.stop()
            raise
        self._running = True
        self._servicer.transport = self._transport

    async def stop(self) -> None:
        """Close streams, thread and journal. Waiters get OutcomeUnknown (SubmitRefused if not yet sent)."""
        self._running = False
        self._stopping = True
        self._servicer.transport = None
        self._wake.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
            self._thread = None
            self._inbox.room.set()
            await self._transport.stop()
        self._abandon_waiting("this node is stopping")

    def _abandon_waiting(self, why: str) -> None:
        for future, submission in list(self._waiting.items()):
            if not future.done():
                error = SubmitRefused(why) if submission.claim() else OutcomeUnknown(why)
                future.set_exception(error)

    # --- the consensus thread ----------------------------------------------------------------------------------------

    def _run(self, journal: RaftJournal, started: "asyncio.Future[None]") -> None:
        fatal: BaseException | None = None
        try:
            machine = self._build(journal)
            self._publish(machine, journal)
            self._on_loop(started.set_result, None)
            while not self._stopping:
                self._round(machine, journal)
            journal.close()
        except BaseException as error:  # noqa: BLE001  whatever it is, this node must stop
            fatal = error
            journal.abandon()
        if fatal is not None:
            self._on_loop(self._fail, fatal, started)

    def _build(self, journal: RaftJournal) -> RaftMachine:
        config = self.config
        settings = Settings(
            config.node_id,
            Membership.of(config.voters),
            config.election_timeout_s,
            config.heartbeat_s,
            config.snapshot_entries,
            config.snapshot_tail,
        )
        if config.observer != (settings.voters.voter(config.node_id) is None) and journal.membership is None:
            raise RaftError(f"node {config.node_id} must be either in `voters` or an observer")
        return RaftMachine(settings, journal, Outbox(self._transport), self.machine, self._rng)

    def _round(self, machine: RaftMachine, journal: RaftJournal) -> None:
        if not machine.busy:
            self._wake.wait(self.config.tick_s)
        self._wake.clear()
        self._turn(machine, journal)

    def _turn(self, machine: RaftMachine, journal: RaftJournal) -> None:
        events = [self._events.popleft() for _ in range(len(self._events))]
        machine.round(events)
        if not self._inbox.room.is_set() and len(self._events) < INBOX_MESSAGES:
            self._on_loop(self._inbox.room.set)
        self._publish(machine, journal)

    def _publish(self, machine: RaftMachine, journal: RaftJournal) -> None:
        leading = machine._isLeader()  # noqa: SLF001  the library's public name for it
        status = _Status(
            machine.leader,
            leading,
            machine.raftCurrentTerm,
            machine.raftLastApplied,
            machine.membership,
            journal.may_vote,
        )
        answers, self._answers = self._answers, []
        changed = (status.leader, status.term) != (self._status.leader, self._status.term)
        self._status = status
        if answers or changed:
            self._on_loop(self._after_round, answers)

    def _on_loop(self, function: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            log.debug("the event loop has ended before consensus")

    # --- the event loop ----------------------------------------------------------------------------------------------

    def _deliver(self, events: list[Event]) -> None:
        self._events.extend(events)
        if len(self._events) >= INBOX_MESSAGES and isinstance(events[-1], Received):
            self._inbox.room.clear()
        self._wake.set()

    def _after_round(self, answers: "list[tuple[asyncio.Future[tuple[object, int]], object, int]]") -> None:
        for future, result, reason in answers:
            if not future.done():
                future.set_result((result, reason))
        leadership = (self._status.leader, self._status.term)
        if leadership != self._announced:
            self._announced = leadership
            for callback in self.on_leadership:
                callback(*leadership)

    def _fail(self, error: BaseException, started: "asyncio.Future[None]") -> None:
        self._running = False
        if not started.done():
            started.set_exception(error)
            return
        log.critical("consensus on node %d has stopped: %s", self.config.node_id, error, exc_info=error)
        self._status = self._status._replace(leader=None, is_leader=False)
        self._abandon_waiting(f"consensus on this node has stopped: {error}")
        self._after_round([])
        for callback in self.on_fatal:
            callback(error)

    # --- commands ----------------------------------------------------------------------------------------------------

    async def submit(self, command: bytes, timeout_s: float) -> Applied:
        """Replicate a command (from any node: forwarded to the leader) and wait until this node has applied it.

        Raises SubmitRefused or OutcomeUnknown.
        """
        if len(command) > MAX_COMMAND_BYTES:
            raise SubmitRefused(f"a command of {len(command)} bytes is above the limit of {MAX_COMMAND_BYTES}")
        return await self._submit(COMMAND + command, timeout_s)

    async def barrier(self, timeout_s: float) -> int:
        """Commit a no-op; at return this node has applied everything that was committed before the call."""
        return (await self._submit(NO_OP, timeout_s)).index

    async def transfer_leadership(self, to: int | None = None) -> None:
        """Ask a caught-up voter to take over, waiting a moment until one is. SubmitRefused when this node may not.

        Best effort: at return the voter was asked. A voter that has everything is briefly unfit until its answer is in.
        """
        deadline = self._loop.time() + HANDOVER_S
        while (reason := await self._ask_for_handover(to)) != FAIL_REASON.SUCCESS:
            if reason != FAIL_REASON.REQUEST_DENIED or self._loop.time() >= deadline:
                raise SubmitRefused(f"leadership is not handed over: {_NAMES[reason]}")
            await asyncio.sleep(RETRY_S)

    async def _ask_for_handover(self, to: int | None) -> int:
        future: asyncio.Future[tuple[object, int]] = self._loop.create_future()
        self._enqueue(Transfer(to, lambda result, reason: self._answers.append((future, result, reason))))
        try:
            async with asyncio.timeout(1.0):
                return (await future)[1]
        except TimeoutError:
            raise SubmitRefused("consensus on this node did not answer in time") from None

    async def add_voter(self, node_id: int, address: str, journal_id: bytes, timeout_s: float) -> int:
        """Make a caught-up observer a voter; the index of the change. Raises SubmitRefused or OutcomeUnknown."""
        change = Change(adding=True, voter=Voter(node_id, address, journal_id))
        return (await self._submit(MEMBERSHIP + change.encode(), timeout_s)).index

    async def remove_voter(self, node_id: int, timeout_s: float) -> int:
        """Make a voter an observer; not the leader itself (transfer first). The index of the change."""
        change = Change(adding=False, voter=Voter(node_id, ""))
        return (await self._submit(MEMBERSHIP + change.encode(), timeout_s)).index

    def _enqueue(self, event: Event) -> None:
        if not self._running:
            raise SubmitRefused("consensus is not running on this node")
        self._events.append(event)
        if not self._wake.is_set():
            self._wake.set()

    async def _submit(self, entry: bytes, timeout_s: float) -> Applied:
        deadline = self._loop.time() + timeout_s
        while True:
            result, reason = await self._attempt(entry, deadline)
            if reason == FAIL_REASON.SUCCESS and isinstance(result, tuple):
                return Applied(*result)
            if reason not in DEFINITE:
                raise OutcomeUnknown(f"the command may be applied: {_NAMES[reason]}")
            if reason not in _WORTH_RETRYING or self._loop.time() + RETRY_S >= deadline:
                raise SubmitRefused(f"the command was not applied: {_NAMES[reason]}")
            await asyncio.sleep(RETRY_S)

    async def _attempt(self, entry: bytes, deadline: float) -> tuple[object, int]:
        if len(self._waiting) >= MAX_WAITING:
            raise SubmitRefused(f"{MAX_WAITING} commands are already waiting on this node")
        future: asyncio.Future[tuple[object, int]] = self._loop.create_future()
        submission = Submission(entry, lambda result, reason: self._answers.append((future, result, reason)))
        self._enqueue(submission)
        self._waiting[future] = submission
        try:
            async with asyncio.timeout_at(deadline):
                return await future
        except TimeoutError:
            if submission.claim():
                raise SubmitRefused("there was no leader within the time given") from None
            raise OutcomeUnknown("the command was sent, and nothing was heard within the time given") from None
        finally:
            del self._waiting[future]
