"""Whom a fault of processes hits: by role, resolved at the moment of the injection, or by the order that was drawn.

Each chooser returns running nodes, at least one, and why these. Raises FaultError where none runs.
"""

from typing import TypeAlias

from penstock.chaos.faults.base import FaultError, Params, Site
from penstock.chaos.faults.targets import running_in_order

Chosen: TypeAlias = tuple[list[int], str]


async def leader(site: Site, params: Params) -> Chosen:
    """Give the node that leads most partitions."""
    there = await running_in_order(site, params)
    found = await site.roles.busiest_leader()
    return ([found], "leads most partitions") if found in there else (there[:1], "drawn: no leader is known")


async def controller(site: Site, params: Params) -> Chosen:
    """Give the controller."""
    there = await running_in_order(site, params)
    found = await site.roles.controller()
    return ([found], "the controller") if found in there else (there[:1], "drawn: no controller is known")


async def follower(site: Site, params: Params) -> Chosen:
    """Give a node that is neither the controller nor the leader of most partitions."""
    there = await running_in_order(site, params)
    leading = {await site.roles.controller(), await site.roles.busiest_leader()}
    if None in leading:
        return there[:1], "drawn: who leads is not known"
    others = [node_id for node_id in there if node_id not in leading]
    return (others[:1], "neither leads most nor controls") if others else (there[:1], "drawn: nobody only follows")


async def drawn(site: Site, params: Params) -> Chosen:
    """Give the first running node of the order."""
    return (await running_in_order(site, params))[:1], "drawn"


async def minority(site: Site, params: Params) -> Chosen:
    """Give as many voters as the others can do without. `few_voters` says where there are none."""
    voters = site.cluster.voters
    chosen = await _voters(site, params, (len(voters) - 1) // 2)
    return chosen, f"{len(chosen)} of {len(voters)} voters"


async def majority(site: Site, params: Params) -> Chosen:
    """Give as few voters as the others cannot do without."""
    voters = site.cluster.voters
    chosen = await _voters(site, params, len(voters) // 2 + 1)
    return chosen, f"{len(chosen)} of {len(voters)} voters"


async def everybody(site: Site, params: Params) -> Chosen:
    """Give all that run."""
    return await running_in_order(site, params), "all that run"


def few_voters(site: Site) -> str | None:
    """Say why there is no minority of voters."""
    count = len(site.cluster.voters)
    return None if count >= 3 else f"{count} voters have no minority to do without"


async def _voters(site: Site, params: Params, count: int) -> list[int]:
    voters = set(site.cluster.voters)
    found = [node_id for node_id in await running_in_order(site, params) if node_id in voters]
    if not found:
        raise FaultError("no voter is running")
    return found[:count]
