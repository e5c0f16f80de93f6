"""Groups at the controller: their changes, the feature level that they need, and the topic that holds their offsets."""

from collections.abc import AsyncIterator

import pytest

from penstock.internal.v1 import controller_pb2 as pb
from penstock.internal.v1 import metadata_pb2 as metadata
from penstock.node.controller.group_changes import commands_for
from penstock.protocol.reasons import Outcome, Reason
from penstock.raft.command import GROUP_LEVEL, encode
from penstock.raft.core import MAX_COMMAND_BYTES
from penstock.raft.image import OFFSETS_TOPIC, TopicInfo
from penstock.v1 import common_pb2 as common
from penstock.v1 import topic_service_pb2 as v1
from tests.node.seat import Seat, T, refusal
from tests.raft.metadata_world import CLUSTER

APPLIED = metadata.REFUSAL_UNSPECIFIED


@pytest.fixture
async def seat() -> AsyncIterator[Seat]:
    seat = Seat(offsets_topic_partitions=5)
    await seat.rule()
    yield seat
    await seat.controller.stop()


async def ensure(seat: Seat, name: str = OFFSETS_TOPIC) -> TopicInfo:
    response = await seat.controller.ensure_internal_topic(pb.EnsureInternalTopicRequest(name=name), T)
    assert response.metadata_version == seat.view.image.version
    return seat.view.image.topics[response.topic_id]


def change(seat: Seat, group_id: str = "g", **fields: object) -> metadata.GroupChange:
    """An empty group, made by its coordinator."""
    info = seat.view.image.offsets_partition(group_id)
    assert info is not None
    values = {"group_id": group_id, "coordinator": info.leader, "leader_epoch": info.leader_epoch, "time_ms": 1}
    return metadata.GroupChange(**(values | fields))  # type: ignore[arg-type]


async def alter(seat: Seat, *changes: metadata.GroupChange) -> list[int]:
    response = await seat.controller.alter_groups(pb.AlterGroupsRequest(changes=changes), T)
    assert response.metadata_version == seat.view.image.version
    return [result.refusal for result in response.changes]


# ---- the topic of offsets


async def test_the_topic_of_offsets_is_made_when_it_is_first_needed(seat: Seat) -> None:
    topic = await ensure(seat)
    assert (topic.name, topic.internal, len(topic.partitions)) == (OFFSETS_TOPIC, True, 5)
    assert {len(info.replicas) for info in topic.partitions} == {3}
    assert len({info.leader for info in topic.partitions}) == 3
    assert (topic.config.cleanup_policy, topic.config.min_insync_replicas) == (common.CLEANUP_POLICY_COMPACT, 2)
    assert (topic.config.min_compaction_lag_ms, topic.config.min_dirty_ratio) == (600_000, 0.3)


async def test_who_asks_again_gets_the_one_that_is_there(seat: Seat) -> None:
    first = await ensure(seat)
    version = seat.view.image.version
    assert await ensure(seat) == first
    assert seat.view.image.version == version


async def ensure_id(seat: Seat) -> bytes:
    request = pb.EnsureInternalTopicRequest(name=OFFSETS_TOPIC)
    return (await seat.controller.ensure_internal_topic(request, T)).topic_id


async def test_made_by_another_in_between_it_is_found(seat: Seat) -> None:
    placed = metadata.PartitionPlacement(replicas=[1], isr=[1], leader=1)
    config = metadata.StoredTopicConfig(min_insync_replicas=1, max_batch_bytes=1024, cleanup_policy=2, timestamp_type=1)
    made = metadata.CreateTopic(topic_id=b"x" * 16, name=OFFSETS_TOPIC, partitions=[placed], config=config)
    made.internal = True

    def first() -> None:
        seat.raft.apply(encode(metadata.MetadataCommand(create_topic=made)))

    seat.raft.before_apply.append(first)
    assert await ensure_id(seat) == b"x" * 16
    assert len(seat.view.image.topics) == 1


@pytest.mark.parametrize(("nodes", "minimum"), [(1, 1), (2, 1), (4, 2)])
async def test_it_has_as_many_replicas_as_there_are_nodes_at_most_three(nodes: int, minimum: int) -> None:
    seat = Seat()
    seat.raft.voters = {1: "node1:9092"}
    await seat.rule(nodes=nodes)
    topic = await ensure(seat)
    assert len(topic.partitions) == 16
    assert {len(info.replicas) for info in topic.partitions} == {min(3, nodes)}
    assert topic.config.min_insync_replicas == minimum
    await seat.controller.stop()


async def test_until_the_voters_were_all_there_once_it_waits() -> None:
    """Else a group that comes while the cluster begins would have one replica of its offsets for good."""
    seat = Seat()
    await seat.rule(nodes=1)
    error = await refusal(ensure(seat))
    assert (error.reason, error.outcome) == (Reason.LEADER_NOT_AVAILABLE, Outcome.RETRIABLE)
    assert "nodes 2, 3 have been there once" in error.message
    await seat.register(2)
    assert "node 3 has been there once" in (await refusal(ensure(seat))).message
    assert not seat.view.image.topics
    await seat.register(3)
    assert {len(info.replicas) for info in (await ensure(seat)).partitions} == {3}
    await seat.controller.stop()


