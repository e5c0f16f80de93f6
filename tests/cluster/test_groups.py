"""Consumer groups on real nodes: membership, offsets, what operators ask, and every kind of bad input."""

import contextlib
import signal
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from penstock.client.devcluster import DevCluster
from penstock.protocol.reasons import Outcome, Reason
from penstock.v1 import common_pb2, topic_service_pb2, topic_service_pb2_grpc
from penstock.v1 import consumer_service_pb2 as consumer
from penstock.v1 import group_service_pb2 as pb
from tests.cluster.grouping import TIMEOUT_S, Member, Nodes, failure_of, persistently, reason_of, results_of
from tests.cluster.reading import until

ZERO = bytes(16)


@pytest.fixture
async def nodes(calm_cluster: DevCluster) -> AsyncIterator[Nodes]:
    async with Nodes(calm_cluster) as nodes:
        yield nodes


@contextlib.asynccontextmanager
async def members(*joining: Member) -> AsyncIterator[None]:
    """Let them join in turn, and go without a word at the end."""
    try:
        for member in joining:
            await member.join()
        yield
    finally:
        for member in joining:
            await member.stop()


# ---- membership


async def test_members_share_partitions_commit_on_their_streams_and_go_on_where_they_were(nodes: Nodes) -> None:
    topic = await nodes.topic(partitions=4, records=20)
    one, other = (Member(nodes, "shared", name, [topic.name]) for name in ("one", "other"))
    async with members(one):
        await one.has(4)
        for sequence, offset in ((1, 7), (2, 9)):
            commit = pb.MemberCommit(generation=one.generation, sequence=sequence)
            commit.offsets.add(topic_id=topic.topic_id, partition=0, offset=offset, metadata="here")
            await one.send(commit=commit)
        await one.until(lambda: len(one.commits) == 2)
        assert [(result.sequence, results_of(result.results)) for result in one.commits] == [(1, [None]), (2, [None])]
        kept = one.granted.copy()
        async with members(other):
            await other.has(2)
            await one.has(2)
            assert one.share | other.share == {(topic.name, index) for index in range(4)}
            assert all(one.granted[partition] == kept[partition] for partition in one.share)  # never interrupted
            assert all(other.granted[partition] > kept[partition] for partition in other.share)
            await one.send(leave=pb.LeaveGroup(reason="done"))
            assert await one.ended() is None
            await other.has(4)
            assert other.committed == {(topic.name, 0): 9}
            described = await nodes.any.DescribeGroup(pb.DescribeGroupRequest(group_id="shared"), timeout=TIMEOUT_S)
            assert described.last_rebalance_cause == "member one left: done"
            assert [member.member_id for member in described.members] == ["other"]
            assert described.group.state == pb.GROUP_STATE_STABLE


async def test_a_silent_member_is_removed_and_told_why(nodes: Nodes) -> None:
    topic = await nodes.topic()
    silent = Member(nodes, "silent", "quiet", [topic.name], session_timeout=Duration(seconds=1))
    silent.beats = False
    async with members(silent):
        error = await silent.ended()
        assert error is not None
        assert (error.reason, "was silent for 1 s" in error.message) == (Reason.UNKNOWN_MEMBER, True)
        beat = pb.HeartbeatRequest(group_id="silent", member_id="quiet", generation=silent.generation)
        stub = nodes.groups[await nodes.coordinator("silent")]
        assert await reason_of(stub.Heartbeat(beat, timeout=TIMEOUT_S)) is Reason.UNKNOWN_MEMBER


async def test_join_and_heartbeat_elsewhere_say_where_the_coordinator_is(nodes: Nodes) -> None:
    place = await nodes.coordinator("elsewhere")
    stub = nodes.away_from(place)
    error = await failure_of(
        stub.Heartbeat(pb.HeartbeatRequest(group_id="elsewhere", member_id="m"), timeout=TIMEOUT_S)
    )
    assert error.reason is Reason.NOT_COORDINATOR
    port = next(node.client_port for node in nodes.cluster.plan.nodes if node.node_id == place)
    assert (error.metadata["coordinator"], error.metadata["port"]) == (str(place), str(port))
    stream = stub.Join()
    await stream.write(pb.JoinRequest(start=pb.JoinStart(group_id="elsewhere", member_id="m")))
    assert await reason_of(stream.read()) is Reason.NOT_COORDINATOR


