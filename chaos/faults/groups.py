"""Faults of consumer groups: of their coordinators, and rebalances without end. Only where the workload has groups."""

import asyncio
import random
from typing import ClassVar

from penstock.chaos.faults.base import Effect, Fault, FaultError, Group, Hit, Injected, Params, Shape, Site
from penstock.chaos.faults.choosing import Chosen
from penstock.chaos.faults.process import EndFault, PauseFault
from penstock.chaos.faults.storms import Storm
from penstock.chaos.faults.targets import draw_order, running_in_order

STORM_HZ = 10.0
"""Members that join, each second; as many leave."""
STAYS_S = (0.05, 0.6)
"""How long one stays."""


def _without_groups(site: Site) -> str | None:
    return None if site.groups else "the workload has no consumer groups"


def _group(site: Site, params: Params) -> Group:
    return site.groups[int(params["group"] * len(site.groups))]


def _draw(rng: random.Random, shape: Shape) -> Params:
    """Draw a group, as a share of those that there are, and an order of nodes."""
    return {"group": round(rng.random() * 0.999, 3), **draw_order(rng, shape)}


async def _coordinator(site: Site, params: Params) -> Chosen:
    """Give the coordinator of the group drawn; else the first running node of the order."""
    group = _group(site, params)
    there = await running_in_order(site, params)
    found = await site.roles.coordinator(group.name)
    if found in there:
        return [found], f"coordinates group {group.name}"
    return there[:1], "drawn: no coordinator is known"


class KillCoordinator(EndFault):
    """Whoever comes next has to know every member and every commit."""

    name = "kill-coordinator"
    summary = "kill -9 the coordinator of a consumer group; start it again"

    def missing(self, site: Site) -> str | None:
        """As Fault."""
        return _without_groups(site) or super().missing(site)

    def draw(self, rng: random.Random, shape: Shape) -> Params:
        """As Fault."""
        return _draw(rng, shape)

    async def choose(self, site: Site, params: Params) -> Chosen:
        """As ProcessFault."""
        return await _coordinator(site, params)


class PauseCoordinator(PauseFault):
    """A coordinator that does not know that it was deposed."""

    name = "pause-coordinator"
    summary = "freeze (SIGSTOP) the coordinator of a consumer group past its session timeout"

    def missing(self, site: Site) -> str | None:
        """As Fault."""
        return _without_groups(site) or super().missing(site)

    def draw(self, rng: random.Random, shape: Shape) -> Params:
        """As Fault."""
        return _draw(rng, shape)

    async def choose(self, site: Site, params: Params) -> Chosen:
        """As ProcessFault."""
        return await _coordinator(site, params)


class RebalanceStorm:
    """A group that is never the same for a second."""

    name: ClassVar[str] = "rebalance-storm"
    summary: ClassVar[str] = f"members join a consumer group and leave it, {STORM_HZ:g} times a second"

    def missing(self, site: Site) -> str | None:
        """As Fault."""
        return _without_groups(site)

    def draw(self, rng: random.Random, shape: Shape) -> Params:
        """As Fault."""
        return {**_draw(rng, shape), "seed": rng.randrange(1 << 30)}

    async def inject(self, site: Site, params: Params) -> Injected:
        """As Fault."""
        group = _group(site, params)
        node_ids = await running_in_order(site, params)
        addresses = {node_id: site.cluster.client_address(node_id) for node_id in node_ids}
        storm = Storm(addresses, group, random.Random(params["seed"]))  # noqa: S311  repeatable, not secret
        return _Storming(storm, group)


class _Storming:
    """A storm that goes on."""

    def __init__(self, storm: Storm, group: Group) -> None:
        detail = f"members join group {group.name} and leave it, {STORM_HZ:g} times a second"
        self.effect = Effect(detail)
        self._storm = storm
        self._task = asyncio.create_task(storm.rage(STORM_HZ, STAYS_S))

    async def heal(self) -> Hit:
        """Let it end, and everybody leave."""
        self._task.cancel()
        (end,) = await asyncio.gather(self._task, return_exceptions=True)
        await self._storm.close()
        if isinstance(end, Exception):
            raise FaultError(f"the storm has ended: {type(end).__name__}: {end}")
        return self._storm.hit()


FAULTS: tuple[Fault, ...] = (KillCoordinator(), PauseCoordinator(), RebalanceStorm())
