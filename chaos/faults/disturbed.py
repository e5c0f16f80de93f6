"""What the faults of links share: to disturb some, to watch what passes, to undo it and say whether it hit.

Each injection is an owner of its own to `Links`, so that faults that overlap do not undo each other.
"""

import asyncio
import contextlib
import itertools
import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from penstock.chaos.cluster import ClusterError
from penstock.chaos.faults import choosing, evidence
from penstock.chaos.faults.base import Effect, FaultError, Hit, Injected, Params, Shape, Site
from penstock.chaos.faults.evidence import Snapshot
from penstock.chaos.faults.reach import reach
from penstock.chaos.faults.targets import draw_order, running
from penstock.chaos.links import Cut, Link, Links
from penstock.chaos.toxics import BOTH, Stream, Toxic

ROLES = {
    "leader": choosing.leader,
    "controller": choosing.controller,
    "follower": choosing.follower,
    "drawn": choosing.drawn,
}
COUNTED_S = 2.0
"""Toxiproxy counts an ended connection a moment after its end: how long that is waited for where nothing else tells."""
POLL_S = 0.1
WATCH_S = 0.5
_injections = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Cutting:
    """Links to cut, one way or both."""

    streams: Mapping[Link, tuple[Stream, ...]]
    detail: str
    nodes: tuple[int, ...]
    how: Cut = Cut.DROP


@dataclass(frozen=True, slots=True)
class Strain:
    """Links to put toxics on."""

    links: tuple[Link, ...]
    toxics: tuple[Toxic, ...]
    detail: str
    nodes: tuple[int, ...]


def both_ways(links: Iterable[Link]) -> dict[Link, tuple[Stream, ...]]:
    """Cut these links' both streams."""
    return dict.fromkeys(links, BOTH)


def links_of(site: Site) -> Links:
    """Give the links. Raises FaultError where there are none."""
    if site.links is None:
        raise FaultError("no proxies")
    return site.links


def hosts_of(links: Links) -> tuple[str, ...]:
    """Give the clients' hosts that have links."""
    return tuple(dict.fromkeys(link.source for link in links.all if isinstance(link.source, str)))


def between(links: Links, some: Iterable[int], others: Iterable[int]) -> tuple[Link, ...]:
    """Give the links between two sets of nodes, both directions."""
    some, others = tuple(some), tuple(others)
    return (*links.select(some, others), *links.select(others, some))


def draw_target(rng: random.Random, shape: Shape) -> Params:
    """Draw a role, and an order of nodes for where it cannot be resolved."""
    return {"role": rng.choice(sorted(ROLES)), **draw_order(rng, shape)}


async def target(site: Site, params: Params) -> tuple[int, str]:
    """Give the node that plays the role drawn, or the one named by `node`, and why. Raises FaultError."""
    if "node" in params:
        return int(params["node"]), "named"
    nodes, why = await ROLES[params["role"]](site, params)
    return nodes[0], why


async def effect_of(site: Site, detail: str, nodes: tuple[int, ...], cut: Iterable[Link]) -> Effect:
    """Say what is left when these links do not work."""
    cluster, links = site.cluster, links_of(site)
    there = await running(cluster, cluster.node_ids)
    left = reach(cluster.voters, there, links.all, set(cut))
    return Effect(detail, nodes, left.majority, left.cut_hosts)


class LinkFault(ABC):
    """Common to all."""

    name: ClassVar[str]
    summary: ClassVar[str]
    needs_nodes: ClassVar[bool] = True
    needs_hosts: ClassVar[bool] = False

    def missing(self, site: Site) -> str | None:
        """As Fault."""
        if site.links is None:
            return "no proxies"
        if self.needs_hosts and not hosts_of(site.links):
            return "no proxies between clients and nodes"
        if self.needs_nodes and (pair := _unlinked(site.cluster.voters, site.links)):
            return f"no proxy from node {pair.source} to node {pair.target}"
        return None

    def draw(self, rng: random.Random, shape: Shape) -> Params:
        """As Fault."""
        return draw_target(rng, shape)

    @abstractmethod
    async def inject(self, site: Site, params: Params) -> Injected:
        """As Fault."""


class CutFault(LinkFault):
    """Cuts links and leaves them cut."""

    @abstractmethod
    async def cutting(self, site: Site, params: Params) -> Cutting:
        """Choose what to cut. Raises FaultError."""

    async def inject(self, site: Site, params: Params) -> Injected:
        """As Fault."""
        cutting = await self.cutting(site, params)
        if not cutting.streams:
            raise FaultError("there is no link to cut")
        effect = await effect_of(site, cutting.detail, cutting.nodes, cutting.streams)
        return await CutLinks.begin(links_of(site), effect, cutting, new_owner(self.name))