# ---- commits


async def test_rule_20_commits_from_the_past_are_refused_each_with_its_reason(nodes: Nodes) -> None:
    topic = await nodes.topic(partitions=2, records=9)
    first, second = (topic.topic_id, 0), (topic.topic_id, 1)
    one, other = (Member(nodes, "fenced", name, [topic.name]) for name in ("one", "other"))
    one.releases = False
    async with members(one):
        await one.has(2)
        former = one.generation
        who = {"member_id": "one", "generation": former}
        assert await nodes.commit("fenced", {first: 5}, sequence=4, **who) == [None]
        assert await nodes.commit("fenced", {first: 5}, sequence=4, **who) == [None]  # a repeat
        assert await nodes.commit("fenced", {first: 4}, sequence=3, **who) == [Reason.STALE_COMMIT]
        assert await nodes.commit("fenced", {first: 6}, sequence=4, **who) == [Reason.STALE_COMMIT]
        future = {"member_id": "one", "generation": former + 7}
        assert await nodes.commit("fenced", {first: 5}, **future) == [Reason.STALE_GENERATION]
        assert await nodes.commit("fenced", {first: 5}, member_id="who", generation=1) == [Reason.UNKNOWN_MEMBER]
        assert await nodes.commit("fenced", {first: 5}) == [Reason.GROUP_NOT_EMPTY]
        one.releases = True
        async with members(other):
            await other.has(1)
            (moved,) = {first, second} - {(topic.topic_id, index) for _, index in one.share}
            stale = await nodes.commit("fenced", {moved: 0}, sequence=9, **who)
            assert stale == [Reason.PARTITION_NOT_OWNED]
            (kept,) = {first, second} - {moved}
            assert await nodes.commit("fenced", {kept: 0}, sequence=9, **who) == [None]  # it was never interrupted
            early = {"member_id": "other", "generation": former}
            assert await nodes.commit("fenced", {moved: 0}, sequence=1, **early) == [Reason.STALE_GENERATION]
    assert (await nodes.fetch("fenced"))[topic.name, kept[1]] == 0


async def test_commits_without_members_make_the_group_on_any_node(nodes: Nodes) -> None:
    topic = await nodes.topic(partitions=3, records=9)
    stub = nodes.away_from(await nodes.coordinator("alone"))
    request = pb.CommitOffsetsRequest(group_id="alone")
    request.offsets.add(topic_id=topic.topic_id, partition=0, offset=9, leader_epoch=0, metadata="m")
    request.offsets.add(topic_id=topic.topic_id, partition=1, offset=0)
    response = await persistently(lambda: stub.CommitOffsets(request, timeout=TIMEOUT_S))
    assert results_of(response.results) == [None, None]
    asked = pb.FetchOffsetsRequest(group_id="alone")
    asked.partitions.add(topic_id=topic.topic_id, partition=0)
    asked.partitions.add(topic_id=topic.topic_id, partition=2)
    (found,) = (await stub.FetchOffsets(asked, timeout=TIMEOUT_S)).offsets
    committed = found.committed
    assert (found.topic, found.partition, committed.offset, committed.metadata) == (topic.name, 0, 9, "m")
    assert (committed.leader_epoch, committed.member_id, committed.generation) == (0, "", 0)
    assert abs(committed.commit_time_ms - time.time() * 1000) < TIMEOUT_S * 1000
    assert await nodes.fetch("alone") == {(topic.name, 0): 9, (topic.name, 1): 0}
    (group,) = [one for one in (await stub.ListGroups(pb.ListGroupsRequest())).groups if one.group_id == "alone"]
    assert (group.state, group.members) == (pb.GROUP_STATE_EMPTY, 0)


