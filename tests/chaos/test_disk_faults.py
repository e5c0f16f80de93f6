"""Faults of disks, done to three real nodes: they hit, what is said of them is so, and what was acknowledged stays."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from penstock.chaos.cluster import Action, ClusterError
from penstock.chaos.disks import DiskKind, Disks
from penstock.chaos.disks import missing as missing_disks
from penstock.chaos.faults.base import Fault, FaultError, Hit, Injected, Shape, Site
from penstock.chaos.faults.disks import FAULTS
from penstock.chaos.faults.targets import until_healthy
from penstock.chaos.roles import Roles
from penstock.chaos.shims import preload
from penstock.client import Consumer, Producer
from penstock.client.devcluster import DevCluster, DevClusterError
from penstock.client.devplan import make_plan
from penstock.client.ports import free_ports
from tests.chaos.processes import POLL_S, ProcessCluster, create_topic

BY_NAME: dict[str, Fault] = {fault.name: fault for fault in FAULTS}
NODES = (1, 2, 3)
PATIENCE_S = 60.0
TOPIC = "kept"
PARTITIONS = 3


class _Replacing(ProcessCluster):
    """Disks are replaced too."""

    async def do(self, action: Action, node_id: int) -> None:
        if action is not Action.REPLACE:
            await super().do(action, node_id)
            return
        try:
            await asyncio.to_thread(self.dev.replace_disk, node_id)
        except DevClusterError as error:
            raise ClusterError(str(error)) from error


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disks]:
    folder = tmp_path_factory.mktemp("disk-faults")
    if reason := missing_disks(DiskKind.EXT4, folder):
        pytest.skip(reason)
    preloads = preload.find(folder / "shims")
    if preloads.missing_disk:
        pytest.skip(preloads.missing_disk)
    with Disks(folder / "disks", DiskKind.EXT4, preloads=preloads) as disks:
        disks.prepare(NODES)
        yield disks


@pytest.fixture(scope="module")
def nodes(disks: Disks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevCluster]:
    plan = make_plan(free_ports(2 * len(NODES)))
    planned = tuple(
        replace(node, data_dir=str(disks.data_dir(node.node_id)), wrapper=disks.wrapper(node.node_id))
        for node in plan.nodes
    )
    cluster = DevCluster.create(tmp_path_factory.mktemp("cluster") / "cluster", replace(plan, nodes=planned))
    try:
        cluster.start()
        cluster.wait_serving()
        asyncio.run(create_topic(cluster.bootstrap, TOPIC, PARTITIONS))
        yield cluster
    finally:
        for node_id in NODES:
            cluster.signal(node_id, signal.SIGKILL)
        for node_id in NODES:
            cluster.kill(node_id)


class _Kept:
    """Records that were acknowledged, by this test and by those before it."""

    acknowledged: set[bytes]

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self.acknowledged = set()

    async def add(self, count: int = 30) -> None:
        async with Producer(self._bootstrap) as producer:
            values = [b"%d" % number for number in range(len(self.acknowledged), len(self.acknowledged) + count)]
            await asyncio.gather(*[await producer.send(TOPIC, value) for value in values])
            self.acknowledged.update(values)

    async def check(self) -> None:
        left = set(self.acknowledged)
        async with asyncio.timeout(PATIENCE_S), Consumer(self._bootstrap) as consumer:
            await consumer.assign_topics([TOPIC], start="earliest")
            while left:
                left.difference_update(record.value for record in await consumer.poll() if record.value is not None)


@pytest.fixture(scope="module")
def kept(nodes: DevCluster) -> _Kept:
    return _Kept(nodes.bootstrap)


@pytest.fixture
async def site(nodes: DevCluster, disks: Disks, kept: _Kept, tmp_path: Path) -> AsyncIterator[Site]:
    """All is well; at the end it is so again, and nothing acknowledged is missing."""
    cluster = _Replacing(nodes)
    async with asyncio.timeout(PATIENCE_S):
        await until_healthy(cluster, NODES)
    await kept.add()
    yield Site(cluster, Roles(cluster), None, disks, tmp_path)
    async with asyncio.timeout(PATIENCE_S):
        await until_healthy(cluster, NODES)
    await kept.check()


async def inject(site: Site, name: str, **params: Any) -> Injected:
    fault = BY_NAME[name]
    assert fault.missing(site) is None
    drawn = {"order": [2, 3, 1], "who": "drawn", "seed": 1}
    return await fault.inject(site, {**drawn, **params})


async def until_gone(site: Site, node_id: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await site.cluster.is_running(node_id):  # noqa: ASYNC110  it is another process's state
            await asyncio.sleep(POLL_S)


@pytest.mark.parametrize(
    ("name", "hit", "majority"), [("power-loss-node", (2,), True), ("power-loss-all", (2, 3, 1), False)]
)
async def test_a_loss_of_power_ends_nodes_and_loses_nothing_acknowledged(
    site: Site, disks: Disks, name: str, hit: tuple[int, ...], majority: bool
) -> None:
    injected = await inject(site, name)
    assert (injected.effect.nodes, injected.effect.majority) == (hit, majority)
    assert [await site.cluster.is_running(node_id) for node_id in hit] == [False] * len(hit)
    assert all(disks.is_dark(node_id) for node_id in hit)
    found = await injected.heal()
    assert found.hit
    assert f"{len(hit)} of {len(hit)} nodes were running, {len(hit)} disks were without power" in found.evidence


async def test_a_node_that_another_fault_starts_without_power_gets_it_nevertheless(site: Site, disks: Disks) -> None:
    injected = await inject(site, "power-loss-node")
    await site.cluster.do(Action.START, 2)
    assert (await injected.heal()).hit
    assert not disks.is_dark(2)


async def test_a_failed_sync_ends_the_node_and_healing_starts_it(site: Site, kept: _Kept) -> None:
    injected = await inject(site, "fsync-errors", syncs=1, after=0)
    await kept.add()  # the others go on
    await until_gone(site, 2)
    found = await injected.heal()
    assert found == Hit(hit=True, evidence="1 syncs failed or were delayed; the node had ended")


async def test_a_fault_that_nobody_met_is_no_hit(site: Site) -> None:
    injected = await inject(site, "fsync-errors", syncs=1, after=1 << 40)
    found = await injected.heal()
    assert found == Hit(hit=False, evidence="0 syncs failed or were delayed; the node ran on")


async def test_a_slow_disk_delays_and_nothing_ends(site: Site, kept: _Kept) -> None:
    injected = await inject(site, "slow-disk", delay_ms=20)
    await kept.add()
    found = await injected.heal()
    assert found.hit
    assert found.evidence.endswith("syncs failed or were delayed; the node ran on")


async def test_a_full_disk_refuses_appends_and_the_others_go_on(site: Site, kept: _Kept) -> None:
    injected = await inject(site, "disk-full", who="leader", leave_bytes=0)
    (node_id,) = injected.effect.nodes
    log = site.cluster.log_path(node_id)
    assert log is not None
    async with asyncio.timeout(PATIENCE_S):
        while "appends are refused" not in log.read_text():
            await kept.add(3)
    found = await injected.heal()
    assert found.hit
    assert found.evidence == "[0] bytes were left; 1 of 1 nodes said: appends refused"


@pytest.mark.parametrize("name", ["bit-flips", "truncation", "lost-disk"])
async def test_a_disk_that_is_lost_is_replaced(site: Site, disks: Disks, name: str) -> None:
    injected = await inject(site, name)
    assert injected.effect.nodes == (2,)
    assert injected.effect.majority
    found = await injected.heal()
    assert found.hit
    assert "when its disk was replaced" in found.evidence
    async with asyncio.timeout(PATIENCE_S):
        await until_healthy(site.cluster, NODES)
    assert (disks.root(2) / "away").exists()
    disks.lose(1)  # the claim was given back
    disks.regain(1)


async def test_no_second_disk_is_lost_while_one_is(site: Site, disks: Disks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.chaos.faults.disk_loss.WHOLE_TIMEOUT_S", 1.0)
    injected = await inject(site, "lost-disk")
    with pytest.raises(FaultError, match="not whole"):
        await inject(site, "bit-flips", order=[3, 1, 2])
    assert await site.cluster.is_running(3)
    await injected.heal()


def test_plain_disks_and_other_peoples_clusters_say_what_cannot_be_done(tmp_path: Path) -> None:
    with Disks(tmp_path / "disks") as plain:
        cluster: Any = _Nothing()
        site = Site(cluster, Roles(cluster), None, plain)
        missing = {name: fault.missing(site) for name, fault in BY_NAME.items()}
        assert {name for name, reason in missing.items() if reason is None} == {"bit-flips", "truncation", "lost-disk"}
        assert {fault.missing(replace(site, disks=None)) for fault in FAULTS} == {
            "the nodes' disks and processes are not this program's"
        }


class _Nothing:
    voters = NODES

    def missing(self, action: Action) -> None:
        return None


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_what_is_drawn_depends_on_the_seed_alone(fault: Fault) -> None:
    shape = Shape(NODES, NODES, ())
    assert fault.draw(random.Random(3), shape) == fault.draw(random.Random(3), shape)
