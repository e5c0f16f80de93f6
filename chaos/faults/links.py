"""Faults of links: who cannot speak with whom. Those that slow or break connections are in `strained`."""

import asyncio
import random
from collections.abc import Iterable
from typing import ClassVar

from penstock.chaos.cluster import ClusterError
from penstock.chaos.faults import evidence
from penstock.chaos.faults.base import Effect, Fault, FaultError, Hit, Injected, Params, Shape, Site
from penstock.chaos.faults.disturbed import (
    CutFault,
    Cutting,
    LinkFault,
    between,
    both_ways,
    cut_all,
    draw_target,
    effect_of,
    hosts_of,
    links_of,
    new_owner,
    target,
)
from penstock.chaos.faults.strained import STRAINS
from penstock.chaos.faults.targets import draw_order, named
from penstock.chaos.links import Cut, Link, Links
from penstock.chaos.toxics import Stream

FLAP_S = (0.5, 1.0)
"""Period of a link that comes and goes."""
ASYMMETRIES = ("cannot dial", "hears nobody", "is not heard")


class CutNode(CutFault):
    """One node away from its peers."""

    name = "cut-node"
    summary = "one node's links to and from all other nodes drop everything; clients still reach it"

    async def cutting(self, site: Site, params: Params) -> Cutting:
        """As CutFault."""
        node, why = await target(site, params)
        cut = between(links_of(site), [node], site.cluster.node_ids)
        return Cutting(both_ways(cut), f"node {node} ({why}) is cut from all other nodes", (node,))


class CutNodeAndClients(CutFault):
    """One node away from everybody."""

    name = "cut-node-and-clients"
    summary = "one node's links to and from all other nodes, and all clients' links to it, drop everything"

    async def cutting(self, site: Site, params: Params) -> Cutting:
        """As CutFault."""
        node, why = await target(site, params)
        links = links_of(site)
        cut = (*between(links, [node], site.cluster.node_ids), *links.select(hosts_of(links), [node]))
        return Cutting(both_ways(cut), f"node {node} ({why}) is cut from all other nodes and all clients", (node,))


class RefuseNode(CutFault):
    """One node whose connections end and are refused."""

    name = "refuse-node"
    summary = "connections between one node and all others, or clients as well, end, and new ones are refused"

    def draw(self, rng: random.Random, shape: Shape) -> Params:
        """As Fault."""
        return {**draw_target(rng, shape), "clients": rng.random() < 0.5}

    async def cutting(self, site: Site, params: Params) -> Cutting:
        """As CutFault."""
        node, why = await target(site, params)
        links = links_of(site)
        clients = links.select(hosts_of(links), [node]) if params["clients"] else ()
        cut = (*between(links, [node], site.cluster.node_ids), *clients)
        detail = f"node {node} ({why}): connections with other nodes{' and clients' if clients else ''} are refused"
        return Cutting(both_ways(cut), detail, (node,), Cut.REFUSE)


