"""Faults of processes: nodes ended, at once or in order, and nodes frozen; by role or as drawn.

A role is resolved when the fault is injected; where nobody can tell, the first running node of the order drawn is
taken, and the detail says so. Healing starts whom it ended and lets go on whom it froze, and only where no overlapping
fault has done so already.
"""

import asyncio
import random
from abc import ABC, abstractmethod
from typing import ClassVar

from penstock.chaos.cluster import Action, Cluster, ClusterError
from penstock.chaos.faults import choosing
from penstock.chaos.faults.base import Effect, Fault, Hit, Injected, Params, Shape, Site
from penstock.chaos.faults.choosing import Chosen
from penstock.chaos.faults.restarts import KillRepeatedly, RollingRestart
from penstock.chaos.faults.targets import (
    answering,
    do_all,
    draw_order,
    goes_on,
    named,
    needs,
    resume,
    running,
    start_missing,
)
from penstock.client import ClusterDescription


class _Ended:
    """Nodes whose processes were ended."""

    def __init__(self, site: Site, effect: Effect, gone: list[int]) -> None:
        self.effect = effect
        self._site = site
        self._gone = gone

    async def heal(self) -> Hit:
        """Start them."""
        nodes = self.effect.nodes
        started = await start_missing(self._site.cluster, nodes)
        evidence = f"{len(self._gone)} of {len(nodes)} nodes were running and were gone"
        by_others = set(self._gone).difference(started)
        return Hit(bool(self._gone), evidence + (f"; {named(by_others)} started by others" if by_others else ""))


class _Frozen:
    """Nodes whose processes stand still, each asked something that it must not answer."""

    def __init__(self, site: Site, effect: Effect, served: list[int]) -> None:
        self.effect = effect
        self._site = site
        self._served = served
        self._questions = {
            node_id: asyncio.create_task(site.roles.describe([node_id])) for node_id in self.effect.nodes
        }

    async def heal(self) -> Hit:
        """Let them go on."""
        there = await running(self._site.cluster, self._served)
        silent = [node_id for node_id in there if not _is_answered(self._questions[node_id])]
        try:
            await resume(self._site.cluster, self.effect.nodes)
        finally:
            for question in self._questions.values():
                question.cancel()
            await asyncio.gather(*self._questions.values(), return_exceptions=True)
        return Hit(
            bool(silent),
            f"{len(silent)} of {len(self.effect.nodes)} nodes had answered, were still there and answered no more",
        )


def _is_answered(question: asyncio.Task[ClusterDescription | None]) -> bool:
    return question.done() and not question.cancelled() and question.exception() is None and bool(question.result())


class ProcessFault(ABC):
    """One kind of end or stand-still, for one choice of nodes."""

    name: ClassVar[str]
    summary: ClassVar[str]

    def missing(self, site: Site) -> str | None:
        """As Fault."""
        return needs(site, *self.actions())

    def draw(self, rng: random.Random, shape: Shape) -> Params:
        """As Fault."""
        return draw_order(rng, shape)

    @abstractmethod
    def actions(self) -> tuple[Action, Action]:
        """Give what is done, and what undoes it."""

    @abstractmethod
    async def choose(self, site: Site, params: Params) -> Chosen:
        """Give the nodes, and why these. Raises FaultError where none runs."""

    async def effect(self, site: Site, params: Params) -> Effect:
        """Choose, and say what it means."""
        nodes, why = await self.choose(site, params)
        detail = f"{self.actions()[0]} {named(nodes)}: {why}"
        return Effect(detail, tuple(nodes), await goes_on(site.cluster, nodes))


class EndFault(ProcessFault):
    """Nodes are killed."""

    def actions(self) -> tuple[Action, Action]:
        """Give what is done, and what undoes it."""
        return Action.KILL, Action.START

    async def inject(self, site: Site, params: Params) -> Injected:
        """As Fault."""
        effect = await self.effect(site, params)
        were_there = await running(site.cluster, effect.nodes)
        try:
            await self._end(site.cluster, were_there)
        except (ClusterError, asyncio.CancelledError):
            await resume(site.cluster, were_there)
            await start_missing(site.cluster, were_there)
            raise
        left = await running(site.cluster, were_there)
        return _Ended(site, effect, [node_id for node_id in were_there if node_id not in left])

    async def _end(self, cluster: Cluster, node_ids: list[int]) -> None:
        """End them at one moment: several are frozen first, so that none can react to another one's end."""
        if len(node_ids) > 1 and cluster.missing(Action.PAUSE) is None:
            await do_all(cluster, Action.PAUSE, node_ids)
        await do_all(cluster, self.actions()[0], node_ids)


