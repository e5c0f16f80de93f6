"""Faults of links that slow bytes down or break connections again and again, while new ones are still made."""

import random
from typing import ClassVar

from penstock.chaos import toxics
from penstock.chaos.faults.base import Fault, Params, Shape, Site
from penstock.chaos.faults.disturbed import Strain, StrainFault, between, draw_target, hosts_of, links_of, target
from penstock.chaos.links import Link
from penstock.chaos.toxics import Toxic

SCOPES = ("node", "node and clients", "all")
"""Which links: a node's with its peers, also those of clients to it, or all that there are."""


async def _scope(site: Site, params: Params) -> tuple[tuple[Link, ...], str, tuple[int, ...]]:
    """Give the links of the scope drawn, in words as well, and the nodes."""
    links = links_of(site)
    if params["scope"] == "all":
        return links.all, "all links", site.cluster.node_ids
    node, why = await target(site, params)
    found = between(links, [node], site.cluster.node_ids)
    if params["scope"] == "node":
        return found, f"links between node {node} ({why}) and the others", (node,)
    clients = links.select(hosts_of(links), [node])
    return (*found, *clients), f"links between node {node} ({why}) and the others and clients", (node,)


class _Scoped(StrainFault):
    """Strains links of a scope."""

    async def strain(self, site: Site, params: Params) -> Strain:
        """As StrainFault."""
        links, where, nodes = await _scope(site, params)
        chosen = self.toxics(params)
        return Strain(links, chosen, f"{where}: {_words(chosen)}", nodes)

    def toxics(self, params: Params) -> tuple[Toxic, ...]:
        """Give the toxics drawn."""
        raise NotImplementedError

    def draw(self, rng: random.Random, shape: Shape) -> Params:
        """As Fault."""
        scope = rng.choice(SCOPES)
        return {**draw_target(rng, shape), "scope": scope, **self.draw_strength(rng, everywhere=scope == "all")}

    def draw_strength(self, rng: random.Random, *, everywhere: bool) -> Params:
        """Draw numbers; `everywhere`: such that a cluster of which all links bear it still elects and answers."""
        raise NotImplementedError


def _words(chosen: tuple[Toxic, ...]) -> str:
    unique = dict.fromkeys(
        f"{toxic.kind} {' '.join(f'{name}={value}' for name, value in toxic.attributes.items())}" for toxic in chosen
    )
    return ", ".join(unique)


class SlowLink(_Scoped):
    """Delay."""

    name = "slow-link"
    summary = "latency and jitter on one node's links, or on all"

    def draw_strength(self, rng: random.Random, *, everywhere: bool) -> Params:
        """As _Scoped. Everywhere, an election's round trip stays below its time-out."""
        latency_ms = rng.randint(10, 80) if everywhere else rng.randint(50, 400)
        return {"latency_ms": latency_ms, "jitter_ms": rng.randint(0, latency_ms // 2)}

    def toxics(self, params: Params) -> tuple[Toxic, ...]:
        """As _Scoped."""
        return toxics.latency(params["latency_ms"], params["jitter_ms"])


class NarrowLink(_Scoped):
    """Little bandwidth."""

    name = "narrow-link"
    summary = "little bandwidth on one node's links, or on all"

    def draw_strength(self, rng: random.Random, *, everywhere: bool) -> Params:
        """As _Scoped."""
        return {"kb_per_s": rng.randint(500, 2_000) if everywhere else rng.randint(20, 300)}

    def toxics(self, params: Params) -> tuple[Toxic, ...]:
        """As _Scoped."""
        return toxics.bandwidth(params["kb_per_s"])


class Sliced(_Scoped):
    """Small pieces."""

    name = "sliced"
    summary = "bytes come in small pieces, apart from each other, on one node's links, or on all"

    def draw_strength(self, rng: random.Random, *, everywhere: bool) -> Params:
        """As _Scoped."""
        size = rng.randint(500, 2_000) if everywhere else rng.randint(60, 600)
        return {"size": size, "variation": size // 2, "delay_us": rng.randint(0, 200)}

    def toxics(self, params: Params) -> tuple[Toxic, ...]:
        """As _Scoped."""
        return toxics.slicer(params["size"], params["variation"], params["delay_us"])


class ResetLinks(_Scoped):
    """Connections reset again and again."""

    name = "reset-links"
    summary = "connections of one node, or all, are reset a moment after bytes came; so are their successors"
    breaks: ClassVar[bool] = True

    def draw_strength(self, rng: random.Random, *, everywhere: bool) -> Params:
        """As _Scoped."""
        del everywhere
        return {"after_ms": rng.randint(0, 1_000), "toxicity": round(rng.uniform(0.3, 1.0), 2)}

    def toxics(self, params: Params) -> tuple[Toxic, ...]:
        """As _Scoped."""
        return toxics.reset_peer(params["after_ms"], params["toxicity"])


class LimitData(_Scoped):
    """Connections that end in the midst of something."""

    name = "limit-data"
    summary = "connections of one node, or all, end after so many bytes, wherever that is; so do their successors"
    breaks: ClassVar[bool] = True

    def draw_strength(self, rng: random.Random, *, everywhere: bool) -> Params:
        """As _Scoped."""
        del everywhere
        return {"bytes": round(10 ** rng.uniform(3, 6))}

    def toxics(self, params: Params) -> tuple[Toxic, ...]:
        """As _Scoped."""
        return toxics.limit_data(params["bytes"])


class SlowClose(_Scoped):
    """Ends of connections that are heard of late."""

    name = "slow-close"
    summary = "connections of one node, or all, end after so many bytes, and their ends are heard of late"
    breaks: ClassVar[bool] = True

    def draw_strength(self, rng: random.Random, *, everywhere: bool) -> Params:
        """As _Scoped."""
        del everywhere
        return {"bytes": round(10 ** rng.uniform(3, 5)), "delay_ms": rng.randint(500, 10_000)}

    def toxics(self, params: Params) -> tuple[Toxic, ...]:
        """As _Scoped. The order matters: what ends a connection comes before what holds up its end."""
        return toxics.limit_data(params["bytes"]) + toxics.slow_close(params["delay_ms"])


STRAINS: tuple[Fault, ...] = (SlowLink(), NarrowLink(), Sliced(), ResetLinks(), LimitData(), SlowClose())
