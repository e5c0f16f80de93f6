"""The leader's side of one partition in one leadership: offsets, high watermark, ISR. A pure core.

Owns: which offsets exist in this epoch, how far every follower is, the high watermark, the ISR change under way.
Invariants: the high watermark never goes back, never passes the durable end of this log nor the acknowledged end of a
member of ISR or pending ISR; one offset gets one value in one epoch. An instance lives for one leader epoch, so no
progress outlives it (rules 4, 11). Never sees a payload, a clock or a socket.
"""

from dataclasses import dataclass, field

from penstock.node.replication.epochs import EpochEnd, LogBounds
from penstock.node.replication.events import (
    NO_EPOCH,
    Advance,
    Align,
    AppendRefusal,
    Diverge,
    InvariantViolationError,
    IsrProposal,
    Outputs,
    PartitionView,
    Position,
    Propose,
    RefusalKind,
    Refuse,
    Resign,
    SendSeed,
    SessionKey,
    WriteStart,
)
from penstock.node.replication.progress import NO_SESSION, Progress


@dataclass(slots=True)
class _Change:
    """The ISR change under way, and those that `apply` refused for good."""

    pending: IsrProposal | None = None
    refused: set[tuple[int, int, int]] = field(default_factory=set)
    """(node, node_epoch, partition_epoch) of refused additions: never sent again (rule 5)."""


