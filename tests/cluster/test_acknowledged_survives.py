"""Kill -9 of any node, and of all at once, during produce: nothing acknowledged is lost, nothing is there twice."""

import asyncio
from collections.abc import Iterator

import pytest

from penstock.client import Admin, Producer
from penstock.client.devcluster import DevCluster
from tests.cluster.reading import controller_of, create_topic, leaders_of, read_all
from tests.cluster.writing import Writer, check

PARTITIONS = 6
AFTER_FAULT = 300
"""Acknowledgements to wait for after the fault: the cluster takes writes again."""


async def victims(admin: Admin, topic: str, role: str) -> set[int]:
    """Which nodes to kill."""
    everyone = {broker.node_id for broker in await admin.list_brokers()}
    controller = await controller_of(admin)
    leader = (await leaders_of(admin, topic))[0]
    others = everyone - {controller, leader}
    return {"leader": {leader}, "controller": {controller}, "follower": {min(others)}, "all": everyone}[role]


async def kill_during_produce(cluster: DevCluster, role: str) -> None:
    topic = f"survive-{role}"
    async with Admin(cluster.bootstrap) as admin, Producer(cluster.bootstrap, linger_ms=1) as producer:
        await create_topic(admin, topic, PARTITIONS)
        writer = Writer(producer, topic)
        await writer.more(500)
        killed = await victims(admin, topic, role)
        for node_id in killed:
            cluster.kill(node_id)
        if role != "all":
            await writer.more(AFTER_FAULT)
        cluster.start(killed)
        await asyncio.to_thread(cluster.wait_serving)
        await writer.more(AFTER_FAULT)
        await writer.stop()
    check(writer, await read_all(cluster.bootstrap, topic))


@pytest.mark.parametrize("role", ["leader", "follower", "controller", "all"])
async def test_kill_9_during_produce(cluster: DevCluster, role: str) -> None:
    await kill_during_produce(cluster, role)


@pytest.fixture(scope="module", autouse=True)
def _heal(cluster: DevCluster) -> Iterator[None]:
    """Leave no node down for whoever comes next."""
    yield
    cluster.start()