async def test_each_bad_offset_of_a_commit_has_its_own_error(nodes: Nodes) -> None:
    topic = await nodes.topic(records=3)
    request = pb.CommitOffsetsRequest(group_id="careless")
    for topic_id, partition, offset, metadata in (
        (topic.topic_id, 0, 3, ""),
        (topic.topic_id, 0, 3, ""),
        (topic.topic_id, 1, 0, ""),
        (ZERO, 0, 0, ""),
        (b"short", 0, 0, ""),
    ):
        request.offsets.add(topic_id=topic_id, partition=partition, offset=offset, metadata=metadata)
    response = await persistently(lambda: nodes.any.CommitOffsets(request, timeout=TIMEOUT_S))
    assert results_of(response.results) == [
        None,
        Reason.INVALID_ARGUMENT,
        Reason.UNKNOWN_PARTITION,
        Reason.UNKNOWN_TOPIC,
        Reason.INVALID_ARGUMENT,
    ]
    for offset, metadata, reason in (
        (-1, "", Reason.INVALID_ARGUMENT),
        (4, "", Reason.OFFSET_ABOVE_END),
        (3, "x" * 4096, None),
        (3, "x" * 4097, Reason.INVALID_ARGUMENT),
        (3, "ä" * 2049, Reason.INVALID_ARGUMENT),
    ):
        single = pb.CommitOffsetsRequest(group_id="careless")
        single.offsets.add(topic_id=topic.topic_id, offset=offset, metadata=metadata)
        response = await nodes.any.CommitOffsets(single, timeout=TIMEOUT_S)
        assert results_of(response.results) == [reason], (offset, len(metadata))


async def test_what_makes_a_whole_request_senseless_is_its_error(nodes: Nodes) -> None:
    topic = await nodes.topic()
    any_ = nodes.any
    many = pb.CommitOffsetsRequest(group_id="g", offsets=[pb.OffsetCommit(topic_id=topic.topic_id)] * 10_001)
    cases = [
        (any_.CommitOffsets(pb.CommitOffsetsRequest(group_id="g")), Reason.INVALID_ARGUMENT),
        (any_.CommitOffsets(many), Reason.INVALID_ARGUMENT),
        (any_.CommitOffsets(pb.CommitOffsetsRequest(offsets=many.offsets[:1])), Reason.INVALID_GROUP_ID),
        (any_.FindCoordinator(pb.FindCoordinatorRequest()), Reason.INVALID_GROUP_ID),
        (any_.FindCoordinator(pb.FindCoordinatorRequest(group_id="g" * 250)), Reason.INVALID_GROUP_ID),
        (any_.FetchOffsets(pb.FetchOffsetsRequest(group_id="missing")), Reason.UNKNOWN_GROUP),
        (any_.DescribeGroup(pb.DescribeGroupRequest(group_id="missing")), Reason.UNKNOWN_GROUP),
        (any_.DeleteGroup(pb.DeleteGroupRequest(group_id="missing")), Reason.UNKNOWN_GROUP),
        (any_.ResetOffsets(pb.ResetOffsetsRequest(group_id="missing", offset=0)), Reason.UNKNOWN_GROUP),
        (any_.ListGroupHistory(pb.ListGroupHistoryRequest(group_id="missing")), Reason.UNKNOWN_GROUP),
        (any_.ListGroups(pb.ListGroupsRequest(states=[pb.GROUP_STATE_UNSPECIFIED])), Reason.INVALID_ARGUMENT),
        (any_.ListGroups(pb.ListGroupsRequest(page_token="?")), Reason.INVALID_ARGUMENT),
    ]
    for call, reason in cases:
        assert await reason_of(call) is reason


async def test_a_subscription_to_a_missing_topic_or_by_a_bad_pattern_is_refused(nodes: Nodes) -> None:
    missing = Member(nodes, "wishful", "m", ["no-such-topic"])
    with pytest.raises(Exception, match="no-such-topic") as caught:
        await missing.join()
    assert getattr(caught.value, "reason", None) is Reason.UNKNOWN_TOPIC
    await missing.stop()
    broken = Member(nodes, "wishful", "m", [])
    broken.start.subscription.pattern = "("
    with pytest.raises(Exception, match="pattern") as caught:
        await broken.join()
    assert getattr(caught.value, "reason", None) is Reason.INVALID_SUBSCRIPTION
    await broken.stop()
    stream = nodes.groups[await nodes.coordinator("wishful")].Join()
    await stream.write(pb.JoinRequest(heartbeat=pb.MemberHeartbeat(sequence=1)))
    assert await reason_of(stream.read()) is Reason.INVALID_ARGUMENT


