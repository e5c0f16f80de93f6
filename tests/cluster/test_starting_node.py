"""A node that has not caught up denies nothing: it says that it is starting, never that a topic does not exist."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from penstock.client.devcluster import DevCluster
from penstock.client.devplan import make_plan
from penstock.client.ports import free_ports
from penstock.protocol.calls import from_call
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.v1 import (
    cluster_service_pb2,
    cluster_service_pb2_grpc,
    producer_service_pb2,
    producer_service_pb2_grpc,
    topic_service_pb2,
    topic_service_pb2_grpc,
)


async def error_of(call: object) -> PenstockError:
    try:
        await call  # type: ignore[misc]
    except grpc.aio.AioRpcError as error:
        return from_call(error)
    raise AssertionError("the call succeeded")


@pytest.fixture
def lonely(tmp_path: Path) -> Iterator[DevCluster]:
    """Node 1 of three, without the others."""
    cluster = DevCluster.create(tmp_path / "cluster", make_plan(free_ports(6)))
    cluster.start([1])
    yield cluster
    cluster.kill(1)


async def test_a_node_without_its_cluster_says_not_serving(lonely: DevCluster) -> None:
    async with grpc.aio.insecure_channel(lonely.plan.nodes[0].client) as channel:
        await channel.channel_ready()
        topics = topic_service_pb2_grpc.TopicServiceStub(channel)
        clusters = cluster_service_pb2_grpc.ClusterServiceStub(channel)
        producers = producer_service_pb2_grpc.ProducerServiceStub(channel)
        record = producer_service_pb2.PublishRecord(value=b"v")
        for call in (
            topics.DescribeTopic(topic_service_pb2.DescribeTopicRequest(name="orders"), timeout=60),
            topics.ListTopics(topic_service_pb2.ListTopicsRequest(), timeout=60),
            clusters.GetMetadata(cluster_service_pb2.GetMetadataRequest(), timeout=60),
            clusters.ListBrokers(cluster_service_pb2.ListBrokersRequest(), timeout=60),
            producers.Publish(producer_service_pb2.PublishRequest(topic="orders", records=[record]), timeout=60),
        ):
            assert (await error_of(call)).reason is Reason.NOT_SERVING
        create = topics.CreateTopic(topic_service_pb2.CreateTopicRequest(name="orders"), timeout=1)
        assert (await error_of(create)).reason in {Reason.NO_CONTROLLER, Reason.OUTCOME_UNKNOWN}
