"""Which replica leads: DESIGN section 5 (KIP-966). Pure; the answer is a decision that the controller proposes.

In this order, each time the first in the list of replicas: a live ISR member that neither stops soon nor leaves by a
reassignment; any live ISR member; a live ELR member; where the topic allows it, any live replica (which may lack
acknowledged records) except those that a reassignment has added.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from penstock.raft.image import NO_LEADER, NodeInfo, PartitionInfo
from penstock.raft.members import is_live


@dataclass(frozen=True, slots=True)
class Choice:
    """A leader and the ISR that it begins with. `leader` NO_LEADER: nobody can lead."""

    leader: int
    isr: tuple[int, ...]
    unclean: bool = False


def choose(
    info: PartitionInfo, nodes: Mapping[int, NodeInfo], *, unclean_allowed: bool = False, avoid: Collection[int] = ()
) -> Choice | None:
    """Return who leads next, `avoid` only if no other can; None where nobody can."""
    live = [node_id for node_id in info.replicas if is_live(nodes, node_id)]
    isr = tuple(sorted(node_id for node_id in info.isr if node_id in live))
    in_sync = [node_id for node_id in live if node_id in isr]
    if in_sync:
        leaving = info.removing
        cost = {node_id: (node_id in avoid, nodes[node_id].draining, node_id in leaving) for node_id in in_sync}
        return Choice(min(in_sync, key=cost.__getitem__), isr)
    for node_id in live:
        if node_id in info.elr:
            return Choice(node_id, (node_id,))
    for node_id in live:
        if unclean_allowed and node_id not in info.adding:  # those may be empty still
            return Choice(node_id, (node_id,), unclean=True)
    return None


def needs_leader(info: PartitionInfo, nodes: Mapping[int, NodeInfo]) -> bool:
    """Whether the partition has no leader, or one that is fenced."""
    return info.leader == NO_LEADER or not is_live(nodes, info.leader)


def better_leader(info: PartitionInfo, nodes: Mapping[int, NodeInfo]) -> int | None:
    """Return another in-sync replica that should lead instead of a live leader, or None.

    The preferred replica (the first) when it is in sync; else anyone, when the leader is about to stop.
    """
    leaving = info.removing
    fit = [
        node_id
        for node_id in sorted(info.replicas, key=leaving.__contains__)
        if node_id in info.isr and is_live(nodes, node_id) and not nodes[node_id].draining
    ]
    if not fit or info.leader in fit[:1] or info.leader == NO_LEADER:
        return None
    leader_stops = info.leader in nodes and nodes[info.leader].draining
    return fit[0] if leader_stops or fit[0] == info.replicas[0] else None
