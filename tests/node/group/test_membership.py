"""A group's core by its rules, in virtual time, on the metadata that the real state machine keeps."""

from dataclasses import replace

import pytest

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.node.group.joining import GroupLimits
from penstock.node.group.proposal import RETRY_MS, SHOWN_WITHIN_MS
from penstock.node.group.subscription import Catalog
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.raft.image import GroupPartition
from tests.node.group.bench import Bench
from tests.node.group.metadata import LIMITS, create, grow, parts, wish

SESSION_MS = 10_000


def reason_of(error: PenstockError | None) -> Reason | None:
    return None if error is None else error.reason


def commit_reasons(bench: Bench, member_id: str, generation: int, *partitions: GroupPartition) -> list[Reason | None]:
    return [reason_of(error) for error in bench.core.check_commit(member_id, generation, partitions)]


# ---- joining and sharing


def test_the_first_member_gets_everything() -> None:
    bench = Bench(t=4)
    stream = bench.join("a", client_id="app")
    assert not bench.is_joined(stream)
    (change,) = bench.settle()
    assert bench.is_joined(stream)
    assert bench.take_assigned() == [stream]
    assert bench.to_read("a") == parts("t", 0, 1, 2, 3)
    assert change.cause == "member app (a) joined"
    assert bench.group.generation == 1


def test_members_that_join_while_a_change_is_under_way_share_the_next_one() -> None:
    bench = Bench(t=6)
    bench.join("a")
    first = bench.decide()
    assert first is not None
    bench.join("b")
    bench.join("c")
    assert bench.decide() is None
    bench.answer(first)
    changes = bench.settle()
    assert [sorted(put.member_id for put in change.put) for change in changes] == [["a", "b", "c"]]
    assert bench.group.generation == 2
    assert changes[0].cause == "member b joined; member c joined"


def test_rule_21_a_partition_changes_its_owner_only_when_the_former_one_has_given_it_up() -> None:
    bench = Bench(t=4)
    bench.joined("a")
    bench.join("b")
    bench.settle()
    moved = bench.member("b").target
    assert len(moved) == 2
    assert bench.owned("b") == frozenset()
    assert bench.to_read("a") == parts("t", 0, 1, 2, 3) - moved
    assigned = bench.core.assignment("a", bench.now_ms)
    assert assigned is not None
    assert frozenset(assigned.revoked) == moved
    one, other = sorted(moved)
    bench.core.on_release("a", assigned.generation, [one])
    (change,) = bench.settle()  # taken and given by one command
    assert change.generation == 2
    assert bench.owned("b") == {one}
    bench.core.on_release("a", assigned.generation, [other])
    bench.settle()
    assert bench.owned("b") == moved
    assert bench.owned("a") == bench.member("a").target
    assert set(bench.member("b").owned.values()) == {2}


def test_what_does_not_move_is_not_touched() -> None:
    bench = Bench(t=6)
    bench.joined("a", "b")
    kept = bench.member("a").owned
    bench.joined("c")
    after = bench.member("a").owned
    assert len(after) == 2
    assert after.items() <= kept.items()


def test_a_release_from_before_the_grant_is_a_late_repeat_and_one_of_the_future_is_refused() -> None:
    bench = Bench(t=2)
    bench.joined("a")
    bench.core.on_release("a", 1, [*parts("t", 0, 7)])
    assert bench.settle() == []
    assert bench.to_read("a") == parts("t", 0, 1)
    with pytest.raises(PenstockError, match="the group's is 1") as caught:
        bench.core.on_release("a", 2, [*parts("t", 0)])
    assert caught.value.reason is Reason.INVALID_ARGUMENT


def test_a_release_that_crosses_a_new_target_counts_and_the_partition_is_granted_anew() -> None:
    bench = Bench(t=2)
    bench.joined("a")
    bench.join("b")
    bench.settle()
    (moved,) = bench.member("b").target
    bench.outputs += bench.core.on_leave("b", "", bench.now_ms, returning=False)
    bench.settle()
    assert moved in bench.to_read("a")
    bench.core.on_release("a", 2, [moved])  # sent before it heard that
    assert moved not in bench.to_read("a")
    bench.settle()
    assert bench.member("a").owned[moved] == bench.group.generation == 3
    assert moved in bench.to_read("a")


