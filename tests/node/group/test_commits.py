"""The way of a commit into the log of a coordinator: order, gathering, what is in flight, and every fate of an append.

The partition is the test's: it takes appends and tells their fate when the test says so.
"""

import asyncio
from collections.abc import Sequence

import pytest

from penstock.node.group import committer, keeping
from penstock.node.group.commits import OffsetsLog
from penstock.node.group.committer import Committer
from penstock.node.group.keeping import Keeper
from penstock.node.group.loading import records_of
from penstock.node.group.offsets import OffsetTable
from penstock.node.group.records import Commit, CommitRecord, OffsetsRecord, Rebalance, RebalanceRecord
from penstock.node.partition import AppendRequest, AppendResult, Done
from penstock.node.waiters import NEVER_MS
from penstock.protocol.errors import PenstockError, from_status
from penstock.protocol.reasons import Reason
from penstock.raft.image import GroupInfo, GroupPartition, MemberInfo, MetadataImage, PartitionInfo, TopicInfo
from penstock.raft.topic_config import TopicConfig
from penstock.storage import LogBatch
from penstock.v1 import common_pb2
from penstock.v1 import group_service_pb2 as pb

TOPIC = bytes(15) + b"t"
APPENDED = AppendResult(0, 7, 0, 0, common_pb2.DURABILITY_COMMIT, duplicate=False)
OVER = PenstockError(Reason.NOT_COORDINATOR, "another node leads")
UNKNOWN = PenstockError(Reason.OUTCOME_UNKNOWN, "the leadership ended while the batch was under way")
INFOS = tuple(PartitionInfo(index, (1,), (1,), (), 1, 7, 0, 1) for index in range(9))
IMAGE = MetadataImage(topics={TOPIC: TopicInfo(TOPIC, "t", TopicConfig(), INFOS)}, topic_ids={"t": TOPIC})


class World:
    """A committer with its log, on a partition and a membership that the test plays."""

    def __init__(self) -> None:
        self.table = OffsetTable()
        self.appends: list[tuple[AppendRequest, Done]] = []
        self.refuse_append: PenstockError | None = None
        self.refused = 0
        self.lost: list[PenstockError] = []
        self.in_flight: list[GroupPartition] = []
        self.refusals: dict[int, PenstockError] = {}
        self.ends: dict[GroupPartition, int] = {}
        self.asked: list[Sequence[GroupPartition]] = []
        self.answer_ends = asyncio.Event()
        self.image = IMAGE
        self.tasks: list[asyncio.Task[None]] = []
        self.log = OffsetsLog(self.table, self._append, self.lost.append)
        self.keeper = Keeper(self.table, self.log)
        self.committer = Committer(
            self.log,
            self,
            lambda: self.image,
            lambda work: self.tasks.append(asyncio.ensure_future(work)),
            timeout_ms=30_000,
        )
        self.committer.membership = self

    def _append(self, request: AppendRequest, done: Done) -> None:
        if self.refuse_append is not None:
            self.refused += 1
            raise self.refuse_append
        self.appends.append((request, done))

    # ---- membership

    def check_commit(
        self, group_id: str, member_id: str, generation: int, partitions: Sequence[GroupPartition]
    ) -> list[PenstockError | None]:
        del group_id, member_id, generation
        return [self.refusals.get(partition.partition) for partition in partitions]

    def commit_began(self, group_id: str, partitions: Sequence[GroupPartition]) -> None:
        del group_id
        self.in_flight += partitions

    def commit_ended(self, group_id: str, partitions: Sequence[GroupPartition]) -> None:
        del group_id
        for partition in partitions:
            self.in_flight.remove(partition)

    # ---- ends

    def known(self, partition: GroupPartition) -> int:
        return self.ends.get(partition, 1_000)

    async def ask(self, partitions: Sequence[GroupPartition]) -> dict[GroupPartition, int]:
        self.asked.append(partitions)
        await self.answer_ends.wait()
        return {partition: self.ends[partition] for partition in partitions if partition in self.ends}

    # ---- what tests do

    def commit(self, offsets: dict[int, int], sequence: int = 0, group_id: str = "g") -> "Answer":
        """Commit offsets by partition."""
        request = pb.CommitOffsetsRequest(group_id=group_id, member_id="m", generation=1, sequence=sequence)
        for partition, offset in offsets.items():
            request.offsets.add(topic_id=TOPIC, partition=partition, offset=offset)
        return self.committer.commit(request, "client")

    async def settle(self, outcome: AppendResult | PenstockError = APPENDED) -> list[OffsetsRecord]:
        """Tell the fate of the batch under way; its records."""
        await turn()
        ((request, done),) = self.appends
        self.appends.clear()
        done(outcome)
        await turn()
        return records_in(request)

    def committed(self, partition: int, group_id: str = "g") -> int | None:
        commit = self.keeper.committed(group_id, GroupPartition(TOPIC, partition))
        return None if commit is None else commit.offset


