"""Wrong wall clocks: on one node, on all of them differently, jumping back and forth. Monotonic clocks stay right.

Clocks go back by less than a topic's `timestamp_after_max_ms` (docs/protocol.md): beyond it a node refuses batches of
producers whose clocks are right, as it should.
"""

import asyncio
import contextlib
import random
from abc import ABC, abstractmethod
from typing import ClassVar

from penstock.chaos.disks import DiskError
from penstock.chaos.faults.base import Effect, Fault, FaultError, Hit, Injected, Params, Shape, Site
from penstock.chaos.faults.repair import choose_one, disks_of, draw_one, missing_here
from penstock.chaos.faults.targets import named, running_in_order
from penstock.chaos.shims.clock import FakeClock

BEHIND_MAX_S = 3_000.0
AHEAD_MAX_S = 6 * 3_600.0
LEAST_S = 1.0
STROBE_S = 0.2
"""Between two jumps."""
STROBE_MAX_S = 600.0


class _ClockFault(ABC):
    """Some clocks are wrong."""

    name: ClassVar[str]
    summary: ClassVar[str]

    def missing(self, site: Site) -> str | None:
        """As Fault."""
        return missing_here(site, lambda disks: disks.preloads.missing_clock)

    @abstractmethod
    def draw(self, rng: random.Random, shape: Shape) -> Params:
        """As Fault."""

    @abstractmethod
    async def inject(self, site: Site, params: Params) -> Injected:
        """As Fault."""


def _draw_skew(rng: random.Random) -> float:
    """Ahead or behind, each magnitude as likely as any other."""
    most = rng.choice((-BEHIND_MAX_S, AHEAD_MAX_S))
    size: float = LEAST_S * (abs(most) / LEAST_S) ** rng.random()
    return round(size if most > 0 else -size, 3)


def _clock(site: Site, node_id: int) -> FakeClock:
    try:
        clock = disks_of(site).preload(node_id).clock
    except DiskError as error:
        raise FaultError(str(error)) from error
    if clock is None:
        raise FaultError(f"node {node_id} was started without a clock that can be wrong")
    return clock


class ClockJump(_ClockFault):
    """Clocks jump and stay wrong."""

    name = "clock-jump"
    summary = "the wall clock of one node, or of all differently, jumps by seconds to hours; later back"

    def draw(self, rng: random.Random, shape: Shape) -> Params:
        """As Fault."""
        skews = {str(node_id): _draw_skew(rng) for node_id in shape.nodes}
        return {**draw_one(rng, shape), "all": rng.random() < 0.5, "skews_s": skews}

    async def inject(self, site: Site, params: Params) -> Injected:
        """As Fault."""
        nodes = await running_in_order(site, params) if params["all"] else (await choose_one(site, params))[0]
        clocks = [_clock(site, node_id) for node_id in nodes]
        skews = [float(params["skews_s"][str(node_id)]) for node_id in nodes]
        before = [clock.asked() for clock in clocks]
        for clock, skew in zip(clocks, skews, strict=True):
            clock.skew(skew)
        told = ", ".join(f"node {node_id} by {skew:+g} s" for node_id, skew in zip(nodes, skews, strict=True))
        return _Jumped(clocks, before, Effect(f"clocks jumped: {told}", tuple(nodes)))


class _Jumped:
    """Clocks that are wrong."""

    def __init__(self, clocks: list[FakeClock], before: list[int], effect: Effect) -> None:
        self.effect = effect
        self._before = before
        self._clocks = clocks

    async def heal(self) -> Hit:
        """Set them right."""
        for clock in self._clocks:
            clock.skew(0.0)
        asked = [clock.asked() - before for clock, before in zip(self._clocks, self._before, strict=True)]
        return Hit(any(asked), f"the nodes asked {asked} times for the time while it was wrong")


class ClockStrobe(_ClockFault):
    """A clock that does not stand still."""

    name = "clock-strobe"
    summary = "the wall clock of one node jumps back and forth five times a second"

    def draw(self, rng: random.Random, shape: Shape) -> Params:
        """As Fault."""
        size = min(abs(_draw_skew(rng)), STROBE_MAX_S)
        return {**draw_one(rng, shape), "skew_s": size}

    async def inject(self, site: Site, params: Params) -> Injected:
        """As Fault."""
        nodes, why = await choose_one(site, params)
        skew = float(params["skew_s"])
        effect = Effect(f"the clock of {named(nodes)} jumps by {skew:g} s, back and forth: {why}", tuple(nodes))
        return _Strobing(_clock(site, nodes[0]), skew, effect)


class _Strobing:
    """A clock that jumps as long as this lives."""

    def __init__(self, clock: FakeClock, skew_s: float, effect: Effect) -> None:
        self.effect = effect
        self._clock = clock
        self._before = clock.asked()
        self._jumps = 0
        self._task = asyncio.create_task(self._strobe(skew_s))

    async def _strobe(self, skew_s: float) -> None:
        while True:
            skew_s = -skew_s
            self._clock.skew(skew_s)
            self._jumps += 1
            await asyncio.sleep(STROBE_S)

    async def heal(self) -> Hit:
        """Set it right."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._clock.skew(0.0)
        asked = self._clock.asked() - self._before
        return Hit(asked > 1, f"it jumped {self._jumps} times; the node asked {asked} times for the time meanwhile")


FAULTS: tuple[Fault, ...] = (ClockJump(), ClockStrobe())
