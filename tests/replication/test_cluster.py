"""The shells over real gRPC on loopback and real stores."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from penstock.internal.v1 import replication_pb2, replication_pb2_grpc
from penstock.node.partition import ReadRequest
from penstock.node.replication.replicas import ReplicationOptions
from penstock.protocol.batch import ProducerStamp
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.storage import (
    Append,
    AppendFailedError,
    CheckpointHighWatermark,
    Committer,
    CreateLog,
    LogBatch,
    MoveStart,
    Outcome,
    Store,
    StoreFullError,
    StoreOptions,
    Write,
)
from penstock.v1 import common_pb2
from tests.replication.cluster import KEY, NODES, TestCluster, read_all, request_of, send, until

UNCOMMITTED = common_pb2.ISOLATION_READ_UNCOMMITTED


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[TestCluster]:
    cluster = TestCluster(tmp_path)
    await cluster.start()
    yield cluster
    await cluster.stop()


async def produce(cluster: TestCluster, count: int, tag: str = "v") -> list[int]:
    """Offsets of `count` batches, acknowledged by all in sync."""
    partition = cluster.leader.partition
    results = await asyncio.gather(*(send(partition, request_of(f"{tag}{i}".encode())) for i in range(count)))
    return [result.base_offset for result in results]


async def test_what_is_acknowledged_is_on_all_three_and_is_read_in_order(cluster: TestCluster) -> None:
    assert await produce(cluster, 200) == list(range(200))
    await cluster.until_equal()
    batches = await read_all(cluster.leader.partition)
    assert [batch.base_offset for batch in batches] == list(range(200))
    assert batches == cluster.nodes[2].stored()


async def test_acks_of_each_kind_answer_with_their_durability(cluster: TestCluster) -> None:
    for acks in (common_pb2.ACKS_NONE, common_pb2.ACKS_LEADER, common_pb2.ACKS_ALL):
        result = await send(cluster.leader.partition, request_of(b"x", acks=acks))
        assert result.durability == common_pb2.DURABILITY_COMMIT
    await cluster.until_equal()


async def test_a_killed_follower_leaves_the_isr_at_once_and_comes_back(cluster: TestCluster) -> None:
    await produce(cluster, 20)
    await cluster.nodes[3].stop()
    await cluster.until_isr((1, 2))  # the lag window of this cluster is a minute: it was the refused connection
    await produce(cluster, 300)
    await cluster.nodes[3].start()
    await cluster.until_isr(NODES)
    await cluster.until_equal()
    assert len(cluster.nodes[3].stored()) == 320


async def test_a_follower_far_behind_is_filled_from_the_store(tmp_path: Path) -> None:
    cluster = TestCluster(
        tmp_path, ReplicationOptions(60_000, replication_credit_bytes=20_000, tail_cache_bytes=30_000)
    )
    await cluster.start()
    await produce(cluster, 1)
    await cluster.nodes[3].stop()
    await cluster.until_isr((1, 2))
    await asyncio.gather(*(send(cluster.leader.partition, request_of(bytes([i]) * 2_000)) for i in range(100)))
    assert cluster.leader.partition.shell.tail.start_offset > 0
    assert len(await read_all(cluster.leader.partition)) == 101
    await cluster.nodes[3].start()
    await cluster.until_isr(NODES)
    await cluster.until_equal()
    await cluster.stop()


async def test_a_divergent_tail_is_cut_after_a_leader_change(cluster: TestCluster) -> None:
    await produce(cluster, 5, "common")
    cluster.holds_changes = True
    for node_id in (2, 3):
        await cluster.nodes[node_id].stop()
    old = cluster.nodes[1]
    lost = [send(old.partition, request_of(b"lost", acks=common_pb2.ACKS_LEADER)) for _ in range(3)]
    await asyncio.gather(*lost)
    assert len(old.stored()) == 8
    await old.stop()
    cluster.holds_changes = False
    for node_id in (2, 3):
        await cluster.nodes[node_id].start()
    cluster.fence(1)
    cluster.elect(2)
    await cluster.until_leading(2)
    assert await produce(cluster, 2, "new") == [5, 6]
    await old.start()
    await cluster.until_isr(NODES)
    await cluster.until_equal()
    assert [batch.leader_epoch for batch in old.stored()][-2:] == [cluster.info.leader_epoch] * 2
    assert b"lost" not in b"".join(batch.payload for batch in old.stored())


async def test_a_leader_change_leaves_unanswered_appends_unknown_and_the_rest_in_place(cluster: TestCluster) -> None:
    await produce(cluster, 3)
    cluster.holds_changes = True
    for node_id in (2, 3):
        await cluster.nodes[node_id].stop()
    stuck = send(cluster.leader.partition, request_of(b"stuck"))
    for node_id in (2, 3):
        await cluster.nodes[node_id].start()
    cluster.elect(2)
    outcome = await asyncio.gather(stuck, return_exceptions=True)
    if isinstance(outcome[0], PenstockError):  # else the followers were faster than the election
        assert outcome[0].reason is Reason.OUTCOME_UNKNOWN
    await cluster.until_leading(2)
    await produce(cluster, 1)
    await cluster.until_equal()


async def test_a_retry_is_answered_with_the_original_offset_on_the_old_and_a_new_leader(cluster: TestCluster) -> None:
    first = request_of(b"once", stamp=ProducerStamp(7, 0, 0))
    assert (await send(cluster.leader.partition, first)).base_offset == 0
    again = await send(cluster.leader.partition, first)
    assert (again.base_offset, again.duplicate) == (0, True)
    cluster.elect(3)
    await cluster.until_leading(3)
    again = await send(cluster.leader.partition, first)
    assert (again.base_offset, again.duplicate) == (0, True)
    with pytest.raises(PenstockError) as gap:
        await send(cluster.leader.partition, request_of(b"gap", stamp=ProducerStamp(7, 0, 5)))
    assert gap.value.reason is Reason.OUT_OF_ORDER_SEQUENCE
    with pytest.raises(PenstockError) as unknown:
        await send(cluster.leader.partition, request_of(b"who", stamp=ProducerStamp(8, 0, 5)))
    assert unknown.value.reason is Reason.UNKNOWN_PRODUCER
    await cluster.until_equal()
    assert len(cluster.leader.stored()) == 1


async def test_expected_offset_is_checked_after_the_duplicate(cluster: TestCluster) -> None:
    stamped = request_of(b"a", stamp=ProducerStamp(7, 0, 0), expected_offset=0)
    assert (await send(cluster.leader.partition, stamped)).base_offset == 0
    assert (await send(cluster.leader.partition, stamped)).duplicate
    with pytest.raises(PenstockError) as refused:
        await send(cluster.leader.partition, request_of(b"b", expected_offset=0))
    assert refused.value.reason is Reason.EXPECTED_OFFSET_MISMATCH
    assert (await send(cluster.leader.partition, request_of(b"b", expected_offset=1))).base_offset == 1


async def test_below_min_insync_nothing_is_appended(cluster: TestCluster) -> None:
    for node_id in (2, 3):
        await cluster.nodes[node_id].stop()
    await cluster.until_isr((1,))
    with pytest.raises(PenstockError) as refused:
        await send(cluster.leader.partition, request_of(b"x"))
    assert refused.value.reason is Reason.NOT_ENOUGH_REPLICAS
    assert cluster.leader.stored() == []


async def test_batches_behind_a_failed_one_fail_for_its_reason(cluster: TestCluster) -> None:
    await produce(cluster, 1)
    replicas, partition = cluster.leader.replicas, cluster.leader.partition
    writes: list[Any] = []
    submit, replicas.submit = replicas.submit, writes.append
    answers: list[Any] = []
    partition.append(request_of(b"a"), answers.append)
    partition.append(request_of(b"b"), answers.append)
    replicas.submit = submit
    errors = (StoreFullError("no room"), AppendFailedError("a write before this one failed"))
    replicas.on_outcomes([Outcome(write, write.log, error) for write, error in zip(writes, errors, strict=True)])
    assert [answer.reason for answer in answers] == [Reason.STORE_FULL] * 2


async def test_what_was_written_before_a_failed_batch_is_not_refused_with_it(cluster: TestCluster) -> None:
    await produce(cluster, 1)
    cluster.holds_changes = True
    for node_id in (2, 3):
        await cluster.nodes[node_id].stop()
    replicas, partition = cluster.leader.replicas, cluster.leader.partition
    written = asyncio.ensure_future(send(partition, request_of(b"written")))
    await until(lambda: len(cluster.leader.stored()) == 2, "it is on the leader's disk")
    await until(lambda: partition.shell.leading().log.durable_end == 2, "and the leader knows")
    writes: list[Any] = []
    answers: list[Any] = []
    submit, replicas.submit = replicas.submit, writes.append
    partition.append(request_of(b"refused"), answers.append)
    replicas.submit = submit
    replicas.on_outcomes([Outcome(writes[0], writes[0].log, StoreFullError("no room"))])
    assert [answer.reason for answer in answers] == [Reason.STORE_FULL]
    assert not written.done()
    for node_id in (2, 3):
        await cluster.nodes[node_id].start()
    assert (await written).base_offset == 1


async def test_an_append_past_its_deadline_has_an_unknown_outcome(cluster: TestCluster) -> None:
    cluster.holds_changes = True
    for node_id in (2, 3):
        await cluster.nodes[node_id].stop()
    with pytest.raises(PenstockError) as late:
        await send(cluster.leader.partition, request_of(b"x", timeout_ms=50))
    assert late.value.reason is Reason.OUTCOME_UNKNOWN


async def test_reads_outside_the_log_and_of_other_epochs_are_told_apart(cluster: TestCluster) -> None:
    await produce(cluster, 2)
    partition = cluster.leader.partition
    epoch = partition.leader_epoch
    assert await partition.read(ReadRequest(2, 1000, UNCOMMITTED)) == []
    assert await partition.read(ReadRequest(0, 1000, UNCOMMITTED, epoch + 1)) == []
    cases = [
        (ReadRequest(3, 1000, UNCOMMITTED), Reason.OFFSET_ABOVE_END),
        (ReadRequest(-1, 1000, UNCOMMITTED), Reason.OFFSET_BELOW_START),
        (ReadRequest(0, 1000, UNCOMMITTED, epoch - 1), Reason.STALE_LEADER_EPOCH),
        (ReadRequest(5, 1000, UNCOMMITTED, epoch, epoch), Reason.DIVERGED),
    ]
    for request, reason in cases:
        with pytest.raises(PenstockError) as refused:
            await partition.read(request)
        assert refused.value.reason is reason
    with pytest.raises(PenstockError) as elsewhere:
        await cluster.nodes[2].partition.read(ReadRequest(0, 1000, UNCOMMITTED))
    assert elsewhere.value.reason is Reason.NOT_LEADER
    assert partition.latest(None, UNCOMMITTED).offset == 2
    assert partition.earliest(None).offset == 0
    assert (await partition.find_timestamp(1, None, UNCOMMITTED)).offset == 0


async def test_rule_12_a_new_leader_does_not_name_an_end_below_its_epochs_start(cluster: TestCluster) -> None:
    cluster.holds_changes = True
    for node_id in (2, 3):
        await cluster.nodes[node_id].stop()
    partition = cluster.nodes[1].partition
    await send(partition, request_of(b"unsure", acks=common_pb2.ACKS_LEADER))
    cluster.elect(1)
    await until(lambda: partition.is_leader and partition.leader_epoch == cluster.info.leader_epoch, "a new epoch")
    with pytest.raises(PenstockError) as refused:
        partition.latest(None, UNCOMMITTED)
    assert refused.value.reason is Reason.LEADER_NOT_AVAILABLE
    assert await partition.read(ReadRequest(0, 1000, UNCOMMITTED)) == []  # between HW and log end it waits
    assert await partition.read(ReadRequest(1, 1000, UNCOMMITTED)) == []
    for node_id in (2, 3):
        await cluster.nodes[node_id].start()
    await until(lambda: partition.high_watermark == 1, "the end is committed")
    assert partition.latest(None, UNCOMMITTED).offset == 1


async def test_a_node_that_registers_anew_opens_its_streams_again(cluster: TestCluster) -> None:
    node = cluster.nodes[2]
    node.node_epoch = cluster.register(node)
    cluster.tell()
    streams = cluster.nodes[1].replicas.source._streams
    await until(lambda: 2 in streams and streams[2].node_epoch == node.node_epoch, "rule 7: fetches in the new epoch")
    await produce(cluster, 3)
    await cluster.until_isr(NODES)
    await cluster.until_equal()
    assert node.replicas.node_epoch == node.node_epoch


async def test_rule_26_a_view_older_than_the_registration_is_not_acted_on(cluster: TestCluster) -> None:
    node = cluster.nodes[2]
    before, former = cluster.image, node.node_epoch
    node.node_epoch = cluster.register(node)
    node.replicas.apply(before, node.node_epoch)
    assert node.replicas.node_epoch == former
    cluster.tell()
    assert node.replicas.node_epoch == node.node_epoch


async def test_data_goes_only_with_the_removed_topic_and_strays_are_kept(cluster: TestCluster) -> None:
    await produce(cluster, 2)
    await cluster.until_equal()
    node = cluster.nodes[3]
    await node.stop()
    cluster.image = replace(cluster.image, version=cluster.image.version + 1, topics={}, topic_ids={})
    cluster.tell()
    await until(lambda: cluster.nodes[1].store.log(KEY) is None, "deleted where the removal was applied")
    assert cluster.nodes[1].replicas.find(KEY) is None
    await node.start()
    assert node.replicas.strays() == [KEY]


async def test_a_refused_connection_to_the_leader_is_reported(cluster: TestCluster) -> None:
    await cluster.nodes[1].stop()
    await until(lambda: 1 in cluster.nodes[2].refused, "node 2 reports")


async def test_a_stream_meant_for_another_node_or_cluster_is_refused(cluster: TestCluster) -> None:
    hellos = [
        replication_pb2.Hello(cluster_id="other", node_id=2, leader_node_id=1, stream_number=9),
        replication_pb2.Hello(cluster_id="c", node_id=2, leader_node_id=3, stream_number=9),
    ]
    async with cluster.dial(1) as channel:
        for hello in hellos:
            call = replication_pb2_grpc.ReplicationServiceStub(channel).Replicate()
            await call.write(replication_pb2.ReplicateRequest(hello=hello, node_epoch=99))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call.read()
            assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    await produce(cluster, 1)


async def test_a_late_stream_of_a_follower_does_not_replace_its_present_one(cluster: TestCluster) -> None:
    stream = cluster.nodes[1].replicas.source._streams[2]
    late = replication_pb2.Hello(cluster_id="c", node_id=2, leader_node_id=1, stream_number=0)
    async with cluster.dial(1) as channel:
        call = replication_pb2_grpc.ReplicationServiceStub(channel).Replicate()
        await call.write(replication_pb2.ReplicateRequest(hello=late, node_epoch=stream.node_epoch))
        assert await call.read() is grpc.aio.EOF
    assert cluster.nodes[1].replicas.source._streams[2] is stream
    await produce(cluster, 1)


def write_trimmed_log(cluster: TestCluster, node_id: int) -> None:
    """Four batches of one producer in two epochs, of which the first two are dropped."""
    store = Store.open(cluster.nodes[node_id].path, StoreOptions(map_bytes=1 << 28))
    committer = Committer(store)
    (created,) = committer.commit([CreateLog(KEY)])
    log = created.log
    assert log is not None
    batches = []
    for offset, epoch in enumerate((0, 0, 1, 1)):
        request = request_of(f"old{offset}".encode(), stamp=ProducerStamp(7, 0, offset))
        batches.append(LogBatch(offset, offset, epoch, 1, request.header, request.payload))
    writes: list[Write] = [Append(log, 1, tuple(batches)), CheckpointHighWatermark(log, 4), MoveStart(log, 1, 2)]
    assert all(outcome.error is None for outcome in committer.commit(writes))
    store.close()


async def test_rule_14_replicas_that_start_at_a_trimmed_log_receive_what_came_before_it(tmp_path: Path) -> None:
    cluster = TestCluster(tmp_path)
    write_trimmed_log(cluster, 1)
    cluster.elect_epochs = 2
    await cluster.start()
    await cluster.until_isr(NODES)
    await produce(cluster, 1)
    await cluster.until_equal()
    for node in cluster.nodes.values():
        assert [batch.base_offset for batch in node.stored()] == [2, 3, 4]
        assert node.partition.log_start_offset == 2
    cluster.elect(2)
    await cluster.until_leading(2)
    for offset in (0, 3):  # of before the start, and of after it
        again = await send(cluster.leader.partition, request_of(b"", stamp=ProducerStamp(7, 0, offset)))
        assert (again.base_offset, again.duplicate) == (offset, True)
    await cluster.stop()


async def test_a_leader_that_restarts_and_leads_again_is_dialled_again(cluster: TestCluster) -> None:
    await produce(cluster, 2)
    for _ in range(3):
        await cluster.nodes[1].stop()
        await cluster.nodes[1].start()
        await cluster.until_leading(1)
        await cluster.until_isr(NODES)
        await produce(cluster, 2)
    await cluster.until_equal()
    assert len(cluster.nodes[3].stored()) == 8


async def test_a_call_that_the_leader_cancels_is_dialled_again(cluster: TestCluster) -> None:
    await produce(cluster, 1)
    cluster.nodes[1].replicas.source.close()
    slots = cluster.nodes[1].partition.shell._slots
    former = {follower: slot.session for follower, (slot, _) in slots.items()}

    def all_new() -> bool:
        return len(slots) == 2 and all(slot.session > former[follower] for follower, (slot, _) in slots.items())

    await until(all_new, "new sessions of both")
    await produce(cluster, 1)
    await cluster.until_isr(NODES)
