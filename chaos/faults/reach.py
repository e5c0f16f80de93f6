"""Who reaches whom when some links are cut, and what that leaves of a majority. Pure.

Two nodes see each other when neither link between them is cut: consensus and replication need answers. Topics have
replication factor 3 and min_insync_replicas 2: with one node away every partition has 2 replicas among the others, with
two away one may have none.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import combinations

from penstock.chaos.faults.targets import majority_without
from penstock.chaos.links import Link


@dataclass(frozen=True, slots=True)
class Reach:
    """What is left."""

    majority: bool
    """Nodes that see each other are a majority of voters and hold min_insync replicas of each partition."""
    cut_hosts: tuple[str, ...]
    """Clients' hosts that do not reach each node that may be among those; without any: not each node."""


def reach(voters: Collection[int], running: Collection[int], links: Iterable[Link], cut: Collection[Link]) -> Reach:
    """Judge the nodes that run, with their links, when those of `cut` are cut one way or both."""
    hosts = dict.fromkeys(link.source for link in links if isinstance(link.source, str))
    needed = _majorities(voters, set(running), cut)
    targets = needed or set(running)
    cut_hosts = (host for host in hosts if any(Link(host, node) in cut for node in targets))
    return Reach(bool(needed), tuple(cut_hosts))


def _majorities(voters: Collection[int], running: set[int], cut: Collection[Link]) -> set[int]:
    """Give all nodes of the largest sets that go on: everybody, or all but one, whoever that is."""
    down = set(voters) - running
    if majority_without(voters, down) and _see_each_other(running, cut):
        return running
    sets = (running - {away} for away in running if majority_without(voters, down | {away}))
    return {node for others in sets if _see_each_other(others, cut) for node in others}


def _see_each_other(nodes: Iterable[int], cut: Collection[Link]) -> bool:
    return not any(Link(a, b) in cut or Link(b, a) in cut for a, b in combinations(nodes, 2))
