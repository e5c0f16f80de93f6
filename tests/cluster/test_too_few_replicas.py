"""Writes while replicas are missing: refused before anything happens, or of unknown outcome; never falsely done."""

import asyncio
import signal

from penstock.client import Admin, OutcomeUnknownError, Producer
from penstock.client.devcluster import DevCluster
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from tests.cluster.reading import controller_of, healthy, read_all, until


async def follower_of(admin: Admin, topic: str) -> int:
    controller = await controller_of(admin)
    partition = (await admin.describe_topic(topic)).partitions[0]
    return next(node for node in partition.isr if node not in {partition.leader, controller})


async def refusal(producer: Producer, topic: str, value: bytes) -> PenstockError:
    """The error of a write that must fail."""
    try:
        await (await producer.send(topic, value))
    except PenstockError as error:
        return error
    raise AssertionError(f"{value!r} was acknowledged")


async def publish(cluster: DevCluster, topic: str, value: bytes) -> int:
    async with Producer(cluster.bootstrap) as producer:
        return (await (await producer.send(topic, value))).offset


async def test_a_produce_that_timed_out_is_of_unknown_outcome(calm_cluster: DevCluster) -> None:
    cluster = calm_cluster
    unknown = b""
    attempts = 0
    async with Admin(cluster.bootstrap) as admin:
        await admin.create_topic("slow", partitions=1, replication_factor=3)
        await publish(cluster, "slow", b"before")
        await healthy(cluster)
        paused = await follower_of(admin, "slow")
        cluster.signal(paused, signal.SIGSTOP)
        try:
            while not unknown:  # on a slow machine it may not be sent in time, which is a certain outcome
                attempts += 1
                value = b"during %d" % attempts
                async with Producer(cluster.bootstrap, request_timeout_ms=300, delivery_timeout_ms=1_000) as producer:
                    if isinstance(await refusal(producer, "slow", value), OutcomeUnknownError):
                        unknown = value
        finally:
            cluster.signal(paused, signal.SIGCONT)
        await publish(cluster, "slow", b"after")
    ((_, rows),) = (await read_all(cluster.bootstrap, "slow")).items()
    there = [value for _, value in rows]
    assert there in ([b"before", b"after"], [b"before", unknown, b"after"])


async def test_too_few_in_sync_refuse_before_anything_happens(calm_cluster: DevCluster) -> None:
    cluster = calm_cluster
    async with Admin(cluster.bootstrap) as admin:
        await admin.create_topic("strict", partitions=1, replication_factor=3, config={"min_insync_replicas": "3"})
        await publish(cluster, "strict", b"before")
        dead = await follower_of(admin, "strict")
        cluster.kill(dead)

        async def has_left() -> bool:
            return dead not in (await admin.describe_topic("strict")).partitions[0].isr

        await until(has_left)
        async with Producer(cluster.bootstrap, delivery_timeout_ms=500) as producer:
            reasons: list[Reason] = []
            while Reason.NOT_ENOUGH_REPLICAS not in reasons:  # another where time is up before the leader was heard
                reasons.append((await refusal(producer, "strict", b"during")).reason)

        async def is_told() -> bool:
            report = await admin.health()
            assert not report.healthy
            return {problem.reason for problem in report.problems} >= {"BROKER_FENCED", "UNDER_MIN_ISR"}

        await until(is_told)
        cluster.start([dead])
        await asyncio.to_thread(cluster.wait_serving)
        assert await publish(cluster, "strict", b"after") == 1  # nothing was appended in between
