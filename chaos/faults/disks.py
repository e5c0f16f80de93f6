"""The faults of disks: full, failing and slow ones here; `power` and `disk_loss` have the others."""

import asyncio
import random
from abc import ABC, abstractmethod
from typing import ClassVar

from penstock.chaos.cluster import Action
from penstock.chaos.disks import DiskError, Disks
from penstock.chaos.faults import choosing
from penstock.chaos.faults.base import Effect, Fault, FaultError, Hit, Injected, Params, Shape, Site
from penstock.chaos.faults.choosing import Chosen
from penstock.chaos.faults.disk_loss import BitFlips, LostDisk, Truncation
from penstock.chaos.faults.logs import LogSince
from penstock.chaos.faults.power import PowerLossAll, PowerLossNode
from penstock.chaos.faults.repair import blocking, choose_one, disks_of, draw_one, missing_here
from penstock.chaos.faults.targets import goes_on, named, running, start_missing
from penstock.chaos.shims.faulty_disk import FOREVER, FaultyDisk

LEAVE_BYTES = (0, 0, 1 << 16, 1 << 20)
"""What a full disk may have left: mostly nothing. A node looks again only after 16 MiB, so more might not be met."""
FULL_WORDS = ("appends are refused",)
FAIL_SYNCS = (1, 3, FOREVER)
FAIL_AFTER = 20
"""So many syncs may succeed before the first one fails."""
DELAYS_MS = (20, 1000)


class _Full(ABC):
    """Disks are filled to the last block."""

    name: ClassVar[str]
    summary: ClassVar[str]

    def missing(self, site: Site) -> str | None:
        """As Fault."""
        return missing_here(site, Disks.missing_fill)

    def draw(self, rng: random.Random, shape: Shape) -> Params:
        """As Fault."""
        return {**draw_one(rng, shape), "leave_bytes": rng.choice(LEAVE_BYTES)}

    @abstractmethod
    async def choose(self, site: Site, params: Params) -> Chosen:
        """Give the nodes, and why these. Raises FaultError where none runs."""

    async def inject(self, site: Site, params: Params) -> Injected:
        """As Fault. The others go on where one node is full: it gives its leaderships up and leaves the ISRs."""
        nodes, why = await self.choose(site, params)
        disks, leave = disks_of(site), int(params["leave_bytes"])
        detail = f"the disk of {named(nodes)} filled but for {leave} bytes: {why}"
        full = _Filled(site, Effect(detail, tuple(nodes), await goes_on(site.cluster, nodes)))
        try:
            async with asyncio.TaskGroup() as group:
                filling = [group.create_task(blocking(disks.fill, node_id, leave)) for node_id in nodes]
        except BaseExceptionGroup as errors:
            await full.heal()
            raise FaultError(str(errors.exceptions[0])) from errors
        except asyncio.CancelledError:
            await full.heal()
            raise
        full.left = [task.result() for task in filling]
        return full


class _Filled:
    """Nodes without room."""

    def __init__(self, site: Site, effect: Effect) -> None:
        self.effect = effect
        self.left: list[int] = []
        self._site = site
        self._logs = [LogSince(site.cluster.log_path(node_id)) for node_id in effect.nodes]

    async def heal(self) -> Hit:
        """Give the room back."""
        disks, nodes = disks_of(self._site), self.effect.nodes
        refused = [await asyncio.to_thread(log.said, FULL_WORDS) for log in self._logs]
        for node_id in nodes:
            await blocking(disks.unfill, node_id)
        started = await start_missing(self._site.cluster, nodes)
        evidence = f"{self.left} bytes were left; {sum(map(bool, refused))} of {len(nodes)} nodes said: appends refused"
        return Hit(any(refused), evidence + (f"; {named(started)} had ended" if started else ""))


class DiskFull(_Full):
    """One node has no room."""

    name = "disk-full"
    summary = "the disk of one node is full; make room again"

    async def choose(self, site: Site, params: Params) -> Chosen:
        """As _Full."""
        return await choose_one(site, params)


