"""Faults of processes and of consumer groups, done to three real nodes: who is hit, what is said; and all run again."""

import asyncio
import random
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from penstock.chaos.cluster import Action, ClusterError
from penstock.chaos.faults import groups, restarts
from penstock.chaos.faults.base import Effect, Fault, FaultError, Group, Hit, Injected, Shape, Site
from penstock.chaos.faults.process import FAULTS, _Frozen
from penstock.chaos.faults.targets import majority_without, until_healthy
from penstock.chaos.roles import Roles
from penstock.client.devcluster import DevCluster
from penstock.client.devplan import make_plan
from penstock.client.ports import free_ports
from tests.chaos.processes import ProcessCluster, create_topic, running_cluster, site_of

SHAPE = Shape(nodes=(1, 2, 3), voters=(1, 2, 3), hosts=("c1",))
BY_NAME: dict[str, Fault] = {fault.name: fault for fault in (*FAULTS, *groups.FAULTS)}
STORMY = (Group("stormy", ("tossed",)),)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevCluster]:
    with running_cluster(tmp_path_factory.mktemp("processes") / "cluster") as cluster:
        yield cluster


@pytest.fixture
async def site(cluster: DevCluster) -> Site:
    """All run, and all is well."""
    site = site_of(cluster)
    for node_id in cluster.node_ids:
        cluster.signal(node_id, signal.SIGCONT)  # where a failed test has left it frozen
    cluster.start()
    await until_healthy(site.cluster, cluster.node_ids)
    return site


async def inject(site: Site, name: str) -> Injected:
    fault = BY_NAME[name]
    assert fault.missing(site) is None
    return await fault.inject(site, fault.draw(random.Random(name), SHAPE))


def actions(site: Site) -> list[tuple[Action, int]]:
    assert isinstance(site.cluster, ProcessCluster)
    return site.cluster.done


async def who_runs(site: Site) -> list[int]:
    return [node_id for node_id in site.cluster.node_ids if await site.cluster.is_running(node_id)]


@pytest.mark.parametrize(
    ("name", "count", "majority"),
    [
        ("kill-node", 1, True),
        ("kill-minority", 1, True),
        ("kill-majority", 2, False),
        ("kill-all", 3, False),
        ("restart-node", 1, True),
    ],
)
async def test_whom_a_fault_ends_is_gone_until_it_is_healed(site: Site, name: str, count: int, majority: bool) -> None:
    injected = await inject(site, name)
    assert (len(injected.effect.nodes), injected.effect.majority) == (count, majority)
    assert await who_runs(site) == [n for n in site.cluster.node_ids if n not in injected.effect.nodes]
    assert await injected.heal() == Hit(hit=True, evidence=f"{count} of {count} nodes were running and were gone")
    assert await who_runs(site) == [1, 2, 3]


async def test_roles_are_resolved_when_the_fault_is_injected(site: Site) -> None:
    await create_topic(site.cluster.bootstrap, "roles", partitions=1)

    async def hit_by(name: str) -> int:
        injected = await inject(site, name)
        await injected.heal()
        await until_healthy(site.cluster, site.cluster.node_ids)
        return injected.effect.nodes[0]

    async def are_right() -> bool:
        """Roles may move at any moment, so what was seen before the injection need not hold any more."""
        controller, leader = await site.roles.controller(), await site.roles.busiest_leader()
        right = await hit_by("pause-controller") == controller and await hit_by("pause-leader") == leader
        return right and await hit_by("kill-follower") not in {controller, leader}

    while not await are_right():
        pass


async def test_without_anybody_who_answers_the_first_running_node_of_the_order_is_hit(site: Site) -> None:
    for node_id in (1, 2):
        await site.cluster.do(Action.KILL, node_id)
    await site.cluster.do(Action.PAUSE, 3)
    injected = await BY_NAME["kill-leader"].inject(site, {"order": [2, 3, 1]})
    assert injected.effect == Effect("kill node 3: drawn: no leader is known", (3,), majority=False)
    await injected.heal()
    assert await who_runs(site) == [3]


