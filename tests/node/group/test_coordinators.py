"""Who coordinates a group, from when and until when: made and ended with the leadership, loaded before it serves.

The partition is the test's: a log in memory, led when the test says so.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import cast

import pytest

from penstock.internal.v1 import metadata_pb2
from penstock.node.cleanup.cleaner import WallClock
from penstock.node.group.coordinator import Coordinator, State, Surroundings
from penstock.node.group.coordinators import Coordinators
from penstock.node.group.ends import Found, KnownEnds
from penstock.node.group.joining import GroupLimits
from penstock.node.group.loading import records_of
from penstock.node.group.members import Members
from penstock.node.group.records import Commit, CommitRecord, OffsetsRecord, RebalanceRecord, encode
from penstock.node.group.seat import Seat
from penstock.node.partition import AppendRequest, AppendResult, Done, FoundOffset, Partition, ReadRequest
from penstock.protocol.batch import NewRecord, build, header_of
from penstock.protocol.errors import PenstockError, from_status
from penstock.protocol.reasons import Reason
from penstock.raft.image import (
    NO_LEADER,
    OFFSETS_TOPIC,
    Address,
    GroupInfo,
    GroupPartition,
    MetadataImage,
    NodeInfo,
    PartitionInfo,
    TopicInfo,
)
from penstock.raft.topic_config import TopicConfig
from penstock.storage import LogBatch, PartitionKey
from penstock.v1 import common_pb2
from penstock.v1 import group_service_pb2 as pb
from penstock.v1.consumer_service_pb2 import OffsetQuery

OFFSETS, TOPIC = bytes(15) + b"o", bytes(15) + b"t"
KEY = PartitionKey(OFFSETS, 0)
PARTITION = GroupPartition(TOPIC, 0)
WALL_MS = 1_000_000
NODES = {
    node_id: NodeInfo(node_id, 1, b"", b"", Address("host", 9000 + node_id), Address("host", 9500 + node_id))
    for node_id in (1, 2)
}


def image_of(leader: int = 1, epoch: int = 7, groups: Sequence[str] = ("g",)) -> MetadataImage:
    infos = (PartitionInfo(0, (1, 2), (1, 2), (), leader, epoch, 0, 1),)
    topics = {
        OFFSETS: TopicInfo(OFFSETS, OFFSETS_TOPIC, TopicConfig(), infos, internal=True),
        TOPIC: TopicInfo(TOPIC, "t", TopicConfig(), infos),
    }
    return MetadataImage(
        nodes=NODES,
        topics=topics,
        topic_ids={topic.name: topic_id for topic_id, topic in topics.items()},
        groups={group_id: GroupInfo(group_id, group_epoch=1, emptied_ms=WALL_MS) for group_id in groups},
    )


class PlayedPartition:
    """A log in memory; appends are committed at once."""

    def __init__(self) -> None:
        self.key = KEY
        self.is_leader = False
        self.leader_epoch = 7
        self.log_start_offset = 0
        self.high_watermark = 0
        self.end_is_known = True
        self.refuses: PenstockError | None = None
        self.batches: list[LogBatch] = []
        self.watchers: list[Callable[[], None]] = []

    def on_progress(self, callback: Callable[[], None]) -> Callable[[], None]:
        self.watchers.append(callback)
        return lambda: self.watchers.remove(callback)

    def tell(self) -> None:
        for callback in list(self.watchers):
            callback()

    def latest(self, leader_epoch: int | None, isolation: int) -> FoundOffset:
        del isolation
        self._check(leader_epoch)
        if not self.end_is_known:
            raise PenstockError(Reason.LEADER_NOT_AVAILABLE, "not known yet")
        return FoundOffset(self.high_watermark, None, self.leader_epoch)

    async def read(self, request: ReadRequest) -> list[LogBatch]:
        self._check(request.leader_epoch)
        await asyncio.sleep(0)
        return [batch for batch in self.batches if batch.last_offset >= request.offset][:1]

    def append(self, request: AppendRequest, done: Done) -> None:
        self._check(request.leader_epoch)
        if self.refuses is not None:
            raise self.refuses
        base = self.high_watermark
        last = base + request.header.record_count - 1
        self.batches.append(LogBatch(base, last, self.leader_epoch, request.now_ms, request.header, request.payload))
        self.high_watermark = last + 1
        done(AppendResult(base, self.leader_epoch, request.now_ms, 0, common_pb2.DURABILITY_COMMIT, duplicate=False))

    def _check(self, leader_epoch: int | None) -> None:
        if not self.is_leader or leader_epoch != self.leader_epoch:
            raise PenstockError(Reason.NOT_LEADER, "not in this epoch")

    def holds(self, *records: OffsetsRecord) -> None:
        """What a former leader wrote, a batch a record."""
        for record in records:
            batch = build([NewRecord(*encode(record), timestamp_ms=WALL_MS)])
            base = self.high_watermark
            self.batches.append(LogBatch(base, base, 6, WALL_MS, header_of(batch), batch.SerializeToString()))
            self.high_watermark = base + 1

    def written(self) -> list[OffsetsRecord]:
        return [record for batch in self.batches for _, record in records_of(batch)]


class Node:
    """Coordinators of node 1."""

    def __init__(self) -> None:
        self.image = MetadataImage(nodes=NODES)
        self.partition = PlayedPartition()
        self.serving = True
        self.trusted = True
        self.now_ms = WALL_MS
        self.proposed: list[metadata_pb2.GroupChange] = []
        surroundings = Surroundings(
            image=lambda: self.image,
            ends=KnownEnds(lambda _: 1_000, self._find),
            wall=WallClock(lambda: self.now_ms, lambda: self.trusted),
            members=self._members,
            commit_timeout_ms=30_000,
            retention_ms=5_000,
        )
        self.coordinators = Coordinators(1, self, self._check_serving, self._ensure, surroundings)

    def find(self, key: PartitionKey) -> Partition | None:
        return cast("Partition", self.partition) if key == KEY else None

    async def _find(self, queries: Sequence[OffsetQuery], timeout_s: float) -> list[Found]:
        raise AssertionError("nothing is asked of leaders here")

    def _check_serving(self) -> None:
        if not self.serving:
            raise PenstockError(Reason.NOT_SERVING, "no")

    async def _ensure(self, timeout_s: float) -> None:
        del timeout_s
        self.show(image_of())

    def _members(self, coordinator: Coordinator) -> Members:
        seat = Seat(1, coordinator.index, coordinator.leader_epoch, lambda: self.image, self._propose)
        return Members(seat, coordinator, GroupLimits())

    async def _propose(self, changes: Sequence[metadata_pb2.GroupChange]) -> list[metadata_pb2.ChangeResult]:
        self.proposed += changes
        await asyncio.Event().wait()
        return []

    def show(self, image: MetadataImage) -> None:
        old, self.image = self.image, image
        self.coordinators.on_image(old, image)

    def lead(self, epoch: int = 7) -> None:
        self.partition.is_leader, self.partition.leader_epoch = True, epoch
        self.partition.tell()

    def refusal(self, group_id: str = "g") -> PenstockError:
        with pytest.raises(PenstockError) as caught:
            self.coordinators.find(group_id)
        return caught.value

    async def serves(self) -> Coordinator:
        """Wait for the coordinator."""
        async with asyncio.timeout(10):
            while True:
                try:
                    return self.coordinators.find("g")
                except PenstockError as error:
                    if error.reason is not Reason.COORDINATOR_LOADING:
                        raise
                await asyncio.sleep(0)


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    node = Node()
    yield node
    node.coordinators.close()


async def leading(node: Node, image: MetadataImage) -> Coordinator:
    node.show(image)
    node.lead()
    return await node.serves()


async def test_who_coordinates_or_why_nobody_does(node: Node) -> None:
    assert node.refusal("").reason is Reason.INVALID_GROUP_ID
    assert node.refusal("g" * 250).reason is Reason.INVALID_GROUP_ID
    assert node.refusal().reason is Reason.UNKNOWN_GROUP  # no group was ever made
    node.show(image_of(leader=2))
    elsewhere = node.refusal()
    assert elsewhere.reason is Reason.NOT_COORDINATOR
    where = {"coordinator": "2", "host": "host", "port": "9002", "leader_epoch": "7", "offsets_partition": "0"}
    assert elsewhere.metadata == where
    node.show(image_of(leader=NO_LEADER))
    assert node.refusal().reason is Reason.LEADER_NOT_AVAILABLE
    node.show(image_of(leader=1))
    assert node.refusal().reason is Reason.LEADER_NOT_AVAILABLE  # it has not begun to lead
    node.lead()
    assert node.refusal().reason is Reason.COORDINATOR_LOADING
    assert (await node.serves()).leader_epoch == 7
    node.serving = False
    assert node.refusal().reason is Reason.NOT_SERVING


async def test_the_topic_is_made_by_those_who_may_make_a_group(node: Node) -> None:
    await node.coordinators.ensure("g", 1.0)
    assert node.coordinators.place("g").leader == 1
    with pytest.raises(PenstockError) as caught:
        await node.coordinators.ensure("", 1.0)
    assert caught.value.reason is Reason.INVALID_GROUP_ID


async def test_rule_12_nothing_is_answered_before_the_end_that_stood_at_the_election_is_committed_and_read(
    node: Node,
) -> None:
    node.partition.holds(*(CommitRecord("g", PARTITION, Commit(offset)) for offset in range(5)))
    node.partition.end_is_known = False
    node.show(image_of())
    node.lead()
    for _ in range(20):
        await asyncio.sleep(0)
    assert node.refusal().reason is Reason.COORDINATOR_LOADING
    node.partition.end_is_known = True
    node.partition.tell()
    coordinator = await node.serves()
    assert {p: one.offset for p, one in coordinator.offsets("g").items()} == {PARTITION: 4}


async def test_what_one_coordinator_committed_the_next_one_knows(node: Node) -> None:
    coordinator = await leading(node, image_of())
    request = pb.CommitOffsetsRequest(group_id="g", offsets=[pb.OffsetCommit(topic_id=TOPIC, offset=9)])
    (result,) = (await coordinator.commit_alone(request)).results
    assert not result.HasField("error")
    node.show(image_of(epoch=8))
    node.lead(epoch=8)
    assert coordinator.state is State.OVER
    later = await node.serves()
    assert later is not coordinator
    assert later.offsets("g")[PARTITION].offset == 9


async def test_a_commit_that_is_refused_as_a_whole_makes_no_group(node: Node) -> None:
    coordinator = await leading(node, image_of(groups=()))
    with pytest.raises(PenstockError) as caught:
        await coordinator.commit_alone(pb.CommitOffsetsRequest(group_id="g"))
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    request = pb.CommitOffsetsRequest(group_id="g", offsets=[pb.OffsetCommit(topic_id=bytes(16), offset=9)])
    (result,) = (await coordinator.commit_alone(request)).results
    assert from_status(result.error).reason is Reason.UNKNOWN_TOPIC
    await asyncio.sleep(0)
    assert node.proposed == []


async def test_a_leadership_that_ends_refuses_what_waits_and_says_where_to_go(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator = await leading(node, image_of())
    appended: list[Done] = []
    monkeypatch.setattr(node.partition, "append", lambda _, done: appended.append(done))
    first, second = (
        pb.CommitOffsetsRequest(group_id="g", offsets=[pb.OffsetCommit(topic_id=TOPIC, offset=offset)])
        for offset in (1, 2)
    )
    coordinator.commit(first, "")
    await asyncio.sleep(0)
    waiting = coordinator.commit(second, "")
    node.partition.is_leader = False
    node.show(image_of(leader=2, epoch=8))
    (result,) = await waiting
    assert from_status(result.error).reason is Reason.NOT_COORDINATOR
    assert node.refusal().metadata["coordinator"] == "2"
    assert len(appended) == 1


async def test_what_belongs_to_no_group_or_topic_of_the_metadata_is_deleted_by_the_next_coordinator(node: Node) -> None:
    gone = GroupPartition(bytes(16), 0)
    node.partition.holds(
        CommitRecord("g", PARTITION, Commit(4)),
        CommitRecord("g", gone, Commit(5)),
        CommitRecord("deleted", PARTITION, Commit(6)),
    )
    coordinator = await leading(node, image_of())
    for _ in range(10):
        await asyncio.sleep(0)
    assert set(node.partition.written()[3:]) == {
        CommitRecord("g", gone, None),
        CommitRecord("deleted", PARTITION, None),
    }
    assert list(coordinator.offsets("g")) == [PARTITION]


async def test_what_a_former_coordinator_could_not_delete_is_not_shown_to_a_group_that_is_made_anew(node: Node) -> None:
    node.partition.holds(CommitRecord("deleted", PARTITION, Commit(6)))
    node.partition.refuses = PenstockError(Reason.NOT_ENOUGH_REPLICAS, "no")
    coordinator = await leading(node, image_of())
    node.show(image_of(groups=("g", "deleted")))
    for _ in range(10):
        await asyncio.sleep(0)
    assert coordinator.offsets("deleted") == {}
    node.partition.refuses = None
    node.coordinators.tick(0)
    assert node.partition.written()[1:] == [CommitRecord("deleted", PARTITION, None)]


async def test_a_generation_that_a_former_coordinator_did_not_note_is_noted(node: Node) -> None:
    image = image_of()
    group = replace(image.groups["g"], generation=3, cause="because", rebalanced_ms=5)
    await leading(node, replace(image, groups={"g": group}))
    for _ in range(10):
        await asyncio.sleep(0)
    (record,) = node.partition.written()
    assert isinstance(record, RebalanceRecord)
    assert (record.group_id, record.generation) == ("g", 3)
    assert record.rebalance is not None
    assert record.rebalance.cause == "because"


async def test_rule_30_nothing_expires_while_the_clock_is_not_trusted(node: Node) -> None:
    node.partition.holds(CommitRecord("g", PARTITION, Commit(4, commit_time_ms=WALL_MS)))
    coordinator = await leading(node, image_of())
    node.now_ms, node.trusted = WALL_MS + 5_000, False
    node.coordinators.tick(0)
    await asyncio.sleep(0)
    assert list(coordinator.offsets("g")) == [PARTITION]
    node.trusted = True
    node.coordinators.tick(10_000)
    for _ in range(10):
        await asyncio.sleep(0)
    assert coordinator.offsets("g") == {}
    assert node.partition.written()[-1] == CommitRecord("g", PARTITION, None)


async def test_a_group_whose_time_is_over_stays_where_something_is_being_committed(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator = await leading(node, image_of())
    appended: list[Done] = []
    monkeypatch.setattr(node.partition, "append", lambda _, done: appended.append(done))
    node.now_ms = WALL_MS + 5_000
    request = pb.CommitOffsetsRequest(group_id="g", offsets=[pb.OffsetCommit(topic_id=TOPIC, offset=9)])
    answer = coordinator.commit(request, "")
    node.coordinators.tick(0)
    for _ in range(10):
        await asyncio.sleep(0)
    appended[0](AppendResult(0, 7, 0, 0, common_pb2.DURABILITY_COMMIT, duplicate=False))
    (result,) = await answer
    assert not result.HasField("error")
    for _ in range(10):
        await asyncio.sleep(0)
    assert node.proposed == []  # what was acknowledged would go with the group
    assert coordinator.offsets("g")[PARTITION].offset == 9


async def test_a_group_whose_time_is_over_is_deleted(node: Node) -> None:
    await leading(node, image_of())
    node.now_ms = WALL_MS + 5_000
    node.coordinators.tick(0)
    for _ in range(10):
        await asyncio.sleep(0)
    assert [(change.group_id, change.delete) for change in node.proposed] == [("g", True)]


async def test_a_node_that_stops_coordinates_no_more_whatever_it_is_told(node: Node) -> None:
    coordinator = await leading(node, image_of())
    node.coordinators.close()
    assert coordinator.state is State.OVER
    node.show(image_of(groups=("g", "h")))
    node.partition.tell()
    assert node.refusal().reason is Reason.LEADER_NOT_AVAILABLE
