"""A node that comes back with an empty disk, a leader that was paused past its session."""

import asyncio
import shutil
import signal
import subprocess
import sys

from penstock.client import Admin, Producer, TopicPartition
from penstock.client.devcluster import DevCluster
from tests.cluster.reading import create_topic, healthy, leaders_of, read_all


def format_to_join(cluster: DevCluster, node_id: int) -> None:
    """What an operator does after a disk was lost."""
    data = cluster.node_dir(node_id) / "data"
    shutil.rmtree(data)
    identity = ["--node-id", str(node_id), "--cluster-id", cluster.plan.cluster_id]
    command = [sys.executable, "-P", "-m", "penstock.node.main", "format", "--data-dir", str(data), *identity, "--join"]
    subprocess.run(command, check=True, capture_output=True)


async def publish(bootstrap: str, topic: str, values: range) -> None:
    async with Producer(bootstrap) as producer:
        for delivery in [await producer.send(topic, b"%d" % value, key=b"%d" % value) for value in values]:
            await delivery


def values(found: dict[TopicPartition, list[tuple[int, bytes]]]) -> list[int]:
    return sorted(int(value) for rows in found.values() for _, value in rows)


async def test_a_lost_disk_is_filled_again_and_then_carries_the_topic_alone_with_another(cluster: DevCluster) -> None:
    async with Admin(cluster.bootstrap) as admin:
        await create_topic(admin, "refill", 3)
        await publish(cluster.bootstrap, "refill", range(500))
        cluster.kill(3)
        format_to_join(cluster, 3)
        await publish(cluster.bootstrap, "refill", range(500, 1000))
        cluster.start([3])
        await asyncio.to_thread(cluster.wait_serving)
        await healthy(cluster)
        # Another node's disk is lost: what node 3 was filled with must do.
        cluster.kill(1)
        format_to_join(cluster, 1)
        await publish(cluster.bootstrap, "refill", range(1000, 1200))
        cluster.start([1])
        await asyncio.to_thread(cluster.wait_serving)
        await healthy(cluster)
    assert values(await read_all(cluster.bootstrap, "refill")) == list(range(1200))


async def test_a_leader_paused_past_its_session_is_replaced_and_acknowledges_nothing_stale(cluster: DevCluster) -> None:
    async with Admin(cluster.bootstrap) as admin:
        await create_topic(admin, "paused", 1)
        await publish(cluster.bootstrap, "paused", range(100))
        (former,) = await leaders_of(admin, "paused")
        cluster.signal(former, signal.SIGSTOP)
        others = ",".join(node.client for node in cluster.plan.nodes if node.node_id != former)
        async with Producer(others) as producer:
            pending = [await producer.send("paused", b"%d" % value) for value in range(100, 200)]
            await asyncio.gather(*pending)
        cluster.signal(former, signal.SIGCONT)
        await publish(cluster.bootstrap, "paused", range(200, 300))
        await healthy(cluster)
        assert (await admin.describe_topic("paused")).partitions[0].leader_epoch > 0
    assert values(await read_all(cluster.bootstrap, "paused")) == list(range(300))