# ---- who goes


def test_a_member_that_leaves_frees_its_partitions_at_once() -> None:
    bench = Bench(t=4)
    bench.joined("a", "b")
    stream = bench.core.sessions["b"].stream
    bench.outputs += bench.core.on_leave("b", "deploy", bench.now_ms, returning=False)
    assert not bench.is_ended(stream)
    (change,) = bench.settle()
    assert bench.ended(stream) is None
    assert change.cause == "member b left: deploy"
    assert bench.owned("a") == parts("t", 0, 1, 2, 3)


def test_a_broken_stream_removes_nobody_the_session_timeout_does() -> None:
    bench = Bench(t=4)
    bench.joined("a", "b")
    bench.core.on_stream_gone("b", bench.core.sessions["b"].stream)
    bench.pass_time(SESSION_MS - 1_000, "a")
    assert "b" in bench.group.members
    bench.pass_time(1_000, "a")
    assert set(bench.group.members) == {"a"}
    assert bench.group.cause == "member b was silent for 10 s"
    with pytest.raises(PenstockError, match="it was silent for 10 s") as caught:
        bench.join("b", generation=2)
    assert caught.value.reason is Reason.UNKNOWN_MEMBER


def test_who_comes_back_on_a_new_stream_is_not_judged_by_polls_that_it_could_not_tell_of() -> None:
    """Seed 211 of the simulated worlds: it was cut off, came back, and was removed before its first heartbeat."""
    bench = Bench(t=1)
    stream = bench.join("a", max_poll_interval_ms=9_500)
    bench.settle()
    bench.core.on_stream_gone("a", stream)
    bench.pass_time(9_000)
    again = bench.join("a", max_poll_interval_ms=9_500, generation=1)
    bench.pass_time(1_000)
    assert bench.is_joined(again)
    assert not bench.is_ended(again)
    bench.pass_time(9_000, "a", polls=-1)  # and now it could have told
    assert bench.is_ended(again)


def test_who_does_not_poll_is_told_at_once_and_taken_out_when_its_session_is_over() -> None:
    bench = Bench(t=4)
    bench.join("a", max_poll_interval_ms=30_000)
    bench.settle()
    stream = bench.core.sessions["a"].stream
    for polls in range(5):
        bench.pass_time(20_000, "a", polls=polls)
    assert not bench.is_ended(stream)
    bench.pass_time(11_000, "a", polls=4)  # the time counts from the first heartbeat that told of poll 4
    error = bench.ended(stream)
    assert error is not None
    assert error.reason is Reason.UNKNOWN_MEMBER
    assert "did not poll for 30 s" in error.message
    with pytest.raises(PenstockError):
        bench.beat("a", polls=5)
    assert "a" in bench.group.members  # an acknowledgement of a moment ago may let it believe that it has everything
    bench.pass_time(SESSION_MS)
    assert not bench.group.members


def test_who_does_not_give_up_partitions_in_time_is_removed() -> None:
    bench = Bench(t=4)
    bench.join("a", rebalance_timeout_ms=5_000)
    bench.settle()
    bench.join("b")
    bench.settle()
    stream = bench.core.sessions["a"].stream
    bench.pass_time(4_000, "a", "b")
    assigned = bench.core.assignment("a", bench.now_ms)
    assert assigned is not None
    assert assigned.release_within_ms == 1_000
    bench.pass_time(1_000, "b")
    assert "did not give up 2 partitions within 5 s" in str(bench.ended(stream))
    assert bench.owned("b") == frozenset()
    bench.pass_time(SESSION_MS, "b")
    assert bench.owned("b") == parts("t", 0, 1, 2, 3)