class DiskFullAll(_Full):
    """Nobody has room."""

    name = "disk-full-all"
    summary = "the disks of all nodes are full; make room again"

    async def choose(self, site: Site, params: Params) -> Chosen:
        """As _Full."""
        return await choosing.everybody(site, params)


class _Syncs(ABC):
    """Syncs of one node's disk fail or are slow."""

    name: ClassVar[str]
    summary: ClassVar[str]

    def missing(self, site: Site) -> str | None:
        """As Fault."""
        return missing_here(site, lambda disks: disks.preloads.missing_disk, Action.START)

    @abstractmethod
    def draw(self, rng: random.Random, shape: Shape) -> Params:
        """As Fault."""

    @abstractmethod
    def begin(self, disk: FaultyDisk, params: Params) -> str:
        """Let it begin; what does."""

    async def inject(self, site: Site, params: Params) -> Injected:
        """As Fault."""
        nodes, why = await choose_one(site, params)
        disk = _faulty_disk(site, nodes[0])
        majority = await goes_on(site.cluster, nodes)
        before = disk.counts()
        detail = f"{self.begin(disk, params)} on {named(nodes)}: {why}"
        return _BadSyncs(site, disk, Effect(detail, tuple(nodes), majority), before.failed + before.delayed)


def _faulty_disk(site: Site, node_id: int) -> FaultyDisk:
    try:
        disk = disks_of(site).preload(node_id).disk
    except DiskError as error:
        raise FaultError(str(error)) from error
    if disk is None:
        raise FaultError(f"node {node_id} was started without a disk that can fail")
    return disk


class _BadSyncs:
    """A node whose disk does not do what it should."""

    def __init__(self, site: Site, disk: FaultyDisk, effect: Effect, before: int) -> None:
        self.effect = effect
        self._site = site
        self._disk = disk
        self._before = before

    async def heal(self) -> Hit:
        """Let the disk work, and start the node where it has ended itself (docs/operations.md: exit code 70)."""
        self._disk.heal()
        counts = self._disk.counts()
        there = await running(self._site.cluster, self.effect.nodes)
        await start_missing(self._site.cluster, self.effect.nodes)
        hits = counts.failed + counts.delayed - self._before
        end = "the node ran on" if there else "the node had ended"
        return Hit(hits > 0, f"{hits} syncs failed or were delayed; {end}")


class FsyncErrors(_Syncs):
    """EIO: what was to be durable is not, and nobody knows what of it is."""

    name = "fsync-errors"
    summary = "fsync, fdatasync and synchronous writes of one node fail with EIO; start it again when it ends itself"

    def draw(self, rng: random.Random, shape: Shape) -> Params:
        """As Fault."""
        return {**draw_one(rng, shape), "syncs": rng.choice(FAIL_SYNCS), "after": rng.randrange(FAIL_AFTER)}

    def begin(self, disk: FaultyDisk, params: Params) -> str:
        """As _Syncs."""
        syncs, after = int(params["syncs"]), int(params["after"])
        disk.fail(syncs, after)
        return f"{'all syncs' if syncs == FOREVER else f'{syncs} syncs'} fail after {after} more"


class SlowDisk(_Syncs):
    """A disk that takes its time."""

    name = "slow-disk"
    summary = "each sync of one node takes up to a second longer"

    def draw(self, rng: random.Random, shape: Shape) -> Params:
        """As Fault."""
        return {**draw_one(rng, shape), "delay_ms": rng.randint(*DELAYS_MS)}

    def begin(self, disk: FaultyDisk, params: Params) -> str:
        """As _Syncs."""
        disk.delay(params["delay_ms"])
        return f"each sync takes {params['delay_ms']} ms longer"


FAULTS: tuple[Fault, ...] = (
    PowerLossNode(),
    PowerLossAll(),
    DiskFull(),
    DiskFullAll(),
    FsyncErrors(),
    SlowDisk(),
    BitFlips(),
    Truncation(),
    LostDisk(),
)