class LeaderCore:
    """Created when the epoch's ActIn is durable and every earlier write is done."""

    def __init__(self, node_id: int, view: PartitionView, log: LogBounds, lag_max_ms: int, now_ms: int) -> None:
        if log.log_end_offset != log.durable_end:
            raise InvariantViolationError("a leadership begins only with all earlier writes done")
        self.node_id = node_id
        self.leader_epoch = view.leader_epoch
        self.start_offset = log.log_end_offset
        """Start of this epoch's records (rules 6, 12)."""
        self.resigned = False
        self._view = view
        self._log = log
        self._lag_max_ms = lag_max_ms
        self._asked_start = -1
        """Log start that is being written."""
        self._trimmed = log.log_start_offset
        """Log start that was confirmed to somebody, in this leadership or before it: who joins has it (rule 22)."""
        self._pushed_end = log.log_end_offset
        self._lost: set[int] = set()
        self._change = _Change()
        self._progress: dict[int, Progress] = {}
        self._meet_replicas(now_ms)

    # ---- questions

    @property
    def end_is_known(self) -> bool:
        """Rule 12: the end may be answered, and coordinators served, once HW is at or past the epoch's start."""
        return self._log.high_watermark >= self.start_offset

    @property
    def isr(self) -> frozenset[int]:
        """The committed ISR in this node's view."""
        return self._view.isr

    @property
    def pending(self) -> IsrProposal | None:
        """The ISR change under way."""
        return self._change.pending

    def may_answer_duplicate(self, last_offset: int) -> bool:
        """Rule 14: a duplicate is answered only when the original is below HW."""
        return last_offset < self._log.high_watermark

    @property
    def passed_offset(self) -> int:
        """Every replica, in sync or not, has all below it; 0 while one is not known (rule 19)."""
        ends = [progress.acked if progress.aligned else 0 for progress in self._progress.values()]
        return min([self._log.high_watermark, *ends])

    def has_trimmed(self, offset: int) -> bool:
        """Whether the log begins at or after `offset`, durably, on whoever may lead next.

        These are this node and the members of ISR and pending ISR; with fewer than min_insync_replicas also the ELR's,
        of whom this leader knows nothing.
        """
        if self._below_min_insync():
            return False
        others = [self._progress.get(node) for node in self._counted() if node != self.node_id]
        starts = [-1 if progress is None else progress.log_start_offset for progress in others]
        if min([self._log.log_start_offset, *starts]) < offset:
            return False
        self._trimmed = max(self._trimmed, offset)
        return True

    def append_refusal(self) -> AppendRefusal | None:
        """Why nothing may be appended now, or None."""
        if self.resigned:  # rule 26
            return AppendRefusal.RESIGNED
        if self._below_min_insync():  # rule 8
            return AppendRefusal.NOT_ENOUGH_REPLICAS
        return None

    def next_push(self, follower: int, session: SessionKey) -> int | None:
        """First offset to send to this follower; None: the session is not aligned, or over."""
        progress = self._progress.get(follower)
        if progress is None or progress.session != session or not progress.aligned:
            return None
        return progress.next_offset

    # ---- the log

    def append(self, record_count: int) -> int:
        """Assign offsets to a batch; the base offset. The shell asks append_refusal first."""
        if self.append_refusal() is not None:
            raise InvariantViolationError("append without asking")
        base = self._log.log_end_offset
        self._log.epochs.append(self.leader_epoch, base, base + record_count)
        return base

    def on_pushed(self, follower: int, session: SessionKey, end_offset: int) -> None:
        """Batches up to `end_offset` were handed to a stream: they count as pushed (rule 26)."""
        progress = self._progress[follower]
        if progress.session == session:
            progress.next_offset = max(progress.next_offset, end_offset)
        self._pushed_end = max(self._pushed_end, end_offset)

    def on_durable(self) -> Outputs:
        """The log bounds' durable_end moved."""
        return self._recalculate()

    def on_append_failed(self) -> Outputs:
        """A local commit failed: the log bounds were cut to what is durable."""
        end = self._log.durable_end
        if end < self._log.high_watermark:
            raise InvariantViolationError("a failed commit took records below the high watermark")
        for progress in self._progress.values():
            progress.next_offset = min(progress.next_offset, end)
        if self._was_pushed_beyond(end) and not self.resigned:
            self.resigned = True  # rule 26: it resigns before it appends again
            return [Resign(self.leader_epoch)]
        return []

    def move_start(self, log_start_offset: int) -> Outputs:
        """Retention or an operator wants the log to begin there: not beyond what is committed."""
        start = min(log_start_offset, self._log.high_watermark)
        if start <= max(self._log.log_start_offset, self._asked_start):
            return []
        self._asked_start = start
        return [WriteStart(self.leader_epoch, start)]

    def on_start_moved(self) -> Outputs:
        """The log bounds' start moved: who was to be sent what is gone starts anew (rules 14, 22)."""
        self._asked_start = -1
        start = self._log.first_offset
        outputs: Outputs = [Advance(self._log.high_watermark)]
        for node, progress in self._progress.items():
            if progress.aligned and progress.next_offset < start:
                progress.aligned = False
                outputs.append(SendSeed(node, progress.session))
        return outputs

    # ---- followers

    def on_open(self, follower: int, session: SessionKey, position: Position) -> Outputs:
        """A follower begins a session."""
        progress = self._progress.get(follower)
        if progress is None:
            return [Refuse(follower, session, RefusalKind.NOT_REPLICA)]
        if position.leader_epoch != self.leader_epoch:  # rule 3: stale is fenced
            return [Refuse(follower, session, RefusalKind.NOT_LEADER)]
        if session <= progress.session:  # rule 11: a late open of an earlier session
            return []
        progress.open(session)
        return self._fetch(follower, progress, position)

    def on_fetch(self, follower: int, session: SessionKey, position: Position) -> Outputs:
        """A fetch in a session: its offset is an acknowledgement once the logs agree."""
        progress = self._progress.get(follower)
        if progress is None or not self._is_current(progress, session, position):
            return []
        return self._fetch(follower, progress, position)

    def on_unreachable(self, follower: int) -> Outputs:
        """The follower's connection is refused: it leaves the ISR at once (rule 29)."""
        progress = self._progress.get(follower)
        if progress is None:
            return []
        progress.unreachable = True
        return self._shrink({follower})

    def _is_current(self, progress: Progress, session: SessionKey, position: Position) -> bool:
        """Rules 3 and 11: of this leadership and of the present session."""
        return progress.session == session and position.leader_epoch == self.leader_epoch

    def _fetch(self, follower: int, progress: Progress, position: Position) -> Outputs:
        outputs: Outputs = []
        if follower in self._view.isr and position.fetch_offset < self._log.high_watermark:
            self._lost.add(follower)  # rule 27: an ISR member that fetches below HW is a new store
            outputs += self._shrink(set())
        progress.log_start_offset = position.log_start_offset
        answer = self._agreement(position)
        if answer is None:
            if progress.count(position.fetch_offset):
                outputs.append(Align(follower, progress.session, progress.next_offset))
            outputs += self._recalculate()
            outputs += self.move_start(position.log_start_offset)  # as a former leader had begun
            return outputs + self._expand()
        progress.aligned = False
        if answer.leader_epoch == NO_EPOCH:
            return [*outputs, SendSeed(follower, progress.session)]
        return [*outputs, Diverge(follower, progress.session, answer.leader_epoch, answer.end_offset)]

    def _agreement(self, position: Position) -> EpochEnd | None:
        """None: the follower's log is a prefix of this one (rules 2, 3). Else where it must be cut to.

        Epoch -1 in the answer: it must start anew at the log start; it has nothing that can be compared (rule 28).
        """
        first = self._log.first_offset
        start_anew = EpochEnd(NO_EPOCH, first)
        if position.fetch_offset < first or self._lacks_tombstones(position):
            return start_anew
        if position.last_epoch == NO_EPOCH:
            return None if position.fetch_offset == first else start_anew
        found = self._log.epochs.end_of(position.last_epoch)
        if found is None:
            return start_anew
        if found.leader_epoch == position.last_epoch and position.fetch_offset <= found.end_offset:
            return None
        return found

    def _lacks_tombstones(self, position: Position) -> bool:
        """Rule 19: it may have records whose tombstones it will never see. No ISR or ELR member's end is so low."""
        below = self._log.tombstones_below
        return position.fetch_offset < below and position.tombstones_below < below

    # ---- high watermark

    def _recalculate(self) -> Outputs:
        """Move the high watermark to what every member of ISR and pending ISR holds durably (rules 4, 5, 8, 10)."""
        if self._below_min_insync():  # rule 8: frozen
            return []
        mark = self._local_end()
        for node in self._counted():
            if node == self.node_id:
                continue
            progress = self._progress.get(node)
            if progress is None or not progress.aligned:
                return []
            mark = min(mark, progress.acked)
        if mark <= self._log.high_watermark:
            return []
        self._log.high_watermark = mark
        return [Advance(mark)]

    def _counted(self) -> frozenset[int]:
        """Rule 5: committed and pending ISR; a shrink counts only when the view shows it."""
        pending = self._change.pending
        return self._view.isr if pending is None else self._view.isr.union(pending.isr)

    def _local_end(self) -> int:
        """What this node may count of itself: durable only (rule 10)."""
        return self._log.durable_end

    def _below_min_insync(self) -> bool:
        """Rule 8: counted over the committed ISR in the view, never the pending one."""
        return len(self._view.isr) < self._view.min_insync_replicas

    def _was_pushed_beyond(self, end_offset: int) -> bool:
        return self._pushed_end > end_offset

    # ---- ISR

    def on_view(self, view: PartitionView, now_ms: int) -> Outputs:
        """Newer metadata of the same leadership."""
        if view.leader_epoch != self.leader_epoch:
            raise InvariantViolationError("a view of another leadership")
        if view.partition_epoch < self._view.partition_epoch:
            return []
        self._view = view
        pending = self._change.pending
        if pending is not None and view.partition_epoch > pending.partition_epoch:
            self._change.pending = None  # rule 5: a pending ISR ends when the view shows a higher partition_epoch
        self._lost &= view.isr
        refusals = self._meet_replicas(now_ms)
        return refusals + self._recalculate() + (self._shrink(set()) or self._expand())

    def _meet_replicas(self, now_ms: int) -> Outputs:
        """Who is a replica no more is refused: should it never see that and be one again, it opens a new session."""
        end = self._log.log_end_offset
        known = self._progress
        others = [node for node in self._view.replicas if node != self.node_id]
        self._progress = {node: known.get(node) or Progress(now_ms, end) for node in others}
        return [
            Refuse(node, progress.session, RefusalKind.NOT_REPLICA)
            for node, progress in known.items()
            if node not in self._progress and progress.session != NO_SESSION
        ]

    def on_proposal_refused(self, proposal: IsrProposal) -> Outputs:
        """`apply` refused the change for good: its precondition on a member can never hold again (rule 5).

        Not for a lost answer, nor for another partition_epoch: those end by the view.
        """
        if self._change.pending != proposal:
            return []
        refused = {(node, node_epoch, proposal.partition_epoch) for node, node_epoch in proposal.node_epochs}
        self._change.refused |= refused
        self._change.pending = None
        return self._recalculate()

    def tick(self, now_ms: int) -> Outputs:
        """Judge lag, let in who caught up, ask again to be replaced. Called every few hundred ms."""
        if self.resigned:
            return [Resign(self.leader_epoch)]
        end = self._log.log_end_offset
        lagging = {
            node
            for node, progress in self._progress.items()
            if progress.lags(now_ms, end, self._lag_max_ms) and node in self._view.isr
        }
        return self._shrink(lagging) or self._expand()

    def _shrink(self, lagging: set[int]) -> Outputs:
        out = (lagging | self._lost) & self._view.isr
        if not out or self._change.pending is not None:
            return []
        lost = tuple(sorted(self._lost & out))
        return self._propose(self._view.isr - out, (), lost)

    def _expand(self) -> Outputs:
        if len(self._view.isr) == len(self._view.replicas) or self._change.pending is not None:
            return []
        for node, progress in self._progress.items():
            if node not in self._view.isr and self._may_join(progress):
                node_epoch = self._node_epoch_counted(progress)
                if (node, node_epoch, self._view.partition_epoch) not in self._change.refused:
                    return self._propose(self._view.isr | {node}, ((node, node_epoch),), ())
        return []

    def _may_join(self, progress: Progress) -> bool:
        """Rule 6: at or past the start of this epoch, and at or past HW; and what was trimmed is gone (rule 22)."""
        needed = max(self.start_offset, self._log.high_watermark)
        if not progress.aligned or progress.unreachable or progress.log_start_offset < self._trimmed:
            return False
        return progress.acked >= needed

    def _node_epoch_counted(self, progress: Progress) -> int:
        """Rule 7: of the fetch that earned the place, never of the view."""
        return progress.session.node_epoch

    def _propose(self, isr: frozenset[int], node_epochs: tuple[tuple[int, int], ...], lost: tuple[int, ...]) -> Outputs:
        epoch = self._view.partition_epoch
        members = tuple(sorted(isr))
        proposal = IsrProposal(self.node_id, self.leader_epoch, epoch, members, node_epochs, lost)
        self._change.pending = proposal
        return [Propose(proposal)]
