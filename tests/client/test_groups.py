"""The admin client's part about consumer groups, against the reference cluster."""

from collections.abc import Awaitable, Callable

import pytest

from penstock.client import (
    Admin,
    AlteredOffset,
    CommitPoint,
    GroupLag,
    GroupNotEmptyError,
    GroupRebalanced,
    InvalidRequestError,
    OffsetReset,
    OffsetsCommitted,
    OutcomeUnknownError,
    Shift,
    Timestamp,
    TopicPartition,
    UnknownGroupError,
    UnknownTopicError,
    blocking,
)
from penstock.client.group_descriptions import GroupState
from penstock.protocol.batch import NewRecord, build
from penstock.protocol.reasons import Reason
from penstock.v1 import group_service_pb2 as pb
from tests.client.conftest import ServedCluster
from tests.client.reference_server import Cluster

ORDERS = [TopicPartition("orders", index) for index in range(3)]


def filled(cluster: Cluster) -> Cluster:
    """Topic orders has 3 partitions of 8 records each."""
    cluster.create("orders", 3)
    for index in range(3):
        cluster.log("orders", index).append(build([NewRecord(None, b"v", 1000 + n) for n in range(8)]))
    return cluster


async def test_many_pages_of_groups_and_of_a_history_are_one_list(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.client.groups.PAGE_SIZE", 2)
    states = [pb.GROUP_STATE_EMPTY, pb.GROUP_STATE_STABLE, pb.GROUP_STATE_REBALANCING]
    for number in range(5):
        cluster.groups.create(f"g{number}", states[number % 3])
    cluster.groups.events["g0"] = [pb.GroupEvent(time_ms=n, rebalanced=pb.GroupRebalanced()) for n in range(7)]
    async with Admin(cluster.bootstrap()) as admin:
        assert [group.group_id for group in await admin.list_groups()] == [f"g{n}" for n in range(5)]
        found = await admin.list_groups(["stable", "rebalancing"])
        assert [(group.group_id, group.state) for group in found] == [
            ("g1", "stable"),
            ("g2", "rebalancing"),
            ("g4", "stable"),
        ]
        assert await admin.list_groups([]) == []
        wrong: GroupState = "dead"  # type: ignore[assignment]  # what is tried
        with pytest.raises(InvalidRequestError, match="rebalancing"):
            await admin.list_groups([wrong])
        assert [event.time_ms for event in await admin.group_history("g0")] == list(range(7))
        assert [event.time_ms for event in await admin.group_history("g0", 3)] == [4, 5, 6]
        assert await admin.group_history("g1") == []
        with pytest.raises(InvalidRequestError):
            await admin.group_history("g0", 0)


async def test_a_group_is_described_with_what_is_absent(cluster: Cluster) -> None:
    groups = filled(cluster).groups
    groups.create("g")
    member = groups.join("g", "m-1", client_id="billing", host="10.0.0.7", assignor=pb.ASSIGNOR_RANGE)
    member.subscription.pattern = "ord.*"
    member.session_timeout.FromMilliseconds(10_000)
    member.partitions.add(topic="orders", partition=0, owned=True, revoked=True)
    member.partitions.add(topic="orders", partition=1)
    groups.commit("g", "orders", 0, 5).member_id = "m-1"
    groups.partition("g", "orders", 1)
    groups.commit("g", "orders", 2, 3)
    groups.unreachable.add(("orders", 2))
    async with Admin(cluster.bootstrap()) as admin:
        group = await admin.describe_group("g")
        assert await admin.group_lag("g") == group.lag == GroupLag(3, 12_345, 3, 2)
        without = await admin.describe_group("g", lag=False)
        with pytest.raises(UnknownGroupError):
            await admin.describe_group("nope")
        with pytest.raises(InvalidRequestError):
            await admin.describe_group("")
    (one,) = group.members
    assert (one.instance_id, one.pattern, one.topics, one.assignor) == (None, "ord.*", (), "range")
    assert (one.session_timeout_ms, one.max_poll_interval_ms) == (10_000, None)
    assert [(part.partition, part.owned, part.revoked) for part in one.partitions] == [
        (0, True, True),
        (1, False, False),
    ]
    first, second, third = group.partitions
    assert (first.member_id, first.log_end_offset, first.lag, first.lag_time_ms) == ("m-1", 8, 3, 12_345)
    assert first.committed is not None
    assert (first.committed.offset, first.committed.leader_epoch) == (5, None)
    assert (second.member_id, second.committed, second.log_end_offset, second.lag) == (None, None, 8, None)
    assert third.error is not None
    assert (third.error.reason, third.lag) == (Reason.LEADER_NOT_AVAILABLE, None)
    assert [part.log_end_offset for part in without.partitions] == [None] * 3
    assert (group.last_rebalance_ms, group.assignor, group.coordinator) == (None, None, 1)


async def test_the_lag_of_nothing_is_not_zero(cluster: Cluster) -> None:
    filled(cluster).groups.create("g")
    async with Admin(cluster.bootstrap()) as admin:
        assert await admin.group_lag("g") == GroupLag(None, None, 0, 0)
        cluster.groups.commit("g", "orders", 0, 8)
        assert await admin.group_lag("g") == GroupLag(0, 0, 1, 0)


async def test_a_history_tells_commits_removals_and_rebalances(cluster: Cluster) -> None:
    cluster.groups.create("g")
    made = pb.GroupRebalanced(generation=2, cause="member a joined")
    made.members.add(member_id="a", client_id="c", partitions=4)
    by_nobody = pb.OffsetsCommitted(topic_id=b"t" * 16, partition=1, removed=True)
    cluster.groups.events["g"] = [
        pb.GroupEvent(time_ms=1, rebalanced=made),
        pb.GroupEvent(time_ms=2, committed=pb.OffsetsCommitted(topic="orders", offset=7, member_id="a", generation=2)),
        pb.GroupEvent(time_ms=3, committed=by_nobody),
        pb.GroupEvent(time_ms=4),
    ]
    async with Admin(cluster.bootstrap()) as admin:
        rebalance, commit, removal = await admin.group_history("g")
    assert isinstance(rebalance, GroupRebalanced)
    assert (rebalance.generation, rebalance.cause, rebalance.members[0].partitions) == (2, "member a joined", 4)
    assert isinstance(commit, OffsetsCommitted)
    assert (commit.topic, commit.offset, commit.member_id, commit.removed) == ("orders", 7, "a", False)
    assert isinstance(removal, OffsetsCommitted)
    assert (removal.topic, removal.topic_id, removal.member_id, removal.removed) == (None, b"t" * 16, None, True)


async def test_offsets_are_committed_for_a_group_and_read(cluster: Cluster) -> None:
    filled(cluster)
    async with Admin(cluster.bootstrap()) as admin:
        done = await admin.alter_offsets(
            "new", {ORDERS[1]: 4, ORDERS[0]: CommitPoint(9), ORDERS[2]: CommitPoint(0, 3, "x")}
        )
        assert [(one.partition, one.offset) for one in done] == [(1, 4), (0, 9), (2, 0)]
        assert [one.error and one.error.reason for one in done] == [None, Reason.OFFSET_ABOVE_END, None]
        found = await admin.group_offsets("new")
        assert {where.partition: (one.offset, one.metadata) for where, one in found.items()} == {
            1: (4, ""),
            2: (0, "x"),
        }
        assert list(await admin.group_offsets("new", ORDERS[:2])) == [ORDERS[1]]
        assert await admin.group_offsets("new", []) == {}
        assert await admin.alter_offsets("other", {}) == []
        with pytest.raises(UnknownTopicError):
            await admin.alter_offsets("new", {TopicPartition("nope", 0): 1})
        for where, offset in ((ORDERS[0], -1), (ORDERS[0], 1 << 63), (TopicPartition("orders", -1), 1)):
            with pytest.raises(InvalidRequestError):
                await admin.alter_offsets("new", {where: offset})
        cluster.groups.join("new", "m")
        (refused,) = await admin.alter_offsets("new", {ORDERS[1]: 5})
        assert isinstance(refused.error, GroupNotEmptyError)
        assert refused == AlteredOffset("orders", 1, 5, refused.error)


async def test_offsets_are_reset_by_every_kind_of_point(cluster: Cluster) -> None:
    groups = filled(cluster).groups
    groups.create("g")
    groups.commit("g", "orders", 0, 5)
    async with Admin(cluster.bootstrap()) as admin:

        async def offsets(reset: Awaitable[list[OffsetReset]]) -> list[tuple[int, int | None, int | None]]:
            return [(one.partition, one.previous_offset, one.offset) for one in await reset]

        assert await offsets(admin.reset_offsets("g", "latest", validate_only=True)) == [(0, 5, 8)]
        assert await offsets(admin.reset_offsets("g", "earliest")) == [(0, 5, 0)]
        assert await offsets(admin.reset_offsets("g", Shift(3))) == [(0, 0, 3)]
        assert await offsets(admin.reset_offsets("g", Shift(-1))) == [(0, 3, 2)]
        assert await offsets(admin.reset_offsets("g", Timestamp(1001))) == [(0, 2, 1)]
        assert await offsets(admin.reset_offsets("g", 7, partitions=ORDERS[:2])) == [(0, 1, 7), (1, None, 7)]
        assert len(await admin.reset_offsets("g", 0, topics=["orders"])) == 3
        assert await admin.reset_offsets("g", 0, topics=[]) == []
        above = (await admin.reset_offsets("g", 9))[0]
        assert above.error is not None
        assert (above.offset, above.error.reason) == (None, Reason.OFFSET_ABOVE_END)
        for point in (-1, 1 << 63, Shift(1 << 63)):
            with pytest.raises(InvalidRequestError):
                await admin.reset_offsets("g", point)
        groups.join("g", "m")
        with pytest.raises(GroupNotEmptyError):
            await admin.reset_offsets("g", "latest")


async def test_what_is_repeated_after_a_lost_answer_does_no_harm(cluster: Cluster) -> None:
    groups = filled(cluster).groups
    groups.create("g")
    groups.commit("g", "orders", 0, 2)
    async with Admin(cluster.bootstrap()) as admin:
        groups.faults.extend([Reason.NOT_COORDINATOR, Reason.COORDINATOR_LOADING, Reason.OUTCOME_UNKNOWN])
        assert [one.offset for one in await admin.reset_offsets("g", 4)] == [4]
        groups.faults.append(Reason.OUTCOME_UNKNOWN)
        with pytest.raises(OutcomeUnknownError):
            await admin.reset_offsets("g", Shift(1))
        assert (await admin.group_offsets("g"))[ORDERS[0]].offset == 5, "shifted twice"
        groups.faults.append(Reason.OUTCOME_UNKNOWN)
        await admin.alter_offsets("g", {ORDERS[0]: 1})
        groups.faults.append(Reason.OUTCOME_UNKNOWN)
        with pytest.raises(OutcomeUnknownError):
            await admin.delete_group("g")
    assert groups.described == {}


async def test_a_group_is_deleted_once_it_is_empty(cluster: Cluster) -> None:
    cluster.groups.create("g")
    cluster.groups.join("g", "m")
    async with Admin(cluster.bootstrap()) as admin:
        with pytest.raises(GroupNotEmptyError):
            await admin.delete_group("g")
        del cluster.groups.described["g"].members[:]
        await admin.delete_group("g", validate_only=True)
        assert "g" in cluster.groups.described
        await admin.delete_group("g")
        with pytest.raises(UnknownGroupError):
            await admin.delete_group("g")


def test_the_blocking_face_has_the_same(served: ServedCluster) -> None:
    filled(served.cluster)
    with blocking.Admin(served.cluster.bootstrap()) as admin:
        assert admin.alter_offsets("g", {ORDERS[0]: 3})[0].error is None
        assert [group.group_id for group in admin.list_groups()] == ["g"]
        assert [one.lag for one in admin.describe_group("g").partitions] == [5]
        assert admin.group_lag("g").offsets == 5
        assert admin.group_offsets("g")[ORDERS[0]].offset == 3
        assert admin.reset_offsets("g", Shift(1), topics=["orders"], validate_only=True)[0].offset == 4
        assert admin.group_history("g", 5) == []
        admin.delete_group("g")
        assert admin.list_groups(["empty"]) == []


async def test_a_cluster_without_groups_says_so(cluster: Cluster) -> None:
    """An older version; what it does not know is no outage."""
    cluster.of_an_older_version.update(cluster.brokers)
    for broker in cluster.brokers.values():
        await broker.stop()
        await broker.start()
    calls: list[Callable[[Admin], Awaitable[object]]] = [
        lambda admin: admin.list_groups(),
        lambda admin: admin.delete_group("g"),
    ]
    async with Admin(cluster.bootstrap()) as admin:
        for call in calls:
            with pytest.raises(Exception, match="UNSUPPORTED"):
                await call(admin)
