"""The shell of a coordinator's members: streams, time and proposals, with the real state machine behind it."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from penstock.node.group import members
from penstock.node.group import stream as stream_module
from penstock.node.group.joining import GroupLimits
from penstock.protocol.errors import PenstockError, from_status
from penstock.protocol.reasons import Reason
from penstock.v1 import group_service_pb2 as pb
from tests.node.group.metadata import GROUP, alter, create, group_of, metadata, parts
from tests.node.group.stand import COMMITTED, Stand, turns


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    stand = Stand(metadata(t=4))
    yield stand
    await stand.close()


def indexes(assigned: Sequence[object]) -> list[int]:
    return [partition.partition for partition in assigned]  # type: ignore[attr-defined]


async def test_a_member_joins_beats_and_leaves(stand: Stand) -> None:
    stream = stand.stream()
    stream.start("a", client_id="app")
    joined = (await stream.next("joined")).joined
    assert (joined.member_id, joined.generation) == ("a", 1)
    assert joined.session_timeout.ToMilliseconds() == 10_000
    assert joined.heartbeat_interval.ToMilliseconds() == 3_000
    assignment = await stream.assignment()
    assert indexes(assignment.partitions) == [0, 1, 2, 3]
    assert assignment.partitions[0].committed == COMMITTED
    assert not assignment.partitions[1].HasField("committed")
    assert {(p.topic, p.granted_generation) for p in assignment.partitions} == {("t", 1)}
    stream.send(heartbeat=pb.MemberHeartbeat(sequence=5, polls=1))
    assert (await stream.next("heartbeat_ack")).heartbeat_ack.sequence == 5
    assert group_of(stand.world).members["a"].host == "ipv4:127.0.0.1"
    stream.send(leave=pb.LeaveGroup(reason="done"))
    await stream.task
    assert not group_of(stand.world).members
    assert stand.offsets.generations == [1, 2]


async def test_partitions_move_when_they_are_released(stand: Stand) -> None:
    first = await stand.joined("a")
    await first.assignment()
    second = await stand.joined("b")
    assert indexes((await second.assignment()).partitions) == []
    asked = await first.assignment()
    assert len(asked.revoked) == 2
    assert asked.release_within.ToMilliseconds() == 60_000
    first.send(release=pb.ReleasePartitions(generation=asked.generation, partitions=asked.revoked))
    assert indexes((await second.assignment()).partitions) == indexes(asked.revoked)
    rest = await first.assignment()
    assert indexes(rest.partitions) == indexes(asked.partitions)
    assert not rest.revoked


async def test_joins_of_a_moment_are_one_command(stand: Stand) -> None:
    stand.gate.clear()
    streams = [stand.stream() for _ in range(5)]
    streams[0].start("m0")
    for _ in range(10):
        await asyncio.sleep(0)
    assert stand.requests == [1]
    for number, stream in enumerate(streams[1:], 1):
        stream.start(f"m{number}")
    for _ in range(10):
        await asyncio.sleep(0)
    stand.gate.set()
    for stream in streams:
        await stream.next("joined")
    assert group_of(stand.world).generation == 2


async def test_changes_of_many_groups_are_one_request(stand: Stand) -> None:
    stand.gate.clear()
    made = [asyncio.create_task(stand.members.ensure_group(f"g{number}")) for number in range(20)]
    for _ in range(5):
        await asyncio.sleep(0)
    stand.gate.set()
    await asyncio.gather(*made)
    assert stand.requests == [20]
    assert len(stand.world.image.groups) == 20


async def test_commits_are_answered_in_their_order_and_before_what_follows(stand: Stand) -> None:
    stream = await stand.joined("a", client_id="app")
    await stream.assignment()
    for sequence in (1, 2):
        stream.send(commit=pb.MemberCommit(generation=1, sequence=sequence, offsets=[pb.OffsetCommit(offset=sequence)]))
    stream.send(heartbeat=pb.MemberHeartbeat(sequence=1))
    await stream.next("heartbeat_ack")
    (first, one), (second, other) = stand.offsets.commits
    assert (first.group_id, first.member_id, first.generation, first.sequence) == (GROUP, "a", 1, 1)
    other.set_result([pb.OffsetCommitResult()])
    await asyncio.sleep(0)
    assert stream.received.empty()
    one.set_result([pb.OffsetCommitResult()])
    for sequence in (1, 2):
        assert (await stream.next("commit_result")).commit_result.sequence == sequence
    assert second.sequence == 2


async def test_a_coordinator_that_has_too_many_commits_refuses_one_and_keeps_the_stream(stand: Stand) -> None:
    stream = await stand.joined("a")
    await stream.assignment()
    stand.offsets.error = PenstockError(Reason.OVERLOADED, "too many")
    stream.send(commit=pb.MemberCommit(generation=1, sequence=4, offsets=[pb.OffsetCommit(), pb.OffsetCommit()]))
    refused = (await stream.next("commit_result")).commit_result
    assert refused.sequence == 4
    assert [from_status(result.error).reason for result in refused.results] == [Reason.OVERLOADED] * 2
    stream.send(heartbeat=pb.MemberHeartbeat(sequence=1))
    await stream.next("heartbeat_ack")


async def test_a_commit_above_what_a_stream_may_have_unanswered_is_not_begun(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "MAX_COMMITS", 2)
    stream = await stand.joined("a")
    for sequence in range(3):
        stream.send(commit=pb.MemberCommit(generation=1, sequence=sequence, offsets=[pb.OffsetCommit()]))
    assert (await stream.error()).reason is Reason.OVERLOADED
    assert len(stand.offsets.commits) == 2


async def test_who_leaves_to_come_back_is_told_what_became_of_its_commits(stand: Stand) -> None:
    stream = await stand.joined("a", instance_id="i")
    await stream.assignment()
    stream.send(commit=pb.MemberCommit(generation=1, sequence=1, offsets=[pb.OffsetCommit()]))
    stream.send(leave=pb.LeaveGroup(returning=True))
    await turns()
    ((_, answer),) = stand.offsets.commits
    answer.set_result([pb.OffsetCommitResult()])
    await stream.next("commit_result")
    await stream.task


async def test_a_silent_member_is_told_and_removed(stand: Stand) -> None:
    stream = await stand.joined("a")
    await stand.pass_time(10_000)
    error = await stream.error()
    assert error.reason is Reason.UNKNOWN_MEMBER
    assert "was silent for 10 s" in error.message
    assert not group_of(stand.world).members


async def test_heartbeats_move_the_end_of_a_session(stand: Stand) -> None:
    stream = await stand.joined("a")
    await stream.assignment()
    for sequence in range(4):
        await stand.pass_time(9_000)
        if sequence % 2:
            stream.send(heartbeat=pb.MemberHeartbeat(sequence=sequence))
            await stream.next("heartbeat_ack")
        else:
            stand.members.heartbeat(pb.HeartbeatRequest(group_id=GROUP, member_id="a", polls=sequence))
    assert group_of(stand.world).members


async def test_a_pause_of_the_event_loop_prolongs_the_sessions(stand: Stand) -> None:
    await stand.joined("a")
    stand.now_ms += 30_000
    stand.members._look.set()
    for _ in range(10):
        await asyncio.sleep(0)
    assert group_of(stand.world).members


async def test_without_contact_to_the_controller_nothing_is_acknowledged(stand: Stand) -> None:
    stream = await stand.joined("a")
    stand.is_serving = False
    with pytest.raises(PenstockError) as caught:
        stand.members.heartbeat(pb.HeartbeatRequest(group_id=GROUP, member_id="a"))
    assert caught.value.reason is Reason.NOT_SERVING
    stream.send(heartbeat=pb.MemberHeartbeat(sequence=1))
    assert (await stream.error()).reason is Reason.NOT_SERVING


async def test_the_end_of_the_leadership_ends_all_streams(stand: Stand) -> None:
    stream = await stand.joined("a")
    stand.members.close(PenstockError(Reason.NOT_COORDINATOR, "node 2 is"))
    assert (await stream.error()).reason is Reason.NOT_COORDINATOR
    late = stand.stream()
    late.start("b")
    assert (await late.error()).reason is Reason.NOT_COORDINATOR
    with pytest.raises(PenstockError):
        await stand.members.ensure_group("other")


async def test_what_ends_a_stream_is_told_also_when_its_member_says_something_meanwhile(stand: Stand) -> None:
    stream = await stand.joined("a")
    await stream.assignment()
    stream.room.clear()
    stream.send(heartbeat=pb.MemberHeartbeat(sequence=1))
    await turns()
    stand.members.close(PenstockError(Reason.NOT_COORDINATOR, "node 2 is"))
    stream.send(heartbeat=pb.MemberHeartbeat(sequence=2))
    await turns()
    stream.room.set()
    assert (await stream.error()).reason is Reason.NOT_COORDINATOR


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (pb.JoinRequest(heartbeat=pb.MemberHeartbeat()), Reason.INVALID_ARGUMENT),
        (pb.JoinRequest(start=pb.JoinStart(member_id="a")), Reason.INVALID_GROUP_ID),
        (pb.JoinRequest(start=pb.JoinStart(group_id="g" * 250, member_id="a")), Reason.INVALID_GROUP_ID),
        (pb.JoinRequest(start=pb.JoinStart(group_id="g")), Reason.INVALID_ARGUMENT),
        (pb.JoinRequest(start=pb.JoinStart(group_id="g", member_id="a" * 250)), Reason.INVALID_ARGUMENT),
        (pb.JoinRequest(start=pb.JoinStart(group_id="g", member_id="a")), Reason.INVALID_SUBSCRIPTION),
    ],
)
async def test_a_start_that_cannot_be_is_refused(stand: Stand, request_: pb.JoinRequest, reason: Reason) -> None:
    stream = stand.stream()
    stream.sent.put_nowait(request_)
    assert (await stream.error()).reason is reason


async def test_a_topic_that_this_node_does_not_know_yet_is_waited_for(stand: Stand) -> None:
    stream = stand.stream()
    stream.start("a", "late")
    await asyncio.sleep(0)
    assert not stream.task.done()
    stand.do(lambda: create(stand.world, "late", 1))
    await stream.next("joined")


async def test_so_is_one_that_a_member_subscribes_to_later(stand: Stand) -> None:
    stream = await stand.joined("a")
    await stream.assignment()
    stream.send(subscribe=pb.Subscription(topics=["late"]))
    await turns()
    assert not stream.task.done()
    stand.do(lambda: create(stand.world, "late", 1))
    assert [partition.topic for partition in (await stream.assignment()).partitions] == ["late"]
    assert group_of(stand.world).members["a"].topics == ("late",)


async def test_what_the_controller_refuses_for_good_ends_the_stream(stand: Stand) -> None:
    stand.failures.append(PenstockError(Reason.UNSUPPORTED, "node 3 is too old"))
    stream = stand.stream()
    stream.start("a")
    assert (await stream.error()).reason is Reason.UNSUPPORTED
    stand.failures.append(PenstockError(Reason.UNSUPPORTED, "node 3 is too old"))
    with pytest.raises(PenstockError, match="too old"):
        await stand.members.ensure_group("other")
    assert not stand.members._cores


async def test_what_has_an_unknown_outcome_is_tried_again(stand: Stand) -> None:
    stand.failures += [PenstockError(Reason.OUTCOME_UNKNOWN, "?"), TimeoutError(), ValueError("a fault")]
    stream = stand.stream()
    stream.start("a")
    for _ in range(3):
        for _ in range(5):
            await asyncio.sleep(0)
        await stand.pass_time(100)
    await stream.next("joined")
    assert len(stand.requests) == 4


async def test_who_joined_by_a_change_that_came_late_is_looked_after_though_nobody_waited(stand: Stand) -> None:
    stand.failures.append(TimeoutError())
    stream = stand.stream()
    stream.start("a")
    await turns()
    stream.sent.put_nowait(None)
    await stream.task
    assert not stand.members._cores
    (change,) = stand.proposed
    stand.do(lambda: alter(stand.world, [change]))
    assert list(group_of(stand.world).members) == ["a"]
    await stand.pass_time(GroupLimits().takeover_grace_ms + 10_000)
    assert not group_of(stand.world).members


async def test_a_group_that_came_to_nothing_leaves_nothing_behind(stand: Stand) -> None:
    stand.gate.clear()
    stand.failures.append(PenstockError(Reason.UNSUPPORTED, "node 3 is too old"))
    stream = stand.stream()
    stream.start("a")
    await turns()
    stream.sent.put_nowait(None)
    await stream.task
    stand.gate.set()
    await turns()
    assert not stand.members._cores


async def test_a_group_is_made_and_deleted(stand: Stand) -> None:
    await stand.members.ensure_group(GROUP)
    await stand.members.ensure_group(GROUP)
    assert group_of(stand.world).group_epoch
    await stand.members.delete_group(GROUP, validate_only=True)
    assert group_of(stand.world).group_epoch
    assert await stand.members.delete_group(GROUP, validate_only=False) == stand.world.image.version
    assert not stand.world.image.groups
    with pytest.raises(PenstockError) as caught:
        await stand.members.delete_group(GROUP, validate_only=False)
    assert caught.value.reason is Reason.UNKNOWN_GROUP
    assert not stand.members._cores


async def test_a_group_that_is_joined_while_it_is_to_be_deleted_stays(stand: Stand) -> None:
    await stand.members.ensure_group(GROUP)
    stand.members.commit_began(GROUP, list(parts("t", 0)))  # it waits for that
    deleting = asyncio.create_task(stand.members.delete_group(GROUP, validate_only=False))
    await asyncio.sleep(0)
    await stand.joined("a")
    with pytest.raises(PenstockError) as caught:
        await deleting
    assert caught.value.reason is Reason.GROUP_NOT_EMPTY


async def test_a_deletion_under_way_when_the_leadership_ends_has_an_unknown_outcome(stand: Stand) -> None:
    await stand.members.ensure_group(GROUP)
    stand.gate.clear()
    deleting = asyncio.create_task(stand.members.delete_group(GROUP, validate_only=False))
    await turns()
    stand.members.close(PenstockError(Reason.NOT_COORDINATOR, "node 2 is"))
    with pytest.raises(PenstockError) as caught:
        await deleting
    assert caught.value.reason is Reason.OUTCOME_UNKNOWN  # the change is on its way


async def test_a_group_that_somebody_wanted_to_join_while_it_was_to_be_deleted_is_not_said_to_be_gone(
    stand: Stand,
) -> None:
    await stand.members.ensure_group(GROUP)
    stand.members.commit_began(GROUP, list(parts("t", 0)))
    deleting = asyncio.create_task(stand.members.delete_group(GROUP, validate_only=False))
    await turns()
    stand.failures.append(PenstockError(Reason.UNSUPPORTED, "no"))
    stream = stand.stream()
    stream.start("a")
    await stream.error()
    stand.do(lambda: create(stand.world, "other", 1))  # nobody is there any more when the deletion is looked at again
    with pytest.raises(PenstockError) as caught:
        await deleting
    assert caught.value.reason is Reason.GROUP_NOT_EMPTY
    assert group_of(stand.world).group_epoch


async def test_questions_about_unknown_groups_leave_nothing_behind(stand: Stand) -> None:
    (error,) = stand.members.check_commit("x", "m", 1, list(parts("t", 0)))
    assert error is not None
    assert error.reason is Reason.UNKNOWN_MEMBER
    with pytest.raises(PenstockError):
        stand.members.heartbeat(pb.HeartbeatRequest(group_id="x", member_id="m"))
    stand.members.commit_began("x", list(parts("t", 0)))
    stand.members.commit_ended("x", list(parts("t", 0)))
    assert not stand.members._cores


async def test_a_new_coordinator_has_the_groups_of_its_partition(stand: Stand) -> None:
    await stand.joined("a")
    other = Stand(stand.world)
    try:
        stream = await other.joined("a", generation=1)
        assert indexes((await stream.assignment()).partitions) == [0, 1, 2, 3]
        assert other.requests == []
    finally:
        await other.close()


async def test_a_member_that_half_closes_without_leaving_stays_a_member(stand: Stand) -> None:
    stream = await stand.joined("a")
    stream.sent.put_nowait(None)
    await stream.task
    assert "a" in group_of(stand.world).members


async def test_who_waited_in_vain_for_a_topic_keeps_nobody_from_waiting(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "TOPIC_PATIENCE_S", 0.01)
    first = stand.stream()
    first.start("a", "missing")
    assert (await first.error()).reason is Reason.UNKNOWN_TOPIC
    monkeypatch.setattr(members, "TOPIC_PATIENCE_S", 10.0)
    second = stand.stream()
    second.start("b", "missing")
    for _ in range(10):
        await asyncio.sleep(0)
    assert not second.task.done()  # it waits, and the event loop goes on
