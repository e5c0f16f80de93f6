"""Who belongs to a partition's ISR and ELR after a change: DESIGN section 5 (KIP-966), as pure functions.

change leaves the ISR      members removed           members lost (wiped)    ELR before
below min_insync_replicas  enter the ELR             enter neither           stays, less lost and new ISR members
at or above it             leave                     enter neither           is emptied
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

from penstock.raft.image import NO_LEADER, NodeInfo, PartitionInfo
from penstock.v1 import common_pb2 as common


def with_isr(
    info: PartitionInfo, isr: Collection[int], min_insync_replicas: int, lost: Collection[int] = ()
) -> PartitionInfo:
    """Return the partition with this ISR, the ELR that follows from it, and a higher partition_epoch.

    A leader that is not in the new ISR leads no more: no leader, a higher leader_epoch.
    """
    changed = replace(
        info,
        isr=tuple(sorted(isr)),
        elr=_elr_after(info, isr, min_insync_replicas, lost),
        partition_epoch=info.partition_epoch + 1,
    )
    if info.leader == NO_LEADER or info.leader in changed.isr:
        return changed
    return replace(changed, leader=NO_LEADER, leader_epoch=info.leader_epoch + 1, leader_node_epoch=0)


def _elr_after(
    info: PartitionInfo, isr: Collection[int], min_insync_replicas: int, lost: Collection[int]
) -> tuple[int, ...]:
    if len(isr) >= min_insync_replicas:
        return ()
    kept = set(info.elr) | set(info.isr)
    return tuple(sorted(kept.difference(isr, lost)))


def led_by(info: PartitionInfo, leader: NodeInfo) -> PartitionInfo:
    """Return the partition in a new leader epoch granted to this node's registration (rule 26)."""
    return replace(
        info,
        leader=leader.node_id,
        leader_epoch=info.leader_epoch + 1,
        partition_epoch=info.partition_epoch + 1,
        leader_node_epoch=leader.node_epoch,
    )


def is_live(nodes: Mapping[int, NodeInfo], node_id: int) -> bool:
    """Whether the node is registered and not fenced."""
    node = nodes.get(node_id)
    return node is not None and not node.fenced


def is_full(nodes: Mapping[int, NodeInfo], node_id: int) -> bool:
    """Whether the node's store takes no appends, as far as the metadata knows."""
    node = nodes.get(node_id)
    return node is not None and node.store_state == common.STORE_STATE_FULL
