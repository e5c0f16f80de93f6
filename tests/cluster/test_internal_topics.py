"""What the nodes keep for themselves, over a real node: made on demand, read by everybody, changed by nobody."""

import asyncio
from collections.abc import Awaitable, Callable

import grpc
import pytest

from penstock.client import Admin, PenstockError, Producer
from penstock.client.devcluster import DevCluster
from penstock.internal.v1 import controller_pb2, controller_pb2_grpc
from penstock.protocol.reasons import Reason
from penstock.raft.image import OFFSETS_TOPIC
from penstock.v1 import producer_service_pb2, producer_service_pb2_grpc
from tests.cluster.reading import read_all

TIMEOUT_S = 60


async def ensure(cluster: DevCluster) -> controller_pb2.EnsureInternalTopicResponse:
    """As a node asks the controller."""
    request = controller_pb2.EnsureInternalTopicRequest(name=OFFSETS_TOPIC)
    async with grpc.aio.insecure_channel(cluster.plan.nodes[0].peer) as channel:
        stub = controller_pb2_grpc.ControllerServiceStub(channel)
        return await stub.EnsureInternalTopic(request, timeout=TIMEOUT_S)


async def is_refused(work: Awaitable[object]) -> None:
    with pytest.raises(PenstockError, match="internal") as caught:
        await work
    assert caught.value.reason is Reason.INVALID_ARGUMENT


async def publish(bootstrap: str) -> None:
    record = producer_service_pb2.PublishRecord(key=b"k", value=b"v")
    request = producer_service_pb2.PublishRequest(topic=OFFSETS_TOPIC, records=[record])
    async with grpc.aio.insecure_channel(bootstrap) as channel:
        stub = producer_service_pb2_grpc.ProducerServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError, match="internal"):
            await stub.Publish(request, timeout=TIMEOUT_S)


async def test_internal_topics_are_made_once_read_by_all_and_changed_by_nobody(
    start_cluster: Callable[..., DevCluster],
) -> None:
    cluster = start_cluster(1, offsets_topic_partitions=2)
    made = await asyncio.gather(*(ensure(cluster) for _ in range(4)))
    assert len({response.topic_id for response in made}) == 1
    async with Admin(cluster.bootstrap) as admin, Producer(cluster.bootstrap) as producer:
        await admin.create_topic("orders")
        assert [topic.name for topic in await admin.list_topics()] == ["orders"]
        assert [topic.name for topic in await admin.list_topics(include_internal=True)] == [OFFSETS_TOPIC, "orders"]
        described = await admin.describe_topic(OFFSETS_TOPIC)
        assert (described.topic_id, len(described.partitions)) == (made[0].topic_id, 2)
        await is_refused(await producer.send(OFFSETS_TOPIC, b"v", key=b"k"))
        await publish(cluster.bootstrap)
        for trimmed in await admin.trim_topic(OFFSETS_TOPIC, "everything"):
            assert isinstance(trimmed.error, PenstockError)
            assert (trimmed.error.reason, "internal" in str(trimmed.error)) == (Reason.INVALID_ARGUMENT, True)
        await is_refused(admin.alter_topic(OFFSETS_TOPIC, reset=["min_dirty_ratio"]))
        await is_refused(admin.add_partitions(OFFSETS_TOPIC, 3))
        await is_refused(admin.delete_topic(OFFSETS_TOPIC))
        assert await read_all(cluster.bootstrap, OFFSETS_TOPIC) == {}
        assert (await admin.health()).healthy