Answer = asyncio.Future[list[pb.OffsetCommitResult]]


async def turn() -> None:
    """Let the loop do what it has to do now."""
    for _ in range(5):
        await asyncio.sleep(0)


def records_in(request: AppendRequest) -> list[OffsetsRecord]:
    batch = LogBatch(0, request.header.record_count - 1, 7, request.now_ms, request.header, request.payload)
    return [record for _, record in records_of(batch)]


def reasons(answer: Answer) -> list[Reason | None]:
    return [from_status(one.error).reason if one.HasField("error") else None for one in answer.result()]


async def test_what_comes_while_a_batch_is_under_way_is_in_the_next() -> None:
    world = World()
    first = world.commit({0: 1})
    await turn()
    later = [world.commit({number: number}) for number in range(1, 5)]
    await turn()
    assert len(world.appends) == 1
    request = world.appends[0][0]
    assert (request.acks, request.deadline_ms) == (common_pb2.ACKS_ALL, NEVER_MS)
    assert len(await world.settle()) == 1
    assert reasons(first) == [None]
    assert not any(answer.done() for answer in later)
    assert len(await world.settle()) == 4
    assert [reasons(answer) for answer in later] == [[None]] * 4


async def test_nothing_is_committed_before_the_high_watermark_has_passed_it() -> None:
    world = World()
    answer = world.commit({0: 5})
    await turn()
    assert world.committed(0) is None
    assert not answer.done()
    await world.settle()
    assert world.committed(0) == 5


async def test_rule_31_a_commit_is_in_flight_from_its_check_until_its_fate_is_known() -> None:
    world = World()
    world.commit({0: 5})
    assert world.in_flight == [GroupPartition(TOPIC, 0)]
    await world.settle()
    assert world.in_flight == []


async def test_rule_31_a_commit_of_unknown_outcome_stays_in_flight_and_ends_the_leaderships_service() -> None:
    world = World()
    answer = world.commit({0: 5})
    await turn()
    behind = world.commit({1: 6})
    await world.settle(UNKNOWN)
    assert reasons(answer) == [Reason.OUTCOME_UNKNOWN]
    assert world.lost == [UNKNOWN]
    world.log.close(OVER)  # as the coordinator does
    await turn()
    assert reasons(behind) == [Reason.NOT_COORDINATOR]  # it was never appended
    assert world.in_flight == [GroupPartition(TOPIC, 0)]
    assert world.committed(0) is None
    assert world.appends == []


async def test_rule_31_a_call_whose_time_is_over_is_answered_but_stays_in_flight() -> None:
    world = World()
    answer = world.commit({0: 5})
    await turn()
    world.committer.expire(1 << 60)
    assert reasons(answer) == [Reason.OUTCOME_UNKNOWN]
    assert world.in_flight == [GroupPartition(TOPIC, 0)]
    await world.settle()  # the replicas are back
    assert world.in_flight == []
    assert world.committed(0) == 5


@pytest.mark.parametrize("reason", [Reason.NOT_ENOUGH_REPLICAS, Reason.STORE_FULL, Reason.INTERNAL])
async def test_an_append_that_surely_failed_is_told_and_the_next_one_goes_on(reason: Reason) -> None:
    world = World()
    world.refuse_append = PenstockError(reason, "no")
    answer = world.commit({0: 5})
    await turn()
    assert reasons(answer) == [reason]
    assert world.in_flight == []
    assert world.lost == []
    world.refuse_append = None
    again = world.commit({0: 6})
    await world.settle()
    assert reasons(again) == [None]
    assert world.committed(0) == 6


async def test_a_commit_that_was_overtaken_is_refused_whether_its_follower_is_committed_or_in_the_same_batch() -> None:
    world = World()
    world.commit({0: 8}, sequence=3)
    await world.settle()
    late = world.commit({0: 7}, sequence=2)
    await turn()
    assert reasons(late) == [Reason.STALE_COMMIT]
    assert world.appends == []  # there was nothing to append
    together = [world.commit({1: offset}, sequence=sequence) for sequence, offset in ((5, 50), (4, 40), (5, 50))]
    assert await world.settle() != []
    assert [reasons(answer) for answer in together] == [[None], [Reason.STALE_COMMIT], [None]]
    assert (world.committed(0), world.committed(1)) == (8, 50)
    assert world.in_flight == []