# ---- operators


async def test_offsets_of_a_group_without_members_are_moved(nodes: Nodes) -> None:
    topic = await nodes.topic(partitions=2, records=10)
    await nodes.commit("moved", {(topic.topic_id, 0): 5})

    async def reset(**to: object) -> list[tuple[int, int, int, Reason | None]]:
        request = pb.ResetOffsetsRequest(group_id="moved", **to)  # type: ignore[arg-type]
        resets = (await nodes.any.ResetOffsets(request, timeout=TIMEOUT_S)).resets
        return [(one.partition, one.previous_offset, one.offset, results_of([one])[0]) for one in resets]

    assert await reset(latest=consumer.LatestOffset(), validate_only=True) == [(0, 5, 10, None)]
    assert await nodes.fetch("moved") == {(topic.name, 0): 5}
    assert await reset(earliest=consumer.EarliestOffset()) == [(0, 5, 0, None)]
    assert await reset(shift=3) == [(0, 0, 3, None)]
    assert await reset(shift=-9) == [(0, 3, 0, None)]  # within the log
    assert await reset(offset=10, topics=[topic.name]) == [(0, 0, 10, None), (1, 0, 0, Reason.OFFSET_ABOVE_END)]
    assert await reset(timestamp_ms=0) == [(0, 10, 0, None)]
    one = [common_pb2.TopicPartition(topic_id=topic.topic_id, partition=1)]
    assert await reset(latest=consumer.LatestOffset(), partitions=one) == [(1, 0, 0, None)]
    assert await reset(offset=-1, partitions=one) == [(1, 0, 0, Reason.INVALID_ARGUMENT)]
    assert await nodes.fetch("moved") == {(topic.name, 0): 0, (topic.name, 1): 0}
    named = pb.ResetOffsetsRequest(group_id="moved", topics=["missing"], offset=0)
    assert await reason_of(nodes.any.ResetOffsets(named)) is Reason.UNKNOWN_TOPIC
    assert await reason_of(nodes.any.ResetOffsets(pb.ResetOffsetsRequest(group_id="moved"))) is Reason.INVALID_ARGUMENT
    member = Member(nodes, "moved", "m", [topic.name])
    async with members(member):
        request = pb.ResetOffsetsRequest(group_id="moved", offset=0)
        assert await reason_of(nodes.any.ResetOffsets(request)) is Reason.GROUP_NOT_EMPTY
        deletion = pb.DeleteGroupRequest(group_id="moved", validate_only=True)
        assert await reason_of(nodes.any.DeleteGroup(deletion)) is Reason.GROUP_NOT_EMPTY


async def test_lag_in_offsets_and_seconds_for_a_group_without_members(nodes: Nodes) -> None:
    topic = await nodes.topic(partitions=2, records=10)
    await nodes.commit("behind", {(topic.topic_id, 0): 4, (topic.topic_id, 1): 0})
    request = pb.DescribeGroupRequest(group_id="behind", include_lag=True)
    described = await nodes.any.DescribeGroup(request, timeout=TIMEOUT_S)
    late, level = described.partitions
    assert results_of(described.partitions) == [None, None]
    assert (late.log_start_offset, late.log_end_offset, late.lag, late.HasField("error")) == (0, 10, 6, False)
    assert 0 < late.lag_time.ToMilliseconds() < TIMEOUT_S * 1000
    assert (level.log_end_offset, level.lag, level.lag_time.ToMilliseconds()) == (0, 0, 0)
    plain = await nodes.any.DescribeGroup(pb.DescribeGroupRequest(group_id="behind"), timeout=TIMEOUT_S)
    assert not any(one.HasField("lag") or one.HasField("log_end_offset") for one in plain.partitions)


