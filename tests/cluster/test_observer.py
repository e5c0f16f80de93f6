"""A fourth node that does not vote: it holds replicas, leads, and outlives a controller as the voters do."""

import asyncio
from collections.abc import Callable

from penstock.client import Admin, Producer
from penstock.client.devcluster import DevCluster
from tests.cluster.conftest import CALM
from tests.cluster.reading import controller_of, healthy, leaders_of, read_all, until
from tests.cluster.writing import Writer, check

OBSERVER = 4
REPLICAS = [[4, 1, 2], [4, 2, 3], [4, 3, 1], [1, 4, 2], [2, 3, 4], [3, 1, 2]]
LED = [0, 1, 2]
"""Partitions whose preferred leader is the observer."""


async def test_an_observer_serves_and_leads_while_the_controller_dies(
    start_cluster: Callable[..., DevCluster],
) -> None:
    cluster = start_cluster(nodes=4, **CALM)
    observers = next(node.client for node in cluster.plan.nodes if node.node_id == OBSERVER)
    # Bootstrapped by the observer alone: what it answers is all that the clients learn.
    async with Admin(observers) as admin, Producer(observers, linger_ms=1) as producer:
        description = await admin.describe_cluster()
        assert {broker.node_id: broker.voter for broker in description.brokers} == {1: True, 2: True, 3: True, 4: False}
        controller = await controller_of(admin)
        assert controller in {1, 2, 3}
        topic = await admin.create_topic("observed", assignments=REPLICAS)
        assert [topic.partitions[index].leader for index in LED] == [OBSERVER] * len(LED)
        writer = Writer(producer, "observed")
        await writer.more(500)
        cluster.kill(controller)
        await writer.more(1000)

        async def is_replaced() -> bool:
            leaders = await leaders_of(admin, "observed")
            return await controller_of(admin) in {1, 2, 3} - {controller} and controller not in leaders

        await until(is_replaced)
        leaders = await leaders_of(admin, "observed")
        assert [leaders[index] for index in LED] == [OBSERVER] * len(LED)
        cluster.start([controller])
        await asyncio.to_thread(cluster.wait_serving)
        await healthy(cluster)
        await writer.stop()
    assert writer.unknown == set()
    assert {delivery.partition for delivery in writer.acknowledged.values()} == set(range(len(REPLICAS)))
    check(writer, await read_all(observers, "observed"))
