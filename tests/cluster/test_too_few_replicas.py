"""Writes while replicas are missing: refused before anything happens, or of unknown outcome; never falsely done."""

import signal
from collections.abc import Callable

import pytest

from penstock.client import Admin, OutcomeUnknownError, Producer
from penstock.client.devcluster import DevCluster
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason


@pytest.fixture(scope="module")
def cluster(start_cluster: Callable[..., DevCluster]) -> DevCluster:
    """A paused node keeps its places for long: it is neither fenced nor found to lag within a test."""
    return start_cluster(session_timeout_ms=60_000, replica_lag_max_ms=60_000)


async def follower_of(admin: Admin, topic: str) -> int:
    partition = (await admin.describe_topic(topic)).partitions[0]
    controller = (await admin.describe_cluster()).controller
    return next(node for node in partition.isr if node not in {partition.leader, controller})


async def test_a_produce_that_timed_out_is_of_unknown_outcome(cluster: DevCluster) -> None:
    async with Admin(cluster.bootstrap) as admin:
        await admin.create_topic("slow", partitions=1, replication_factor=3)
        options = {"request_timeout_ms": 300, "delivery_timeout_ms": 1_000}
        async with Producer(cluster.bootstrap, **options) as producer:  # type: ignore[arg-type]
            await (await producer.send("slow", b"before"))
            paused = await follower_of(admin, "slow")
            cluster.signal(paused, signal.SIGSTOP)
            try:
                with pytest.raises(OutcomeUnknownError):
                    await (await producer.send("slow", b"during"))
            finally:
                cluster.signal(paused, signal.SIGCONT)


async def test_too_few_in_sync_refuse_before_anything_happens(cluster: DevCluster) -> None:
    async with Admin(cluster.bootstrap) as admin:
        await admin.create_topic("strict", partitions=1, replication_factor=3, config={"min_insync_replicas": "3"})
        async with Producer(cluster.bootstrap) as producer:
            await (await producer.send("strict", b"before"))
        dead = await follower_of(admin, "strict")
        cluster.kill(dead)
        while dead in (await admin.describe_topic("strict")).partitions[0].isr:
            pass
        async with Producer(cluster.bootstrap, delivery_timeout_ms=500) as producer:
            with pytest.raises(PenstockError) as caught:
                await (await producer.send("strict", b"during"))
        assert caught.value.reason is Reason.NOT_ENOUGH_REPLICAS
        report = await admin.health()
        assert not report.healthy
        assert {problem.reason for problem in report.problems} >= {"BROKER_FENCED", "UNDER_MIN_ISR"}
        cluster.start([dead])
        cluster.wait_serving()
        async with Producer(cluster.bootstrap) as producer:
            delivery = await (await producer.send("strict", b"after"))
        assert delivery.offset == 1