async def test_a_deleted_group_leaves_no_offsets_to_its_successor(nodes: Nodes) -> None:
    topic = await nodes.topic(partitions=2, records=5)
    await nodes.commit("again", {(topic.topic_id, 0): 5, (topic.topic_id, 1): 0})
    dry = await nodes.any.DeleteGroup(pb.DeleteGroupRequest(group_id="again", validate_only=True), timeout=TIMEOUT_S)
    assert dry.metadata_version > 0
    assert len(await nodes.fetch("again")) == 2
    response = await nodes.any.DeleteGroup(pb.DeleteGroupRequest(group_id="again"), timeout=TIMEOUT_S)
    listed = await nodes.any.ListGroups(pb.ListGroupsRequest(min_metadata_version=response.metadata_version))
    assert "again" not in [group.group_id for group in listed.groups]
    await nodes.commit("again", {(topic.topic_id, 1): 0})
    assert await nodes.fetch("again") == {(topic.name, 1): 0}


async def test_the_history_tells_commits_and_rebalances_and_pages_backwards(nodes: Nodes) -> None:
    topic = await nodes.topic(records=5)
    where = (topic.topic_id, 0)
    await nodes.commit("told", {where: 1})
    member = Member(nodes, "told", "m", [topic.name], client_id="reader")
    async with members(member):
        await member.has(1)
        for offset in (2, 3):
            who = {"member_id": "m", "generation": member.generation}
            assert await nodes.commit("told", {where: offset}, sequence=offset, **who) == [None]
        await member.send(leave=pb.LeaveGroup())
        await member.ended()
    events: list[str] = []
    token, pages = "", 0
    while pages == 0 or token:
        request = pb.ListGroupHistoryRequest(group_id="told", page_size=2, page_token=token)
        response = await nodes.any.ListGroupHistory(request, timeout=TIMEOUT_S)
        events = [_told(event) for event in response.events] + events
        token, pages = response.next_page_token, pages + 1
    assert events[:4] == ["1 by /: 0", "generation 1: member reader (m) joined", "2 by m/reader: 1", "3 by m/reader: 1"]
    assert events[4:] in ([], ["generation 2: member reader (m) left"])
    assert pages >= 2


def _told(event: pb.GroupEvent) -> str:
    assert abs(event.time_ms - time.time() * 1000) < TIMEOUT_S * 1000
    if event.WhichOneof("event") == "rebalanced":
        return f"generation {event.rebalanced.generation}: {event.rebalanced.cause}"
    one = event.committed
    return f"{one.offset} by {one.member_id}/{one.client_id}: {one.generation}"


async def test_groups_are_listed_by_page_and_state(nodes: Nodes) -> None:
    topic = await nodes.topic()
    for name in ("listed-1", "listed-2", "listed-3"):
        await nodes.commit(name, {(topic.topic_id, 0): 0})
    names: list[str] = []
    token = ""
    while not names or token:
        request = pb.ListGroupsRequest(page_size=2, page_token=token, states=[pb.GROUP_STATE_EMPTY])
        response = await nodes.any.ListGroups(request, timeout=TIMEOUT_S)
        assert len(response.groups) <= 2
        names += [group.group_id for group in response.groups]
        token = response.next_page_token
    assert names == sorted(set(names))
    assert {"listed-1", "listed-2", "listed-3"} <= set(names)


async def test_an_offset_is_found_with_its_time(nodes: Nodes) -> None:
    topic = await nodes.topic(records=4)
    (leader,) = [info.leader for info in topic.partitions]
    stub = nodes.consumer(leader)

    async def find(offset: int) -> consumer.OffsetResult:
        query = consumer.OffsetQuery(topic_id=topic.topic_id, offset=offset)
        request = consumer.ListOffsetsRequest(queries=[query], isolation=common_pb2.ISOLATION_READ_UNCOMMITTED)
        (result,) = (await persistently(lambda: stub.ListOffsets(request, timeout=TIMEOUT_S))).results
        return result  # type: ignore[no-any-return]

    found = (await find(2)).found
    assert found.offset == 2
    assert abs(found.timestamp_ms - time.time() * 1000) < TIMEOUT_S * 1000
    end = (await find(4)).found
    assert (end.offset, end.HasField("timestamp_ms")) == (4, False)
    assert results_of([await find(5)]) == [Reason.OFFSET_ABOVE_END]
    assert results_of([await find(-1)]) == [Reason.INVALID_ARGUMENT]


