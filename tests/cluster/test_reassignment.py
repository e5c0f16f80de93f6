"""A partition moves to another node while it is written to: nothing is lost, and who left has nothing to say."""

import asyncio
from collections.abc import Callable

import grpc

from penstock.client import Admin, PartitionDescription, Producer, TopicPartition
from penstock.client.devcluster import DevCluster
from penstock.internal.v1 import controller_pb2, controller_pb2_grpc
from penstock.protocol.calls import from_call
from penstock.protocol.reasons import Reason
from tests.cluster.conftest import CALM
from tests.cluster.reading import POLL_S, controller_of, healthy, read_all, until
from tests.cluster.writing import Writer, check


async def reassign(cluster: DevCluster, admin: Admin, topic: str, replicas: list[int]) -> None:
    """Ask the controller, as a node does, and another where it has moved: what is asked may be asked again."""
    topic_id = (await admin.describe_topic(topic)).topic_id
    request = controller_pb2.ReassignPartitionsRequest()
    request.targets.add(topic_id=topic_id, partition=0, replicas=replicas)

    async def is_accepted() -> bool:
        controller = await controller_of(admin)
        peer = next(node.peer for node in cluster.plan.nodes if node.node_id == controller)
        async with grpc.aio.insecure_channel(peer) as channel:
            stub = controller_pb2_grpc.ControllerServiceStub(channel)
            try:
                response = await stub.ReassignPartitions(request, timeout=60)
            except grpc.aio.AioRpcError as error:
                if from_call(error).reason in {Reason.NO_CONTROLLER, Reason.OUTCOME_UNKNOWN}:
                    return False
                raise
        assert [change.refusal for change in response.changes] == [0]
        return True

    await until(is_accepted)


async def moved(admin: Admin, topic: str, replicas: list[int]) -> PartitionDescription:
    """The partition, as soon as it is there and nowhere else."""
    while True:
        partition = (await admin.describe_topic(topic)).partitions[0]
        if list(partition.replicas) == replicas:
            return partition
        await asyncio.sleep(POLL_S)


async def test_a_partition_moves_to_another_node_and_back_while_it_is_written_to(
    start_cluster: Callable[..., DevCluster],
) -> None:
    cluster = start_cluster(nodes=4, **CALM)
    bootstrap = ",".join(node.client for node in cluster.plan.nodes)
    async with Admin(bootstrap) as admin, Producer(bootstrap, linger_ms=1) as producer:
        await admin.create_topic("moved", assignments=[[1, 2, 3]])
        writer = Writer(producer, "moved")
        await writer.more(500)
        await reassign(cluster, admin, "moved", [2, 3, 4])
        partition = await moved(admin, "moved", [2, 3, 4])
        assert (partition.leader, sorted(partition.isr)) == (2, [2, 3, 4])
        await writer.more(500)
        await reassign(cluster, admin, "moved", [1, 2, 3])  # node 1 follows with the log that it kept
        await moved(admin, "moved", [1, 2, 3])
        await writer.more(500)
        await writer.stop()
        await healthy(cluster)
    assert writer.unknown == set()
    found = await read_all(bootstrap, "moved")
    assert set(found) == {TopicPartition("moved", 0)}
    check(writer, found)
