"""A node gives its store's free room back under traffic, and comes back by itself; the others are served meanwhile."""

import asyncio
import json
import sys
from collections.abc import Callable

import pytest

from penstock.client import Admin, Consumer, Producer, UnavailableError
from penstock.client.devcluster import DevCluster
from penstock.protocol.reasons import Reason
from tests.cluster.conftest import CALM
from tests.cluster.reading import create_topic, healthy, read_all, until
from tests.cluster.writing import Writer, check

MIB = 1 << 20
VALUE = b"v" * 100_000
VALUES = 250
WAIT_S = 200


@pytest.fixture(scope="module")
def cluster(start_cluster: Callable[..., DevCluster]) -> DevCluster:
    """Nodes that take their time for an orderly end."""
    return start_cluster(shutdown_grace_ms=60_000, **CALM)


async def penstock(cluster: DevCluster, *arguments: str) -> tuple[int, str, str]:
    command = (sys.executable, "-P", "-m", "penstock.client.cli", *arguments, "-b", cluster.bootstrap)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe)
    try:
        out, err = await asyncio.wait_for(process.communicate(), WAIT_S)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def leave_free_room(admin: Admin, producer: Producer, node_id: int) -> None:
    """Fill a topic and delete it, and wait until the node has deleted its data."""
    await create_topic(admin, "gone", 1)
    await asyncio.gather(*[await producer.send("gone", VALUE) for _ in range(VALUES)])
    await admin.delete_topic("gone")

    async def swept() -> bool:
        return (await admin.store_room(node_id)).used_bytes < VALUES * len(VALUE) / 2

    await until(swept)


async def follow(consumer: Consumer, seen: dict[int, list[bytes]]) -> None:
    while True:
        for record in await consumer.poll(1_000, timeout=1.0):
            assert record.value is not None
            rows = seen.setdefault(record.partition, [])
            assert record.offset == len(rows)
            rows.append(record.value)


async def test_a_node_compacts_its_store_while_records_come_and_go(cluster: DevCluster) -> None:
    node_id = 2
    seen: dict[int, list[bytes]] = {}
    async with (
        Admin(cluster.bootstrap) as admin,
        Producer(cluster.bootstrap, linger_ms=1) as producer,
        Consumer(cluster.bootstrap) as consumer,
    ):
        await create_topic(admin, "kept", 6)
        await leave_free_room(admin, producer, node_id)
        await consumer.assign_topics(["kept"], start="earliest")
        follower = asyncio.create_task(follow(consumer, seen))
        writer = Writer(producer, "kept")
        await writer.more(300)
        await healthy(cluster)
        process = cluster.process(node_id)

        dry = await penstock(cluster, "broker", "compact-store", str(node_id), "--dry-run", "--format", "json")
        assert dry[0] == 0, dry
        compacting = asyncio.create_task(
            penstock(cluster, "broker", "compact-store", str(node_id), "--yes", "--format", "json")
        )
        while not compacting.done():
            await writer.more(100)
        code, out, err = await compacting
        assert code == 0, (out, err)
        await writer.more(300)

        done, could = json.loads(out), json.loads(dry[1])
        assert could["before"]["disk_bytes"] - could["before"]["used_bytes"] > 15 * MIB
        assert done["given_back_bytes"] > 15 * MIB
        assert (await admin.store_room(node_id)).disk_bytes < could["before"]["disk_bytes"] - 10 * MIB
        assert cluster.process(node_id) == process
        assert "the store was compacted from" in cluster.log_path(node_id).read_text()
        for topic in (await admin.describe_cluster()).topics:
            assert all(node_id in partition.isr for partition in topic.partitions)
        await healthy(cluster)
        await writer.stop()

        async def all_seen() -> bool:
            return sum(map(len, seen.values())) >= len(writer.acknowledged)

        await until(all_seen)
        follower.cancel()
    assert writer.unknown == set()
    check(writer, await read_all(cluster.bootstrap, "kept"))


async def test_who_cannot_be_spared_stays(cluster: DevCluster) -> None:
    await healthy(cluster)
    async with Admin(cluster.bootstrap) as admin:
        await admin.create_topic("demanding", replication_factor=3, config={"min_insync_replicas": "3"})
        await healthy(cluster)
        with pytest.raises(UnavailableError, match="partition 0 of 'demanding' would be in sync on") as refused:
            await admin.compact_store(1)
        assert refused.value.reason is Reason.NOT_ENOUGH_REPLICAS
        assert (await admin.store_room(1)).disk_bytes > 0
        await admin.delete_topic("demanding")
        await asyncio.to_thread(cluster.stop, [3])
        try:
            with pytest.raises(UnavailableError, match=r"voters \[3\] are absent"):
                await until_refused(admin)
        finally:
            cluster.start([3])
        await healthy(cluster)


async def until_refused(admin: Admin) -> None:
    """The node that is asked may learn a moment later that another one left."""
    while True:
        await admin.compact_store(1, validate_only=True)
        await asyncio.sleep(0.02)
