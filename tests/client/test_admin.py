"""The admin client against real gRPC: all calls, retries, what must not be retried."""

import pytest

from penstock.client import (
    Admin,
    ClientClosedError,
    InvalidRequestError,
    OutcomeUnknownError,
    RequestTimeoutError,
    Timestamp,
    TopicExistsError,
    UnknownPartitionError,
    UnknownTopicError,
)
from penstock.protocol.batch import NewRecord, build
from penstock.protocol.reasons import Reason
from tests.client.reference_server import Cluster


async def test_topics_from_creation_to_deletion(cluster: Cluster) -> None:
    async with Admin(cluster.bootstrap()) as admin:
        made = await admin.create_topic("orders", 3, config={"retention.ms": "5000"})
        assert [partition.leader for partition in made.partitions] == [1, 2, 3]
        assert made.config.retention_ms == 5000
        assert await admin.describe_topic("orders") == made
        assert await admin.list_topics() == [made]
        assert (await admin.alter_topic("orders", {"max_batch_bytes": 99})).config.max_batch_bytes == 99
        assert (await admin.alter_topic("orders", reset=["retention_ms"])).config.retention_ms is None
        assert (await admin.alter_topic("orders", {"retention_ms": 7})).config.retention_ms == 7
        assert (await admin.alter_topic("orders", {"retention.ms": "-1"})).config.retention_ms is None
        assert len((await admin.add_partitions("orders", 5)).partitions) == 5
        await admin.delete_topic("orders", validate_only=True)
        await admin.delete_topic("orders")
        with pytest.raises(UnknownTopicError):
            await admin.describe_topic("orders")
        assert (await admin.create_topic("dry", validate_only=True)).name == "dry"
        assert await admin.list_topics() == []


async def test_no_read_shows_less_than_one_before(cluster: Cluster) -> None:
    async with Admin(cluster.bootstrap()) as one, Admin(cluster.bootstrap()) as other:
        await other.create_topic("orders", 1)
        await one.describe_topic("orders")
        assert one._version == other._version > 0


async def test_refusals(cluster: Cluster) -> None:
    cluster.create("orders")
    async with Admin(cluster.bootstrap()) as admin:
        with pytest.raises(TopicExistsError):
            await admin.create_topic("orders")
        with pytest.raises(InvalidRequestError) as caught:
            await admin.create_topic("other", replication_factor=9)
        assert caught.value.reason is Reason.INVALID_REPLICATION_FACTOR
        with pytest.raises(InvalidRequestError):
            await admin.add_partitions("orders", 1)
        with pytest.raises(InvalidRequestError, match="setting 'x' is unknown"):
            await admin.create_topic("other", config={"x": 1})
    with pytest.raises(ClientClosedError):
        await admin.list_topics()


async def test_many_pages_are_one_list(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.client.admin.PAGE_SIZE", 2)
    for number in range(5):
        cluster.create(f"t{number}")
    async with Admin(cluster.bootstrap()) as admin:
        assert [topic.name for topic in await admin.list_topics()] == [f"t{number}" for number in range(5)]
        assert [broker.node_id for broker in await admin.list_brokers()] == [1, 2, 3]


async def test_the_cluster_and_its_health(cluster: Cluster) -> None:
    cluster.create("orders", 2)
    async with Admin(cluster.bootstrap()) as admin:
        described = await admin.describe_cluster()
        assert (described.cluster_id, described.controller, len(described.topics)) == ("reference", 1, 1)
        assert described.brokers[0].durability == "commit"
        assert (await admin.health()).healthy
        await cluster.brokers[2].stop()
        report = await admin.health()
        assert [problem.reason for problem in report.problems] == ["BROKER_FENCED"]


async def test_each_broker_tells_its_usage_or_why_not(cluster: Cluster) -> None:
    cluster.of_an_older_version.add(2)
    await cluster.brokers[3].stop()
    async with Admin(cluster.bootstrap()) as admin:
        told, old, down = await admin.broker_usage()
    assert (told.node_id, told.resident_bytes, told.error) == (1, 64 << 20, None)
    assert told.cpu_time_ms is not None
    assert (told.store_state, told.store_used_bytes, told.store_capacity_bytes) == ("nearly-full", 85, 100)
    assert (told.disk_free_bytes, told.retention_paused) == (7, True)
    assert (old.store_state, old.store_used_bytes, down.retention_paused) == (None, None, None)
    assert old.error is not None
    assert (old.node_id, old.cpu_time_ms, old.error.reason) == (2, None, Reason.UNSUPPORTED)
    assert down.error is not None
    assert (down.node_id, down.uptime_ms, down.error.reason) == (3, None, Reason.NOT_SERVING)


async def test_offsets_by_position_and_time(cluster: Cluster) -> None:
    cluster.create("orders", 2)
    cluster.log("orders", 1).append(build([NewRecord(None, b"", 1000 + number) for number in range(4)]))
    async with Admin(cluster.bootstrap()) as admin:
        assert [found.offset for found in await admin.list_offsets("orders")] == [0, 4]
        (found,) = await admin.list_offsets("orders", Timestamp(1002), partitions=[1])
        assert (found.offset, found.timestamp_ms) == (2, 1002)
        cluster.lead("orders", 1, 3, tell=False)
        assert [found.offset for found in await admin.list_offsets("orders", "earliest")] == [0, 0]
        with pytest.raises(UnknownPartitionError):
            await admin.list_offsets("orders", partitions=[2])
        with pytest.raises(UnknownTopicError):
            await admin.list_offsets("nope")


async def test_what_did_not_happen_is_tried_again(cluster: Cluster) -> None:
    cluster.unary_faults.extend([Reason.NO_CONTROLLER, Reason.NOT_SERVING])
    async with Admin(cluster.bootstrap()) as admin:
        await admin.create_topic("orders")
        cluster.unary_faults.append(Reason.NO_CONTROLLER)
        await admin.delete_topic("orders")


async def test_a_creation_is_repeated_after_a_lost_answer_and_a_deletion_is_not(cluster: Cluster) -> None:
    async with Admin(cluster.bootstrap()) as admin:
        cluster.unary_faults.extend([Reason.OUTCOME_UNKNOWN])
        assert (await admin.create_topic("orders")).name == "orders"
        cluster.unary_faults.append(Reason.OUTCOME_UNKNOWN)
        with pytest.raises(OutcomeUnknownError):
            await admin.delete_topic("orders")
        assert "orders" in cluster.topics


async def test_a_dead_broker_is_passed_over(cluster: Cluster) -> None:
    cluster.create("orders")
    await cluster.brokers[1].stop()
    await cluster.brokers[3].stop()
    async with Admin(cluster.bootstrap()) as admin:
        await admin.delete_topic("orders")


async def test_nobody_there_is_a_timeout_that_had_no_effect(cluster: Cluster) -> None:
    for broker in cluster.brokers.values():
        await broker.stop()
    async with Admin(cluster.bootstrap(), timeout_ms=100) as admin:
        with pytest.raises(RequestTimeoutError, match="cannot connect"):
            await admin.delete_topic("orders")
