"""A node that has not caught up denies nothing: it says that it is starting, never that a topic does not exist."""

import subprocess
import sys
from pathlib import Path

import grpc

from penstock.client.devcluster import DevCluster
from penstock.client.devplan import make_plan, node_config
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


async def test_a_node_without_its_cluster_says_not_serving(tmp_path: Path) -> None:

    home = tmp_path / "cluster"
    cluster = DevCluster.create(home, make_plan(free_ports(6)))
    node = cluster.plan.nodes[0]
    data = home / "data"
    config = home / "node.toml"
    config.write_text(node_config(cluster.plan, node, data))
    program = [sys.executable, "-P", "-m", "penstock.node.main"]
    identity = ["--node-id", "1", "--cluster-id", cluster.plan.cluster_id, "--new-cluster"]
    subprocess.run([*program, "format", "--data-dir", str(data), *identity], check=True, capture_output=True)
    with subprocess.Popen([*program, "start", "--config", str(config)], stderr=subprocess.DEVNULL) as process:
        try:
            async with grpc.aio.insecure_channel(node.client) as channel:
                await channel.channel_ready()
                topics = topic_service_pb2_grpc.TopicServiceStub(channel)
                clusters = cluster_service_pb2_grpc.ClusterServiceStub(channel)
                producers = producer_service_pb2_grpc.ProducerServiceStub(channel)
                record = producer_service_pb2.PublishRecord(value=b"v")
                for call in (
                    topics.DescribeTopic(topic_service_pb2.DescribeTopicRequest(name="orders"), timeout=10),
                    topics.ListTopics(topic_service_pb2.ListTopicsRequest(), timeout=10),
                    clusters.GetMetadata(cluster_service_pb2.GetMetadataRequest(), timeout=10),
                    clusters.ListBrokers(cluster_service_pb2.ListBrokersRequest(), timeout=10),
                    producers.Publish(
                        producer_service_pb2.PublishRequest(topic="orders", records=[record]), timeout=10
                    ),
                ):
                    assert (await error_of(call)).reason is Reason.NOT_SERVING
                create = topics.CreateTopic(topic_service_pb2.CreateTopicRequest(name="orders"), timeout=1)
                assert (await error_of(create)).reason in {Reason.NO_CONTROLLER, Reason.OUTCOME_UNKNOWN}
        finally:
            process.kill()