async def test_who_may_not_commit_is_refused_at_once_and_the_others_go_on() -> None:
    world = World()
    world.refusals[1] = PenstockError(Reason.PARTITION_NOT_OWNED, "no")
    answer = world.commit({0: 1, 1: 2, 2: 3})
    assert world.in_flight == [GroupPartition(TOPIC, 0), GroupPartition(TOPIC, 2)]
    await world.settle()
    assert reasons(answer) == [None, Reason.PARTITION_NOT_OWNED, None]


async def test_an_offset_beyond_what_is_known_waits_for_the_leader_and_what_comes_behind_keeps_its_place() -> None:
    world = World()
    world.ends = {GroupPartition(TOPIC, 0): 10, GroupPartition(TOPIC, 1): 10}
    beyond = world.commit({0: 11, 1: 10}, sequence=1)
    behind = world.commit({1: 9}, sequence=2)
    other = world.commit({2: 1}, group_id="other")
    await world.settle()  # another group does not wait
    assert reasons(other) == [None]
    assert not behind.done()
    assert world.asked == [[GroupPartition(TOPIC, 0)]]
    world.answer_ends.set()
    await world.settle()
    assert reasons(beyond) == [Reason.OFFSET_ABOVE_END, None]
    assert reasons(behind) == [None]
    assert world.committed(1) == 9
    assert world.in_flight == []


async def test_what_waits_behind_a_question_about_ends_is_asked_in_one() -> None:
    world = World()
    world.commit({0: 5_000})
    await turn()
    waiting = [world.commit({partition: 5_000}) for partition in (1, 2, 2)]
    world.answer_ends.set()
    await turn()
    assert [sorted(partition for _, partition in asked) for asked in world.asked] == [[0], [1, 2]]
    await world.settle()
    assert [reasons(answer) for answer in waiting] == [[None]] * 3


async def test_an_offset_whose_end_nobody_tells_is_taken() -> None:
    world = World()
    world.answer_ends.set()
    answer = world.commit({0: 5_000})
    await world.settle()
    assert reasons(answer) == [None]


async def test_a_topic_that_is_deleted_while_its_end_is_asked_for_gets_no_offset() -> None:
    world = World()
    answer = world.commit({0: 5_000})
    await turn()
    world.image = MetadataImage()
    world.answer_ends.set()
    await turn()
    assert reasons(answer) == [Reason.UNKNOWN_TOPIC]
    assert world.appends == []


async def test_a_large_request_is_appended_in_parts_and_answered_as_one() -> None:
    world = World()
    request = pb.CommitOffsetsRequest(group_id="g", member_id="m", generation=1)
    for partition in range(9):
        request.offsets.add(topic_id=TOPIC, partition=partition, offset=1, metadata="x" * 4096)
    request.offsets.add(topic_id=TOPIC, partition=9, offset=1)
    answer = world.committer.commit(request, "client")
    await world.settle()
    assert reasons(answer) == [None] * 9 + [Reason.UNKNOWN_PARTITION]


async def test_a_closed_coordinator_refuses_what_waits_for_an_answer_about_ends() -> None:
    world = World()
    answer = world.commit({0: 5_000})
    await turn()
    world.log.close(OVER)
    world.committer.close(OVER)
    assert reasons(answer) == [Reason.NOT_COORDINATOR]
    for task in world.tasks:
        task.cancel()


async def test_no_more_calls_wait_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer, "WAITING_CALLS", 20)
    world = World()
    answers = [world.commit({0: 1}) for _ in range(20)]
    with pytest.raises(PenstockError) as caught:
        world.commit({0: 1})
    assert caught.value.reason is Reason.OVERLOADED
    assert not any(answer.done() for answer in answers)


# ---- what the coordinator itself writes


async def test_a_deleted_groups_offsets_are_gone_at_once_also_those_under_way() -> None:
    world = World()
    world.commit({0: 5})
    await world.settle()
    world.commit({1: 6})
    await turn()  # under way
    world.keeper.forget(["g"])
    assert (world.committed(0), world.committed(1)) == (None, None)
    anew = world.commit({2: 7})
    await world.settle()
    assert (world.committed(0), world.committed(1)) == (None, None)
    tombstones = [CommitRecord("g", GroupPartition(TOPIC, partition), None) for partition in (0, 1)]
    assert (await world.settle())[:2] == tombstones
    assert reasons(anew) == [None]
    assert [world.committed(partition) for partition in range(3)] == [None, None, 7]