# ---- coordinators that go


async def test_the_death_of_a_coordinator_causes_no_rebalance(nodes: Nodes) -> None:
    topic = await nodes.topic(partitions=2, records=9)
    one, other = (Member(nodes, "lasting", name, [topic.name]) for name in ("one", "other"))
    async with members(one, other):
        await one.has(1)
        await other.has(1)
        generation = one.generation
        shares = one.share, other.share
        ((_, index),) = one.share
        who = {"member_id": "one", "generation": generation}
        offset = 9 if index == 0 else 0
        assert await nodes.commit("lasting", {(topic.topic_id, index): offset}, sequence=5, **who) == [None]
        place = await nodes.coordinator("lasting")
        nodes.cluster.kill(place)
        try:
            nodes.any = nodes.away_from(place)
            await one.acknowledges()
            await other.acknowledges()
            assert (one.share, other.share) == shares
            assert (one.generation, other.generation) == (generation, generation)
            assert await nodes.coordinator("lasting") != place
            assert await nodes.fetch("lasting") == {(topic.name, index): offset}
            late = await nodes.commit("lasting", {(topic.topic_id, index): 0}, sequence=4, **who)
            assert late == [Reason.STALE_COMMIT]  # the next coordinator knows it too
            described = await nodes.any.DescribeGroup(pb.DescribeGroupRequest(group_id="lasting"), timeout=TIMEOUT_S)
            assert described.group.generation == generation
        finally:
            nodes.cluster.start([place])
            nodes.cluster.wait_serving([place])


async def test_a_node_that_stops_sends_its_members_to_the_next_coordinator(nodes: Nodes) -> None:
    topic = await nodes.topic()
    place = await nodes.coordinator("sent-on")
    stream = nodes.groups[place].Join()
    start = pb.JoinStart(group_id="sent-on", member_id="m")
    start.subscription.topics.append(topic.name)
    await stream.write(pb.JoinRequest(start=start))
    response = await stream.read()
    assert isinstance(response, pb.JoinResponse)
    assert response.WhichOneof("response") == "joined"
    nodes.cluster.signal(place, signal.SIGTERM)
    try:
        error = await failure_of(_to_its_end(stream))
        assert error.outcome is Outcome.RETRIABLE, error
        assert error.reason in {Reason.NOT_COORDINATOR, Reason.LEADER_NOT_AVAILABLE}
    finally:
        nodes.cluster.stop([place])
        nodes.cluster.start([place])
        nodes.cluster.wait_serving([place])


async def _to_its_end(stream: Any) -> None:
    while await stream.read() is not grpc.aio.EOF:
        pass


# ---- what is deleted


async def test_offsets_expire_with_their_topic_or_their_time_and_then_the_group(
    start_cluster: Callable[..., DevCluster],
) -> None:
    cluster = start_cluster(1, offsets_retention_ms=1_500, offsets_topic_partitions=1)
    async with Nodes(cluster) as nodes:
        kept, deleted = await nodes.topic(records=3), await nodes.topic(records=3)
        member = Member(nodes, "brief", "m", [kept.name, deleted.name])
        async with members(member):
            await member.has(2)
            who = {"member_id": "m", "generation": member.generation}
            both = {(kept.topic_id, 0): 3, (deleted.topic_id, 0): 3}
            assert await nodes.commit("brief", both, **who) == [None, None]
            topics = topic_service_pb2_grpc.TopicServiceStub(nodes.channels[1])
            await topics.DeleteTopic(topic_service_pb2.DeleteTopicRequest(name=deleted.name), timeout=TIMEOUT_S)
            await member.has(1)

            async def only_one_is_kept() -> bool:
                return await nodes.fetch("brief") == {(kept.name, 0): 3}

            await until(only_one_is_kept)
            await member.send(leave=pb.LeaveGroup())
            await member.ended()

        async def it_is_gone() -> bool:
            listed = await nodes.any.ListGroups(pb.ListGroupsRequest(), timeout=TIMEOUT_S)
            return not listed.groups

        await until(it_is_gone)
