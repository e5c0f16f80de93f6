"""Faults of membership: nodes are added, emptied and taken away, replicas and leaderships move.

None of them may disturb anybody, so none claims to take a majority away. A node that was added, and where replicas
have moved to, stays when they are healed: another plan of the operator's is as good.
"""

import random
from dataclasses import replace
from typing import ClassVar

from penstock.chaos.cluster import Action, ClusterError
from penstock.chaos.faults.base import Effect, Fault, FaultError, Hit, Injected, Params, Shape, Site
from penstock.chaos.faults.reassigning import (
    Place,
    describe,
    drain,
    live_nodes,
    missing_addresses,
    missing_spare,
    reassign_some,
    settled,
    until_live,
    with_spare,
)
from penstock.chaos.faults.targets import draw_order, goes_on, named, needs, running, running_in_order, start_missing
from penstock.client import ClusterDescription

SHARE = (0.3, 1.0)
"""Share of the partitions that move."""


class _Done:
    """What needs no healing."""

    def __init__(self, effect: Effect, hit: Hit) -> None:
        self.effect = effect
        self._hit = hit

    async def heal(self) -> Hit:
        """As Injected."""
        return self._hit


class AddNode:
    """A node that was planned joins, and stays."""

    name: ClassVar[str] = "add-node"
    summary: ClassVar[str] = "start a node that was planned and is no voter; it stays"

    def missing(self, site: Site) -> str | None:
        """As Fault."""
        if not set(site.cluster.node_ids).difference(site.cluster.voters):
            return "no node is planned beside the voters"
        return needs(site, Action.START, Action.KILL)

    def draw(self, rng: random.Random, shape: Shape) -> Params:
        """As Fault."""
        return draw_order(rng, shape)

    async def inject(self, site: Site, params: Params) -> Injected:
        """As Fault."""
        cluster = site.cluster
        spare = [node_id for node_id in params["order"] if node_id in {*cluster.node_ids} - {*cluster.voters}]
        there = await running(cluster, spare)
        new = [node_id for node_id in spare if node_id not in there][:1]
        if not new:
            return _Done(Effect("every node runs already"), Hit(hit=False, evidence="no planned node was left"))
        await cluster.do(Action.START, new[0])
        try:
            await until_live(site, lambda live: new[0] in live)
        except FaultError:
            await cluster.do(Action.KILL, new[0])
            raise
        return _Done(Effect(f"start {named(new)}"), Hit(hit=True, evidence=f"{named(new)} has joined"))


class _Moved:
    """Replicas or leaderships on their way."""

    def __init__(self, site: Site, detail: str, places: list[Place]) -> None:
        self.effect = Effect(detail)
        self._site = site
        self._places = places

    async def heal(self) -> Hit:
        """Leave them on their way: they get there by themselves. Say how far they are."""
        description = await self._site.roles.describe()
        if description is None:
            return Hit(hit=False, evidence=f"nobody answers; {len(self._places)} moves were accepted")
        done = self._done(description)
        return Hit(hit=done > 0, evidence=f"{done} of {len(self._places)} {self._what} had moved")

    _what: ClassVar[str] = "partitions"

    def _done(self, description: ClusterDescription) -> int:
        now = {place.key: place for place in settled(description)}
        return sum(place.key in now and now[place.key].replicas == place.target for place in self._places)


class _Led(_Moved):
    """Leaderships on their way."""

    _what = "leaderships"

    def _done(self, description: ClusterDescription) -> int:
        now = {place.key: place.leader for place in settled(description)}
        return sum(now.get(place.key) == place.target[0] for place in self._places)


class _DrawsShare:
    """A fault of partitions that nobody knows before it is injected: what is drawn draws them then."""

    def draw(self, rng: random.Random, shape: Shape) -> Params:
        """As Fault."""
        del shape
        return {"share": round(rng.uniform(*SHARE), 3), "seed": rng.getrandbits(32)}


class MoveReplicas(_DrawsShare):
    """Partitions change their nodes while they are written to."""

    name: ClassVar[str] = "move-replicas"
    summary: ClassVar[str] = "move a share of the partitions to other sets of nodes, an added node among them"

    def missing(self, site: Site) -> str | None:
        """As Fault."""
        return missing_addresses(site) or missing_spare(site) or needs(site, Action.START)

    async def inject(self, site: Site, params: Params) -> Injected:
        """As Fault."""
        description = await with_spare(site)
        rng = random.Random(params["seed"])  # noqa: S311  to be repeatable, not secret
        live = live_nodes(description)
        places = [place for place in _some(rng, description, params) if _has_elsewhere(place, live)]
        asked = [replace(place, target=_elsewhere(rng, place, live)) for place in places]
        moving = await reassign_some(site, asked)
        return _Moved(site, f"move {len(moving)} partitions among {named(live)}", moving)


