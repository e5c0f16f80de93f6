"""Faults of membership, done to real nodes, one of which is added: where replicas and leaderships are afterwards."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from penstock.chaos.cluster import Action
from penstock.chaos.faults.base import Fault, Hit, Injected, Shape, Site
from penstock.chaos.faults.membership import FAULTS
from penstock.chaos.faults.reassigning import Place, describe, live_nodes, off_node, settled
from penstock.chaos.faults.targets import until_healthy
from penstock.client.devcluster import DevCluster
from penstock.client.devplan import make_plan
from penstock.client.ports import free_ports
from tests.chaos.processes import ProcessCluster, create_topic, running_cluster, site_of

SHAPE = Shape(nodes=(1, 2, 3, 4), voters=(1, 2, 3), hosts=("c1",))
BY_NAME: dict[str, Fault] = {fault.name: fault for fault in FAULTS}
PARTITIONS = 6
POLL_S = 0.02


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevCluster]:
    """Three voters with a topic, and a node that was only planned."""
    home = tmp_path_factory.mktemp("membership") / "cluster"
    with running_cluster(home, voters=3, spare=1, preferred_leader_delay_ms=1_000) as cluster:
        asyncio.run(create_topic(cluster.bootstrap, "moved", PARTITIONS))
        yield cluster


@pytest.fixture
async def site(cluster: DevCluster) -> Site:
    """All run that ever did, and all is well."""
    known = [node_id for node_id in cluster.node_ids if cluster.process(node_id) is not None]
    cluster.start(known)
    site = site_of(cluster)
    await until_healthy(site.cluster, known)
    await until(lambda: all_settled(site))
    return site


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Ask until it holds; the test's timeout is the bound."""
    while not await holds():  # noqa: ASYNC110  it is another process's state
        await asyncio.sleep(POLL_S)


async def all_settled(site: Site) -> bool:
    description = await site.roles.describe()
    return description is not None and len(settled(description)) == PARTITIONS


async def inject(site: Site, name: str, seed: int = 0) -> Injected:
    fault = BY_NAME[name]
    assert fault.missing(site) is None
    return await fault.inject(site, fault.draw(random.Random(f"{name}/{seed}"), SHAPE))


async def places(site: Site) -> dict[int, Place]:
    return {place.partition: place for place in settled(await describe(site))}


async def test_a_planned_node_is_added_and_stays(site: Site) -> None:
    injected = await inject(site, "add-node")
    assert (injected.effect.detail, injected.effect.majority) == ("start node 4", True)
    assert 4 in live_nodes(await describe(site))
    assert await injected.heal() == Hit(hit=True, evidence="node 4 has joined")
    assert await site.cluster.is_running(4)
    again = await inject(site, "add-node")
    assert await again.heal() == Hit(hit=False, evidence="no planned node was left")


async def test_replicas_move_to_other_sets_of_as_many_nodes(site: Site) -> None:
    before = await places(site)
    injected = await BY_NAME["move-replicas"].inject(site, {"share": 0.5, "seed": 1})
    assert injected.effect.detail == "move 3 partitions among nodes 1, 2, 3, 4"
    await until(lambda: all_settled(site))
    after = await places(site)
    changed = {number for number in before if set(before[number].replicas) != set(after[number].replicas)}
    assert len(changed) == 3
    assert {len(set(place.replicas)) for place in after.values()} == {3}
    assert await injected.heal() == Hit(hit=True, evidence="3 of 3 partitions had moved")


async def test_a_mere_reordering_moves_leaderships(site: Site) -> None:
    before = await places(site)
    injected = await BY_NAME["leader-transfer"].inject(site, {"share": 1.0, "seed": 2})
    assert injected.effect.detail == f"give {PARTITIONS} partitions another preferred leader"

    async def all_moved() -> bool:
        after = await places(site)
        return all(after[number].leader == after[number].replicas[0] != before[number].leader for number in before)

    await until(all_moved)
    assert await injected.heal() == Hit(hit=True, evidence=f"{PARTITIONS} of {PARTITIONS} leaderships had moved")
    after = await places(site)
    assert all(set(after[number].replicas) == set(before[number].replicas) for number in before)


async def test_moves_that_have_not_come_about_are_not_said_to_have_hit(site: Site) -> None:
    injected = await BY_NAME["leader-transfer"].inject(site, {"share": 1.0, "seed": 3})
    for node_id in site.cluster.node_ids:
        await site.cluster.do(Action.KILL, node_id)
    hit = await injected.heal()
    assert hit == Hit(hit=False, evidence=f"nobody answers; {PARTITIONS} moves were accepted")


async def test_a_drained_node_holds_nothing_and_no_partition_has_fewer_replicas(site: Site) -> None:
    injected = await BY_NAME["drain-node"].inject(site, {"order": [2, 1, 3, 4]})
    now = await places(site)
    assert Counter(replica for place in now.values() for replica in place.replicas) == dict.fromkeys((1, 3, 4), 6)
    assert injected.effect.majority
    hit = await injected.heal()
    assert (hit.hit, hit.evidence.endswith("and held none")) == (True, True)


async def test_a_decommissioned_node_is_away_and_comes_back_empty(site: Site) -> None:
    injected = await BY_NAME["decommission"].inject(site, {"order": [3, 2, 1, 4]})
    assert (injected.effect.nodes, injected.effect.majority) == ((3,), True)
    assert not await site.cluster.is_running(3)
    assert {replica for place in (await places(site)).values() for replica in place.replicas} == {1, 2, 4}
    assert await injected.heal() == Hit(hit=True, evidence="node 3 held no replica and was gone")
    await until_healthy(site.cluster, site.cluster.node_ids)
    assert 3 not in {replica for place in (await places(site)).values() for replica in place.replicas}


def test_three_nodes_leave_no_other_place(tmp_path: Path) -> None:
    site = site_of(DevCluster.create(tmp_path / "three", make_plan(free_ports(6))))
    assert BY_NAME["add-node"].missing(site) == "no node is planned beside the voters"
    for name in ("move-replicas", "drain-node", "decommission"):
        assert BY_NAME[name].missing(site) == "3 nodes leave no other place for 3 replicas"
    assert BY_NAME["leader-transfer"].missing(site) is None


def test_without_peer_addresses_the_controller_cannot_be_asked(tmp_path: Path) -> None:
    class Hidden(ProcessCluster):
        def peer_address(self, node_id: int) -> str | None:
            return None

    cluster = Hidden(DevCluster.create(tmp_path / "hidden", make_plan(free_ports(8))))
    site = Site(cluster, site_of(cluster.dev).roles)
    for name in ("move-replicas", "drain-node", "decommission", "leader-transfer"):
        assert BY_NAME[name].missing(site) == "the nodes' peer addresses are not known"
    assert BY_NAME["add-node"].missing(site) is None


@pytest.mark.parametrize(
    ("replicas", "live", "target"),
    [
        ((1, 2, 3), [1, 2, 3, 4], (1, 3, 4)),
        ((2, 1, 3), [1, 2, 3, 4, 5], (1, 3, 5)),  # node 5 holds less
        ((1, 3, 2, 4), [1, 2, 3, 4], (1, 3, 4)),  # a move to node 4 is under way
        ((1, 2, 3), [1, 2, 3], (1, 3)),  # too few
    ],
)
def test_replicas_without_a_node(replicas: tuple[int, ...], live: list[int], target: tuple[int, ...]) -> None:
    place = Place("t", b"t", 0, 1, replicas, replicas)
    assert off_node(place, 3, 2, live, Counter({1: 5, 3: 5, 4: 2})) == target
