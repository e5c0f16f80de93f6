"""The metadata state machine and the controller, broken."""

from dataclasses import replace

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.raft import apply_nodes
from penstock.raft.draft import Draft
from penstock.raft.image import NO_LEADER, PartitionInfo, TopicInfo
from penstock.raft.members import is_full, with_isr
from penstock.raft.refused import Refused, stale


def fence_without_shrinking(draft: Draft, command: pb.FenceNode, index: int) -> pb.MetadataResult:
    """The fenced node stays in the ISR, and leads on."""
    del index
    node = apply_nodes._present(draft, command.node_id, command.node_epoch)
    draft.put_node(replace(node, fenced=True))
    return pb.MetadataResult()


def note_full_without_shrinking(draft: Draft, command: pb.NoteStoreState, index: int) -> pb.MetadataResult:
    """The node whose store is full stays in the ISR, and leads on."""
    del index
    node = apply_nodes._present(draft, command.node_id, command.node_epoch)
    draft.put_node(replace(node, store_state=command.state))
    return pb.MetadataResult()


def note_full_of_the_last(draft: Draft, command: pb.NoteStoreState, index: int) -> pb.MetadataResult:
    """The node whose store is full leaves every ISR, also as the last one."""
    result = apply_nodes.note_store_state(draft, command, index)
    if is_full(draft.nodes, command.node_id):
        for topic, before in draft.each_partition():
            info = draft.partition(topic.topic_id, before.partition) or before
            isr = [member for member in info.isr if member != command.node_id]
            if len(isr) < len(info.isr):
                draft.put_partition(topic.topic_id, with_isr(info, isr, topic.config.min_insync_replicas))
    return result


def full_members_join(draft: Draft, node_id: int, node_epoch: int) -> None:
    """Whose store is full joins ISRs as anybody does."""
    node = draft.nodes.get(node_id)
    if node is None or node.node_epoch != node_epoch or node.fenced:
        raise Refused(pb.REFUSAL_INELIGIBLE_MEMBER, "not live in this node_epoch")


def same_producer_ids(draft: Draft, command: pb.AllocateProducerIds, index: int) -> pb.MetadataResult:
    """Rule 15: a block is given out again and again."""
    return pb.MetadataResult(first_producer_id=draft.next_producer_id)


def complete_early(topic: TopicInfo, info: PartitionInfo) -> bool:
    """A reassignment ends as soon as enough of the target is in sync."""
    left = set(info.isr).intersection(info.target)
    return bool(info.target) and info.leader != NO_LEADER and len(left) >= topic.config.min_insync_replicas


def complete_with_all(draft: Draft, change: pb.ReassignmentCompletion) -> PartitionInfo:
    """Who leaves with a reassignment stays in the ISR."""
    info = draft.partition(change.topic_id, change.partition)
    topic = draft.topics.get(change.topic_id)
    if topic is None or info is None or not info.target or info.partition_epoch != change.partition_epoch:
        raise stale("decided on another state")
    settled = replace(info, replicas=info.target, adding=(), target=())
    return with_isr(settled, info.isr, topic.config.min_insync_replicas)


def complete_with_the_target(draft: Draft, change: pb.ReassignmentCompletion) -> PartitionInfo:
    """The target is the ISR, whether or not it has caught up."""
    info = draft.partition(change.topic_id, change.partition)
    topic = draft.topics.get(change.topic_id)
    if topic is None or info is None or not info.target or info.partition_epoch != change.partition_epoch:
        raise stale("decided on another state")
    settled = replace(info, replicas=info.target, adding=(), target=())
    return with_isr(settled, info.target, topic.config.min_insync_replicas)


def any_isr_change(draft: Draft, change: pb.IsrChange) -> PartitionInfo:
    """An ISR change is applied whoever asks for it, on whatever it was decided, of members that are no replicas."""
    topic, info = draft.topics.get(change.topic_id), draft.partition(change.topic_id, change.partition)
    if topic is None or info is None or info.leader not in change.isr:
        raise stale("there is no such partition")
    return with_isr(info, set(change.isr), topic.config.min_insync_replicas, change.lost)