class LeaderTransfer(_DrawsShare):
    """Leaderships move, though nobody is away."""

    name: ClassVar[str] = "leader-transfer"
    summary: ClassVar[str] = "make another in-sync replica the preferred leader of a share of the partitions"

    def missing(self, site: Site) -> str | None:
        """As Fault."""
        return missing_addresses(site)

    async def inject(self, site: Site, params: Params) -> Injected:
        """As Fault. The leaderships move when the cluster's preferred_leader_delay_ms (10 s by default) is over."""
        rng = random.Random(params["seed"])  # noqa: S311  to be repeatable, not secret
        places = [place for place in _some(rng, await describe(site), params) if _others_in_sync(place)]
        asked = [replace(place, target=_led_by(rng.choice(_others_in_sync(place)), place)) for place in places]
        moving = await reassign_some(site, asked)
        return _Led(site, f"give {len(moving)} partitions another preferred leader", moving)


class DrainNode:
    """A node is emptied, as before it is taken away."""

    name: ClassVar[str] = "drain-node"
    summary: ClassVar[str] = "move every replica off a node, and wait until it holds none"

    def missing(self, site: Site) -> str | None:
        """As Fault."""
        return missing_addresses(site) or missing_spare(site) or needs(site, Action.START)

    def draw(self, rng: random.Random, shape: Shape) -> Params:
        """As Fault."""
        return draw_order(rng, shape)

    async def inject(self, site: Site, params: Params) -> Injected:
        """As Fault."""
        node_id, count = await _drained(site, params)
        evidence = f"node {node_id} has lost {count} replicas, and held none"
        return _Done(Effect(f"drain node {node_id}: {count} partitions"), Hit(hit=count > 0, evidence=evidence))


class Decommission:
    """A node is emptied and taken away; the others do not miss it."""

    name: ClassVar[str] = "decommission"
    summary: ClassVar[str] = "move every replica off a node and stop it; start it again, empty"

    def missing(self, site: Site) -> str | None:
        """As Fault."""
        return missing_addresses(site) or missing_spare(site) or needs(site, Action.START, Action.STOP)

    def draw(self, rng: random.Random, shape: Shape) -> Params:
        """As Fault."""
        return draw_order(rng, shape)

    async def inject(self, site: Site, params: Params) -> Injected:
        """As Fault."""
        node_id, count = await _drained(site, params)
        try:
            await site.cluster.do(Action.STOP, node_id)
        except ClusterError:
            await start_missing(site.cluster, [node_id])
            raise
        detail = f"drain node {node_id} of {count} replicas and stop it"
        effect = Effect(detail, (node_id,), await goes_on(site.cluster, [node_id]))
        return _Away(site, effect, gone=not await site.cluster.is_running(node_id))


class _Away:
    """A node that holds nothing and does not run."""

    def __init__(self, site: Site, effect: Effect, *, gone: bool) -> None:
        self.effect = effect
        self._site = site
        self._gone = gone

    async def heal(self) -> Hit:
        """Start it; it stays empty until replicas are moved to it."""
        await start_missing(self._site.cluster, self.effect.nodes)
        return Hit(hit=self._gone, evidence=f"{named(self.effect.nodes)} held no replica and was gone")


async def _drained(site: Site, params: Params) -> tuple[int, int]:
    """Drain the first node of the order that runs and holds replicas; it, and how many it held."""
    description = await with_spare(site)
    holding = {node_id for place in settled(description) for node_id in place.replicas}
    there = [node_id for node_id in await running_in_order(site, params) if node_id in holding]
    if not there:
        raise FaultError("no running node holds a replica")
    return there[0], await drain(site, there[0])


def _some(rng: random.Random, description: ClusterDescription, params: Params) -> list[Place]:
    places = settled(description)
    if not places:
        raise FaultError("there are no partitions, or all are being reassigned")
    return rng.sample(places, max(1, round(float(params["share"]) * len(places))))


def _has_elsewhere(place: Place, live: list[int]) -> bool:
    return len(live) >= len(place.replicas) and not set(live) <= set(place.replicas)


def _elsewhere(rng: random.Random, place: Place, live: list[int]) -> tuple[int, ...]:
    """Draw as many live nodes, one of them new, in any order."""
    new = rng.choice([node_id for node_id in live if node_id not in place.replicas])
    others = rng.sample([node_id for node_id in live if node_id != new], len(place.replicas) - 1)
    return tuple(rng.sample([new, *others], len(place.replicas)))


def _others_in_sync(place: Place) -> list[int]:
    if place.leader is None:
        return []
    return [node_id for node_id in place.replicas if node_id in place.isr and node_id != place.leader]


def _led_by(leader: int, place: Place) -> tuple[int, ...]:
    return (leader, *(node_id for node_id in place.replicas if node_id != leader))


FAULTS: tuple[Fault, ...] = (AddNode(), MoveReplicas(), DrainNode(), Decommission(), LeaderTransfer())
