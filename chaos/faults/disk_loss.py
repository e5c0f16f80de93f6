"""What is on one node's disk is lost or damaged; healing replaces the disk as an operator does (`format --join`).

One disk at a time: before the next goes, the cluster shows that it is whole. A second one is outside what the docs
promise (docs/operations.md, Durability).
"""

import asyncio
import random
from abc import ABC, abstractmethod
from typing import ClassVar

from penstock.chaos.cluster import Action, ClusterError
from penstock.chaos.damage import Damage
from penstock.chaos.disks import Disks
from penstock.chaos.faults.base import Effect, FaultError, Hit, Injected, Params, Shape, Site
from penstock.chaos.faults.choosing import few_voters
from penstock.chaos.faults.logs import LogSince
from penstock.chaos.faults.repair import blocking, choose_one, disks_of, draw_one, missing_here, while_down
from penstock.chaos.faults.targets import goes_on, named, start_missing, until_healthy

WHOLE_TIMEOUT_S = 60.0
"""How long the cluster may take to be whole before a disk is lost."""
SEED_BITS = 32
DAMAGE_WORDS = ("damaged", "CORRUPTED", "holds no store", "the node must end")
"""What a node says that finds its data damaged, or none, at its start or later."""


class _DiskLoss(ABC):
    """One node loses what it has."""

    name: ClassVar[str]
    summary: ClassVar[str]

    def missing(self, site: Site) -> str | None:
        """As Fault."""
        actions = (Action.KILL, Action.REPLACE, Action.START)
        return missing_here(site, lambda _: None, *actions) or few_voters(site)

    def draw(self, rng: random.Random, shape: Shape) -> Params:
        """As Fault."""
        return {**draw_one(rng, shape), "seed": rng.getrandbits(SEED_BITS)}

    async def inject(self, site: Site, params: Params) -> Injected:
        """As Fault."""
        await _until_whole(site)
        nodes, why = await choose_one(site, params)
        node_id, disks = nodes[0], disks_of(site)
        majority = await goes_on(site.cluster, nodes)
        await blocking(disks.lose, node_id)
        lost = _Lost(site, node_id)
        try:
            what = await while_down(site, node_id, lambda: blocking(self.lose, disks, node_id, params))
            await self.go_on(site, node_id)
        except (FaultError, ClusterError, asyncio.CancelledError):
            await lost.heal()
            raise
        lost.effect = Effect(f"the disk of {named(nodes)} ({why}): {what}", tuple(nodes), majority)
        return lost

    @abstractmethod
    def lose(self, disks: Disks, node_id: int, params: Params) -> str:
        """Do it; what was done. Raises DiskError where nothing could be. Blocks."""

    @abstractmethod
    async def go_on(self, site: Site, node_id: int) -> None:
        """Do with the node what is to be done with such a disk."""


async def _until_whole(site: Site) -> None:
    try:
        async with asyncio.timeout(WHOLE_TIMEOUT_S):
            await until_healthy(site.cluster, site.cluster.voters)
    except TimeoutError:
        text = f"the cluster is not whole after {WHOLE_TIMEOUT_S:.0f} s: a disk lost now would be outside the guarantee"
        raise FaultError(text) from None


class _Lost:
    """A node without its data, or with data that cannot be relied on."""

    def __init__(self, site: Site, node_id: int) -> None:
        self.effect = Effect("")
        self._site = site
        self._node_id = node_id
        self._log = LogSince(site.cluster.log_path(node_id))

    async def heal(self) -> Hit:
        """Replace the disk."""
        cluster, disks = self._site.cluster, disks_of(self._site)
        runs = await cluster.is_running(self._node_id)
        damage_said = await asyncio.to_thread(self._log.said, DAMAGE_WORDS)

        async def replace() -> None:
            await blocking(disks.wipe, self._node_id)
            await cluster.do(Action.REPLACE, self._node_id)

        await while_down(self._site, self._node_id, replace)
        await start_missing(cluster, [self._node_id])
        disks.regain(self._node_id)
        end = "was running" if runs else "was not running"
        said = "said so in its log" if damage_said else "said nothing of damage"
        return Hit(hit=True, evidence=f"{self.effect.detail}; the node {end} when its disk was replaced, and {said}")


class _Damaged(_DiskLoss):
    """A node is started with damaged data: it must refuse, end itself, or give out nothing that is wrong."""

    how: ClassVar[Damage]

    def lose(self, disks: Disks, node_id: int, params: Params) -> str:
        """As _DiskLoss."""
        done = disks.damage(node_id, self.how, random.Random(params["seed"]))  # noqa: S311  reproducible choices
        return f"{done.path.relative_to(disks.data_dir(node_id))}: {done.detail}"

    async def go_on(self, site: Site, node_id: int) -> None:
        """As _DiskLoss."""
        await start_missing(site.cluster, [node_id])


class BitFlips(_Damaged):
    """Bits that are not what was written."""

    name = "bit-flips"
    summary = "kill a node, flip bits in one of its databases, start it so; then replace its disk"
    how = Damage.BIT_FLIPS


class Truncation(_Damaged):
    """A file that ends too early."""

    name = "truncation"
    summary = "kill a node, cut one of its databases short, start it so; then replace its disk"
    how = Damage.TRUNCATION


class LostDisk(_DiskLoss):
    """Nothing is left."""

    name = "lost-disk"
    summary = "kill a node and take its data away; then replace its disk"

    def lose(self, disks: Disks, node_id: int, params: Params) -> str:
        """As _DiskLoss."""
        del params
        disks.wipe(node_id)
        return "its data is gone"

    async def go_on(self, site: Site, node_id: int) -> None:
        """As _DiskLoss: it stays away until it has a disk."""
