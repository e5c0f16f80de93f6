"""Kill -9 of any node, and of all at once, during produce: nothing acknowledged is lost, nothing is there twice."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import pytest

from penstock.client import Admin, Delivery, OutcomeUnknownError, Producer, TopicPartition
from penstock.client.devcluster import DevCluster
from tests.cluster.reading import read_all

PARTITIONS = 6
IN_FLIGHT = 200
AFTER_FAULT = 300
"""Acknowledgements to wait for after the fault: the cluster takes writes again."""


class Writer:
    """Writes distinct values until told to stop, and knows which were acknowledged where."""

    def __init__(self, producer: Producer, topic: str) -> None:
        self._producer = producer
        self._topic = topic
        self._sent = 0
        self._progress = asyncio.Condition()
        self.acknowledged: dict[bytes, Delivery] = {}
        self.unknown: set[bytes] = set()
        self._pending: set[asyncio.Task[None]] = set()
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            while len(self._pending) < IN_FLIGHT:
                value = b"%08d" % self._sent
                self._sent += 1
                self._pending.add(asyncio.create_task(self._write(value)))
            done, _ = await asyncio.wait(self._pending, return_when=asyncio.FIRST_COMPLETED)
            self._pending -= done

    async def _write(self, value: bytes) -> None:
        try:
            delivery = await (await self._producer.send(self._topic, value, key=value))
        except OutcomeUnknownError:
            self.unknown.add(value)
            return
        async with self._progress:
            self.acknowledged[value] = delivery
            self._progress.notify_all()

    async def more(self, count: int) -> None:
        """Wait until so many more are acknowledged."""
        goal = len(self.acknowledged) + count
        async with self._progress:
            await self._progress.wait_for(lambda: len(self.acknowledged) >= goal)

    async def stop(self) -> None:
        """Stop sending, and wait for the fate of what was sent."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._producer.flush(60)
        await asyncio.gather(*self._pending)


def check(writer: Writer, found: dict[TopicPartition, list[tuple[int, bytes]]]) -> None:
    """Acknowledged is there, once, where it was said to be; offsets rise without a gap."""
    place = {value: (partition.partition, offset) for partition, rows in found.items() for offset, value in rows}
    missing = [value for value in writer.acknowledged if value not in place]
    assert not missing, f"{len(missing)} acknowledged records are lost, the first {missing[0]!r}"
    counts = Counter(value for rows in found.values() for _, value in rows)
    assert [value for value, count in counts.items() if count > 1] == []
    moved = [v for v, delivery in writer.acknowledged.items() if place[v] != (delivery.partition, delivery.offset)]
    assert moved == []
    for rows in found.values():
        assert [offset for offset, _ in rows] == list(range(len(rows)))


async def leader_of(admin: Admin, topic: str, partition: int) -> int:
    leader = (await admin.describe_topic(topic)).partitions[partition].leader
    assert leader is not None
    return leader


async def victims(admin: Admin, topic: str, role: str) -> set[int]:
    """Which nodes to kill."""
    description = await admin.describe_cluster()
    everyone = {broker.node_id for broker in description.brokers}
    assert description.controller is not None
    controller, leader = description.controller, await leader_of(admin, topic, 0)
    others = everyone - {controller, leader}
    return {"leader": {leader}, "controller": {controller}, "follower": {min(others)}, "all": everyone}[role]


Scenario = Callable[[DevCluster, str], Awaitable[None]]


async def kill_during_produce(cluster: DevCluster, role: str) -> None:
    topic = f"survive-{role}"
    async with Admin(cluster.bootstrap) as admin, Producer(cluster.bootstrap, linger_ms=1) as producer:
        await admin.create_topic(topic, partitions=PARTITIONS, replication_factor=3)
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