async def test_while_nodes_are_down_it_is_placed_on_them_too(seat: Seat) -> None:
    """Else it would have too few replicas for good. They follow when they are back."""
    await seat.controller.leave(pb.LeaveRequest(node_id=2, node_epoch=seat.view.image.nodes[2].node_epoch), T)
    topic = await ensure(seat)
    for info in topic.partitions:
        assert sorted(info.replicas) == [1, 2, 3]
        assert (info.isr, info.replicas[-1]) == ((1, 3), 2)
    assert topic.config.min_insync_replicas == 2


async def test_without_a_live_node_it_is_not_made(seat: Seat) -> None:
    for node_id in (1, 2, 3):
        node_epoch = seat.view.image.nodes[node_id].node_epoch
        await seat.controller.leave(pb.LeaveRequest(node_id=node_id, node_epoch=node_epoch), T)
    assert (await refusal(ensure(seat))).reason is Reason.LEADER_NOT_AVAILABLE
    assert not seat.view.image.topics


async def test_no_other_topic_is_made_so(seat: Seat) -> None:
    for name in ("__transactions", "orders", ""):
        error = await refusal(ensure(seat, name))
        assert error.reason is Reason.INVALID_ARGUMENT
        assert OFFSETS_TOPIC in error.message


async def test_users_do_not_change_it(seat: Seat) -> None:
    topic = await ensure(seat)
    for work in (
        seat.alter(OFFSETS_TOPIC, config=v1.TopicConfig(min_dirty_ratio=0.1)),
        seat.add(OFFSETS_TOPIC, partitions=6),
        seat.delete(name=OFFSETS_TOPIC),
        seat.delete(topic_id=topic.topic_id),
    ):
        error = await refusal(work)
        assert (error.reason, "internal" in error.message) == (Reason.INVALID_ARGUMENT, True)
    assert (await refusal(seat.create(OFFSETS_TOPIC))).reason is Reason.INVALID_TOPIC_NAME
    assert seat.view.image.topics[topic.topic_id] is topic


# ---- changes


async def test_each_change_has_its_own_result(seat: Seat) -> None:
    await ensure(seat)
    results = await alter(seat, change(seat), change(seat), change(seat, "h"), change(seat, "", group_epoch=3))
    assert results == [APPLIED, metadata.REFUSAL_STALE, APPLIED, metadata.REFUSAL_MALFORMED]
    assert [*seat.view.image.groups] == ["g", "h"]


async def test_a_former_coordinator_is_told_so(seat: Seat) -> None:
    await ensure(seat)
    assert await alter(seat, change(seat, leader_epoch=7)) == [metadata.REFUSAL_NOT_COORDINATOR]


async def test_many_changes_go_in_several_commands(seat: Seat) -> None:
    """Consensus takes commands up to a size."""
    await ensure(seat)
    before = seat.raft.index
    member = metadata.GroupMemberRecord(member_id="m", topics=["t" * 249] * 1000)
    changes = [change(seat, f"g{number}", put=[member]) for number in range(5)]
    assert await alter(seat, *changes) == [APPLIED] * 5
    assert seat.raft.index == before + 3
    assert len(seat.view.image.groups) == 5


def test_commands_are_below_the_limit_and_whole() -> None:
    changes = [metadata.GroupChange(group_id=f"{number}", cause="x" * number) for number in range(300)]
    commands = list(commands_for(changes, 4096))
    assert [change for command in commands for change in command.changes] == changes
    assert max(command.ByteSize() for command in commands) < 4096
    assert len(commands) < 50
    assert list(commands_for([], 4096)) == []


async def test_a_change_that_is_too_large_is_refused_and_the_others_are_not(seat: Seat) -> None:
    """Consensus takes no such command, and would never answer for it."""
    await ensure(seat)
    large = change(seat, "large", cause="x" * MAX_COMMAND_BYTES)
    results = await alter(seat, change(seat, "g"), large, change(seat, "h"))
    assert results == [APPLIED, metadata.REFUSAL_LIMIT, APPLIED]
    assert await alter(seat, large) == [metadata.REFUSAL_LIMIT]
    assert [*seat.view.image.groups] == ["g", "h"]


async def test_too_many_changes_are_refused(seat: Seat) -> None:
    await ensure(seat)
    many = [metadata.GroupChange()] * 10_001
    assert (await refusal(alter(seat, *many))).reason is Reason.INVALID_ARGUMENT


async def test_groups_raise_the_feature_level_once_every_node_knows_it() -> None:
    seat = Seat()
    genesis = metadata.Genesis(cluster_id=CLUSTER, feature_level=GROUP_LEVEL - 1)
    seat.raft.apply(encode(metadata.MetadataCommand(genesis=genesis)))
    await seat.rule(2)
    await seat.register(3, supported_level=GROUP_LEVEL - 1)
    for work in (ensure(seat), alter(seat, metadata.GroupChange(group_id="g"))):
        error = await refusal(work)
        assert (error.reason, "[3]" in error.message) == (Reason.UNSUPPORTED, True)
    assert not seat.view.image.topics
    await seat.register(3)
    await ensure(seat)
    assert seat.view.image.feature_level == GROUP_LEVEL
    assert await alter(seat, change(seat)) == [APPLIED]
    await seat.controller.stop()


async def test_only_the_controller_decides_about_groups(seat: Seat) -> None:
    await ensure(seat)
    asked = change(seat)
    seat.raft.lead(2, leader=False)
    assert (await refusal(alter(seat, asked))).reason is Reason.NO_CONTROLLER
    assert (await refusal(ensure_id(seat))).reason is Reason.NO_CONTROLLER