def test_the_condemned_gets_no_share_of_a_rebalance() -> None:
    bench = Bench(t=6)
    bench.join("a", rebalance_timeout_ms=1_000)
    bench.settle()
    bench.join("b")
    bench.settle()
    bench.pass_time(1_000, "a", "b")
    bench.join("c")
    bench.settle()
    assert bench.member("a").target == frozenset()
    assert len(bench.member("b").target) == len(bench.member("c").target) == 3


# ---- commits


def test_rule_20_commits_from_before_the_grant_and_of_others_are_refused() -> None:
    bench = Bench(t=2)
    bench.joined("a", "b")
    (of_a,), (of_b,) = bench.owned("a"), bench.owned("b")
    assert commit_reasons(bench, "a", 1, of_a) == [None]  # it has it since then
    assert commit_reasons(bench, "b", 1, of_b) == [Reason.STALE_GENERATION]
    assert commit_reasons(bench, "b", 2, of_b, of_a) == [None, Reason.PARTITION_NOT_OWNED]
    assert commit_reasons(bench, "b", 3, of_b) == [Reason.STALE_GENERATION]
    assert commit_reasons(bench, "x", 2, of_b) == [Reason.UNKNOWN_MEMBER]


def test_rule_20_nothing_is_committed_for_what_was_given_up() -> None:
    bench = Bench(t=2)
    bench.joined("a")
    bench.join("b")
    bench.settle()
    (moved,) = bench.member("b").target
    assert commit_reasons(bench, "a", 2, moved) == [None]
    bench.core.on_release("a", 2, [moved])
    assert commit_reasons(bench, "a", 2, moved) == [Reason.PARTITION_NOT_OWNED]


def test_rule_31_a_partition_changes_its_owner_only_when_no_commit_for_it_is_in_flight() -> None:
    bench = Bench(t=2)
    bench.joined("a")
    bench.join("b")
    bench.settle()
    (moved,) = bench.member("b").target
    bench.core.commit_began([moved])
    bench.core.commit_began([moved])
    bench.core.on_release("a", 2, [moved])
    bench.core.commit_ended([moved])
    assert bench.settle() == []
    assert moved in bench.owned("a")
    bench.core.commit_ended([moved])
    bench.settle()
    assert bench.owned("b") == {moved}


def test_rule_31_who_goes_goes_when_its_commits_in_flight_are_resolved() -> None:
    bench = Bench(t=2)
    bench.joined("a")
    bench.core.commit_began(parts("t", 1))
    bench.outputs += bench.core.on_leave("a", "", bench.now_ms, returning=False)
    assert bench.settle() == []
    assert commit_reasons(bench, "a", 1, *parts("t", 1)) == [Reason.UNKNOWN_MEMBER]
    bench.core.commit_ended(parts("t", 1))
    bench.settle()
    assert not bench.group.members


def test_rule_31_what_is_committed_by_nobody_is_given_to_nobody_meanwhile() -> None:
    bench = Bench(t=2)
    assert commit_reasons(bench, "", 0, *parts("t", 0)) == [None]
    bench.core.commit_began(parts("t", 0))
    bench.join("a")
    assert commit_reasons(bench, "", 0, *parts("t", 0)) == [Reason.GROUP_NOT_EMPTY]
    bench.settle()
    assert bench.owned("a") == parts("t", 1)
    bench.core.commit_ended(parts("t", 0))
    bench.settle()
    assert bench.owned("a") == parts("t", 0, 1)


# ---- takeovers of the coordinator


def test_rule_31_a_new_coordinator_begins_all_sessions_anew_and_rebalances_nothing() -> None:
    bench = Bench(t=4)
    bench.joined("a", "b")
    before = bench.group
    bench.pass_time(SESSION_MS - 1_000, "a")
    bench.take_over(2)
    assert bench.settle() == []
    bench.pass_time(SESSION_MS - 1_000)
    assert bench.group is before
    bench.pass_time(LIMITS.takeover_grace_ms + 1_000)
    assert not bench.group.members


