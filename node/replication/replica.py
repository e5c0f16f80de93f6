"""One replica of one partition: which role it plays, and since when. A pure core around the two roles' cores.

Owns: the partition's newest view, the change from role to role, the log bounds, opens that came before their time.
Invariants: a role begins only when its leader epoch is durably recorded as acted in and every write of the role before
is done (rule 26); a leader epoch lower than the last one acted in is never acted on; a node leads only in an epoch
granted to its present node_epoch.

    role        becomes         when
    any         ENTERING        the view gives this node a part in a new leader epoch (WriteActIn)
    ENTERING    LEADING         ActIn is done, the epoch is ours
    ENTERING    FOLLOWING       ActIn is done, the epoch is another's
    any         IDLE            the view has no leader, or names us in an epoch that is not granted to us
"""

from collections.abc import Callable, Sequence
from enum import Enum

from penstock.node.replication.epochs import LogBounds
from penstock.node.replication.events import (
    NO_LEADER,
    AppendRefusal,
    Ended,
    Follow,
    Lead,
    Leave,
    Outputs,
    PartitionView,
    Position,
    RefusalKind,
    Refuse,
    SessionKey,
    Span,
    WriteActIn,
    WriteCheckpoint,
)
from penstock.node.replication.follower import FollowerCore
from penstock.node.replication.leader import LeaderCore

Heard = Callable[[FollowerCore], Outputs]


class Role(Enum):
    """See the module's table."""

    IDLE = "idle"
    ENTERING = "entering"
    LEADING = "leading"
    FOLLOWING = "following"


