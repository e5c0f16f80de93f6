"""One node after the other is stopped and started again under a producer: nobody notices."""

import asyncio
from collections.abc import Callable

import pytest

from penstock.client import Admin, Producer
from penstock.client.devcluster import START_MARK, DevCluster
from tests.cluster.conftest import CALM
from tests.cluster.reading import healthy, leaders_of, read_all, until
from tests.cluster.writing import Writer, check

PARTITIONS = 9
STOP_S = 90.0


@pytest.fixture(scope="module")
def cluster(start_cluster: Callable[..., DevCluster]) -> DevCluster:
    """Nodes that take their time for an orderly end."""
    return start_cluster(shutdown_grace_ms=60_000, **CALM)


def last_run(cluster: DevCluster, node_id: int) -> str:
    """What the node logged since its last start."""
    return cluster.log_path(node_id).read_text().rpartition(START_MARK)[2]


async def left(admin: Admin, node_id: int) -> None:
    """Wait until no node shows it as a leader: who is asked may be behind."""

    async def has_left() -> bool:
        return node_id not in await leaders_of(admin, "rolling")

    await until(has_left)


async def test_a_rolling_restart_loses_nothing_and_leaders_move_before_their_node_stops(cluster: DevCluster) -> None:
    async with Admin(cluster.bootstrap) as admin, Producer(cluster.bootstrap, linger_ms=1) as producer:
        await admin.create_topic("rolling", partitions=PARTITIONS, replication_factor=3)
        writer = Writer(producer, "rolling")
        await writer.more(500)
        for node_id in cluster.node_ids:
            await healthy(cluster)
            late = await asyncio.to_thread(cluster.stop, [node_id], STOP_S)
            assert late == []  # ended by itself, in time
            log = last_run(cluster, node_id)
            assert "stopping: moving leaderships away" in log
            assert "not all leaderships moved away in time" not in log
            await left(admin, node_id)
            await writer.more(300)
            cluster.start([node_id])
            await asyncio.to_thread(cluster.wait_serving)
            await writer.more(300)
        await healthy(cluster)
        await writer.stop()
    assert writer.unknown == set()
    check(writer, await read_all(cluster.bootstrap, "rolling"))