def test_rule_31_a_former_coordinator_changes_nothing() -> None:
    bench = Bench(t=4)
    bench.joined("a")
    former = bench.take_over(2)
    former.on_leave("a", "", bench.now_ms, returning=False)
    change = former.decide(bench.now_ms, 1)
    assert change is not None
    before = bench.group
    assert bench.answer(change).refusal == pb.REFUSAL_NOT_COORDINATOR
    assert bench.group is before
    former.on_answer(pb.ChangeResult(refusal=pb.REFUSAL_NOT_COORDINATOR), bench.now_ms)
    former.on_leave("a", "", bench.now_ms, returning=False)
    assert former.decide(bench.now_ms + 60_000, 1) is None


def test_a_member_continues_with_the_new_coordinator() -> None:
    bench = Bench(t=4)
    bench.joined("a")
    bench.take_over(2)
    stream = bench.join("a", generation=1)
    assert bench.is_joined(stream)
    assert bench.take_assigned()[-1] == stream
    assert bench.to_read("a") == parts("t", 0, 1, 2, 3)
    assert bench.settle() == []


def test_a_pause_of_this_process_is_no_members_fault() -> None:
    bench = Bench(t=4)
    bench.joined("a")
    bench.now_ms += SESSION_MS + 5_000
    bench.core.on_pause(SESSION_MS + 5_000)
    assert bench.core.tick(bench.now_ms) == []
    bench.pass_time(SESSION_MS - 1_000)
    assert "a" in bench.group.members


# ---- streams


def test_a_newer_stream_ends_the_older_and_only_the_newest_counts() -> None:
    bench = Bench(t=2)
    bench.joined("a")
    older = bench.core.sessions["a"].stream
    newer = bench.join("a", generation=1)
    assert reason_of(bench.ended(older)) is Reason.MEMBER_REPLACED
    bench.core.on_stream_gone("a", older)
    assert bench.core.sessions["a"].stream == newer


def test_a_repeated_first_join_is_one_member() -> None:
    bench = Bench(t=2)
    first = bench.join("a")
    second = bench.join("a")
    bench.settle()
    assert reason_of(bench.ended(first)) is Reason.MEMBER_REPLACED
    assert bench.is_joined(second)
    third = bench.join("a")
    assert bench.is_joined(third)
    assert bench.group.generation == 1


def test_whose_stream_breaks_before_it_has_joined_does_not_join() -> None:
    bench = Bench(t=2)
    stream = bench.join("a")
    bench.core.on_stream_gone("a", stream)
    assert bench.settle() == []
    assert bench.core.is_idle


# ---- static members


def test_a_static_member_that_comes_back_gets_what_it_had_and_nobody_moves() -> None:
    bench = Bench(t=4)
    bench.join("a", instance_id="i")
    bench.settle()
    bench.joined("b")
    had, of_b = bench.owned("a"), bench.member("b").owned
    stream = bench.core.sessions["a"].stream
    bench.outputs += bench.core.on_leave("a", "", bench.now_ms, returning=True)
    assert bench.ended(stream) is None
    assert bench.settle() == []
    assert bench.owned("a") == had
    bench.pass_time(5_000, "b")
    newcomer = bench.join("a2", instance_id="i")
    (change,) = bench.settle()
    assert bench.is_joined(newcomer)
    assert bench.owned("a2") == had
    assert set(bench.member("a2").owned.values()) == {3} == {change.generation}
    assert bench.member("b").owned == of_b
    assert change.cause == "member a2 took over from member a"


def test_a_static_member_that_does_not_come_back_is_removed() -> None:
    bench = Bench(t=4)
    bench.join("a", instance_id="i")
    bench.settle()
    bench.outputs += bench.core.on_leave("a", "", bench.now_ms, returning=True)
    bench.pass_time(SESSION_MS)
    assert bench.group.cause == "member a did not come back within 10 s"