async def test_what_an_overlapping_fault_has_started_is_not_started_again(site: Site) -> None:
    injected = await inject(site, "kill-node")
    (node_id,) = injected.effect.nodes
    await site.cluster.do(Action.START, node_id)
    hit = await injected.heal()
    assert hit == Hit(hit=True, evidence=f"1 of 1 nodes were running and were gone; node {node_id} started by others")
    assert actions(site).count((Action.START, node_id)) == 1


async def test_a_node_that_is_frozen_answers_nothing_until_it_is_let_go(site: Site) -> None:
    injected = await inject(site, "pause-node")
    (node_id,) = injected.effect.nodes
    assert injected.effect.majority
    assert await site.roles.describe([node_id]) is None
    await injected.heal()
    await until_healthy(site.cluster, [node_id])


@pytest.mark.parametrize(("name", "count"), [("pause-node", 1), ("pause-all-briefly", 3)])
async def test_frozen_nodes_are_said_to_be_hit(site: Site, name: str, count: int) -> None:
    evidence = f"{count} of {count} nodes had answered, were still there and answered no more"
    while await (await inject(site, name)).heal() != Hit(hit=True, evidence=evidence):
        await until_healthy(site.cluster, site.cluster.node_ids)  # on a busy machine one may not have answered before
    await until_healthy(site.cluster, site.cluster.node_ids)


async def test_a_pause_that_freezes_nobody_has_hit_nobody(cluster: DevCluster, site: Site) -> None:
    class Lively(ProcessCluster):
        async def do(self, action: Action, node_id: int) -> None:
            """Nothing."""

    async def hit() -> Hit:
        lively = Lively(cluster)
        injected = await inject(Site(lively, Roles(lively)), "pause-node")
        assert isinstance(injected, _Frozen)
        await asyncio.wait(injected._questions.values())
        return await injected.heal()

    while (seen := await hit()).hit:  # on a busy machine a living node may not answer in time either
        await until_healthy(site.cluster, site.cluster.node_ids)
    assert seen.evidence.startswith("0 of 1 nodes")


async def test_all_are_frozen_at_once(site: Site) -> None:
    injected = await inject(site, "pause-all-briefly")
    assert (sorted(injected.effect.nodes), injected.effect.majority) == ([1, 2, 3], False)
    assert await site.roles.describe() is None
    await injected.heal()
    await until_healthy(site.cluster, site.cluster.node_ids)


async def test_killed_repeatedly(site: Site) -> None:
    injected = await inject(site, "kill-repeatedly")
    (node_id,) = injected.effect.nodes
    while actions(site).count((Action.KILL, node_id)) < 2:
        await site.roles.controller()
    hit = await injected.heal()
    assert (hit.hit, await who_runs(site)) == (True, [1, 2, 3])
    assert actions(site)[-1] == (Action.START, node_id)


async def test_a_rolling_restart_waits_for_health_after_each_node(site: Site) -> None:
    injected = await inject(site, "rolling-restart")
    assert injected.effect.majority
    assert await injected.heal() == Hit(hit=True, evidence="3 of 3 nodes were running, gone and started again")
    order = injected.effect.nodes
    assert actions(site) == [(action, node_id) for node_id in order for action in (Action.STOP, Action.START)]


async def test_a_round_ends_where_the_cluster_does_not_become_healthy(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restarts, "NODE_TIMEOUT_S", 0.5)
    await site.cluster.do(Action.KILL, 3)
    injected = restarts._RolledOver(site, Effect("in turn", (1, 3, 2)))
    await site.cluster.do(Action.PAUSE, 2)
    with pytest.raises(FaultError, match=r"0.5 s after the restart of node 1 the cluster is not healthy; .* node 1$"):
        await injected.heal()
    assert (Action.STOP, 3) not in actions(site)
    assert (Action.STOP, 2) not in actions(site)
    assert await who_runs(site) == [1, 2, 3]
    await site.cluster.do(Action.RESUME, 2)


async def test_whom_another_fault_has_killed_meanwhile_is_no_error(cluster: DevCluster, site: Site) -> None:
    class Dying(ProcessCluster):
        async def do(self, action: Action, node_id: int) -> None:
            if (action, node_id) == (Action.PAUSE, 2):
                await super().do(Action.KILL, node_id)
            await super().do(action, node_id)

    dying = Dying(cluster)
    injected = await inject(Site(dying, Roles(dying)), "kill-all")
    assert await who_runs(site) == []
    assert (await injected.heal()).hit
    assert await who_runs(site) == [1, 2, 3]


