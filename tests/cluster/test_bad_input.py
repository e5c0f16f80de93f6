"""Bad input of every kind over a real cluster: the precise error, nothing appended, and the connection lives on."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import grpc
import pytest
from google.protobuf import duration_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from penstock.client.devcluster import DevCluster
from penstock.protocol.batch import NewRecord, ProducerStamp, build
from penstock.protocol.calls import from_call
from penstock.protocol.errors import PenstockError, from_status
from penstock.protocol.reasons import Code, Reason
from penstock.v1 import (
    cluster_service_pb2,
    cluster_service_pb2_grpc,
    common_pb2,
    consumer_service_pb2,
    consumer_service_pb2_grpc,
    producer_service_pb2,
    producer_service_pb2_grpc,
    record_pb2,
    topic_service_pb2,
    topic_service_pb2_grpc,
)
from tests.cluster.reading import until

T = TypeVar("T")
ALL = common_pb2.ACKS_ALL
NUMBERS = itertools.count()
TIMEOUT_S = 60


def good_batch(count: int = 1, stamp: ProducerStamp | None = None) -> record_pb2.RecordBatch:
    records = [NewRecord(b"k", b"v%d" % index, 1_700_000_000_000) for index in range(count)]
    return build(records) if stamp is None else build(records, stamp=stamp)


async def read(stream: Any, kind: type[T]) -> T:
    """The next message of a stream, which must not have ended."""
    message = await stream.read()
    assert isinstance(message, kind)
    return message


class Wire:
    """Raw stubs to the leader of the topic's partition 0, and one Produce stream that every test of a batch uses."""

    def __init__(self, channel: grpc.aio.Channel, topic: topic_service_pb2.Topic) -> None:
        self.channel = channel
        self.topic = topic
        self.topics = topic_service_pb2_grpc.TopicServiceStub(channel)
        self.cluster = cluster_service_pb2_grpc.ClusterServiceStub(channel)
        self.producer = producer_service_pb2_grpc.ProducerServiceStub(channel)
        self.consumer = consumer_service_pb2_grpc.ConsumerServiceStub(channel)
        self.stream = self.producer.Produce()
        self.number = 0

    async def produce(
        self, batch: record_pb2.RecordBatch, acks: int = ALL, **fields: object
    ) -> producer_service_pb2.BatchAppended:
        """Send one batch on the stream; its acknowledgement, or raise its error."""
        self.number += 1
        item = producer_service_pb2.PartitionBatch(batch_number=self.number, topic_id=self.topic.topic_id, batch=batch)
        for name, value in fields.items():
            setattr(item, name, value)
        await self.stream.write(producer_service_pb2.ProduceRequest(acks=acks, batches=[item]))  # type: ignore[arg-type]
        response = await read(self.stream, producer_service_pb2.ProduceResponse)
        (result,) = response.results
        assert result.batch_number == self.number
        if result.HasField("error"):
            raise from_status(result.error)
        return result.appended

    async def end(self) -> int | None:
        """Log end of partition 0, as consumers see it; None while the leader does not know it."""
        query = consumer_service_pb2.OffsetQuery(
            topic_id=self.topic.topic_id, latest=consumer_service_pb2.LatestOffset()
        )
        response = await self.consumer.ListOffsets(
            consumer_service_pb2.ListOffsetsRequest(queries=[query], isolation=common_pb2.ISOLATION_READ_UNCOMMITTED),
            timeout=TIMEOUT_S,
        )
        (result,) = response.results
        return result.found.offset if result.HasField("found") else None


@pytest.fixture
def cluster(calm_cluster: DevCluster) -> DevCluster:
    """Raw stubs follow no leader: none may move."""
    return calm_cluster


@pytest.fixture
async def wire(cluster: DevCluster) -> AsyncIterator[Wire]:
    request = topic_service_pb2.CreateTopicRequest(
        name=f"bad-{next(NUMBERS)}",
        partitions=1,
        replication_factor=3,
        config=topic_service_pb2.TopicConfig(max_batch_bytes=10_000),
    )
    async with grpc.aio.insecure_channel(cluster.plan.nodes[0].client) as channel:
        created = await topic_service_pb2_grpc.TopicServiceStub(channel).CreateTopic(request, timeout=TIMEOUT_S)
    for node in cluster.plan.nodes:
        async with grpc.aio.insecure_channel(node.client) as channel:
            topic = await described(channel, request.name, created.metadata_version)
    leader = topic.partitions[0].leader
    address = next(node.client for node in cluster.plan.nodes if node.node_id == leader)
    async with grpc.aio.insecure_channel(address) as channel:
        wire = Wire(channel, topic)

        async def has_taken_over() -> bool:
            return await wire.end() == 0

        await until(has_taken_over)
        yield wire


