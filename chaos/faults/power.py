"""Loss of power: the disk takes nothing more, the process is gone, and what was not synced is lost.

All disks are cut at one moment, then the processes are killed: what a node acknowledged in between, it had synced
before. Healing mounts the disks as the loss left them and starts the nodes.
"""

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar, TypeAlias

from penstock.chaos.cluster import Action, ClusterError
from penstock.chaos.disks import Disks
from penstock.chaos.faults import choosing
from penstock.chaos.faults.base import Effect, FaultError, Hit, Injected, Params, Shape, Site
from penstock.chaos.faults.choosing import Chosen
from penstock.chaos.faults.repair import blocking, choose_one, disks_of, draw_one, missing_here, while_down
from penstock.chaos.faults.targets import do_all, draw_order, goes_on, named, running, start_missing

BACK_TIMEOUT_S = 5.0
"""How long a disk may stay in use before its node is looked for again: another fault may have started it."""
Files: TypeAlias = Mapping[Path, tuple[int, int, int]]
"""Size, blocks and time of each file."""


class _PowerLoss(ABC):
    """The power of some nodes goes."""

    name: ClassVar[str]
    summary: ClassVar[str]

    def missing(self, site: Site) -> str | None:
        """As Fault."""
        return missing_here(site, Disks.missing_power_loss, Action.KILL, Action.START)

    def draw(self, rng: random.Random, shape: Shape) -> Params:
        """As Fault."""
        return draw_one(rng, shape)

    @abstractmethod
    async def choose(self, site: Site, params: Params) -> Chosen:
        """Give the nodes, and why these. Raises FaultError where none runs."""

    async def inject(self, site: Site, params: Params) -> Injected:
        """As Fault."""
        nodes, why = await self.choose(site, params)
        disks, were_there = disks_of(site), await running(site.cluster, nodes)
        effect = Effect(f"power of {named(nodes)} lost: {why}", tuple(nodes), await goes_on(site.cluster, nodes))
        seen = await blocking(_files, disks, nodes)
        dark = _Dark(site, effect, were_there, seen)
        try:
            await blocking(disks.power_loss, nodes)
            await do_all(site.cluster, Action.KILL, were_there)
        except (FaultError, ClusterError, asyncio.CancelledError):
            await dark.heal()
            raise
        return dark


class _Dark:
    """Nodes without power."""

    def __init__(self, site: Site, effect: Effect, were_there: list[int], seen: Files) -> None:
        self.effect = effect
        self._site = site
        self._disks = disks_of(site)
        self._were_there = were_there
        self._seen = seen

    async def heal(self) -> Hit:
        """Give them power."""
        nodes = self.effect.nodes
        dark = [node_id for node_id in nodes if self._disks.is_dark(node_id)]
        for node_id in dark:
            await self._light(node_id)
        found = await blocking(_files, self._disks, dark)
        other = sum(found.get(path) != facts for path, facts in self._seen.items())
        await start_missing(self._site.cluster, nodes)
        evidence = (
            f"{len(self._were_there)} of {len(nodes)} nodes were running, {len(dark)} disks were without power; "
            f"{other} of {len(self._seen)} files came back other than they were seen just before"
        )
        return Hit(bool(dark and self._were_there), evidence)

    async def _light(self, node_id: int) -> None:
        await while_down(self._site, node_id, lambda: blocking(self._disks.power_back, node_id, BACK_TIMEOUT_S))


def _files(disks: Disks, node_ids: Iterable[int]) -> Files:
    found: dict[Path, tuple[int, int, int]] = {}
    for node_id in node_ids:
        for path in disks.data_dir(node_id).rglob("*"):
            facts = path.stat()
            found[path] = (facts.st_size, facts.st_blocks, facts.st_mtime_ns)
    return found


class PowerLossNode(_PowerLoss):
    """One node's power goes."""

    name = "power-loss-node"
    summary = "the power of one node is lost, with everything not synced; start it again"

    async def choose(self, site: Site, params: Params) -> Chosen:
        """As _PowerLoss."""
        return await choose_one(site, params)


class PowerLossAll(_PowerLoss):
    """Nobody remembers anything but what its disk had synced."""

    name = "power-loss-all"
    summary = "the power of all nodes is lost at once, with everything not synced; start them again"

    def draw(self, rng: random.Random, shape: Shape) -> Params:
        """As Fault."""
        return draw_order(rng, shape)

    async def choose(self, site: Site, params: Params) -> Chosen:
        """As _PowerLoss."""
        return await choosing.everybody(site, params)
