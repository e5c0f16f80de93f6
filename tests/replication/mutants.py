"""The rules taken away one by one: what the world must notice. Names as in the model's table of removed rules."""

from dataclasses import dataclass, replace
from typing import Any

from penstock.node.replication import events as ev
from penstock.node.replication.epochs import EpochEnd, LogBounds
from penstock.node.replication.events import Outputs, PartitionView, Position, SessionKey, WriteTruncate
from penstock.node.replication.follower import FollowerCore
from penstock.node.replication.leader import LeaderCore
from penstock.node.replication.progress import Progress
from penstock.node.replication.replica import ReplicaCore, Role
from penstock.raft.image import MetadataImage
from tests.replication.world import Node, World


class CutToHighWatermark(ReplicaCore):
    """Rule 1: a follower begins by cutting its log to its own HW."""

    def _follow(self, view: PartitionView) -> Outputs:
        outputs = super()._follow(view)
        assert self.follower is not None
        self.follower._writes = 1
        self.follower._cut_end = self.log.high_watermark
        return [*outputs, WriteTruncate(view.leader_epoch, self.log.high_watermark)]


class CutToLeadersEnd(FollowerCore):
    """Rule 2: not the lesser of both ends."""

    def _cut_point(self, leader_epoch: int, end_offset: int) -> int:
        return min(end_offset, self._log.log_end_offset)


class OneLookup(LeaderCore):
    """Rule 2: after one answer the logs are taken to agree."""

    def _agreement(self, position: Position) -> EpochEnd | None:
        asked: set[int] = self.__dict__.setdefault("asked", set())
        found = super()._agreement(position)
        if found is None or position.leader_epoch in asked:
            return None
        asked.add(position.leader_epoch)
        return found


class AnyLeaderEpoch(LeaderCore):
    """Rule 3: the leader_epoch of a fetch is not looked at."""

    def on_open(self, follower: int, session: SessionKey, position: Position) -> Outputs:
        return super().on_open(follower, session, position._replace(leader_epoch=self.leader_epoch))

    def _is_current(self, progress: Progress, session: SessionKey, position: Position) -> bool:
        return progress.session == session


class AnyLastEpoch(LeaderCore):
    """Rule 3: the last epoch of a fetch is not looked at."""

    def _agreement(self, position: Position) -> EpochEnd | None:
        return None if position.fetch_offset <= self._log.log_end_offset else super()._agreement(position)


class KeepProgress(ReplicaCore):
    """Rule 4: what followers acknowledged outlives the leadership."""

    def _end_role(self) -> Outputs:
        if self.leader is not None:
            self.__dict__["kept"] = self.leader._progress
        return super()._end_role()

    def _lead(self, view: PartitionView, now_ms: int) -> Outputs:
        outputs = super()._lead(view, now_ms)
        assert self.leader is not None
        for node, progress in self.__dict__.get("kept", {}).items():
            self.leader._progress[node] = progress
        return outputs + self.leader.on_durable()


class PendingNotCounted(LeaderCore):
    """Rule 5: a pending expansion is not counted."""

    def _counted(self) -> frozenset[int]:
        return self._view.isr


class ShrinkAtOnce(LeaderCore):
    """Rule 5: a shrink counts before it is applied."""

    def _counted(self) -> frozenset[int]:
        pending = self._change.pending
        return self._view.isr if pending is None else frozenset(pending.isr)


class ForgetPending(LeaderCore):
    """Rule 5: a pending ISR is given up though its command may still apply."""

    def tick(self, now_ms: int) -> Outputs:
        self._change.pending = None
        return self._recalculate() + super().tick(now_ms)


class JoinBeforeEpochStart(LeaderCore):
    """Rule 6: at or past HW is enough."""

    def _may_join(self, progress: Progress) -> bool:
        return progress.aligned and progress.acked >= self._log.high_watermark


class JoinBelowHighWatermark(LeaderCore):
    """Rule 6: at or past the epoch's start is enough."""

    def _may_join(self, progress: Progress) -> bool:
        return progress.aligned and progress.acked >= min(self.start_offset, self._log.high_watermark)


class NodeEpochOfView(Node):
    """Rule 7: the change carries the node_epochs of the view."""

    def _on_propose(self, out: ev.Propose) -> None:
        super()._on_propose(out)
        node_id, start_id, proposal = self.world.commands.pop()
        counted = tuple((member, self.world.image.nodes[member].node_epoch) for member, _ in proposal.node_epochs)
        self.world.commands.append((node_id, start_id, replace(proposal, node_epochs=counted)))


class NotFrozen(LeaderCore):
    """Rule 8: HW moves below min_insync_replicas."""

    def _below_min_insync(self) -> bool:
        return False


class FrozenByPending(LeaderCore):
    """Rule 8: the pending ISR is counted against min_insync_replicas."""

    def _below_min_insync(self) -> bool:
        return len(self._counted()) < self._view.min_insync_replicas


class AckLogEnd(FollowerCore):
    """Rule 10: the follower acknowledges what is not durable."""

    def _ackable_end(self) -> int:
        return self._log.log_end_offset


class CountOwnLogEnd(LeaderCore):
    """Rule 10: the leader counts what it has not made durable."""

    def _local_end(self) -> int:
        return self._log.log_end_offset


class HearOldSessions(FollowerCore):
    """Rule 11: messages of earlier sessions are heard."""

    def _is_current(self, session: SessionKey) -> bool:
        return self.session is not None


