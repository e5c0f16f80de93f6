"""Controller, session and client on real consensus: registration, death, succession, restart."""

import socket
from pathlib import Path

from penstock.internal.v1 import metadata_pb2
from penstock.raft.command import encode
from penstock.v1 import topic_service_pb2 as v1
from tests.node.metadata_cluster import MetadataCluster


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


async def create(cluster: MetadataCluster, leader: int, name: str = "t") -> bytes:
    others = [node_id for node_id in cluster.nodes if node_id != leader]
    assignment = v1.ReplicaAssignment(replicas=[leader, *others])
    request = v1.CreateTopicRequest(name=name, assignments=[assignment])
    client = cluster.up[0].client
    return (await client.create_topic(request, 10)).topic.topic_id


async def test_one_node_founds_a_cluster_serves_and_returns_with_its_state(tmp_path: Path) -> None:
    async with MetadataCluster(tmp_path, free_ports(1)) as cluster:
        topic_id = await create(cluster, 1)
        node = cluster.nodes[1]
        first = node.session.node_epoch
        assert await node.client.allocate_producer_ids(10, 10) == range(10)
        await node.stop()
        await node.start()
        await cluster.until(lambda: node.session.serving)
        info = cluster.partition(topic_id)
        assert info is not None
        assert node.session.node_epoch is not None
        assert first is not None
        assert node.session.node_epoch > first
        assert (info.leader, info.isr, info.leader_node_epoch) == (1, (1,), node.session.node_epoch)
        assert info.leader_epoch == 1  # rule 26: registering bumped the epoch that it led
        assert await node.client.allocate_producer_ids(10, 10) == range(10, 20)


async def test_every_node_reaches_the_controller_and_all_views_agree(tmp_path: Path) -> None:
    async with MetadataCluster(tmp_path, free_ports(3)) as cluster:
        for node in cluster.up:
            request = v1.CreateTopicRequest(name=f"topic-{node.node_id}", partitions=3)
            response = await node.client.create_topic(request, 10)
            for other in cluster.up:
                image = await other.view.wait_for(response.metadata_version, 10)
                assert f"topic-{node.node_id}" in image.topic_ids
        assert len({frozenset(node.view.image.topics) for node in cluster.up}) == 1


async def test_a_dead_node_is_fenced_and_followed_and_comes_back_to_lead(tmp_path: Path) -> None:
    async with MetadataCluster(tmp_path, free_ports(3)) as cluster:
        controller = cluster.controller
        assert controller is not None
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
        victim = cluster.controller
        assert victim is not None
        topic_id = await create(cluster, victim.node_id)
        await victim.stop()
        await cluster.until(lambda: led_by_another(cluster, topic_id, victim.node_id))
        await cluster.until(lambda: all(node.session.serving for node in cluster.up))


async def test_a_node_that_leaves_hands_over_before_it_goes(tmp_path: Path) -> None:
    async with MetadataCluster(tmp_path, free_ports(3)) as cluster:
        for node_id in (1, 2, 3):
            await create(cluster, node_id, f"t{node_id}")
        node = cluster.nodes[2]
        assert await node.session.drain(10)
        image = max((other.view.image for other in cluster.up), key=lambda image: image.version)
        assert all(info.leader != 2 for topic in image.topics.values() for info in topic.partitions)
        await node.session.leave(10)
        await cluster.until(lambda: all(other.view.image.nodes[2].fenced for other in cluster.up))
        assert not node.session.serving


async def test_a_fenced_node_that_lives_registers_again_by_itself(tmp_path: Path) -> None:
    async with MetadataCluster(tmp_path, free_ports(3)) as cluster:
        node = cluster.nodes[3]
        former = node.session.node_epoch
        assert former is not None
        fence = metadata_pb2.FenceNode(node_id=3, node_epoch=former)
        await cluster.nodes[1].raft.submit(encode(metadata_pb2.MetadataCommand(fence_node=fence)), 10)
        await cluster.until(lambda: node.session.serving and (node.session.node_epoch or 0) > former)


def leader_of(cluster: MetadataCluster, topic_id: bytes) -> int:
    info = cluster.partition(topic_id)
    assert info is not None
    return info.leader


def led_by_another(cluster: MetadataCluster, topic_id: bytes, node_id: int) -> bool:
    return leader_of(cluster, topic_id) not in {node_id, -1}


async def rejoin(cluster: MetadataCluster, topic_id: bytes, node_id: int) -> None:
    """What the leader asks for once the node has caught up."""
    info = cluster.partition(topic_id)
    assert info is not None
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
    command = metadata_pb2.MetadataCommand(alter_isr=metadata_pb2.AlterIsr(changes=[change]))
    await newest.raft.submit(encode(command), 10)
    await cluster.until(lambda: node_id in (cluster.partition(topic_id) or info).isr)
