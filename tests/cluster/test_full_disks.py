"""Disks of real nodes, small ones, filled to the last byte: one of three, then all three."""

import asyncio
import signal
from collections.abc import Iterator
from dataclasses import replace

import pytest

from penstock.chaos.disks import DiskKind, Disks, missing
from penstock.client import Admin, Producer
from penstock.client.devcluster import DevCluster
from penstock.client.devplan import make_plan
from penstock.client.ports import free_ports
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from tests.cluster.reading import create_topic, healthy, read_all, until
from tests.cluster.writing import Writer, check

NODES = (1, 2, 3)
DISK_BYTES = 64 * 1024 * 1024
TOPIC = "orders"


@pytest.fixture(scope="module", params=[DiskKind.TMPFS, DiskKind.EXT4], ids=str)
def disks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disks]:
    folder = tmp_path_factory.mktemp("full-disks")
    if reason := missing(request.param, folder):
        pytest.skip(reason)
    with Disks(folder / "disks", request.param, DISK_BYTES) as disks:
        disks.prepare(NODES)
        yield disks


@pytest.fixture(scope="module")
def nodes(disks: Disks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevCluster]:
    plan = make_plan(free_ports(2 * len(NODES)))
    planned = tuple(replace(node, data_dir=str(disks.data_dir(node.node_id))) for node in plan.nodes)
    cluster = DevCluster.create(tmp_path_factory.mktemp("cluster") / "cluster", replace(plan, nodes=planned))
    try:
        cluster.start()
        cluster.wait_serving()
        yield cluster
    finally:
        for node_id in NODES:
            cluster.signal(node_id, signal.SIGKILL)
        for node_id in NODES:
            cluster.kill(node_id)


async def stores(admin: Admin) -> dict[int, str | None]:
    """Each node's store as the metadata has it."""
    return {broker.node_id: broker.store_state for broker in await admin.list_brokers()}


async def isrs(admin: Admin) -> list[tuple[int, ...]]:
    return [partition.isr for partition in (await admin.describe_topic(TOPIC)).partitions]


async def test_one_full_disk_costs_a_replica_and_nothing_else(nodes: DevCluster, disks: Disks) -> None:
    """Writing goes on on the others, whoever led; with room the node is back by itself, also once restarted."""
    cluster = nodes
    async with Admin(cluster.bootstrap) as admin, Producer(cluster.bootstrap) as producer:
        await create_topic(admin, TOPIC, partitions=3)
        await healthy(cluster)
        writer = Writer(producer, TOPIC)
        await writer.more(500)
        disks.fill(2)

        async def is_out() -> bool:
            return (await stores(admin))[2] == "full" and not any(2 in isr for isr in await isrs(admin))

        await until(is_out)
        assert disks.free_bytes(2) < 64 * 1024
        await writer.more(2_000)
        assert {problem.reason for problem in (await admin.health()).problems} >= {"STORE_FULL", "UNDER_REPLICATED"}
        used = {usage.node_id: usage for usage in await admin.broker_usage()}
        assert (used[2].store_state, used[1].store_state) == ("full", "ok")
        assert used[2].store_used_bytes is not None
        assert used[2].store_capacity_bytes is not None
        assert used[2].store_used_bytes >= used[2].store_capacity_bytes
        assert len(await read_all(cluster.bootstrap, TOPIC)) == 3
        log = cluster.log_path(2).read_text()
        assert log.count("appends are refused") == 1  # each change is told once, not each attempt
        assert log.count("append to ") <= 6

        cluster.kill(2)
        cluster.start([2])
        await asyncio.to_thread(cluster.wait_serving)  # it starts on the full disk
        await until(is_out)
        await writer.more(500)

        disks.unfill(2)
        await healthy(cluster)
        assert await isrs(admin) == [NODES] * 3
        await writer.more(500)
        await writer.stop()
    check(writer, await read_all(cluster.bootstrap, TOPIC))


async def refusal(bootstrap: str, value: bytes) -> Reason | None:
    """Why a write failed, or None."""
    async with Producer(bootstrap, delivery_timeout_ms=500) as producer:
        try:
            await (await producer.send(TOPIC, value))
        except PenstockError as error:
            return error.reason
    return None


async def test_all_disks_full_refuse_writes_and_serve_reads(nodes: DevCluster, disks: Disks) -> None:
    """Of each partition the last member stays and leads; metadata still changes; room alone brings everything back."""
    cluster = nodes
    async with Admin(cluster.bootstrap) as admin:
        await healthy(cluster)
        before = await read_all(cluster.bootstrap, TOPIC)
        disks.fill(1)
        disks.fill(2)
        disks.fill(3)

        async def is_full() -> bool:
            return set((await stores(admin)).values()) == {"full"}

        await until(is_full)
        assert [len(isr) for isr in await isrs(admin)] == [1] * 3
        reasons = set()
        while Reason.STORE_FULL not in reasons:  # another where time is up before the leader was heard
            reasons.add(await refusal(cluster.bootstrap, b"refused"))
        assert None not in reasons
        assert await read_all(cluster.bootstrap, TOPIC) == before
        for number in range(20):
            await admin.create_topic(f"full-{number}", partitions=3, replication_factor=3)
            await admin.delete_topic(f"full-{number}")
        for node_id in NODES:
            disks.unfill(node_id)
        await healthy(cluster)
        async with Producer(cluster.bootstrap) as producer:
            await asyncio.gather(*[await producer.send(TOPIC, b"after %d" % number) for number in range(100)])
    after = await read_all(cluster.bootstrap, TOPIC)
    assert {partition: rows[: len(before[partition])] for partition, rows in after.items()} == before
    values = [value for rows in after.values() for _, value in rows]
    assert values.count(b"after 99") == 1
