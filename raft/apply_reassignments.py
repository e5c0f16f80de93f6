"""Applying reassignments: a partition's replicas become others while it is served (KIP-455). Pure.

    command                 replicas                        ISR, ELR, leader
    begin, or change        the present ones and those of   untouched
    the target              the target: nobody leaves who
                            is in ISR or ELR
    turn back               as a change: the target is the  untouched
                            original replicas
    complete                the target                      the ISR's members of the target, at least
                                                            min_insync_replicas, so the ELR is empty; a leader
                                                            outside is followed in a new leader epoch

So who leaves does so in one command, from an ISR that stays large enough without it; everything else (catching up,
joining the ISR) is ordinary replication. Why this is safe: docs/adr/0011-reassignment.md.
"""

from dataclasses import replace

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.raft.apply_partitions import compare_epoch, each, known_partition, live_in
from penstock.raft.apply_topics import check_replicas
from penstock.raft.draft import Draft
from penstock.raft.image import NO_LEADER, NodeInfo, PartitionInfo, TopicInfo
from penstock.raft.members import led_by, with_isr
from penstock.raft.refused import Refused


def reassign_partitions(draft: Draft, command: pb.ReassignPartitions, index: int) -> pb.MetadataResult:
    """Begin reassignments, give them another target, or turn them back."""
    del index
    return each(draft, command.reassignments, _reassign)


def _reassign(draft: Draft, change: pb.Reassignment) -> PartitionInfo:
    topic, info = known_partition(draft, change.topic_id, change.partition)
    compare_epoch(info, change.partition_epoch)
    target = tuple(change.target)
    if not target:
        target = _original(info)
    else:
        _check_target(draft, topic, target)
    if target == info.settled:
        return info
    placed = {*info.isr, *info.elr, *target}
    joining = tuple(node_id for node_id in target if node_id not in info.replicas)
    adding = tuple(node_id for node_id in info.adding + joining if node_id in placed)
    changed = replace(
        info, replicas=info.original + adding, adding=adding, target=target, partition_epoch=info.partition_epoch + 1
    )
    if not adding and set(target) == set(info.original):
        return replace(changed, replicas=target, target=())  # only the order is another
    return changed


def _original(info: PartitionInfo) -> tuple[int, ...]:
    if not info.target:
        raise Refused(pb.REFUSAL_INVALID, f"partition {info.partition} is not being reassigned")
    return info.original


def _check_target(draft: Draft, topic: TopicInfo, target: tuple[int, ...]) -> None:
    check_replicas(draft, target)
    minimum = topic.config.min_insync_replicas
    if len(target) < minimum:
        text = f"{len(target)} replicas {target} are less than min_insync_replicas {minimum}"
        raise Refused(pb.REFUSAL_INVALID, text)


def complete_reassignments(draft: Draft, command: pb.CompleteReassignments, index: int) -> pb.MetadataResult:
    """End reassignments, as the controller has decided."""
    del index
    return each(draft, command.completions, _complete)


def _complete(draft: Draft, change: pb.ReassignmentCompletion) -> PartitionInfo:
    topic, info = known_partition(draft, change.topic_id, change.partition)
    compare_epoch(info, change.partition_epoch)
    if not info.target:
        raise Refused(pb.REFUSAL_INVALID, f"partition {info.partition} is not being reassigned")
    isr = [member for member in info.isr if member in info.target]
    minimum = topic.config.min_insync_replicas
    if len(isr) < minimum:
        text = f"{len(isr)} of the replicas {info.target} are in sync, {minimum} are needed"
        raise Refused(pb.REFUSAL_INVALID, text)
    leader = _leader(draft, info, change, isr)
    settled = replace(info, replicas=info.target, adding=(), target=())
    if leader is None:
        return with_isr(settled, isr, minimum)
    changed = with_isr(replace(settled, leader=NO_LEADER), isr, minimum)
    return replace(led_by(changed, leader), partition_epoch=info.partition_epoch + 1)


def _leader(draft: Draft, info: PartitionInfo, change: pb.ReassignmentCompletion, isr: list[int]) -> NodeInfo | None:
    """Who leads next, or None where the present leader stays."""
    if not change.HasField("leader"):
        if info.leader not in isr:
            raise Refused(pb.REFUSAL_INVALID, f"leader {info.leader} is not in the ISR {isr} that is left")
        return None
    node = live_in(draft, change.leader, change.leader_node_epoch)
    if node.node_id not in isr:
        raise Refused(pb.REFUSAL_INVALID, f"leader {node.node_id} is not in the ISR {isr} that is left")
    return node
