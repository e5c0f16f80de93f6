"""Applying changes of partitions: ISR (rules 5, 7), leaders (rule 26), replicas. Pure.

Each change of a batch is compared with the present partition_epoch and applied or refused by itself.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.raft.apply_topics import check_replicas
from penstock.raft.draft import Draft
from penstock.raft.image import NO_LEADER, NodeInfo, PartitionInfo, TopicInfo
from penstock.raft.members import is_full, is_live, led_by, with_isr
from penstock.raft.refused import Refused, stale

Change = TypeVar("Change", pb.IsrChange, pb.Election, pb.ReplicasChange, pb.Reassignment, pb.ReassignmentCompletion)


def each(draft: Draft, changes: Iterable[Change], alter: Callable[[Draft, Change], PartitionInfo]) -> pb.MetadataResult:
    """Apply each change that is not refused; one result for each."""
    result = pb.MetadataResult()
    for change in changes:
        try:
            draft.put_partition(change.topic_id, alter(draft, change))
            result.changes.add()
        except Refused as refused:
            result.changes.add(refusal=refused.refusal, detail=refused.detail)
    return result


def known_partition(draft: Draft, topic_id: bytes, index: int) -> tuple[TopicInfo, PartitionInfo]:
    """Return a partition that a change names."""
    topic = draft.topics.get(topic_id)
    if topic is None:
        raise Refused(pb.REFUSAL_UNKNOWN_TOPIC, f"no topic has the id {topic_id.hex()}")
    info = draft.partition(topic_id, index)
    if info is None:
        raise Refused(pb.REFUSAL_UNKNOWN_PARTITION, f"topic {topic.name!r} has no partition {index}")
    return topic, info


def compare_epoch(info: PartitionInfo, partition_epoch: int) -> None:
    """Refuse what was decided on another partition_epoch (rule 5)."""
    if info.partition_epoch != partition_epoch:
        raise stale(f"partition_epoch is {info.partition_epoch}, not {partition_epoch}")


def alter_isr(draft: Draft, command: pb.AlterIsr, index: int) -> pb.MetadataResult:
    """Change ISRs as their leaders ask."""
    del index
    return each(draft, command.changes, _alter_isr)


def _alter_isr(draft: Draft, change: pb.IsrChange) -> PartitionInfo:
    topic, info = known_partition(draft, change.topic_id, change.partition)
    if info.leader != change.leader or info.leader_epoch != change.leader_epoch:
        text = f"leader is {info.leader} in leader_epoch {info.leader_epoch}"
        raise Refused(pb.REFUSAL_NOT_LEADER, text)
    compare_epoch(info, change.partition_epoch)
    isr = set(change.isr)
    if len(isr) != len(change.isr) or not isr <= set(info.replicas) or info.leader not in isr:
        raise Refused(pb.REFUSAL_INVALID, f"{sorted(isr)} is no ISR of replicas {info.replicas}, leader {info.leader}")
    if not set(change.lost) <= set(info.isr) - isr:
        raise Refused(pb.REFUSAL_INVALID, f"lost members {list(change.lost)} are not among those removed")
    counted = {member.node_id: member.node_epoch for member in change.node_epochs}
    for node_id in sorted(isr.difference(info.isr)):
        _check_member(draft, node_id, counted.get(node_id, 0))
    return with_isr(info, isr, topic.config.min_insync_replicas, change.lost)


def _check_member(draft: Draft, node_id: int, node_epoch: int) -> None:
    """Rule 7: who joins is the registration whose fetch was counted, is live, and can take appends.

    Each of these refusals holds for good at this partition_epoch (rule 5): see ADR 9, and ADR 18 for a full store.
    """
    node = draft.nodes.get(node_id)
    if node is None or node.node_epoch != node_epoch or node.fenced:
        present = "not registered" if node is None else f"in node_epoch {node.node_epoch}, fenced: {node.fenced}"
        raise Refused(pb.REFUSAL_INELIGIBLE_MEMBER, f"node {node_id} fetched in node_epoch {node_epoch}, is {present}")
    if is_full(draft.nodes, node_id):
        raise Refused(pb.REFUSAL_INELIGIBLE_MEMBER, f"the store of node {node_id} is full")


def live_in(draft: Draft, node_id: int, node_epoch: int) -> NodeInfo:
    """Return the node if it is live in this node_epoch (rule 26), else refuse."""
    node = draft.nodes.get(node_id)
    if node is None or node.node_epoch != node_epoch or not is_live(draft.nodes, node_id):
        raise stale(f"node {node_id} is fenced or has registered since")
    return node


def elect_leaders(draft: Draft, command: pb.ElectLeaders, index: int) -> pb.MetadataResult:
    """Change leaders as the controller has decided."""
    del index
    return each(draft, command.elections, _elect)


def _elect(draft: Draft, election: pb.Election) -> PartitionInfo:
    topic, info = known_partition(draft, election.topic_id, election.partition)
    compare_epoch(info, election.partition_epoch)
    isr = set(election.isr)
    minimum = topic.config.min_insync_replicas
    chosen = {election.leader} if election.HasField("leader") else set()
    if len(isr) != len(election.isr) or not isr <= chosen.union(info.isr):
        raise Refused(pb.REFUSAL_INVALID, f"ISR {sorted(isr)} has others than the leader and members of {info.isr}")
    if not chosen:
        resigned = with_isr(info, isr, minimum)
        if resigned.leader == NO_LEADER:
            return resigned
        return replace(resigned, leader=NO_LEADER, leader_epoch=info.leader_epoch + 1, leader_node_epoch=0)
    leader = _candidate(draft, topic, info, election)
    elected = with_isr(replace(info, leader=NO_LEADER), isr, minimum)
    if leader.node_id not in {*info.isr, *info.elr}:
        elected = replace(elected, elr=())  # their records may be others than the new leader's
    return replace(led_by(elected, leader), partition_epoch=info.partition_epoch + 1)


def _candidate(draft: Draft, topic: TopicInfo, info: PartitionInfo, election: pb.Election) -> NodeInfo:
    node = live_in(draft, election.leader, election.leader_node_epoch)
    if node.node_id not in election.isr:
        raise Refused(pb.REFUSAL_INVALID, f"leader {node.node_id} is not in the ISR {list(election.isr)}")
    if node.node_id in info.isr or node.node_id in info.elr:
        return node
    allowed = election.unclean and topic.config.unclean_leader_election
    if not allowed or node.node_id not in info.replicas or len(election.isr) != 1:
        text = f"node {node.node_id} is in neither ISR {info.isr} nor ELR {info.elr}, and may not lead uncleanly"
        raise Refused(pb.REFUSAL_INVALID, text)
    return node


def alter_replicas(draft: Draft, command: pb.AlterReplicas, index: int) -> pb.MetadataResult:
    """Change replica lists at once. Nobody proposes it any more: see `apply_reassignments`."""
    del index
    return each(draft, command.changes, _alter_replicas)


def _alter_replicas(draft: Draft, change: pb.ReplicasChange) -> PartitionInfo:
    """Only what leaves leader and guarantee alone: the controller moves leader and ISR first."""
    topic, info = known_partition(draft, change.topic_id, change.partition)
    compare_epoch(info, change.partition_epoch)
    if info.target:
        raise Refused(pb.REFUSAL_INVALID, f"a reassignment to {info.target} is under way")
    replicas = tuple(change.replicas)
    check_replicas(draft, replicas)
    isr = [member for member in info.isr if member in replicas]
    minimum = topic.config.min_insync_replicas
    if info.leader not in isr:
        raise Refused(pb.REFUSAL_INVALID, f"leader {info.leader} is not among the replicas {replicas}")
    if len(replicas) < minimum or (len(isr) < len(info.isr) and len(isr) < minimum):
        raise Refused(pb.REFUSAL_INVALID, f"{len(isr)} of replicas {replicas} are in sync, {minimum} are needed")
    changed = with_isr(info, isr, minimum, lost=set(info.replicas).difference(replicas))
    return replace(changed, replicas=replicas)