class ReplicaCore:
    """Events in, outputs out. The shell performs outputs in order and reports the outcome of every Write*."""

    leader_type: type[LeaderCore] = LeaderCore
    follower_type: type[FollowerCore] = FollowerCore

    def __init__(self, node_id: int, log: LogBounds, acted_epoch: int, lag_max_ms: int) -> None:
        self.node_id = node_id
        self.role = Role.IDLE
        self.log = log
        self.leader: LeaderCore | None = None
        self.follower: FollowerCore | None = None
        self.view: PartitionView | None = None
        self.acted_epoch = acted_epoch
        """Highest leader epoch durably acted in."""
        self._lag_max_ms = lag_max_ms
        self._appends = 0
        self._recovering = False
        self._checkpointed = log.high_watermark
        self._act_again = False
        self._parked: dict[int, tuple[SessionKey, Position]] = {}

    # ---- roles

    def on_view(self, view: PartitionView, node_epoch: int, now_ms: int) -> Outputs:
        """Newer metadata. The caller gives it only once it includes the registration of `node_epoch` (rule 26)."""
        if self._is_stale(view):
            return []
        same = self.view is not None and self.view.leader_epoch == view.leader_epoch
        self.view = view
        if same and self.role is Role.LEADING and self.leader is not None:
            return self.leader.on_view(view, now_ms)
        if same and self.role in {Role.FOLLOWING, Role.ENTERING}:
            return []
        outputs = self._end_role()
        if view.leader == NO_LEADER or (view.leader == self.node_id and not self._is_granted(view, node_epoch)):
            return outputs + self._review_parked()
        self.role = Role.ENTERING
        return [*outputs, WriteActIn(view.leader_epoch), *self._review_parked()]

    def on_acted(self, leader_epoch: int, log: LogBounds | None, now_ms: int) -> Outputs:
        """The ActIn of `leader_epoch` is durable, with all writes before it; `log` is read anew. None: it failed."""
        if log is not None:
            self.acted_epoch = max(self.acted_epoch, leader_epoch)
        view = self.view
        if self.role is not Role.ENTERING or view is None or view.leader_epoch != leader_epoch:
            return []
        if log is None:
            self._act_again = True
            return []
        log.high_watermark = min(max(self.log.high_watermark, log.high_watermark), log.log_end_offset)
        self.log = log
        self._appends, self._recovering = 0, False
        return self._lead(view, now_ms) if view.leader == self.node_id else self._follow(view)

    def _lead(self, view: PartitionView, now_ms: int) -> Outputs:
        self.role = Role.LEADING
        self.leader = self.leader_type(self.node_id, view, self.log, self._lag_max_ms, now_ms)
        return [Lead(view.leader_epoch), *self.leader.on_durable(), *self._review_parked()]

    def _follow(self, view: PartitionView) -> Outputs:
        self.role = Role.FOLLOWING
        self.follower = self.follower_type(view.leader, view.leader_epoch, self.log)
        return [Follow(view.leader, view.leader_epoch)]

    def close(self) -> Outputs:
        """The partition is no longer this node's, or the node stops."""
        return self._end_role()

    def _end_role(self) -> Outputs:
        outputs: Outputs = [Ended()] if self.role in {Role.LEADING, Role.FOLLOWING} else []
        if self.follower is not None and self.follower.session is not None:
            outputs.append(Leave(self.follower.session, retry=False))
        self.role, self.leader, self.follower = Role.IDLE, None, None
        self._act_again = False
        return outputs

    def _is_stale(self, view: PartitionView) -> bool:
        """Rule 26: lower than the last one acted in; and a view never goes back."""
        if view.leader_epoch < self.acted_epoch:
            return True
        return self.view is not None and view.partition_epoch < self.view.partition_epoch

    def _is_granted(self, view: PartitionView, node_epoch: int) -> bool:
        """Rule 26: the epoch is granted to this node's present registration."""
        return view.leader_node_epoch == node_epoch

    def tick(self, now_ms: int, *, checkpoint: bool = True) -> Outputs:
        """Every few hundred ms; with `checkpoint` a high watermark that moved is written."""
        outputs: Outputs = []
        if self._act_again and self.view is not None:
            self._act_again = False
            outputs.append(WriteActIn(self.view.leader_epoch))
        if self.leader is not None:
            outputs += self.leader.tick(now_ms)
        mark = min(self.log.high_watermark, self.log.durable_end)
        if checkpoint and mark != self._checkpointed and self.role is not Role.ENTERING:
            self._checkpointed = mark
            outputs.append(WriteCheckpoint(mark))
        return outputs

    # ---- appends

    def append_refusal(self) -> AppendRefusal | None:
        """Why this replica takes no append now, or None."""
        if self.leader is None:
            return AppendRefusal.NOT_LEADER
        if self._recovering:
            return AppendRefusal.RECOVERING
        return self.leader.append_refusal()

    def append(self, record_count: int) -> int:
        """Assign offsets, as leader; the base offset. The shell writes the batch and reports by on_commits."""
        if self.leader is None:
            raise RuntimeError("append without asking append_refusal")
        base = self.leader.append(record_count)
        self._appends += 1
        return base

    def on_commits(self, done: int, failed: int, durable_end: int) -> Outputs:
        """Outcomes of appends, once a commit: counts, and the log's durable end after it."""
        self._appends = max(0, self._appends - done - failed)
        if self.leader is not None:
            return self._on_leader_commits(self.leader, failed, durable_end)
        if self.follower is not None:
            return self._on_follower_commits(self.follower, done, failed, durable_end)
        return []

    def _on_leader_commits(self, leader: LeaderCore, failed: int, durable_end: int) -> Outputs:
        outputs: Outputs = []
        if not self._recovering:
            self.log.durable_end = max(self.log.durable_end, durable_end)
            outputs = leader.on_durable()
        if failed and not self._recovering:
            # What is queued behind fails too; until it has, nothing new is appended.
            self.log.cut(durable_end)
            outputs += leader.on_append_failed()
            self._recovering = True
        if self._appends == 0:
            self._recovering = False
        return outputs

    def _on_follower_commits(self, follower: FollowerCore, done: int, failed: int, durable_end: int) -> Outputs:
        self.log.durable_end = max(self.log.durable_end, durable_end)
        outputs = follower.on_appended(done) if done else []
        if failed:
            self.log.cut(durable_end)
            outputs += follower.on_append_failed(failed)
        return outputs

    # ---- followers of this replica

    def on_open(self, follower: int, session: SessionKey, position: Position) -> Outputs:
        """A follower begins a session. One that knows a newer epoch than this node waits (rule 3)."""
        if self.leader is not None and position.leader_epoch <= self.leader.leader_epoch:
            return self.leader.on_open(follower, session, position)
        if follower not in self._parked or self._parked[follower][0] < session:
            self._parked[follower] = (session, position)
        return self._review_parked()

    def on_fetch(self, follower: int, session: SessionKey, position: Position) -> Outputs:
        """A fetch in a session."""
        return self.leader.on_fetch(follower, session, position) if self.leader is not None else []

    def _review_parked(self) -> Outputs:
        outputs: Outputs = []
        for follower, (session, position) in list(self._parked.items()):
            if self._is_early(position.leader_epoch):
                continue
            del self._parked[follower]
            if self.leader is not None:
                outputs += self.leader.on_open(follower, session, position)
            else:
                outputs.append(Refuse(follower, session, RefusalKind.NOT_LEADER))
        return outputs

    def _is_early(self, leader_epoch: int) -> bool:
        if self.view is None or leader_epoch > self.view.leader_epoch:
            return True
        entering = self.role is Role.ENTERING and self.view.leader == self.node_id
        return entering and leader_epoch == self.view.leader_epoch

    # ---- the leader of this replica

    def connect(self, session: SessionKey) -> Outputs:
        """The shell's answer to Follow, and after each Leave(retry): a place in a stream to the leader."""
        return self.follower.connect(session) if self.follower is not None else []

    def disconnect(self) -> Outputs:
        """The stream to the leader broke."""
        return self.follower.disconnect() if self.follower is not None else []

    def on_batches(self, session: SessionKey, spans: Sequence[Span]) -> Outputs:
        """See FollowerCore."""
        return self.follower.on_batches(session, spans) if self.follower is not None else []

    def on_progress(
        self, session: SessionKey, high_watermark: int, log_start_offset: int, passed_offset: int = 0
    ) -> Outputs:
        """See FollowerCore."""
        if self.follower is None:
            return []
        return self.follower.on_progress(session, high_watermark, log_start_offset, passed_offset)

    def on_divergence(self, session: SessionKey, leader_epoch: int, end_offset: int) -> Outputs:
        """See FollowerCore."""
        if self.follower is None:
            return []
        return self.follower.on_divergence(session, leader_epoch, end_offset)

    def on_seed(
        self, session: SessionKey, start_offset: int, epochs: tuple[tuple[int, int], ...], tombstones_below: int = 0
    ) -> Outputs:
        """See FollowerCore."""
        if self.follower is None:
            return []
        return self.follower.on_seed(session, start_offset, epochs, tombstones_below)

    def on_refused(self, session: SessionKey) -> Outputs:
        """See FollowerCore."""
        return self.follower.on_refused(session) if self.follower is not None else []

    def on_cut(self, *, succeeded: bool, end_offset: int | None = None) -> Outputs:
        """A truncation or reset is durable, or failed; where the log ends then."""
        return self.follower.on_cut(succeeded=succeeded, end_offset=end_offset) if self.follower is not None else []

    # ---- what is dropped

    @property
    def passed_offset(self) -> int:
        """Every replica has what is below it, as far as this one knows (rule 19)."""
        if self.leader is not None:
            return self.leader.passed_offset
        return self.follower.passed_offset if self.follower is not None else 0

    def move_start(self, log_start_offset: int) -> Outputs:
        """Let the log begin there, as leader."""
        return self.leader.move_start(log_start_offset) if self.leader is not None else []

    def on_start_moved(self, log_start_offset: int, first_offset: int) -> Outputs:
        """A WriteStart is done: the durable log start and first batch now, whether it succeeded or not."""
        log = self.log
        log.log_start_offset, log.first_offset = log_start_offset, first_offset
        log.high_watermark = max(log.high_watermark, log_start_offset)
        if self.leader is not None:
            return self.leader.on_start_moved()
        return self.follower.on_start_moved() if self.follower is not None else []

    def on_compacted(self, tombstones_below: int) -> None:
        """Tombstones below this may be gone, durably."""
        self.log.tombstones_below = max(self.log.tombstones_below, tombstones_below)
