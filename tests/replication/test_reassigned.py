"""Replicas that a reassignment removes and adds, over real gRPC and real stores: logs are kept, and followed up."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from penstock.internal.v1 import metadata_pb2 as meta_pb
from penstock.node.replication.fetcher import LeaderLink
from penstock.node.replication.replica import Role
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.raft.apply_reassignments import complete_reassignments, reassign_partitions
from penstock.storage import Write
from penstock.v1 import common_pb2
from tests.replication.cluster import KEY, NODES, TOPIC, TestCluster, request_of, send, until


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[TestCluster]:
    cluster = TestCluster(tmp_path)
    await cluster.start()
    yield cluster
    await cluster.stop()


async def produce(cluster: TestCluster, count: int, tag: str = "v") -> list[int]:
    partition = cluster.leader.partition
    results = await asyncio.gather(*(send(partition, request_of(f"{tag}{i}".encode())) for i in range(count)))
    return [result.base_offset for result in results]


def reassign(cluster: TestCluster, target: Sequence[int]) -> None:
    change = meta_pb.Reassignment(
        topic_id=TOPIC, partition=0, partition_epoch=cluster.info.partition_epoch, target=target
    )
    result = cluster.apply(reassign_partitions, meta_pb.ReassignPartitions(reassignments=[change]))
    assert not result.changes[0].refusal, result


def complete(cluster: TestCluster, leader: int | None = None) -> None:
    change = meta_pb.ReassignmentCompletion(topic_id=TOPIC, partition=0, partition_epoch=cluster.info.partition_epoch)
    if leader is not None:
        change.leader = leader
        change.leader_node_epoch = cluster.image.nodes[leader].node_epoch
    result = cluster.apply(complete_reassignments, meta_pb.CompleteReassignments(completions=[change]))
    assert not result.changes[0].refusal, result


def move(cluster: TestCluster, target: Sequence[int], leader: int | None = None) -> None:
    """Reassign and complete at once; nobody is told before."""
    reassign(cluster, target)
    complete(cluster, leader)


async def test_rule_28_a_removed_replica_keeps_its_log_and_follows_with_it_when_it_is_added_again(
    cluster: TestCluster,
) -> None:
    await produce(cluster, 5)
    await cluster.until_equal()
    move(cluster, (1, 2))
    cluster.tell()
    node = cluster.nodes[3]
    assert node.replicas.find(KEY) is None
    assert node.replicas.strays() == [KEY]
    assert await produce(cluster, 3) == [5, 6, 7]  # acknowledged without it
    assert len(node.stored()) == 5
    reassign(cluster, (1, 2, 3))
    cluster.tell()
    assert node.replicas.strays() == []
    await cluster.until_isr(NODES)
    await cluster.until_equal()
    assert len(node.stored()) == 8


async def test_rule_28_a_kept_log_that_diverged_is_cut_when_its_node_is_added_again(cluster: TestCluster) -> None:
    await produce(cluster, 5, "common")
    await cluster.until_equal()
    cluster.holds_changes = True
    for node_id in (2, 3):
        await cluster.nodes[node_id].stop()
    old = cluster.nodes[1]
    await asyncio.gather(*(send(old.partition, request_of(b"lost", acks=common_pb2.ACKS_LEADER)) for _ in range(3)))
    waiting = send(old.partition, request_of(b"lost too"))
    move(cluster, (2, 3), leader=2)
    old.replicas.apply(cluster.image, old.node_epoch)
    with pytest.raises(PenstockError) as raised:
        await waiting
    assert raised.value.reason is Reason.OUTCOME_UNKNOWN
    assert old.replicas.find(KEY) is None
    cluster.holds_changes = False
    for node_id in (2, 3):
        await cluster.nodes[node_id].start()
    await cluster.until_leading(2)
    assert await produce(cluster, 2, "new") == [5, 6]
    reassign(cluster, (2, 3, 1))
    cluster.tell()
    await cluster.until_isr(NODES)
    await cluster.until_equal()
    assert b"lost" not in b"".join(batch.payload for batch in old.stored())


async def test_a_removed_leader_appends_and_answers_nothing_more(cluster: TestCluster) -> None:
    await produce(cluster, 2)
    old = cluster.leader.partition
    move(cluster, (2, 3), leader=3)
    cluster.tell()
    assert old.role is Role.IDLE
    with pytest.raises(PenstockError) as raised:
        await send(old, request_of(b"late"))
    assert raised.value.reason is Reason.NOT_LEADER
    await cluster.until_leading(3)
    assert await produce(cluster, 1) == [2]


async def test_a_removed_leaders_tail_does_not_hold_the_others_up(cluster: TestCluster) -> None:
    await produce(cluster, 2)
    node = cluster.leader
    under_way = send(node.partition, request_of(b"not durable yet"))
    move(cluster, (2, 3), leader=3)
    cluster.tell()
    await asyncio.gather(under_way, return_exceptions=True)
    # What is not durable is never evicted, and nothing after it: here it would stay for ever.
    assert node.replicas.tail_budget._used == 0
    await cluster.until_leading(3)


async def test_a_removed_follower_gives_back_the_credit_of_what_it_had_not_written(
    cluster: TestCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await produce(cluster, 2)
    await cluster.until_equal()
    node = cluster.nodes[3]
    shell = node.partition.shell
    written: list[Write] = []
    monkeypatch.setattr(node.replicas, "submit", written.append)
    payload = bytes(1_000)
    await send(cluster.leader.partition, request_of(payload, acks=common_pb2.ACKS_LEADER))
    await until(lambda: len(shell._credits) == 1, "the batch is to be written")
    link = shell._credits[0][0]
    move(cluster, (1, 2))
    node.replicas.apply(cluster.image, node.node_epoch)
    # Each partition that is followed at that leader lives on this credit.
    assert isinstance(link, LeaderLink)
    assert sum(link._credit.values()) > len(payload)


async def test_rule_11_a_follower_that_never_saw_its_removal_opens_a_new_session(cluster: TestCluster) -> None:
    await produce(cluster, 2)
    await cluster.until_equal()
    move(cluster, (1, 2))
    for node_id in (1, 2):
        node = cluster.nodes[node_id]
        node.replicas.apply(cluster.image, node.node_epoch)
    reassign(cluster, (1, 2, 3))
    cluster.tell()
    assert await produce(cluster, 1) == [2]
    await cluster.until_isr(NODES)
    await cluster.until_equal()


async def test_rule_28_a_log_that_was_kept_is_deleted_with_its_topic(cluster: TestCluster) -> None:
    await produce(cluster, 2)
    await cluster.until_equal()
    move(cluster, (1, 2))
    cluster.tell()
    node = cluster.nodes[3]
    assert node.replicas.strays() == [KEY]
    cluster.image = replace(cluster.image, version=cluster.image.version + 1, topics={}, topic_ids={})
    cluster.tell()
    await until(lambda: node.store.log(KEY) is None, "deleted with the others")
    await until(lambda: cluster.nodes[1].store.log(KEY) is None, "deleted where it was in use")
