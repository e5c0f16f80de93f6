"""Faults of processes that work in steps of their own while they are there: killed again and again, each in turn."""

import asyncio
import random
from typing import ClassVar

from penstock.chaos.cluster import Action
from penstock.chaos.faults import choosing
from penstock.chaos.faults.base import Effect, FaultError, Hit, Injected, Params, Shape, Site
from penstock.chaos.faults.targets import (
    draw_order,
    goes_on,
    named,
    needs,
    running_in_order,
    start_missing,
    until_healthy,
)

KILL_EVERY_S = 1.0
NODE_TIMEOUT_S = 60.0
"""How long the cluster may take to be whole again after a node was restarted, before the round is given up."""
ROUND_TIMEOUT_S = 240.0
"""How long healing waits for the rest of the round."""


class KillRepeatedly:
    """A node that never gets far."""

    name: ClassVar[str] = "kill-repeatedly"
    summary: ClassVar[str] = "kill -9 a node drawn by its id, and start it, once a second"

    def missing(self, site: Site) -> str | None:
        """As Fault."""
        return needs(site, Action.KILL, Action.START)

    def draw(self, rng: random.Random, shape: Shape) -> Params:
        """As Fault."""
        return draw_order(rng, shape)

    async def inject(self, site: Site, params: Params) -> Injected:
        """As Fault."""
        nodes, why = await choosing.drawn(site, params)
        detail = f"kill and start {named(nodes)} every {KILL_EVERY_S:g} s: {why}"
        effect = Effect(detail, tuple(nodes), await goes_on(site.cluster, nodes))
        return _KilledRepeatedly(site, effect, nodes[0])


class _KilledRepeatedly:
    """The killing goes on until it is healed."""

    def __init__(self, site: Site, effect: Effect, node_id: int) -> None:
        self.effect = effect
        self._site = site
        self._node_id = node_id
        self._kills = 0
        self._ending = asyncio.Event()
        self._work = asyncio.create_task(self._kill_and_start())

    async def _kill_and_start(self) -> None:
        cluster = self._site.cluster
        while not self._ending.is_set():
            if await cluster.is_running(self._node_id):
                await cluster.do(Action.KILL, self._node_id)
                self._kills += 1
            await start_missing(cluster, [self._node_id])
            try:
                async with asyncio.timeout(KILL_EVERY_S):
                    await self._ending.wait()
            except TimeoutError:
                continue

    async def heal(self) -> Hit:
        """Stop killing, and leave the node started. An error on the way is raised after that."""
        self._ending.set()
        try:
            await self._work
        finally:
            await start_missing(self._site.cluster, [self._node_id])
        return Hit(self._kills > 0, f"{named([self._node_id])} was running and was killed {self._kills} times")


class RollingRestart:
    """What an upgrade does."""

    name: ClassVar[str] = "rolling-restart"
    summary: ClassVar[str] = "stop and start each node in turn, waiting until the cluster is healthy before the next"

    def missing(self, site: Site) -> str | None:
        """As Fault."""
        return needs(site, Action.STOP, Action.START)

    def draw(self, rng: random.Random, shape: Shape) -> Params:
        """As Fault."""
        return draw_order(rng, shape)

    async def inject(self, site: Site, params: Params) -> Injected:
        """As Fault."""
        nodes = await running_in_order(site, params)
        detail = f"stop and start in turn {', '.join(map(str, nodes))}"
        effect = Effect(detail, tuple(nodes), await goes_on(site.cluster, nodes[:1]))
        return _RolledOver(site, effect)


class _RolledOver:
    """The round goes on until it is through, even where healing is asked for before."""

    def __init__(self, site: Site, effect: Effect) -> None:
        self.effect = effect
        self._site = site
        self._restarted: list[int] = []
        self._work = asyncio.create_task(self._restart_each())

    async def _restart_each(self) -> None:
        for node_id in self.effect.nodes:
            await self._site.cluster.do(Action.STOP, node_id)
            gone = not await self._site.cluster.is_running(node_id)
            await start_missing(self._site.cluster, [node_id])
            if gone:
                self._restarted.append(node_id)
            await self._healthy_after(node_id)

    async def _healthy_after(self, node_id: int) -> None:
        try:
            async with asyncio.timeout(NODE_TIMEOUT_S):
                await until_healthy(self._site.cluster, self.effect.nodes)
        except TimeoutError as error:
            text = f"{NODE_TIMEOUT_S:g} s after the restart of node {node_id} the cluster is not healthy"
            raise FaultError(f"{text}; restarted: {named(self._restarted)}") from error

    async def heal(self) -> Hit:
        """Wait for the end of the round, and leave all nodes started. An error on the way is raised after that."""
        try:
            async with asyncio.timeout(ROUND_TIMEOUT_S):
                await self._work
        except TimeoutError as error:
            raise FaultError(f"the round took longer than {ROUND_TIMEOUT_S:g} s more") from error
        finally:
            await start_missing(self._site.cluster, self.effect.nodes)
        count = len(self._restarted)
        return Hit(count > 0, f"{count} of {len(self.effect.nodes)} nodes were running, gone and started again")