class CutLinks:
    """Links that are cut."""

    def __init__(self, links: Links, effect: Effect, cutting: Cutting, owner: str) -> None:
        self.effect = effect
        self._links = links
        self._cutting = cutting
        self._owner = owner
        self._before: Snapshot = {}
        self._cut: Snapshot = {}

    @classmethod
    async def begin(cls, links: Links, effect: Effect, cutting: Cutting, owner: str) -> "CutLinks":
        """Cut them; where that fails half way, none."""
        cut = cls(links, effect, cutting, owner)
        cut._before = await links.traffic(cutting.streams)
        try:
            await cut_all(links, cutting, owner)
            cut._cut = await links.traffic(cutting.streams)
        except (ClusterError, asyncio.CancelledError):
            with contextlib.suppress(ClusterError):
                await links.restore(cutting.streams, owner)
            raise
        return cut

    async def heal(self) -> Hit:
        """Restore them."""
        try:
            at_end = await self._links.traffic(self._cutting.streams)
        finally:
            await self._links.restore(self._cutting.streams, self._owner)
        hit = evidence.of_cut(self._before, self._cut, at_end, at_end)
        if evidence.connections_known(at_end):
            return hit
        now = asyncio.get_running_loop().time
        deadline = now() + COUNTED_S
        while not hit.hit and now() < deadline:
            await asyncio.sleep(POLL_S)
            healed = await self._links.traffic(self._cutting.streams)
            hit = evidence.of_cut(self._before, self._cut, at_end, healed)
        return hit


class StrainFault(LinkFault):
    """Puts toxics on links and leaves them there."""

    breaks: ClassVar[bool] = False
    """Its toxics end connections, so the links do not count as working."""

    @abstractmethod
    async def strain(self, site: Site, params: Params) -> Strain:
        """Choose. Raises FaultError."""

    async def inject(self, site: Site, params: Params) -> Injected:
        """As Fault."""
        strain = await self.strain(site, params)
        if not strain.links:
            raise FaultError("there is no link to disturb")
        effect = await effect_of(site, strain.detail, strain.nodes, strain.links if self.breaks else ())
        return await StrainedLinks.begin(links_of(site), effect, strain, new_owner(self.name), breaks=self.breaks)


class StrainedLinks:
    """Links that bear toxics."""

    def __init__(self, links: Links, effect: Effect, strain: Strain, owner: str) -> None:
        self.effect = effect
        self._links = links
        self._strain = strain
        self._owner = owner
        self._before: Snapshot = {}
        self._ended = 0
        self._watching: asyncio.Task[None] | None = None

    @classmethod
    async def begin(cls, links: Links, effect: Effect, strain: Strain, owner: str, *, breaks: bool) -> "StrainedLinks":
        """Disturb them; where that fails half way, none."""
        strained = cls(links, effect, strain, owner)
        strained._before = await links.traffic(strain.links)
        try:
            await links.degrade(strain.links, strain.toxics, owner)
        except (ClusterError, asyncio.CancelledError):
            with contextlib.suppress(ClusterError):
                await links.restore(strain.links, owner)
            raise
        if breaks:
            strained._watching = asyncio.create_task(strained._count_ends())
        return strained

    async def heal(self) -> Hit:
        """Take the toxics away."""
        try:
            at_end = await self._links.traffic(self._strain.links)
            if self._watching is None:
                return evidence.of_strain(self._before, at_end)
            return evidence.of_breaks(self._before, at_end, self._ended)
        finally:
            if self._watching is not None:
                self._watching.cancel()
                await asyncio.gather(self._watching, return_exceptions=True)
            await self._links.restore(self._strain.links, self._owner)

    async def _count_ends(self) -> None:
        """Look again and again which connections are gone: those that came and went in between are missed."""
        last = self._before
        while True:
            now = await self._links.traffic(self._strain.links)
            self._ended += evidence.ended_between(last, now)
            last = now
            await asyncio.sleep(WATCH_S)


async def cut_all(links: Links, cutting: Cutting, owner: str) -> None:
    """Cut links that are cut alike together. Raises ClusterError."""
    by_streams: dict[tuple[Stream, ...], list[Link]] = {}
    for link, streams in cutting.streams.items():
        by_streams.setdefault(streams, []).append(link)
    for streams, alike in by_streams.items():
        await links.cut(alike, cutting.how, streams, owner)


def new_owner(name: str) -> str:
    """Name one injection."""
    return f"{name}-{next(_injections)}"


def _unlinked(nodes: Iterable[int], links: Links) -> Link | None:
    known = set(links.all)
    pairs = (Link(a, b) for a, b in itertools.permutations(nodes, 2))
    return next((pair for pair in pairs if pair not in known), None)