def test_an_instance_that_is_connected_is_in_use() -> None:
    bench = Bench(t=4)
    bench.join("a", instance_id="i")
    with pytest.raises(PenstockError) as caught:
        bench.join("b", instance_id="i")
    assert caught.value.reason is Reason.INSTANCE_IN_USE
    bench.settle()
    with pytest.raises(PenstockError, match="member a is connected") as caught:
        bench.join("b", instance_id="i")
    assert caught.value.reason is Reason.INSTANCE_IN_USE


def test_who_vanished_is_fenced_and_its_heir_waits_for_the_end_of_its_session() -> None:
    bench = Bench(t=4)
    bench.join("a", instance_id="i")
    bench.settle()
    bench.core.on_stream_gone("a", bench.core.sessions["a"].stream)
    newcomer = bench.join("b", instance_id="i")
    for again in (lambda: bench.beat("a"), lambda: bench.join("a", instance_id="i", generation=1)):
        with pytest.raises(PenstockError) as caught:
            again()
        assert caught.value.reason is Reason.INSTANCE_FENCED
    assert commit_reasons(bench, "a", 1, *parts("t", 0)) == [Reason.INSTANCE_FENCED]
    bench.pass_time(SESSION_MS - 1_000)
    assert not bench.is_joined(newcomer)
    bench.pass_time(1_000)
    assert bench.is_joined(newcomer)
    assert bench.owned("b") == parts("t", 0, 1, 2, 3)
    assert bench.group.generation == 2


# ---- topics


def test_added_partitions_and_new_topics_of_a_pattern_are_picked_up() -> None:
    bench = Bench(t=2, other=1)
    member = replace(wish("a").member, topics=(), pattern="t.*")
    bench.outputs += bench.core.on_join(replace(wish("a"), member=member), 1, bench.now_ms)
    bench.settle()
    assert bench.owned("a") == parts("t", 0, 1)
    grow(bench.world, "t", 3)
    bench.show()
    (change,) = bench.settle()
    assert change.cause == "partitions were added to topic t"
    create(bench.world, "t2", 1)
    bench.show()
    (change,) = bench.settle()
    assert change.cause == "topic t2 is there now"
    assert bench.owned("a") == parts("t", 0, 1, 2) | parts("t2", 0)


def test_partitions_of_a_deleted_topic_go_without_acknowledgement() -> None:
    bench = Bench(t=2, u=2)
    bench.join("a", "t", "u")
    bench.settle()
    bench.world.do(delete_topic=pb.DeleteTopic(topic_id=bench.world.topic("u").topic_id))
    bench.show()
    (change,) = bench.settle()
    assert bench.owned("a") == bench.member("a").target == parts("t", 0, 1)
    assert change.cause == "topic u was deleted"
    create(bench.world, "u", 2, topic_id="second-u")
    bench.show()
    bench.settle()
    assert len(bench.owned("a")) == 4


def test_a_topic_must_exist_when_it_is_first_named_and_not_for_ever() -> None:
    bench = Bench(t=1, u=1)
    with pytest.raises(PenstockError, match="'missing'") as caught:
        bench.join("a", "t", "missing")
    assert caught.value.reason is Reason.UNKNOWN_TOPIC
    bench.join("a", "t", "u")
    bench.settle()
    bench.world.do(delete_topic=pb.DeleteTopic(topic_id=bench.world.topic("u").topic_id))
    bench.show()
    bench.settle()
    bench.join("a", "t", "u", generation=1)
    with pytest.raises(PenstockError):
        bench.core.on_subscribe(wish("a", "t", "missing"))


def test_another_subscription_is_a_rebalance() -> None:
    bench = Bench(t=2, u=2)
    bench.joined("a")
    bench.core.on_subscribe(wish("a", "u"))
    (change,) = bench.settle()
    assert change.cause == "member a changed its subscription"
    assert bench.owned("a") == parts("t", 0, 1) | parts("u", 0, 1)
    assert bench.to_read("a") == parts("u", 0, 1)
    bench.release_all()
    assert bench.owned("a") == parts("u", 0, 1)


# ---- proposals


