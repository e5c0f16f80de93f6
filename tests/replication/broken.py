"""The rules broken one by one: what the table of mutants puts in the place of the real code.

Cores by subclasses, the fake disk and the shell's part of the world too; the metadata's functions by replacements.
"""

from dataclasses import replace

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.node.replication import events as ev
from penstock.node.replication.epochs import EpochEnd, LogBounds
from penstock.node.replication.events import (
    NO_EPOCH,
    AppendRefusal,
    IsrProposal,
    Outputs,
    PartitionView,
    Position,
    SendOpen,
    SessionKey,
    WriteTruncate,
)
from penstock.node.replication.follower import FollowerCore, FollowerState
from penstock.node.replication.leader import LeaderCore
from penstock.node.replication.progress import NO_SESSION, Progress
from penstock.node.replication.replica import ReplicaCore, Role
from penstock.protocol.batch import BatchHeader
from penstock.raft.apply_nodes import _after_registration as after_registration
from penstock.raft.apply_nodes import keeps_places, register_node
from penstock.raft.apply_partitions import _candidate as candidate
from penstock.raft.apply_partitions import _check_member as check_member
from penstock.raft.draft import Draft
from penstock.raft.image import MetadataImage, NodeInfo, PartitionInfo, TopicInfo
from penstock.raft.members import _elr_after as elr_after
from penstock.storage.producers import ACCEPT, ProducerState, Verdict, check
from tests.replication.disk import PRODUCERS, Disk, Write
from tests.replication.node import Node
from tests.replication.world import World

# ---- leader, follower, replica


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
    """Rule 2: after one answer in a session the logs are taken to agree."""

    def _fetch(self, follower: int, progress: Progress, position: Position) -> Outputs:
        answered: set[tuple[int, SessionKey]] = self.__dict__.setdefault("answered", set())
        self.__dict__["agreed"] = (follower, progress.session) in answered
        if self._agreement(position) is not None:
            answered.add((follower, progress.session))
        return super()._fetch(follower, progress, position)

    def _agreement(self, position: Position) -> EpochEnd | None:
        return None if self.__dict__["agreed"] else super()._agreement(position)


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


class ExactEpochsEnd(LeaderCore):
    """Rule 2: the lookup answers with the asked epoch, which this log may not have, and not with one that it has."""

    def _agreement(self, position: Position) -> EpochEnd | None:
        found = super()._agreement(position)
        if found is None or found.leader_epoch == NO_EPOCH:
            return found
        return found._replace(leader_epoch=position.last_epoch)


class JoinOnlyPastHighWatermark(LeaderCore):
    """Rule 6: past HW, where at HW is enough."""

    def _may_join(self, progress: Progress) -> bool:
        return super()._may_join(progress) and progress.acked > self._log.high_watermark


class CountLateFetches(LeaderCore):
    """Rule 11: fetches of earlier sessions are counted."""

    def _is_current(self, progress: Progress, session: SessionKey, position: Position) -> bool:
        return position.leader_epoch == self.leader_epoch


class LateOpensWin(LeaderCore):
    """Rule 11: a late open of an earlier session takes the place of the present one."""

    def on_open(self, follower: int, session: SessionKey, position: Position) -> Outputs:
        if follower in self._progress:
            self._progress[follower].session = NO_SESSION
        return super().on_open(follower, session, position)


class NoShrink(LeaderCore):
    """Rule 29: nobody leaves for lag."""

    def _shrink(self, lagging: set[int]) -> Outputs:
        return []


class DeafToRefusedConnections(LeaderCore):
    """Rule 29: a refused connection is nothing special."""

    def on_unreachable(self, follower: int) -> Outputs:
        return []


class AppendWhileRecovering(ReplicaCore):
    """Rule 26: appends go on while writes behind a failed one are still to fail."""

    def append_refusal(self) -> AppendRefusal | None:
        return AppendRefusal.NOT_LEADER if self.leader is None else self.leader.append_refusal()


class OpenUndrained(FollowerCore):
    """Rule 11: a session opens while writes of an earlier one are under way."""

    def _open_if_drained(self) -> Outputs:
        if self.session is None:
            return []
        self.state = FollowerState.FETCHING
        return [SendOpen(self.session, self._position())]


class AnyBatches(FollowerCore):
    """Batches are taken that do not continue the log."""

    def _continues(self, spans: object) -> bool:
        return True


class OpenUndrainedTakeAnyBatches(OpenUndrained, AnyBatches):
    """Both."""


# ---- disk


class KeepProducers(Disk):
    """Rule 13: truncation leaves the producers' state as it is."""

    def __init__(self, store_id: bytes) -> None:
        super().__init__(store_id)
        self.noted: dict[int, ProducerState] = {}

    def _apply(self, write: Write) -> bool:
        done = super()._apply(write)
        if done and write.kind == "append":
            self.noted |= {p: state for p in PRODUCERS if (state := super(KeepProducers, self).producer(p)) is not None}
        return done

    def producer(self, producer: int) -> ProducerState | None:
        return self.noted.get(producer)


class FollowersForget(Disk):
    """Rule 13: only a leader's appends note the producer's state."""

    def __init__(self, store_id: bytes) -> None:
        super().__init__(store_id)
        self.led: set[tuple[int, int]] = set()

    def _apply(self, write: Write) -> bool:
        done = super()._apply(write)
        if done and write.kind == "append" and write.as_leader:
            self.led |= {entry.value for entry in write.entries}
        return done

    def producer(self, producer: int) -> ProducerState | None:
        entries = self.entries
        last = max((i for i, e in enumerate(entries) if e.producer == producer and e.value in self.led), default=-1)
        self.entries = entries[: last + 1]
        state = super().producer(producer) if last >= 0 else None
        self.entries = entries
        return state


