"""What the faults of disks and clocks share: whom they hit, calling what blocks, work on a node that must not run."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import ParamSpec, TypeVar

from penstock.chaos.cluster import Action
from penstock.chaos.disks import DiskError, Disks
from penstock.chaos.faults import choosing
from penstock.chaos.faults.base import FaultError, Params, Shape, Site
from penstock.chaos.faults.choosing import Chosen
from penstock.chaos.faults.targets import draw_order, needs
from penstock.chaos.mounts import MountError

ATTEMPTS = 5
"""Each time another fault may have started the node meanwhile."""
NOT_OURS = "the nodes' disks and processes are not this program's"
CHOICES: Mapping[str, Callable[[Site, Params], Awaitable[Chosen]]] = {
    "leader": choosing.leader,
    "follower": choosing.follower,
    "controller": choosing.controller,
    "drawn": choosing.drawn,
}
P = ParamSpec("P")
T = TypeVar("T")


def draw_one(rng: random.Random, shape: Shape) -> dict[str, object]:
    """Draw whom to hit: a role, and an order of nodes for where that does not say it."""
    return {**draw_order(rng, shape), "who": rng.choice(sorted(CHOICES))}


async def choose_one(site: Site, params: Params) -> Chosen:
    """Give the node that was drawn, and why it. Raises FaultError where none runs."""
    return await CHOICES[str(params["who"])](site, params)


def disks_of(site: Site) -> Disks:
    """Give the disks. Raises FaultError where they are not ours."""
    if site.disks is None:
        raise FaultError(NOT_OURS)
    return site.disks


def missing_here(site: Site, reason: Callable[[Disks], str | None], *actions: Action) -> str | None:
    """Say what is missing: the disks, what `reason` asks of them, or an action."""
    return NOT_OURS if site.disks is None else reason(site.disks) or needs(site, *actions)


async def blocking(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run it in a thread; what is wrong with a disk is a FaultError."""
    try:
        return await asyncio.to_thread(work, *args, **kwargs)
    except (DiskError, MountError, OSError) as error:
        raise FaultError(str(error)) from error


async def while_down(site: Site, node_id: int, work: Callable[[], Awaitable[T]]) -> T:
    """Kill the node and work on its disk, again where that failed because another fault started the node meanwhile."""
    for attempt in range(ATTEMPTS):
        if await site.cluster.is_running(node_id):
            await site.cluster.do(Action.KILL, node_id)
        try:
            return await work()
        except FaultError:
            if attempt == ATTEMPTS - 1 or not await site.cluster.is_running(node_id):
                raise
    raise FaultError(f"node {node_id} is started again and again")