async def test_a_deleted_groups_offsets_do_not_come_back_where_their_deletion_cannot_be_written_at_once() -> None:
    world = World()
    world.commit({0: 5})
    await world.settle()
    world.refuse_append = PenstockError(Reason.NOT_ENOUGH_REPLICAS, "no")
    world.keeper.forget(["g"])
    await turn()
    assert world.committed(0) is None  # of a group that is made anew by this name
    refused = world.commit({1: 6})
    await turn()
    assert world.refused == 1  # each try makes all that is owed anew: so not with each commit
    world.log.try_again()
    assert reasons(refused) == [Reason.NOT_ENOUGH_REPLICAS]
    await turn()
    world.refuse_append = None
    anew = world.commit({2: 7})
    world.log.try_again()
    deleted, committed = await world.settle()
    assert deleted == CommitRecord("g", GroupPartition(TOPIC, 0), None)  # before what came later
    assert isinstance(committed, CommitRecord)
    assert reasons(anew) == [None]
    assert [world.committed(partition) for partition in range(3)] == [None, None, 7]


async def test_the_offsets_of_a_deleted_topic_go_in_portions_and_commits_go_on_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keeping, "TOMBSTONES", 2)
    world = World()
    gone = [CommitRecord("g", GroupPartition(bytes(16), partition), Commit(1)) for partition in range(5)]
    for record in gone:
        world.table.apply(record)
    world.keeper.forget_topics([bytes(16)])
    await turn()
    commit = world.commit({0: 7})
    tombstones = [record._replace(commit=None) for record in gone]
    assert await world.settle() == tombstones[:2]
    assert len(await world.settle()) == 1
    assert reasons(commit) == [None]
    assert await world.settle() == tombstones[2:4]
    assert await world.settle() == tombstones[4:]
    await turn()
    assert world.appends == []


async def test_a_deletion_that_is_owed_is_written_as_soon_as_the_log_takes_it_and_once() -> None:
    world = World()
    world.commit({0: 5})
    await world.settle()
    world.refuse_append = PenstockError(Reason.STORE_FULL, "no")
    world.keeper.forget_topics([TOPIC])
    await turn()
    world.log.try_again()
    await turn()
    world.refuse_append = None
    world.log.try_again()
    world.log.try_again()
    assert await world.settle() == [CommitRecord("g", GroupPartition(TOPIC, 0), None)]
    world.log.try_again()
    await turn()
    assert world.appends == []


async def test_what_waits_behind_a_deletion_that_cannot_be_written_is_refused_and_not_tried_for_ever() -> None:
    world = World()
    world.commit({0: 5, 1: 5})
    await world.settle()
    world.refuse_append = PenstockError(Reason.NOT_ENOUGH_REPLICAS, "no")
    world.keeper.forget(["g"])
    world.keeper.forget_topics([TOPIC])
    answer = world.commit({1: 6}, group_id="other")
    await turn()
    assert reasons(answer) == [Reason.NOT_ENOUGH_REPLICAS]
    assert world.refused == 1
    world.refuse_append = None
    world.log.try_again()
    assert len(await world.settle()) == 2
    await turn()
    assert world.appends == []


async def test_a_rebalance_that_was_not_noted_is_noted_once() -> None:
    world = World()
    group = GroupInfo("g", group_epoch=4, generation=2, cause="because", rebalanced_ms=9)
    world.table.apply(RebalanceRecord("other", 1, Rebalance(1, "")))
    world.keeper.note_missing([group, GroupInfo("other", 3, generation=1), GroupInfo("new", 3)])
    assert await world.settle() == [RebalanceRecord("g", 2, Rebalance(9, "because"))]
    world.keeper.note_missing([group])
    await turn()
    assert world.appends == []


async def test_what_a_commit_made_young_again_does_not_expire() -> None:
    world = World()
    partition = GroupPartition(TOPIC, 0)
    world.table.apply(CommitRecord("g", partition, Commit(1, commit_time_ms=1)))
    group = GroupInfo("g", group_epoch=1, emptied_ms=1)
    world.commit({0: 2})
    world.keeper.expire(lambda: group, now_ms=5_000, retention_ms=1_000)
    await world.settle()
    await turn()
    assert world.committed(0) == 2
    assert world.appends == []


async def test_what_a_group_has_that_somebody_joined_meanwhile_does_not_expire() -> None:
    world = World()
    world.table.apply(CommitRecord("g", GroupPartition(TOPIC, 0), Commit(1, commit_time_ms=1)))
    group = GroupInfo("g", group_epoch=1, emptied_ms=1)
    world.commit({1: 1}, group_id="other")
    await turn()  # under way: the next batch is not formed yet
    world.keeper.expire(lambda: group, now_ms=5_000, retention_ms=1_000)
    group = GroupInfo("g", group_epoch=2, generation=1, members={"m": MemberInfo("m")})
    await world.settle()
    assert world.committed(0) == 1
    assert world.appends == []