class EndAlwaysKnown(LeaderCore):
    """Rule 12: the end is answered at once."""

    @property
    def end_is_known(self) -> bool:
        return True


class AnswerDuplicates(LeaderCore):
    """Rule 14: a duplicate is answered above HW."""

    def may_answer_duplicate(self, last_offset: int) -> bool:
        return True


class AnyGrant(ReplicaCore):
    """Rule 26: leads an epoch granted to a former registration."""

    def _is_granted(self, view: PartitionView, node_epoch: int) -> bool:
        return True


class NeverResign(LeaderCore):
    """Rule 26: goes on after a failed commit of what it had pushed."""

    def _was_pushed_beyond(self, end_offset: int) -> bool:
        return False


class AnyEpoch(ReplicaCore):
    """Rule 26: a leader epoch lower than the last one acted in is acted on."""

    def _is_stale(self, view: PartitionView) -> bool:
        return self.view is not None and view.partition_epoch < self.view.partition_epoch


class AnyView(World):
    """Rule 26: acts on a view that does not include its registration."""

    def includes_registration(self, node: Node, image: MetadataImage) -> bool:
        return node.node_epoch > 0


class AnyWrite(World):
    """Rule 26: the store takes writes of a leader epoch lower than the last one acted in."""

    def start(self, node: Node) -> bool:
        node.disk.fences = False
        return super().start(node)


class AnyViewAnyWrite(AnyView, AnyWrite):
    """Both."""


class CountBeforeAgreement(LeaderCore):
    """A fetch offset counts before the logs agree."""

    def _fetch(self, follower: int, progress: Progress, position: Position) -> Outputs:
        if self._agreement(position) is None:
            return super()._fetch(follower, progress, position)
        progress.count(position.fetch_offset)
        outputs = self._recalculate() + self._expand()
        return outputs + super()._fetch(follower, progress, position)


class PushBeforeAgreement(LeaderCore):
    """HW is sent before the logs agree."""

    def next_push(self, follower: int, session: SessionKey) -> int | None:
        progress = self._progress[follower]
        if progress.session != session:
            return None
        return progress.next_offset if progress.aligned else self._log.log_end_offset


class EnterUndrained(ReplicaCore):
    """A leadership begins while earlier writes are under way, and before ActIn is durable."""

    def on_view(self, view: PartitionView, node_epoch: int, now_ms: int) -> Outputs:
        outputs = super().on_view(view, node_epoch, now_ms)
        if self.role is Role.ENTERING and view.leader == self.node_id:
            log = LogBounds(self.log.epochs, 0, self.log.log_end_offset, self.log.high_watermark)
            outputs += self.on_acted(view.leader_epoch, log, now_ms)
        return outputs


@dataclass(frozen=True)
class Mutant:
    """What to put in the place of what."""

    name: str
    leader: type[LeaderCore] = LeaderCore
    follower: type[FollowerCore] = FollowerCore
    replica: type[ReplicaCore] = ReplicaCore
    node: type[Node] = Node
    world: type[World] = World
    options: tuple[tuple[str, Any], ...] = ()
    liveness: bool = False
    """It shows as I10, no progress; for the others that is not enough."""
    first_seed: int = 0
    """Where the search begins: shortly before a seed that is known to show it."""

    def build(self, seed: int) -> World:
        """A world with the rule taken away."""
        names = {"leader_type": self.leader, "follower_type": self.follower}
        core = type("MutantReplica", (self.replica,), names)
        node = type("MutantNode", (self.node,), {"core_type": core})
        return self.world(seed, node_type=node, **dict(self.options))


MUTANTS = [
    Mutant("1 cut to own HW", replica=CutToHighWatermark),
    Mutant("2 not the lesser end", follower=CutToLeadersEnd, liveness=True, first_seed=50),
    Mutant("2 one lookup", leader=OneLookup, first_seed=14),
    Mutant("3 any last epoch", leader=AnyLastEpoch),
    Mutant("4 progress kept", replica=KeepProgress, first_seed=306),
    Mutant("5 pending not counted", leader=PendingNotCounted, first_seed=17),
    Mutant("5 shrink at once", leader=ShrinkAtOnce, first_seed=94),
    Mutant("5 pending forgotten", leader=ForgetPending, first_seed=14),
    Mutant("6 before epoch start", leader=JoinBeforeEpochStart, first_seed=23),
    Mutant("6 below HW", leader=JoinBelowHighWatermark, first_seed=19),
    Mutant("7 node_epoch of the view", node=NodeEpochOfView, first_seed=162),
    Mutant("8 HW not frozen", leader=NotFrozen),
    Mutant("8 pending counted", leader=FrozenByPending),
    Mutant("10 follower acks log end", follower=AckLogEnd, first_seed=12),
    Mutant("10 leader counts log end", leader=CountOwnLogEnd, first_seed=21),
    Mutant("11 old sessions heard", follower=HearOldSessions, liveness=True),
    Mutant("12 end always known", leader=EndAlwaysKnown),
    Mutant("13 producers kept", options=(("keeps_producers", True),), first_seed=46),
    Mutant("14 duplicates answered", leader=AnswerDuplicates),
    Mutant("26 any grant", replica=AnyGrant, world=AnyView, first_seed=456),
    Mutant("26 no resignation", leader=NeverResign, first_seed=114),
    Mutant("27 new store keeps places", options=(("pseudo_wiped_keep", True),), first_seed=15),
    Mutant("counted before agreement", leader=CountBeforeAgreement),
    Mutant("role begins undrained", replica=EnterUndrained),
]