def test_a_change_of_unknown_fate_is_decided_again_and_the_late_one_does_no_harm() -> None:
    bench = Bench(t=2)
    bench.join("a")
    first = bench.decide()
    assert first is not None
    bench.core.on_answer(None, bench.now_ms)
    assert bench.decide() is None
    bench.now_ms += RETRY_MS
    second = bench.decide()
    assert second is not None
    assert not bench.answer(first).refusal
    bench.core.on_answer(pb.ChangeResult(refusal=pb.REFUSAL_STALE), bench.now_ms)
    assert bench.settle() == []
    assert bench.group.generation == 1


def test_a_stale_answer_waits_for_newer_metadata_but_not_for_ever() -> None:
    bench = Bench(t=2)
    bench.join("a")
    assert bench.decide() is not None
    bench.core.on_answer(pb.ChangeResult(refusal=pb.REFUSAL_STALE), bench.now_ms)
    assert bench.decide() is None
    assert bench.core.due_ms(bench.now_ms) == bench.now_ms + SHOWN_WITHIN_MS
    bench.now_ms += SHOWN_WITHIN_MS
    assert bench.decide() is not None


@pytest.mark.parametrize(
    ("refusal", "reason"), [(pb.REFUSAL_LIMIT, Reason.GROUP_FULL), (pb.REFUSAL_INVALID, Reason.INTERNAL)]
)
def test_who_cannot_join_is_told_why(refusal: "pb.Refusal.ValueType", reason: Reason) -> None:
    bench = Bench(t=2)
    stream = bench.join("a")
    assert bench.decide() is not None
    bench.outputs += bench.core.on_answer(pb.ChangeResult(refusal=refusal, detail="no"), bench.now_ms)
    assert reason_of(bench.ended(stream)) is reason
    bench.now_ms += SHOWN_WITHIN_MS
    assert bench.settle() == []


def test_a_full_group_takes_nobody_more() -> None:
    bench = Bench(GroupLimits(max_members=2), t=2)
    bench.joined("a")
    bench.join("b")
    bench.join("b")  # a repeat is no third one
    with pytest.raises(PenstockError) as caught:
        bench.join("c")
    assert caught.value.reason is Reason.GROUP_FULL


# ---- groups without members


def test_a_group_is_made_without_members_and_deleted() -> None:
    bench = Bench(t=2)
    with pytest.raises(PenstockError) as caught:
        bench.core.delete(validate_only=True)
    assert caught.value.reason is Reason.UNKNOWN_GROUP
    bench.core.want()
    bench.settle()
    assert bench.core.exists
    assert bench.group.emptied_ms > 0
    bench.core.commit_began(parts("t", 0))
    bench.core.delete(validate_only=False)
    assert bench.settle() == []
    assert commit_reasons(bench, "", 0, *parts("t", 0)) == [Reason.UNKNOWN_GROUP]
    bench.core.commit_ended(parts("t", 0))
    bench.settle()
    assert not bench.world.image.groups
    assert bench.core.is_idle


def test_a_group_with_members_is_not_deleted_nor_one_that_somebody_joins_meanwhile() -> None:
    bench = Bench(t=2)
    bench.core.want()
    bench.settle()
    bench.core.delete(validate_only=False)
    bench.join("a")
    bench.settle()
    assert set(bench.group.members) == {"a"}
    assert not bench.core.is_deleting
    with pytest.raises(PenstockError) as caught:
        bench.core.delete(validate_only=False)
    assert caught.value.reason is Reason.GROUP_NOT_EMPTY


def test_a_deleted_topic_that_a_condemned_member_alone_subscribes_to_makes_no_endless_generations() -> None:
    bench = Bench(t=2, u=2)
    bench.join("a", "u", rebalance_timeout_ms=1_000)
    bench.settle()
    bench.core.on_subscribe(wish("a", "t"))
    bench.join("b", "t")
    bench.settle()
    bench.pass_time(1_000, "a", "b")  # it gives up nothing: condemned
    bench.core.on_catalog(Catalog.of(bench.world.image.topics.values()))
    generation = bench.group.generation
    bench.settle()
    bench.settle()
    assert bench.group.generation <= generation + 1