class Halves(CutFault):
    """Two sides that share nobody."""

    name = "halves"
    summary = "a majority of voters and the others do not reach each other; each clients' host reaches one side only"

    def draw(self, rng: random.Random, shape: Shape) -> Params:
        """As Fault."""
        return {**draw_order(rng, shape), "minority_hosts": [host for host in shape.hosts if rng.random() < 0.5]}

    async def cutting(self, site: Site, params: Params) -> Cutting:
        """As CutFault."""
        links = links_of(site)
        voters = [node for node in params["order"] if node in site.cluster.voters]
        minority = set(voters[len(voters) // 2 + 1 :])
        majority = set(site.cluster.node_ids) - minority
        if not minority:
            raise FaultError(f"{len(voters)} voters have no minority")
        there = set(params["minority_hosts"])
        others = set(hosts_of(links)) - there
        cut = (
            *between(links, majority, minority),
            *links.select(there, majority),
            *links.select(others, minority),
        )
        detail = f"{named(minority)} with clients on {', '.join(sorted(there)) or 'no host'} cut from {named(majority)}"
        return Cutting(both_ways(cut), detail, tuple(sorted(minority)))


class Ring(CutFault):
    """Majorities that differ from node to node."""

    name = "ring"
    summary = "every node reaches a majority, no two the same one; of three nodes, two do not reach each other"

    def draw(self, rng: random.Random, shape: Shape) -> Params:
        """As Fault."""
        return draw_order(rng, shape)

    async def cutting(self, site: Site, params: Params) -> Cutting:
        """As CutFault."""
        ring = [node for node in params["order"] if node in site.cluster.voters]
        if len(ring) < 3:
            raise FaultError(f"{len(ring)} voters make no ring")
        pairs = ring_cuts(ring)
        links = links_of(site)
        cut = [link for a, b in pairs for link in between(links, [a], [b])]
        detail = "do not reach each other: " + ", ".join(f"{a} and {b}" for a, b in pairs)
        return Cutting(both_ways(cut), detail, tuple(sorted({node for pair in pairs for node in pair})))


def ring_cuts(ring: list[int]) -> list[tuple[int, int]]:
    """Give the pairs that do not reach each other when each node reaches its nearest on the ring, as few as suffice."""
    count = len(ring)
    reached = -(-(count // 2) // 2)  # each way; with oneself that is a majority
    if 2 * reached + 1 >= count:
        return [(ring[0], ring[1])]
    return [
        (ring[i], ring[j]) for i in range(count) for j in range(i + 1, count) if min(j - i, count - (j - i)) > reached
    ]


class Asymmetric(CutFault):
    """Messages get lost in one direction."""

    name = "asymmetric"
    summary = "one node cannot dial the others, or hears them not, or is not heard by them; the other direction works"

    def draw(self, rng: random.Random, shape: Shape) -> Params:
        """As Fault."""
        return {**draw_target(rng, shape), "asymmetry": rng.choice(ASYMMETRIES)}

    async def cutting(self, site: Site, params: Params) -> Cutting:
        """As CutFault."""
        node, why = await target(site, params)
        links, nodes = links_of(site), site.cluster.node_ids
        dialled, answered = links.select([node], nodes), links.select(nodes, [node])
        streams = _lost(params["asymmetry"], dialled, answered)
        return Cutting(streams, f"node {node} ({why}) {params['asymmetry']}", (node,))


def _lost(asymmetry: str, dialled: Iterable[Link], answered: Iterable[Link]) -> dict[Link, tuple[Stream, ...]]:
    """Give the streams that get lost, of the links to which a node connects and of those on which it is connected."""
    if asymmetry == "cannot dial":
        return both_ways(dialled)
    hears_nobody = asymmetry == "hears nobody"
    out, back = (Stream.DOWNSTREAM, Stream.UPSTREAM) if hears_nobody else (Stream.UPSTREAM, Stream.DOWNSTREAM)
    lost: dict[Link, tuple[Stream, ...]] = dict.fromkeys(dialled, (out,))
    lost.update(dict.fromkeys(answered, (back,)))
    return lost


class CutClient(CutFault):
    """A clients' host that does not reach nodes."""

    name = "cut-client"
    summary = "one clients' host does not reach some or all nodes"
    needs_nodes: ClassVar[bool] = False
    needs_hosts: ClassVar[bool] = True

    def draw(self, rng: random.Random, shape: Shape) -> Params:
        """As Fault."""
        order = rng.sample(shape.nodes, len(shape.nodes))
        return {"host": rng.choice(shape.hosts), "nodes": order[: rng.randint(1, len(order))]}

    async def cutting(self, site: Site, params: Params) -> Cutting:
        """As CutFault."""
        cut = links_of(site).select([params["host"]], params["nodes"])
        return Cutting(both_ways(cut), f"clients on {params['host']} are cut from {named(params['nodes'])}", ())


class CutAllPeers(CutFault):
    """Every node alone."""

    name = "cut-all-peers"
    summary = "no node reaches any other; clients reach all"

    def draw(self, rng: random.Random, shape: Shape) -> Params:
        """As Fault."""
        del rng, shape
        return {}

    async def cutting(self, site: Site, params: Params) -> Cutting:
        """As CutFault."""
        del params
        nodes = site.cluster.node_ids
        return Cutting(both_ways(links_of(site).select(nodes, nodes)), "every node is alone", nodes)


class Flapping(LinkFault):
    """A node that comes and goes."""

    name = "flapping"
    summary = "one node's links to and from all other nodes are cut and restored once or twice a second"

    def draw(self, rng: random.Random, shape: Shape) -> Params:
        """As Fault."""
        how = rng.choice(list(Cut)).value
        return {**draw_target(rng, shape), "period_s": round(rng.uniform(*FLAP_S), 2), "how": how}

    async def inject(self, site: Site, params: Params) -> Injected:
        """As Fault."""
        node, why = await target(site, params)
        links = links_of(site)
        period_s, how = float(params["period_s"]), Cut(params["how"])
        detail = f"node {node} ({why}) loses all other nodes ({how}) and finds them again every {period_s:g} s"
        cut = both_ways(between(links, [node], site.cluster.node_ids))
        if not cut:
            raise FaultError("there is no link to cut")
        cutting = Cutting(cut, detail, (node,), how)
        effect = await effect_of(site, detail, (node,), cut)
        return _Flaps(links, effect, cutting, period_s, new_owner(self.name))


class _Flaps:
    """Links that come and go, by a task of their own."""

    def __init__(self, links: Links, effect: Effect, cutting: Cutting, period_s: float, owner: str) -> None:
        self.effect = effect
        self._links = links
        self._cutting = cutting
        self._owner = owner
        self._cuts = 0
        self._that_hit = 0
        self._task = asyncio.create_task(self._flap(period_s / 2))

    async def heal(self) -> Hit:
        """Restore them. Raises ClusterError where the flapping has ended by an error."""
        self._task.cancel()
        (end,) = await asyncio.gather(self._task, return_exceptions=True)
        await self._links.restore(self._cutting.streams, self._owner)
        if isinstance(end, ClusterError):
            raise end
        return Hit(self._that_hit > 0, f"{self._that_hit} of {self._cuts} cuts hit open connections")

    async def _flap(self, half_s: float) -> None:
        while True:
            before = await self._links.traffic(self._cutting.streams)
            await cut_all(self._links, self._cutting, self._owner)
            self._cuts += 1
            cut = await self._links.traffic(self._cutting.streams)
            await asyncio.sleep(half_s)
            at_end = await self._links.traffic(self._cutting.streams)
            await self._links.restore(self._cutting.streams, self._owner)
            self._that_hit += evidence.of_cut(before, cut, at_end, at_end).hit
            await asyncio.sleep(half_s)


FAULTS: tuple[Fault, ...] = (
    CutNode(),
    CutNodeAndClients(),
    Halves(),
    Ring(),
    Asymmetric(),
    CutClient(),
    CutAllPeers(),
    RefuseNode(),
    Flapping(),
    *STRAINS,
)
