"""Choosing nodes and starting them again: what the faults of processes and of membership share."""

import asyncio
import random
from collections.abc import Awaitable, Collection, Iterable

from penstock.chaos.cluster import Action, Cluster, ClusterError
from penstock.chaos.faults.base import FaultError, Params, Shape, Site
from penstock.chaos.roles import ASK_TIMEOUT_MS
from penstock.client import Admin, PenstockError

NODES_DOWN = 1
"""With replication factor 3 and min_insync_replicas 2, so many nodes may be away from every partition."""
POLL_S = 0.1


def majority_without(voters: Collection[int], away: Collection[int]) -> bool:
    """Say whether a majority of voters and min_insync replicas of each partition go on without these nodes."""
    left = set(voters).difference(away)
    return 2 * len(left) > len(voters) and len(set(away)) <= NODES_DOWN


def draw_order(rng: random.Random, shape: Shape) -> Params:
    """Draw an order of nodes: who comes first is taken where a role does not say who."""
    return {"order": rng.sample(shape.nodes, len(shape.nodes))}


def needs(site: Site, *actions: Action) -> str | None:
    """Say which of the actions cannot be done here, and why."""
    return next((reason for action in actions if (reason := site.cluster.missing(action))), None)


async def running(cluster: Cluster, node_ids: Iterable[int]) -> list[int]:
    """Give those of the nodes whose process is there, in their order."""
    asked = tuple(node_ids)
    answers = await asyncio.gather(*(cluster.is_running(node_id) for node_id in asked))
    return [node_id for node_id, runs in zip(asked, answers, strict=True) if runs]


async def running_in_order(site: Site, params: Params) -> list[int]:
    """Give the running nodes in the order drawn. Raises FaultError where none runs."""
    order = [int(node_id) for node_id in params["order"]]
    known = set(site.cluster.node_ids)
    found = await running(site.cluster, [node_id for node_id in order if node_id in known])
    if not found:
        raise FaultError("no node is running")
    return found


async def do_all(cluster: Cluster, action: Action, node_ids: Iterable[int]) -> None:
    """End or freeze all of them at once. Raises ClusterError, the first one, when all have ended.

    Whom an overlapping fault has ended meanwhile is no error.
    """
    await _all_of([_unless(cluster, action, node_id, runs=False) for node_id in node_ids])


async def start_missing(cluster: Cluster, node_ids: Iterable[int]) -> list[int]:
    """Start those of the nodes that do not run; who they were. Raises ClusterError, the first one, at the end."""
    asked = tuple(node_ids)
    there = set(await running(cluster, asked))
    down = [node_id for node_id in asked if node_id not in there]
    await _all_of([_unless(cluster, Action.START, node_id, runs=True) for node_id in down])
    return down


async def resume(cluster: Cluster, node_ids: Iterable[int]) -> None:
    """Let those of the nodes go on that run. Raises ClusterError, the first one, at the end."""
    there = await running(cluster, node_ids)
    await _all_of([_unless(cluster, Action.RESUME, node_id, runs=False) for node_id in there])


async def answering(site: Site, node_ids: Iterable[int]) -> list[int]:
    """Give those of the nodes that answer clients, in their order."""
    asked = tuple(node_ids)
    answers = await asyncio.gather(*(site.roles.describe([node_id]) for node_id in asked))
    return [node_id for node_id, answer in zip(asked, answers, strict=True) if answer is not None]


async def _unless(cluster: Cluster, action: Action, node_id: int, *, runs: bool) -> None:
    """Do it; an error counts only where an overlapping fault has not made it needless meanwhile."""
    try:
        await cluster.do(action, node_id)
    except ClusterError:
        if await cluster.is_running(node_id) is not runs:
            raise


async def _all_of(works: Iterable[Awaitable[None]]) -> None:
    ends = await asyncio.gather(*works, return_exceptions=True)
    for end in ends:
        if isinstance(end, BaseException):
            raise end


async def goes_on(cluster: Cluster, hit: Collection[int]) -> bool:
    """As `majority_without`, counting voters that are away already as well."""
    there = await running(cluster, cluster.voters)
    return majority_without(cluster.voters, {*hit, *set(cluster.voters).difference(there)})


def named(node_ids: Iterable[int]) -> str:
    """Give "node 2" or "nodes 1, 3"."""
    asked = sorted(node_ids)
    return f"node{'s' if len(asked) != 1 else ''} {', '.join(map(str, asked)) or '(none)'}"


async def until_healthy(cluster: Cluster, node_ids: Iterable[int]) -> None:
    """Wait until each of these nodes shows every partition served and fully replicated. The bound is the caller's."""
    for node_id in node_ids:
        while not await _shows_health(cluster, node_id):  # noqa: ASYNC110  it is another process's state
            await asyncio.sleep(POLL_S)


async def _shows_health(cluster: Cluster, node_id: int) -> bool:
    try:
        async with Admin(cluster.client_address(node_id), timeout_ms=ASK_TIMEOUT_MS) as admin:
            return (await admin.health()).healthy
    except PenstockError:
        return False