async def described(channel: grpc.aio.Channel, name: str, version: int) -> topic_service_pb2.Topic:
    """The topic as this node knows it, once it has applied so much."""
    request = topic_service_pb2.DescribeTopicRequest(name=name, min_metadata_version=version)
    stub = topic_service_pb2_grpc.TopicServiceStub(channel)
    while True:
        try:
            return (await stub.DescribeTopic(request, timeout=TIMEOUT_S)).topic
        except grpc.aio.AioRpcError as error:
            if from_call(error).reason is not Reason.METADATA_BEHIND:
                raise


async def refused(call: object) -> PenstockError:
    """The error of a unary call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return from_call(caught.value)


def corrupt() -> record_pb2.RecordBatch:
    batch = good_batch()
    batch.crc32c ^= 1
    return batch


def without_compression() -> record_pb2.RecordBatch:
    batch = good_batch()
    batch.ClearField("compression")
    return batch


def oversized() -> record_pb2.RecordBatch:
    return build([NewRecord(None, b"x" * 20_000, 1)])


def from_the_future() -> record_pb2.RecordBatch:
    return build([NewRecord(None, b"x", 10**14)])


def control() -> record_pb2.RecordBatch:
    batch = good_batch()
    batch.control = True
    return batch


def empty() -> record_pb2.RecordBatch:
    batch = good_batch()
    batch.record_count = 0
    return batch


@pytest.mark.parametrize(
    ("batch", "fields", "reason", "words"),
    [
        (corrupt(), {}, Reason.CORRUPT_BATCH, "CRC-32C"),
        (without_compression(), {}, Reason.INVALID_BATCH, "compression is unspecified"),
        (empty(), {}, Reason.INVALID_BATCH, "record_count is 0"),
        (control(), {}, Reason.CORRUPT_BATCH, "CRC-32C"),
        (oversized(), {}, Reason.RECORD_TOO_LARGE, "allows 10000"),
        (from_the_future(), {}, Reason.INVALID_TIMESTAMP, "ahead"),
        (good_batch(), {"partition": 7}, Reason.UNKNOWN_PARTITION, "has partitions 0 to 0, not 7"),
        (good_batch(), {"topic_id": b"x" * 16}, Reason.UNKNOWN_TOPIC, "no topic has the id"),
        (good_batch(), {"topic_id": b"short"}, Reason.INVALID_ARGUMENT, "topic_id has 5 bytes"),
        (good_batch(), {"acks": 0}, Reason.INVALID_ARGUMENT, "acks is 0"),
        (good_batch(), {"acks": 99}, Reason.INVALID_ARGUMENT, "acks is 99"),
        (good_batch(), {"expected_offset": 5}, Reason.EXPECTED_OFFSET_MISMATCH, "5"),
        (good_batch(), {"leader_epoch": -1}, Reason.STALE_LEADER_EPOCH, "epoch"),
        (good_batch(stamp=ProducerStamp(77, 0, 3)), {}, Reason.UNKNOWN_PRODUCER, "77"),
        (good_batch(stamp=ProducerStamp(-5, 0, 0)), {}, Reason.INVALID_BATCH, "negative"),
    ],
)
async def test_a_bad_batch_is_refused_and_the_stream_lives_on(
    wire: Wire, batch: record_pb2.RecordBatch, fields: dict[str, object], reason: Reason, words: str
) -> None:
    acks = fields.get("acks", ALL)
    others = {name: value for name, value in fields.items() if name != "acks"}
    with pytest.raises(PenstockError) as caught:
        await wire.produce(batch, acks=acks, **others)  # type: ignore[arg-type]
    assert caught.value.reason is reason
    assert words in caught.value.message
    assert await wire.end() == 0
    appended = await wire.produce(good_batch())
    assert appended.base_offset == 0
    assert appended.durability == common_pb2.DURABILITY_COMMIT


async def alter(wire: Wire, cluster: DevCluster, **settings: object) -> None:
    """Change settings of the topic, and wait until every node has applied it."""
    config = topic_service_pb2.TopicConfig(**settings)  # type: ignore[arg-type]
    request = topic_service_pb2.AlterTopicRequest(name=wire.topic.name, config=config)
    answer = await wire.topics.AlterTopic(request, timeout=TIMEOUT_S)
    for node in cluster.plan.nodes:
        async with grpc.aio.insecure_channel(node.client) as channel:
            await described(channel, wire.topic.name, answer.metadata_version)


async def refusal(wire: Wire, *records: NewRecord) -> Reason:
    with pytest.raises(PenstockError) as caught:
        await wire.produce(build(list(records)))
    return caught.value.reason


async def test_a_topic_that_becomes_compacted_takes_keyed_records_only(wire: Wire, cluster: DevCluster) -> None:
    keyed, keyless = NewRecord(b"k", b"v", 1), NewRecord(None, b"v", 1)
    await wire.produce(build([keyed, keyless]))
    await alter(wire, cluster, cleanup_policy=common_pb2.CLEANUP_POLICY_COMPACT)
    assert await refusal(wire, keyed, keyless) is Reason.KEY_REQUIRED
    for node in cluster.plan.nodes:  # whether it leads or not
        async with grpc.aio.insecure_channel(node.client) as channel:
            request = producer_service_pb2.PublishRequest(
                topic=wire.topic.name, records=[producer_service_pb2.PublishRecord(value=b"v")]
            )
            stub = producer_service_pb2_grpc.ProducerServiceStub(channel)
            assert (await refused(stub.Publish(request, timeout=TIMEOUT_S))).reason is Reason.KEY_REQUIRED
    assert (await wire.produce(build([keyed]))).base_offset == 2
    await alter(wire, cluster, cleanup_policy=common_pb2.CLEANUP_POLICY_DELETE)
    assert (await wire.produce(build([keyless]))).base_offset == 3


async def test_the_bounds_of_timestamps_are_the_topics_and_change_at_once(wire: Wire, cluster: DevCluster) -> None:
    ahead = NewRecord(b"k", b"v", 10**14)
    assert await refusal(wire, ahead) is Reason.INVALID_TIMESTAMP
    await alter(wire, cluster, timestamp_after_max=duration_pb2.Duration(seconds=10**11))
    await wire.produce(build([ahead]))
    await alter(wire, cluster, timestamp_before_max=duration_pb2.Duration(seconds=3600))
    assert await refusal(wire, NewRecord(b"k", b"v", 1)) is Reason.INVALID_TIMESTAMP
    old = producer_service_pb2.PublishRecord(value=b"v", timestamp_ms=1)
    publish = producer_service_pb2.PublishRequest(topic=wire.topic.name, records=[old])
    error = await refused(wire.producer.Publish(publish, timeout=TIMEOUT_S))
    assert (error.reason, error.metadata["timestamp_before_max_ms"]) == (Reason.INVALID_TIMESTAMP, "3600000")
    await alter(wire, cluster, timestamp_type=common_pb2.TIMESTAMP_TYPE_APPEND)
    assert (await wire.produce(build([NewRecord(b"k", b"v", 1)]))).base_offset == 1


async def test_sequences_are_checked_and_a_repeat_is_answered_with_the_original(wire: Wire) -> None:
    first = await wire.produce(good_batch(2, ProducerStamp(9, 0, 0)))
    again = await wire.produce(good_batch(2, ProducerStamp(9, 0, 0)))
    assert (again.base_offset, again.duplicate, first.duplicate) == (first.base_offset, True, False)
    with pytest.raises(PenstockError) as caught:
        await wire.produce(good_batch(1, ProducerStamp(9, 0, 5)))
    assert caught.value.reason is Reason.OUT_OF_ORDER_SEQUENCE
    await wire.produce(good_batch(1, ProducerStamp(9, 1, 0)))
    with pytest.raises(PenstockError) as caught:
        await wire.produce(good_batch(1, ProducerStamp(9, 0, 2)))
    assert caught.value.reason is Reason.PRODUCER_FENCED
    assert await wire.end() == 3


async def test_another_node_says_who_leads(wire: Wire, cluster: DevCluster) -> None:
    leader = wire.topic.partitions[0].leader
    other = next(node for node in cluster.plan.nodes if node.node_id != leader)
    async with grpc.aio.insecure_channel(other.client) as channel:
        with pytest.raises(PenstockError) as caught:
            await Wire(channel, wire.topic).produce(good_batch())
    assert caught.value.reason is Reason.NOT_LEADER
    assert caught.value.metadata["leader"] == str(leader)
    address = next(node.client for node in cluster.plan.nodes if node.node_id == leader)
    assert f"{caught.value.metadata['host']}:{caught.value.metadata['port']}" == address


@pytest.mark.parametrize(
    ("fields", "reason", "words"),
    [
        ({"name": ""}, Reason.INVALID_TOPIC_NAME, "must not be empty"),
        ({"name": "a b"}, Reason.INVALID_TOPIC_NAME, "'a b'"),
        ({"name": "x" * 250}, Reason.INVALID_TOPIC_NAME, "249"),
        ({"name": "__offsets"}, Reason.INVALID_TOPIC_NAME, "reserved"),
        ({"replication_factor": 4}, Reason.INVALID_REPLICATION_FACTOR, "4"),
        ({"partitions": 10_001}, Reason.INVALID_ARGUMENT, "partitions"),
        ({"config": {"min_insync_replicas": 4}}, Reason.INVALID_CONFIG, "min_insync_replicas"),
        ({"config": {"max_batch_bytes": 10**9}}, Reason.INVALID_CONFIG, "max_batch_bytes"),
        ({"config": {"cleanup_policy": 77}}, Reason.INVALID_CONFIG, "cleanup_policy"),
        ({"assignments": [{"replicas": [1, 1]}]}, None, "1"),
        ({"assignments": [{"replicas": [1, 9]}]}, None, "9"),
    ],
)
async def test_a_bad_topic_is_refused_and_not_created(
    wire: Wire, fields: dict[str, object], reason: Reason | None, words: str
) -> None:
    base: dict[str, object] = {"name": "never", "partitions": 1, "replication_factor": 3}
    if "assignments" in fields:
        base = {"name": "never"}
    request = topic_service_pb2.CreateTopicRequest(**{**base, **fields})  # type: ignore[arg-type]
    error = await refused(wire.topics.CreateTopic(request, timeout=TIMEOUT_S))
    assert reason is None or error.reason is reason
    assert error.reason.code is Code.INVALID_ARGUMENT
    assert words in error.message
    gone = await refused(
        wire.topics.DescribeTopic(topic_service_pb2.DescribeTopicRequest(name="never"), timeout=TIMEOUT_S)
    )
    assert gone.reason is Reason.UNKNOWN_TOPIC


async def test_a_topic_is_created_once(wire: Wire) -> None:
    request = topic_service_pb2.CreateTopicRequest(name=wire.topic.name)
    error = await refused(wire.topics.CreateTopic(request, timeout=TIMEOUT_S))
    assert error.reason is Reason.TOPIC_EXISTS


async def test_unary_calls_say_what_is_wrong(wire: Wire) -> None:
    many = await refused(wire.topics.ListTopics(topic_service_pb2.ListTopicsRequest(page_size=5000), timeout=TIMEOUT_S))
    assert many.reason is Reason.INVALID_ARGUMENT
    token = await refused(
        wire.topics.ListTopics(topic_service_pb2.ListTopicsRequest(page_token="?"), timeout=TIMEOUT_S)
    )
    assert token.reason is Reason.INVALID_ARGUMENT
    none = await refused(wire.topics.DescribeTopic(topic_service_pb2.DescribeTopicRequest(), timeout=TIMEOUT_S))
    assert none.reason is Reason.INVALID_ARGUMENT
    isolation = await refused(wire.consumer.ListOffsets(consumer_service_pb2.ListOffsetsRequest(), timeout=TIMEOUT_S))
    assert isolation.reason is Reason.INVALID_ARGUMENT
    behind = await refused(
        wire.cluster.GetMetadata(cluster_service_pb2.GetMetadataRequest(min_metadata_version=10**9), timeout=1)
    )
    assert behind.reason in {Reason.METADATA_BEHIND, Reason.OUTCOME_UNKNOWN}  # whichever time-out is first


async def test_publish_checks_its_request_and_is_repeatable(wire: Wire) -> None:
    publish = wire.producer.Publish
    record = producer_service_pb2.PublishRecord(value=b"v")
    name = wire.topic.name
    for request, reason in (
        (producer_service_pb2.PublishRequest(topic="nobody", records=[record]), Reason.UNKNOWN_TOPIC),
        (producer_service_pb2.PublishRequest(topic=name), Reason.INVALID_ARGUMENT),
        (producer_service_pb2.PublishRequest(topic=name, partition=4, records=[record]), Reason.UNKNOWN_PARTITION),
        (producer_service_pb2.PublishRequest(topic=name, expected_offset=4, records=[record]), Reason.INVALID_ARGUMENT),
    ):
        assert (await refused(publish(request, timeout=TIMEOUT_S))).reason is reason
    assert await wire.end() == 0
    request = producer_service_pb2.PublishRequest(topic=name, records=[record], request_id="order-1")
    first = await publish(request, timeout=TIMEOUT_S)
    again = await publish(request, timeout=TIMEOUT_S)
    assert first.records[0].offset == again.records[0].offset == 0
    assert (first.records[0].duplicate, again.records[0].duplicate) == (False, True)
    assert await wire.end() == 1


async def test_publish_on_any_node_reaches_the_leader(wire: Wire, cluster: DevCluster) -> None:
    record = producer_service_pb2.PublishRecord(key=b"k", value=b"v")
    for node in cluster.plan.nodes:
        async with grpc.aio.insecure_channel(node.client) as channel:
            stub = producer_service_pb2_grpc.ProducerServiceStub(channel)
            await stub.Publish(
                producer_service_pb2.PublishRequest(topic=wire.topic.name, records=[record]), timeout=TIMEOUT_S
            )
    assert await wire.end() == 3


async def test_a_bad_consume_request_ends_with_its_reason(wire: Wire) -> None:
    stream = wire.consumer.Consume()
    await stream.write(consumer_service_pb2.ConsumeRequest(credit=consumer_service_pb2.ConsumeCredit(records=1)))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    assert from_call(caught.value).reason is Reason.INVALID_ARGUMENT


async def test_a_bad_position_ends_its_assignment_only(wire: Wire) -> None:
    await wire.produce(good_batch(3))
    stream = wire.consumer.Consume()
    start = consumer_service_pb2.ConsumeStart(isolation=common_pb2.ISOLATION_READ_COMMITTED)
    await stream.write(consumer_service_pb2.ConsumeRequest(start=start))
    credit = consumer_service_pb2.ConsumeCredit(records=100, bytes=1_000_000)
    await stream.write(consumer_service_pb2.ConsumeRequest(credit=credit))
    topic_id = wire.topic.topic_id
    for number, position in enumerate(
        (
            consumer_service_pb2.ConsumePosition(topic_id=topic_id, partition=3),
            consumer_service_pb2.ConsumePosition(topic_id=topic_id, fetch_offset=-4),
            consumer_service_pb2.ConsumePosition(topic_id=topic_id, fetch_offset=1000),
            consumer_service_pb2.ConsumePosition(topic_id=topic_id, fetch_offset=1),
        ),
        start=1,
    ):
        position.assignment_id = number
        assign = consumer_service_pb2.ConsumeAssign(positions=[position])
        await stream.write(consumer_service_pb2.ConsumeRequest(assign=assign))
    seen: dict[int, consumer_service_pb2.ConsumedPartition] = {}
    while set(seen) != {1, 2, 3, 4}:
        response = await read(stream, consumer_service_pb2.ConsumeResponse)
        seen.update({part.assignment_id: part for part in response.partitions})
    reasons = {number: from_status(seen[number].error).reason for number in (1, 2, 3)}
    assert reasons == {1: Reason.UNKNOWN_PARTITION, 2: Reason.INVALID_ARGUMENT, 3: Reason.OFFSET_ABOVE_END}
    assert [batch.last_offset for batch in seen[4].batches] == [2]
    await stream.done_writing()


async def test_an_expired_deadline_appends_nothing(wire: Wire) -> None:
    record = producer_service_pb2.PublishRecord(value=b"v")
    request = producer_service_pb2.PublishRequest(topic=wire.topic.name, records=[record])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await wire.producer.Publish(request, timeout=-1)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert await wire.end() == 0


async def test_health_and_reflection(wire: Wire) -> None:
    health = health_pb2_grpc.HealthStub(wire.channel)
    for name in ("", "penstock.v1.ProducerService"):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name), timeout=TIMEOUT_S)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    stub = reflection_pb2_grpc.ServerReflectionStub(wire.channel)
    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    async for response in stub.ServerReflectionInfo(iter([ask])):
        names = {service.name for service in response.list_services_response.service}
        assert {"penstock.v1.ProducerService", "penstock.v1.TopicService"} <= names


async def test_watch_shows_a_change(wire: Wire) -> None:
    watch = wire.cluster.WatchMetadata(cluster_service_pb2.WatchMetadataRequest())
    first = await read(watch, cluster_service_pb2.WatchMetadataResponse)
    request = topic_service_pb2.CreateTopicRequest(name=f"{wire.topic.name}-seen", partitions=1)
    created = await wire.topics.CreateTopic(request, timeout=TIMEOUT_S)
    assert first.metadata.metadata_version < created.metadata_version
    async with asyncio.timeout(TIMEOUT_S):
        seen = first
        while seen.metadata.metadata_version < created.metadata_version:
            seen = await read(watch, cluster_service_pb2.WatchMetadataResponse)
    watch.cancel()
