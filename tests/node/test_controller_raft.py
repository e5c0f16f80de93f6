"""Controller, session and client on real consensus: registration, death, succession, restart."""

import contextlib
from pathlib import Path

from penstock.client.ports import free_ports
from penstock.internal.v1 import metadata_pb2
from penstock.raft.cluster import OutcomeUnknown, SubmitRefused
from penstock.raft.command import encode
from penstock.raft.image import PartitionInfo
from penstock.v1 import topic_service_pb2 as v1
from tests.node.metadata_cluster import WAIT_S, MetadataCluster, MetadataNode
from tests.raft.members import settled


async def create(cluster: MetadataCluster, leader: int, name: str = "t") -> bytes:
    """Create a topic, and return its id when all nodes know it."""
    others = [node_id for node_id in cluster.nodes if node_id != leader]
    assignment = v1.ReplicaAssignment(replicas=[leader, *others])
    request = v1.CreateTopicRequest(name=name, assignments=[assignment])
    response = await cluster.up[0].client.create_topic(request, WAIT_S)
    for node in cluster.up:
        await node.view.wait_for(response.metadata_version, WAIT_S)
    return response.topic.topic_id


async def controller_of(cluster: MetadataCluster) -> MetadataNode:
    """The active controller, as soon as there is one."""
    while True:
        await cluster.until(lambda: cluster.controller is not None)
        if cluster.controller is not None:
            return cluster.controller


async def test_one_node_founds_a_cluster_serves_and_returns_with_its_state(tmp_path: Path) -> None:
    async with MetadataCluster(tmp_path, free_ports(1)) as cluster:
        topic_id = await create(cluster, 1)
        node = cluster.nodes[1]
        first = node.session.node_epoch
        assert await node.client.allocate_producer_ids(10, WAIT_S) == range(10)
        await node.stop()
        await node.start()
        await cluster.until(lambda: node.session.serving)
        info = present(cluster, topic_id)
        assert node.session.node_epoch is not None
        assert first is not None
        assert node.session.node_epoch > first
        assert (info.leader, info.isr, info.leader_node_epoch) == (1, (1,), node.session.node_epoch)
        assert info.leader_epoch == 1  # rule 26: registering bumped the epoch that it led
        assert await node.client.allocate_producer_ids(10, WAIT_S) == range(10, 20)


async def test_every_node_reaches_the_controller_and_all_views_agree(tmp_path: Path) -> None:
    async with MetadataCluster(tmp_path, free_ports(3)) as cluster:
        for node in cluster.up:
            request = v1.CreateTopicRequest(name=f"topic-{node.node_id}", partitions=3)
            response = await node.client.create_topic(request, WAIT_S)
            for other in cluster.up:
                image = await other.view.wait_for(response.metadata_version, WAIT_S)
                assert f"topic-{node.node_id}" in image.topic_ids
        assert len({frozenset(node.view.image.topics) for node in cluster.up}) == 1


async def test_a_dead_node_is_fenced_and_followed_and_comes_back_to_lead(tmp_path: Path) -> None:
    async with MetadataCluster(tmp_path, free_ports(3)) as cluster:
        controller = await controller_of(cluster)
        victim = next(node for node in cluster.up if node is not controller)
        topic_id = await create(cluster, victim.node_id)
        await victim.stop()
        await cluster.until(lambda: led_by_another(cluster, topic_id, victim.node_id))
        await victim.start()
        await cluster.until(lambda: victim.session.serving)
        await rejoin(cluster, topic_id, victim.node_id)
        await cluster.until(lambda: leader_of(cluster, topic_id) == victim.node_id)  # the preferred one again


async def test_the_controllers_own_partitions_are_led_again_when_it_dies(tmp_path: Path) -> None:
    async with MetadataCluster(tmp_path, free_ports(3)) as cluster:
        victim = await controller_of(cluster)
        topic_id = await create(cluster, victim.node_id)
        await victim.stop()
        await cluster.until(lambda: led_by_another(cluster, topic_id, victim.node_id))
        await cluster.until(lambda: all(node.session.serving for node in cluster.up))


async def test_a_node_that_leaves_hands_over_before_it_goes(tmp_path: Path) -> None:
    async with MetadataCluster(tmp_path, free_ports(3)) as cluster:
        for node_id in (1, 2, 3):
            await create(cluster, node_id, f"t{node_id}")
        node = cluster.nodes[2]
        assert await node.session.drain(WAIT_S)
        await settled(lambda: node.raft.barrier(WAIT_S))  # what is committed is in its view
        assert all(info.leader != 2 for topic in node.view.image.topics.values() for info in topic.partitions)
        await node.session.leave(WAIT_S)
        await cluster.until(lambda: all(other.view.image.nodes[2].fenced for other in cluster.up))
        assert not node.session.serving


async def test_a_fenced_node_that_lives_registers_again_by_itself(tmp_path: Path) -> None:
    async with MetadataCluster(tmp_path, free_ports(3)) as cluster:
        node = cluster.nodes[3]
        former = node.session.node_epoch
        assert former is not None
        fence = encode(metadata_pb2.MetadataCommand(fence_node=metadata_pb2.FenceNode(node_id=3, node_epoch=former)))
        await settled(lambda: cluster.nodes[1].raft.submit(fence, WAIT_S))
        await cluster.until(lambda: node.session.serving and (node.session.node_epoch or 0) > former)


def present(cluster: MetadataCluster, topic_id: bytes) -> PartitionInfo:
    """The topic's only partition as the most advanced node shows it."""
    info = cluster.partition(topic_id)
    assert info is not None
    return info


def leader_of(cluster: MetadataCluster, topic_id: bytes) -> int:
    return present(cluster, topic_id).leader


def led_by_another(cluster: MetadataCluster, topic_id: bytes, node_id: int) -> bool:
    return leader_of(cluster, topic_id) not in {node_id, -1}


async def rejoin(cluster: MetadataCluster, topic_id: bytes, node_id: int) -> None:
    """What the leader asks for once the node has caught up, until it is so."""
    while node_id not in present(cluster, topic_id).isr:
        info = present(cluster, topic_id)
        newest = max(cluster.up, key=lambda node: node.view.image.version)
        node_epoch = metadata_pb2.NodeEpoch(node_id=node_id, node_epoch=newest.view.image.nodes[node_id].node_epoch)
        change = metadata_pb2.IsrChange(
            topic_id=topic_id,
            leader=info.leader,
            leader_epoch=info.leader_epoch,
            partition_epoch=info.partition_epoch,
            isr=[*info.isr, node_id],
            node_epochs=[node_epoch],
        )
        command = encode(metadata_pb2.MetadataCommand(alter_isr=metadata_pb2.AlterIsr(changes=[change])))
        with contextlib.suppress(SubmitRefused, OutcomeUnknown):
            await newest.raft.submit(command, WAIT_S)