class WritesMove(Disk):
    """A write behind a failed one is retried, and goes to where the log ends now."""

    def commit(self, fail_at: int | None) -> list[tuple[Write, bool]]:
        queue, self.queue = self.queue, []
        outcomes = []
        for i, write in enumerate(queue):
            moved = write._replace(at=len(self.entries)) if write.kind == "append" else write
            outcomes.append((moved, i != fail_at and self._apply(moved)))
        return outcomes


class Unfenced(Disk):
    """Rule 26: the store takes writes of a leader epoch lower than the last one acted in."""

    def _is_fenced(self, write: Write) -> bool:
        return False


# ---- shells


class NodeEpochOfView(Node):
    """Rule 7: the change carries the node_epochs of the view."""

    def _on_propose(self, out: ev.Propose) -> None:
        super()._on_propose(out)
        node_id, start_id, proposal = self.world.commands.pop()
        counted = tuple((member, self.world.image.nodes[member].node_epoch) for member, _ in proposal.node_epochs)
        self.world.commands.append((node_id, start_id, replace(proposal, node_epochs=counted)))


class AnyView(World):
    """Rule 26: acts on a view that does not include its registration."""

    def includes_registration(self, node: Node, image: MetadataImage) -> bool:
        return node.node_epoch > 0


class AnyRefusalIsFinal(World):
    """Rule 5: a change that is refused for its partition_epoch alone is given up."""

    def answer(self, node: Node, core: ReplicaCore, proposal: IsrProposal, refusal: int) -> None:
        if refusal and core.leader is not None:
            node.run(core.leader.on_proposal_refused(proposal))


class StreamsStayOpen(World):
    """Rule 7: a node with a new node_epoch goes on in its old streams."""

    def reopen(self, node: Node, core: ReplicaCore) -> None:
        pass


class TrustingReader(World):
    """Rule 12: a client takes the answer of a lower leadership than it has seen."""

    def ask(self, node_id: int) -> bool:
        self.client.leader_epoch = NO_EPOCH
        return super().ask(node_id)


# ---- producers


def any_first_sequence(state: ProducerState | None, header: BatchHeader) -> Verdict:
    """Rule 14: a producer that the log does not know may begin in the middle."""
    return ACCEPT if state is None else check(state, header)


# ---- metadata


def any_partition_epoch(info: PartitionInfo, partition_epoch: int) -> None:
    """Rule 5: no compare-and-set."""


def any_node_epoch(draft: Draft, node_id: int, node_epoch: int) -> None:
    """Rule 7: who is added is not compared with who was counted. It must be live."""
    node = draft.nodes.get(node_id)
    check_member(draft, node_id, node.node_epoch if node is not None else 0)


def only_isr_members_lead(draft: Draft, topic: TopicInfo, info: PartitionInfo, election: pb.Election) -> NodeInfo:
    """Rule 9: nobody is elected from the ELR."""
    return candidate(draft, topic, replace(info, elr=()), election)


def no_elr(info: PartitionInfo, isr: object, minimum: int, lost: object) -> tuple[int, ...]:
    """Rule 9: there is no ELR."""
    return ()


def elr_not_emptied(info: PartitionInfo, isr: tuple[int, ...], minimum: int, lost: tuple[int, ...]) -> tuple[int, ...]:
    """Rule 9: who is in the ELR stays until it joins the ISR."""
    if len(isr) >= minimum:
        return tuple(sorted(set(info.elr).difference(isr, lost)))
    return elr_after(info, isr, minimum, lost)


def elr_entry_below_only(
    info: PartitionInfo, isr: tuple[int, ...], minimum: int, lost: tuple[int, ...]
) -> tuple[int, ...]:
    """Rule 9: a member enters the ELR only if the ISR was below the minimum before it was removed."""
    if len(isr) < minimum <= len(info.isr):
        return tuple(sorted(set(info.elr).difference(isr, lost)))
    return elr_after(info, isr, minimum, lost)


def lost_enter_elr(info: PartitionInfo, isr: tuple[int, ...], minimum: int, lost: object) -> tuple[int, ...]:
    """Rules 9, 27: a wiped store enters the ELR as any other removed member."""
    return elr_after(info, isr, minimum, ())


def no_store_keeps_places(known: NodeInfo, registration: pb.Registration) -> bool:
    """Rule 9: a restart loses the ISR and ELR places."""
    return known.start_id == registration.start_ids[-1] and keeps_places(known, registration)


def every_store_keeps_places(known: NodeInfo, registration: pb.Registration) -> bool:
    """Rule 27: a new store keeps its places."""
    return True


def same_store_keeps_places(known: NodeInfo, registration: pb.Registration) -> bool:
    """Rule 27: start ids are not compared."""
    return known.store_id == registration.store_id


def same_process_is_new(known: NodeInfo, registration: pb.Registration) -> bool:
    """Rule 27: a process that registers a second time is a new store."""
    return known.start_id != registration.start_ids[-1] and keeps_places(known, registration)


def epoch_stays(topic: TopicInfo, info: PartitionInfo, node: NodeInfo, *, keeps: bool) -> PartitionInfo:
    """Rule 26: registering leaves the epochs of what the node leads as they are."""
    return info if keeps else after_registration(topic, info, node, keeps=keeps)


def unfencing_keeps_the_node_epoch(draft: Draft, command: pb.RegisterNode, index: int) -> pb.MetadataResult:
    """Rule 5: a fenced process that registers again is live at once, in its old node_epoch and partition_epochs."""
    known = draft.nodes.get(command.registration.node_id)
    if known is None or known.start_id != command.registration.start_ids[-1]:
        return register_node(draft, command, index)
    draft.put_node(replace(known, fenced=False))
    return pb.MetadataResult()