async def test_a_failed_kill_leaves_all_running(cluster: DevCluster, site: Site) -> None:
    class Sturdy(ProcessCluster):
        async def do(self, action: Action, node_id: int) -> None:
            if (action, node_id) == (Action.KILL, 2):
                raise ClusterError("node 2 cannot be killed")
            await super().do(action, node_id)

    sturdy = Sturdy(cluster)
    with pytest.raises(ClusterError, match="node 2 cannot be killed"):
        await inject(Site(sturdy, Roles(sturdy)), "kill-all")
    await until_healthy(site.cluster, site.cluster.node_ids)


async def test_a_failed_pause_leaves_all_going_on(cluster: DevCluster, site: Site) -> None:
    class Sturdy(ProcessCluster):
        async def do(self, action: Action, node_id: int) -> None:
            if (action, node_id) == (Action.PAUSE, 2):
                raise ClusterError("node 2 cannot be frozen")
            await super().do(action, node_id)

    sturdy = Sturdy(cluster)
    with pytest.raises(ClusterError, match="node 2 cannot be frozen"):
        await inject(Site(sturdy, Roles(sturdy)), "pause-all-briefly")
    await until_healthy(site.cluster, site.cluster.node_ids)


@pytest.mark.parametrize(
    ("voters", "away", "goes_on"),
    [
        ((1, 2, 3), (2,), True),
        ((1, 2, 3), (4,), True),
        ((1, 2, 3), (2, 4), False),  # both replicas that a partition needs may be there
        ((1, 2, 3), (2, 3), False),
        ((1, 2, 3, 4, 5), (1, 2), False),
        ((1,), (1,), False),
        ((1,), (), True),
    ],
)
def test_when_a_majority_goes_on(voters: tuple[int, ...], away: tuple[int, ...], goes_on: bool) -> None:
    assert majority_without(voters, away) is goes_on


def test_a_single_voter_has_no_minority(tmp_path: Path) -> None:
    with_one = site_of(DevCluster.create(tmp_path / "one", make_plan(free_ports(2))))
    assert BY_NAME["kill-minority"].missing(with_one) == "1 voters have no minority to do without"


async def test_a_storm_passes_and_its_coordinator_is_found(site: Site) -> None:
    site = replace(site, groups=STORMY)
    await create_topic(site.cluster.bootstrap, "tossed", partitions=4)
    injected = await inject(site, "rebalance-storm")
    assert isinstance(injected, groups._Storming)
    async with asyncio.timeout(60):
        while injected._storm._left < 5:  # noqa: ASYNC110  members of the storm's own
            await asyncio.sleep(0.02)
    hit = await injected.heal()
    assert hit.hit, hit
    assert "joined" in hit.evidence
    assert not injected._storm._members

    coordinator = await site.roles.coordinator("stormy")
    frozen = await inject(site, "pause-coordinator")
    assert frozen.effect.nodes == (coordinator,)
    await frozen.heal()
    killed = await inject(site, "kill-coordinator")
    (node,) = killed.effect.nodes
    assert "coordinates group stormy" in killed.effect.detail
    assert not await site.cluster.is_running(node)
    assert (await killed.heal()).hit
    assert await site.cluster.is_running(node)


async def test_a_storm_that_ends_by_itself_has_failed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site = replace(site, groups=STORMY)
    monkeypatch.setattr(groups, "STORM_HZ", 0.0)
    injected = await groups.RebalanceStorm().inject(site, {"group": 0.0, "order": [1, 2, 3], "seed": 1})
    await asyncio.sleep(0)
    with pytest.raises(FaultError, match="the storm has ended: ZeroDivisionError"):
        await injected.heal()


@pytest.mark.parametrize("fault", groups.FAULTS, ids=lambda fault: fault.name)
def test_without_groups_nothing_can_be_done(fault: Fault, cluster: DevCluster) -> None:
    assert fault.missing(site_of(cluster)) == "the workload has no consumer groups"
