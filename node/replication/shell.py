"""The shell of one replica: performs what its core puts out, durability first, and feeds it what happened.

Owns the core, the log handle, the tail, the slots of its followers and its own place in the stream to its leader. Loop
thread only.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.message import DecodeError

from penstock.internal.v1 import data_pb2
from penstock.node.replication.epochs import EpochTable, LogBounds
from penstock.node.replication.events import (
    Advance,
    Align,
    Diverge,
    Ended,
    Follow,
    InvariantViolationError,
    IsrProposal,
    Lead,
    Leave,
    Output,
    Outputs,
    PartitionView,
    Position,
    Propose,
    RefusalKind,
    Refuse,
    Resign,
    SendFetch,
    SendOpen,
    SendSeed,
    SessionKey,
    Span,
    WriteActIn,
    WriteAppend,
    WriteCheckpoint,
    WriteReset,
    WriteStart,
    WriteTruncate,
)
from penstock.node.replication.ports import FollowerSlot, Host, LeaderLink, Owner
from penstock.node.replication.replica import ReplicaCore
from penstock.node.replication.tail import Tail
from penstock.node.replication.wire import batch_of
from penstock.protocol.batch import InvalidBatchError
from penstock.storage import (
    ActIn,
    Append,
    CheckpointHighWatermark,
    Compact,
    Log,
    LogBatch,
    MoveStart,
    Outcome,
    PartitionKey,
    ReplicaSeed,
    ResetLog,
    StorageError,
    Truncate,
    Write,
)

LOG = logging.getLogger(__name__)


class ReplicaShell:
    """Events go to the core, its outputs to `_perform`."""

    core_type: type[ReplicaCore] = ReplicaCore

    def __init__(self, key: PartitionKey, host: Host, owner: Owner) -> None:
        self.key = key
        self.node_id = host.node_id
        self.log: Log | None = None
        self.core: ReplicaCore | None = None
        self.tail = Tail(host.tail_budget, 0)
        self.failed = False
        """An invariant did not hold: this replica does nothing more until the node starts again."""
        self._host = host
        self._owner = owner
        self._slots: dict[int, tuple[FollowerSlot, int]] = {}
        """Of each follower its newest slot, and the leader epoch it was opened for."""
        self._link: LeaderLink | None = None
        self._received: list[LogBatch] = []
        self._credits: deque[tuple[LeaderLink, int, bool]] = deque()
        self._seed: ReplicaSeed | None = None
        self._done = 0
        self._failures = 0
        self._durable_end = 0
        self._error: StorageError | None = None
        self._passed = 0
        """What the followers were told last that every replica has."""
        self._told_failure: type[StorageError] | None = None
        """Why appends fail, until one succeeds: it is told once."""
        self._told = False
        """The owner has heard of the last progress."""
        self._handlers = self._table()

    def _table(self) -> dict[type[Output], Callable[[Any], None]]:
        return {
            Advance: self._advance,
            Align: lambda out: self._to_slot(out, lambda slot: slot.wake()),
            Diverge: lambda out: self._to_slot(out, lambda slot: slot.diverge(out.leader_epoch, out.end_offset)),
            SendSeed: lambda out: self._to_slot(out, lambda slot: slot.seed()),
            Refuse: lambda out: self._to_slot(out, lambda slot: slot.refuse(out.reason)),
            Propose: lambda out: self._host.propose(self, out.proposal),
            Resign: lambda out: self._host.resign(self, out.leader_epoch),
            SendOpen: self._send_open,
            SendFetch: self._send_fetch,
            Leave: lambda out: self._host.leave(self, out.session, retry=out.retry),
            WriteAppend: self._write_append,
            WriteTruncate: lambda out: self._submit(Truncate(self._log(), out.leader_epoch, out.end_offset)),
            WriteReset: self._write_reset,
            WriteStart: lambda out: self._submit(MoveStart(self._log(), out.leader_epoch, out.log_start_offset)),
            WriteActIn: lambda out: self._submit(ActIn(self._log(), out.leader_epoch)),
            WriteCheckpoint: lambda out: self._submit(CheckpointHighWatermark(self._log(), out.high_watermark)),
            Ended: self._ended,
            Lead: lambda _: self._owner.role_began(),
            Follow: self._follow,
        }

    # ---- running the core

    def attach(self, log: Log) -> None:
        """The log exists."""
        self.log = log
        self.core = self.core_type(self._host.node_id, self._bounds(log), log.state.acted_epoch, self._host.lag_max_ms)
        self.tail.reset(self.core.log.log_end_offset)

    def run(self, step: Callable[[ReplicaCore], Outputs]) -> None:
        """Give the core an event and perform what it puts out. A broken invariant stops this replica only."""
        if self.core is None or self.failed:
            return
        try:
            for output in step(self.core):
                self._handlers[type(output)](output)
        except InvariantViolationError:
            LOG.exception("replica of %s stops: a rule of replication does not hold", self.key)
            self.stop()

    def stop(self) -> None:
        """Do nothing more; waiting appends get an unknown outcome."""
        if self.failed:
            return
        core, self.failed = self.core, True
        if core is not None:
            for output in core.close():
                self._handlers[type(output)](output)
        # What is under way ends without this shell: in the tail it would never be evicted, its credit never come back.
        self.tail.reset(self.tail.end_offset)
        while self._credits:
            link, size, cold = self._credits.popleft()
            link.give_back(size, cold=cold)

    def leading(self) -> ReplicaCore:
        """The core, for a caller that checked that it leads."""
        if self.core is None:
            raise InvariantViolationError("no log yet")
        return self.core

    def _log(self) -> Log:
        if self.log is None:
            raise InvariantViolationError("no log yet")
        return self.log

    def _bounds(self, log: Log) -> LogBounds:
        state = log.state
        start, end = state.log_start_offset, state.log_end_offset
        epochs = EpochTable(log.epochs(), end)
        mark = min(state.high_watermark, end)
        return LogBounds(epochs, start, end, mark, state.first_offset, state.tombstones_below)

    def _submit(self, write: Write) -> None:
        self._host.submit(write)

    # ---- metadata

    def on_view(self, view: PartitionView, node_epoch: int) -> None:
        """Newer metadata that includes this node's registration."""
        self.run(lambda core: core.on_view(view, node_epoch, self._host.now_ms()))

    def tick(self, now_ms: int, *, checkpoint: bool = True) -> None:
        """Every few hundred ms; with `checkpoint` a high watermark that moved is written."""
        self.run(lambda core: core.tick(now_ms, checkpoint=checkpoint))
        passed = 0 if self.core is None or self.core.leader is None else self.core.passed_offset
        if passed != self._passed:
            self._passed = passed
            for slot, _ in self._slots.values():
                slot.advanced()

    def move_start(self, log_start_offset: int) -> None:
        """Let the log begin there, as leader; not beyond what is committed."""
        self.run(lambda core: core.move_start(log_start_offset))

    # ---- appends of this leader

    def append(self, batch: LogBatch) -> None:
        """Write a batch that the core gave an offset, and push it: the two go in parallel."""
        self.tail.add(batch)
        self._submit(Append(self._log(), batch.leader_epoch, (batch,)))
        for slot, _ in self._slots.values():
            slot.wake()

    # ---- outcomes of writes

    def on_outcome(self, outcome: Outcome) -> None:
        """One outcome, in order; `settle` follows after the last one of a commit."""
        write = outcome.write
        if isinstance(write, Append):
            self._on_append(write, outcome.error)
            return
        self.settle()
        if isinstance(write, ActIn):
            self._on_acted(write, outcome)
        elif isinstance(write, Truncate | ResetLog):
            self._on_cut(write, outcome)
        elif isinstance(write, MoveStart):
            self._on_start_moved(outcome)
        elif isinstance(write, Compact) and outcome.error is None and self.core is not None:
            self.core.on_compacted(write.tombstones_below)
            if write.rows:
                self.tail.drop_below(write.end)

    def _on_append(self, write: Append, error: StorageError | None) -> None:
        if self._credits:
            link, size, cold = self._credits.popleft()
            link.give_back(size, cold=cold)
        if error is None:
            self._done += 1
            self._told_failure = None
            self._durable_end = write.batches[-1].last_offset + 1
        else:
            self._failures += 1
            self._error = self._error or error  # the first one says why; those behind it only that

    def settle(self) -> None:
        """Tell the core the outcomes gathered, once a commit."""
        done, failed, error = self._done, self._failures, self._error
        if self.core is None or not (done or failed):
            return
        self._done = self._failures = 0
        end = max(self._durable_end, self.core.log.durable_end) if done else self.core.log.durable_end
        self.tail.on_durable(end)
        self._told = False
        self.run(lambda core: core.on_commits(done, failed, end))
        if error is not None and failed:
            self._error = None
            self._on_failure(error)
        if not self._told:
            self._owner.advanced()

    def _on_failure(self, error: StorageError) -> None:
        if self.core is None:
            return
        if type(error) is not self._told_failure:
            self._told_failure = type(error)
            LOG.warning("append to %s failed: %s", self.key, error)
        self.tail.truncate(self.core.log.log_end_offset)
        leader = self.core.leader
        if leader is not None:
            self._owner.append_failed(error, pushed=leader.resigned)

    def _on_acted(self, write: ActIn, outcome: Outcome) -> None:
        bounds = None
        if outcome.error is None and self.log is not None:
            bounds = self._bounds(self.log)
            self.tail.reset(bounds.log_end_offset)
        else:
            LOG.warning("epoch %d of %s cannot be acted in: %s", write.leader_epoch, self.key, outcome.error)
        self.run(lambda core: core.on_acted(write.leader_epoch, bounds, self._host.now_ms()))
        self._owner.advanced()

    def _on_cut(self, write: Truncate | ResetLog, outcome: Outcome) -> None:
        if outcome.error is not None:
            LOG.warning("%s of %s failed: %s", type(write).__name__, self.key, outcome.error)
        end = None if outcome.log is None else outcome.log.state.log_end_offset
        self.run(lambda core: core.on_cut(succeeded=outcome.error is None, end_offset=end))
        if self.core is not None:
            self.tail.reset(self.core.log.log_end_offset)

    def _on_start_moved(self, outcome: Outcome) -> None:
        if outcome.error is not None:
            LOG.warning("the start of %s cannot be moved: %s", self.key, outcome.error)
        if self.log is not None:
            state = self.log.state
            self.run(lambda core: core.on_start_moved(state.log_start_offset, state.first_offset))

    # ---- this replica's followers

    def on_open(self, slot: FollowerSlot, position: Position) -> None:
        """A follower opens the partition."""
        known = self._slots.get(slot.follower)
        if known is None or known[0].session < slot.session:
            self._slots[slot.follower] = (slot, position.leader_epoch)
        self.run(lambda core: core.on_open(slot.follower, slot.session, position))

    def on_fetch(self, slot: FollowerSlot, position: Position) -> None:
        """A follower fetches, which acknowledges."""
        self.run(lambda core: core.on_fetch(slot.follower, slot.session, position))

    def on_closed(self, slot: FollowerSlot) -> None:
        """The slot is gone: nothing is sent there any more. What it acknowledged stays true."""
        known = self._slots.get(slot.follower)
        if known is not None and known[0] is slot:
            del self._slots[slot.follower]

    def on_proposal_refused(self, proposal: IsrProposal) -> None:
        """An ISR change was refused for good."""
        self.run(lambda core: [] if core.leader is None else core.leader.on_proposal_refused(proposal))

    def on_unreachable(self, follower: int) -> None:
        """The follower's address refuses connections."""
        self.run(lambda core: [] if core.leader is None else core.leader.on_unreachable(follower))

    def _to_slot(self, out: Align | Diverge | SendSeed | Refuse, act: Callable[[FollowerSlot], None]) -> None:
        known = self._slots.get(out.follower)
        if known is not None and known[0].session == out.session:
            act(known[0])

    def _advance(self, _: Advance) -> None:
        self._told = True
        for known in self._slots.values():
            known[0].advanced()
        self._owner.advanced()

    # ---- this replica's leader

    def connect(self, link: LeaderLink, session: SessionKey) -> None:
        """A place in the stream to the leader."""
        self._link = link
        self.run(lambda core: core.connect(session))

    def disconnect(self) -> None:
        """The stream broke."""
        self._link = None
        self.run(lambda core: core.disconnect())

    def on_progress(self, session: SessionKey, high_watermark: int, log_start_offset: int, passed_offset: int) -> None:
        """The leader's high watermark and log start, and what every replica has."""
        self.run(lambda core: core.on_progress(session, high_watermark, log_start_offset, passed_offset))

    def on_divergence(self, session: SessionKey, leader_epoch: int, end_offset: int) -> None:
        """The leader says where to cut."""
        self.run(lambda core: core.on_divergence(session, leader_epoch, end_offset))

    def on_refused(self, session: SessionKey) -> None:
        """The leader refused the slot."""
        self.run(lambda core: core.on_refused(session))

    def on_batches(
        self, link: LeaderLink, session: SessionKey, stored: Sequence[data_pb2.StoredBatch], *, cold: bool
    ) -> None:
        """Batches arrived."""
        size = sum(len(item.batch) for item in stored)
        if not size:
            return
        try:
            self._received = [batch_of(item) for item in stored]
        except (InvalidBatchError, DecodeError) as error:
            LOG.warning("damaged batch from the leader of %s: %s", self.key, error)
            link.give_back(size, cold=cold)
            self.run(lambda core: core.on_refused(session))
            return
        spans = [Span(batch.base_offset, batch.last_offset + 1, batch.leader_epoch) for batch in self._received]
        waiting = len(self._credits)
        self._credits.append((link, size, cold))
        self.run(lambda core: core.on_batches(session, spans))
        if self._received:  # not taken
            self._received = []
            if len(self._credits) > waiting:
                self._credits.pop()
                link.give_back(size, cold=cold)

    def on_seed(self, session: SessionKey, seed: ReplicaSeed) -> None:
        """The leader says to start anew."""
        self._seed = seed
        epochs = tuple((entry.leader_epoch, entry.start_offset) for entry in seed.epochs)
        self.run(lambda core: core.on_seed(session, seed.start_offset, epochs, seed.tombstones_below))

    def _follow(self, out: Follow) -> None:
        self._owner.role_began()
        self._host.follow(self, out.leader)

    def _send_open(self, out: SendOpen) -> None:
        if self._link is not None:
            self._link.send_open(out.session, self.key, out.position)

    def _send_fetch(self, out: SendFetch) -> None:
        if self._link is not None:
            self._link.send_fetch(out.session, out.position)

    def _write_append(self, out: WriteAppend) -> None:
        batches, self._received = tuple(self._received), []
        self._submit(Append(self._log(), out.leader_epoch, batches))

    def _write_reset(self, out: WriteReset) -> None:
        if self._seed is None:
            raise InvariantViolationError("a reset without a seed")
        seed, self._seed = self._seed, None
        self._submit(ResetLog(self._log(), out.leader_epoch, seed))

    def _ended(self, _: Ended) -> None:
        self._link = None
        view = None if self.core is None else self.core.view
        for follower, (slot, leader_epoch) in list(self._slots.items()):
            if self.failed or view is None or leader_epoch < view.leader_epoch:
                del self._slots[follower]
                slot.refuse(RefusalKind.NOT_LEADER)
        self._owner.role_ended()

    async def read_cold(self, start: int, end: int, max_bytes: int) -> list[LogBatch]:
        """Read the log off the loop. Only what is durable is there: `end` is at most the durable end."""
        return await self._host.read_cold(self._log(), start, end, max_bytes)