class PauseFault(ProcessFault):
    """Nodes are frozen."""

    def actions(self) -> tuple[Action, Action]:
        """Give what is done, and what undoes it."""
        return Action.PAUSE, Action.RESUME

    async def inject(self, site: Site, params: Params) -> Injected:
        """As Fault."""
        effect = await self.effect(site, params)
        served = await answering(site, effect.nodes)
        try:
            await do_all(site.cluster, Action.PAUSE, effect.nodes)
        except (ClusterError, asyncio.CancelledError):
            await resume(site.cluster, effect.nodes)
            raise
        return _Frozen(site, effect, served)


class KillLeader(EndFault):
    """The node whose loss moves most leaderships."""

    name = "kill-leader"
    summary = "kill -9 the node that leads most partitions; start it again"

    async def choose(self, site: Site, params: Params) -> Chosen:
        """As ProcessFault."""
        return await choosing.leader(site, params)


class KillController(EndFault):
    """The node whose loss stops decisions."""

    name = "kill-controller"
    summary = "kill -9 the controller; start it again"

    async def choose(self, site: Site, params: Params) -> Chosen:
        """As ProcessFault."""
        return await choosing.controller(site, params)


class KillFollower(EndFault):
    """The node that is missed least."""

    name = "kill-follower"
    summary = "kill -9 a node that neither controls nor leads most partitions; start it again"

    async def choose(self, site: Site, params: Params) -> Chosen:
        """As ProcessFault."""
        return await choosing.follower(site, params)


class KillNode(EndFault):
    """Any node."""

    name = "kill-node"
    summary = "kill -9 a node drawn by its id; start it again"

    async def choose(self, site: Site, params: Params) -> Chosen:
        """As ProcessFault."""
        return await choosing.drawn(site, params)


class KillMinority(EndFault):
    """As many voters as the others can do without."""

    name = "kill-minority"
    summary = "kill -9 the largest minority of voters at once; start them again"

    def missing(self, site: Site) -> str | None:
        """As Fault."""
        return super().missing(site) or choosing.few_voters(site)

    async def choose(self, site: Site, params: Params) -> Chosen:
        """As ProcessFault."""
        return await choosing.minority(site, params)


class KillMajority(EndFault):
    """So many voters that nothing can be decided."""

    name = "kill-majority"
    summary = "kill -9 the smallest majority of voters at once; start them again"

    async def choose(self, site: Site, params: Params) -> Chosen:
        """As ProcessFault."""
        return await choosing.majority(site, params)


class KillAll(EndFault):
    """Nobody is left who remembers anything but by its disk."""

    name = "kill-all"
    summary = "kill -9 all nodes at once; start them again"

    async def choose(self, site: Site, params: Params) -> Chosen:
        """As ProcessFault."""
        return await choosing.everybody(site, params)


class RestartNode(EndFault):
    """A node that takes its leave."""

    name = "restart-node"
    summary = "stop a node in order (SIGTERM); start it again"

    def actions(self) -> tuple[Action, Action]:
        """Give what is done, and what undoes it."""
        return Action.STOP, Action.START

    async def choose(self, site: Site, params: Params) -> Chosen:
        """As ProcessFault."""
        return await choosing.drawn(site, params)


class PauseLeader(PauseFault):
    """A leader that does not know that it was replaced."""

    name = "pause-leader"
    summary = "freeze (SIGSTOP) the node that leads most partitions past its session timeout"

    async def choose(self, site: Site, params: Params) -> Chosen:
        """As ProcessFault."""
        return await choosing.leader(site, params)


class PauseController(PauseFault):
    """A controller that does not know that it was deposed."""

    name = "pause-controller"
    summary = "freeze (SIGSTOP) the controller past the session timeout"

    async def choose(self, site: Site, params: Params) -> Chosen:
        """As ProcessFault."""
        return await choosing.controller(site, params)


class PauseNode(PauseFault):
    """Any node."""

    name = "pause-node"
    summary = "freeze (SIGSTOP) a node drawn by its id past its session timeout"

    async def choose(self, site: Site, params: Params) -> Chosen:
        """As ProcessFault."""
        return await choosing.drawn(site, params)


class PauseAllBriefly(PauseFault):
    """Everybody's time stands still, for less than a session timeout (`plan.LENGTHS_S`)."""

    name = "pause-all-briefly"
    summary = "freeze (SIGSTOP) all nodes at once for less than the session timeout"

    async def choose(self, site: Site, params: Params) -> Chosen:
        """As ProcessFault."""
        return await choosing.everybody(site, params)


FAULTS: tuple[Fault, ...] = (
    KillLeader(),
    KillController(),
    KillFollower(),
    KillNode(),
    KillMinority(),
    KillMajority(),
    KillAll(),
    KillRepeatedly(),
    PauseLeader(),
    PauseController(),
    PauseNode(),
    PauseAllBriefly(),
    RestartNode(),
    RollingRestart(),
)
