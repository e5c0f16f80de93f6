"""Reading a whole topic back; waiting until a cluster is well."""

import asyncio
from collections.abc import Awaitable, Callable

from penstock.client import Admin, Consumer, PenstockError, TopicPartition
from penstock.client.devcluster import DevCluster
from penstock.protocol.reasons import Reason

POLL_S = 0.02


async def read_all(bootstrap: str, topic: str) -> dict[TopicPartition, list[tuple[int, bytes]]]:
    """Every record of the topic up to the present ends: offset and value, by partition."""
    found: dict[TopicPartition, list[tuple[int, bytes]]] = {}
    async with Consumer(bootstrap) as consumer:
        await consumer.assign_topics([topic], start="earliest")
        ends = await consumer.end_offsets(consumer.assignment())
        while any(consumer.position(partition) < end for partition, end in ends.items()):
            for record in await consumer.poll(10_000, timeout=5.0):
                assert record.value is not None
                partition = TopicPartition(record.topic, record.partition)
                found.setdefault(partition, []).append((record.offset, record.value))
    return found


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Ask until it holds; the test's timeout is the bound."""
    while True:
        if await holds():
            return
        await asyncio.sleep(POLL_S)


async def create_topic(admin: Admin, name: str, partitions: int) -> None:
    """Create it with three replicas as soon as there are nodes enough: one that stands still for a moment is fenced."""
    while True:
        try:
            await admin.create_topic(name, partitions=partitions, replication_factor=3)
        except PenstockError as error:
            if error.reason is not Reason.INVALID_REPLICATION_FACTOR:
                raise
        else:
            return
        await asyncio.sleep(POLL_S)


async def healthy(cluster: DevCluster) -> None:
    """Wait until every replica is in sync and every voter votes (again): all nodes say so, for one may be behind."""
    for node in cluster.plan.nodes:
        async with Admin(node.client) as admin:
            while True:
                if (await admin.health()).healthy:
                    break
                await asyncio.sleep(POLL_S)


async def controller_of(admin: Admin) -> int:
    """The controller, as soon as there is one: for a moment there may be none."""
    while True:
        controller = (await admin.describe_cluster()).controller
        if controller is not None:
            return controller
        await asyncio.sleep(POLL_S)


async def leaders_of(admin: Admin, topic: str) -> list[int]:
    """The leaders of the topic's partitions, as soon as all have one."""
    while True:
        leaders = [partition.leader for partition in (await admin.describe_topic(topic)).partitions]
        present = [leader for leader in leaders if leader is not None]
        if len(present) == len(leaders):
            return present
        await asyncio.sleep(POLL_S)
