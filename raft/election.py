"""Which replica leads: DESIGN section 5 (KIP-966). Pure; the answer is a decision that the controller proposes.

In this order, each time the first in the list of replicas: a live ISR member that neither stops soon nor leaves by a
reassignment; any live ISR member; a live ELR member; where the topic allows it, any live replica (which may lack
acknowledged records) except those that a reassignment has added. In each of them one whose store is full comes last;
one that leads with room for appends begins without the full ones in the ISR: they could only hold it up.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from penstock.raft.image import NO_LEADER, NodeInfo, PartitionInfo
from penstock.raft.members import is_full, is_live


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
    in_sync = [node_id for node_id in live if node_id in info.isr]
    if in_sync:
        leaving = info.removing
        cost = {
            node_id: (is_full(nodes, node_id), node_id in avoid, nodes[node_id].draining, node_id in leaving)
            for node_id in in_sync
        }
        leader = min(in_sync, key=cost.__getitem__)
        return Choice(leader, isr_under(leader, in_sync, nodes))
    live.sort(key=lambda node_id: is_full(nodes, node_id))
    for node_id in live:
        if node_id in info.elr:
            return Choice(node_id, (node_id,))
    for node_id in live:
        if unclean_allowed and node_id not in info.adding:  # those may be empty still
            return Choice(node_id, (node_id,), unclean=True)
    return None


def isr_under(leader: int, members: Iterable[int], nodes: Mapping[int, NodeInfo]) -> tuple[int, ...]:
    """Return the ISR that this one of its members begins to lead with."""
    all_stay = is_full(nodes, leader)
    return tuple(sorted(node_id for node_id in members if all_stay or not is_full(nodes, node_id)))


def needs_leader(info: PartitionInfo, nodes: Mapping[int, NodeInfo]) -> bool:
    """Whether the partition has no leader, or one that is fenced."""
    return info.leader == NO_LEADER or not is_live(nodes, info.leader)


def better_leader(info: PartitionInfo, nodes: Mapping[int, NodeInfo]) -> int | None:
    """Return another in-sync replica that should lead instead of a live leader, or None.

    The preferred replica (the first) when it is in sync; else anyone, when the leader is about to stop or its store is
    full. Never one whose own is, but in place of a leader that stops.
    """
    leaving = info.removing
    fit = [
        node_id
        for node_id in sorted(info.replicas, key=lambda node_id: (is_full(nodes, node_id), node_id in leaving))
        if node_id in info.isr and is_live(nodes, node_id) and not nodes[node_id].draining
    ]
    if not fit or info.leader in fit[:1] or info.leader == NO_LEADER:
        return None
    leader_stops = info.leader in nodes and nodes[info.leader].draining
    if is_full(nodes, fit[0]) and not leader_stops:
        return None
    gives_way = leader_stops or is_full(nodes, info.leader)
    return fit[0] if gives_way or fit[0] == info.replicas[0] else None
