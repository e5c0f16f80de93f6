"""A group's core by its rules, in virtual time, on the metadata that the real state machine keeps."""

import pytest

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from tests.node.group.core_driver import SESSION_MS, CoreDriver, commit_reasons, reason_of
from tests.node.group.metadata import LIMITS, parts

# ---- joining and sharing


def test_the_first_member_gets_everything() -> None:
    driver = CoreDriver(t=4)
    stream = driver.join("a", client_id="app")
    assert not driver.is_joined(stream)
    (change,) = driver.settle()
    assert driver.is_joined(stream)
    assert driver.take_assigned() == [stream]
    assert driver.to_read("a") == parts("t", 0, 1, 2, 3)
    assert change.cause == "member app (a) joined"
    assert driver.group.generation == 1


def test_members_that_join_while_a_change_is_under_way_share_the_next_one() -> None:
    driver = CoreDriver(t=6)
    driver.join("a")
    first = driver.decide()
    assert first is not None
    driver.join("b")
    driver.join("c")
    assert driver.decide() is None
    driver.answer(first)
    changes = driver.settle()
    assert [sorted(put.member_id for put in change.put) for change in changes] == [["a", "b", "c"]]
    assert driver.group.generation == 2
    assert changes[0].cause == "member b joined; member c joined"


def test_rule_21_a_partition_changes_its_owner_only_when_the_former_one_has_given_it_up() -> None:
    driver = CoreDriver(t=4)
    driver.joined("a")
    driver.join("b")
    driver.settle()
    moved = driver.member("b").target
    assert len(moved) == 2
    assert driver.owned("b") == frozenset()
    assert driver.to_read("a") == parts("t", 0, 1, 2, 3) - moved
    assigned = driver.core.assignment("a", driver.now_ms)
    assert assigned is not None
    assert frozenset(assigned.revoked) == moved
    one, other = sorted(moved)
    driver.core.on_release("a", assigned.generation, [one])
    (change,) = driver.settle()  # taken and given by one command
    assert change.generation == 2
    assert driver.owned("b") == {one}
    driver.core.on_release("a", assigned.generation, [other])
    driver.settle()
    assert driver.owned("b") == moved
    assert driver.owned("a") == driver.member("a").target
    assert set(driver.member("b").owned.values()) == {2}


def test_what_does_not_move_is_not_touched() -> None:
    driver = CoreDriver(t=6)
    driver.joined("a", "b")
    kept = driver.member("a").owned
    driver.joined("c")
    after = driver.member("a").owned
    assert len(after) == 2
    assert after.items() <= kept.items()


def test_a_release_from_before_the_grant_is_a_late_repeat_and_one_of_the_future_is_refused() -> None:
    driver = CoreDriver(t=2)
    driver.joined("a")
    driver.core.on_release("a", 1, [*parts("t", 0, 7)])
    assert driver.settle() == []
    assert driver.to_read("a") == parts("t", 0, 1)
    with pytest.raises(PenstockError, match="the group's is 1") as caught:
        driver.core.on_release("a", 2, [*parts("t", 0)])
    assert caught.value.reason is Reason.INVALID_ARGUMENT


def test_a_release_that_crosses_a_new_target_counts_and_the_partition_is_granted_anew() -> None:
    driver = CoreDriver(t=2)
    driver.joined("a")
    driver.join("b")
    driver.settle()
    (moved,) = driver.member("b").target
    driver.outputs += driver.core.on_leave("b", "", driver.now_ms, returning=False)
    driver.settle()
    assert moved in driver.to_read("a")
    driver.core.on_release("a", 2, [moved])  # sent before it heard that
    assert moved not in driver.to_read("a")
    driver.settle()
    assert driver.member("a").owned[moved] == driver.group.generation == 3
    assert moved in driver.to_read("a")


# ---- who goes


def test_a_member_that_leaves_frees_its_partitions_at_once() -> None:
    driver = CoreDriver(t=4)
    driver.joined("a", "b")
    stream = driver.core.sessions["b"].stream
    driver.outputs += driver.core.on_leave("b", "deploy", driver.now_ms, returning=False)
    assert not driver.is_ended(stream)
    (change,) = driver.settle()
    assert driver.ended(stream) is None
    assert change.cause == "member b left: deploy"
    assert driver.owned("a") == parts("t", 0, 1, 2, 3)


def test_who_leaves_while_the_change_by_which_it_joins_is_under_way_is_taken_out_at_once() -> None:
    driver = CoreDriver(t=4)
    driver.joined("a")
    stream = driver.join("b")
    change = driver.decide()
    assert change is not None
    driver.outputs += driver.core.on_leave("b", "", driver.now_ms, returning=False)
    assert driver.is_ended(stream)
    driver.answer(change)
    assert set(driver.group.members) == {"a", "b"}
    driver.settle()
    assert set(driver.group.members) == {"a"}
    assert "left" in driver.group.cause


def test_a_broken_stream_removes_nobody_the_session_timeout_does() -> None:
    driver = CoreDriver(t=4)
    driver.joined("a", "b")
    driver.core.on_stream_gone("b", driver.core.sessions["b"].stream)
    driver.pass_time(SESSION_MS - 1_000, "a")
    assert "b" in driver.group.members
    driver.pass_time(1_000, "a")
    assert set(driver.group.members) == {"a"}
    assert driver.group.cause == "member b was silent for 10 s"
    with pytest.raises(PenstockError, match="it was silent for 10 s") as caught:
        driver.join("b", generation=2)
    assert caught.value.reason is Reason.UNKNOWN_MEMBER


def test_who_comes_back_on_a_new_stream_is_not_judged_by_polls_that_it_could_not_tell_of() -> None:
    """Seed 211 of the simulated worlds: it was cut off, came back, and was removed before its first heartbeat."""
    driver = CoreDriver(t=1)
    stream = driver.join("a", max_poll_interval_ms=9_500)
    driver.settle()
    driver.core.on_stream_gone("a", stream)
    driver.pass_time(9_000)
    again = driver.join("a", max_poll_interval_ms=9_500, generation=1)
    driver.pass_time(1_000)
    assert driver.is_joined(again)
    assert not driver.is_ended(again)
    driver.pass_time(9_000, "a", polls=-1)  # and now it could have told
    assert driver.is_ended(again)


def test_who_does_not_poll_is_told_at_once_and_taken_out_when_its_session_is_over() -> None:
    driver = CoreDriver(t=4)
    driver.join("a", max_poll_interval_ms=30_000)
    driver.settle()
    stream = driver.core.sessions["a"].stream
    for polls in range(5):
        driver.pass_time(20_000, "a", polls=polls)
    assert not driver.is_ended(stream)
    driver.pass_time(11_000, "a", polls=4)  # the time counts from the first heartbeat that told of poll 4
    error = driver.ended(stream)
    assert error is not None
    assert error.reason is Reason.UNKNOWN_MEMBER
    assert "did not poll for 30 s" in error.message
    with pytest.raises(PenstockError):
        driver.beat("a", polls=5)
    assert "a" in driver.group.members  # an acknowledgement of a moment ago may let it believe that it has everything
    driver.pass_time(SESSION_MS)
    assert not driver.group.members


def test_who_does_not_give_up_partitions_in_time_is_removed() -> None:
    driver = CoreDriver(t=4)
    driver.join("a", rebalance_timeout_ms=5_000)
    driver.settle()
    driver.join("b")
    driver.settle()
    stream = driver.core.sessions["a"].stream
    driver.pass_time(4_000, "a", "b")
    assigned = driver.core.assignment("a", driver.now_ms)
    assert assigned is not None
    assert assigned.release_within_ms == 1_000
    driver.pass_time(1_000, "b")
    assert "did not give up 2 partitions within 5 s" in str(driver.ended(stream))
    assert driver.owned("b") == frozenset()
    driver.pass_time(SESSION_MS, "b")
    assert driver.owned("b") == parts("t", 0, 1, 2, 3)


def test_the_condemned_gets_no_share_of_a_rebalance() -> None:
    driver = CoreDriver(t=6)
    driver.join("a", rebalance_timeout_ms=1_000)
    driver.settle()
    driver.join("b")
    driver.settle()
    driver.pass_time(1_000, "a", "b")
    driver.join("c")
    driver.settle()
    assert driver.member("a").target == frozenset()
    assert len(driver.member("b").target) == len(driver.member("c").target) == 3


# ---- commits


def test_rule_20_commits_from_before_the_grant_and_of_others_are_refused() -> None:
    driver = CoreDriver(t=2)
    driver.joined("a", "b")
    (of_a,), (of_b,) = driver.owned("a"), driver.owned("b")
    assert commit_reasons(driver, "a", 1, of_a) == [None]  # it has it since then
    assert commit_reasons(driver, "b", 1, of_b) == [Reason.STALE_GENERATION]
    assert commit_reasons(driver, "b", 2, of_b, of_a) == [None, Reason.PARTITION_NOT_OWNED]
    assert commit_reasons(driver, "b", 3, of_b) == [Reason.STALE_GENERATION]
    assert commit_reasons(driver, "x", 2, of_b) == [Reason.UNKNOWN_MEMBER]


def test_rule_20_nothing_is_committed_for_what_was_given_up() -> None:
    driver = CoreDriver(t=2)
    driver.joined("a")
    driver.join("b")
    driver.settle()
    (moved,) = driver.member("b").target
    assert commit_reasons(driver, "a", 2, moved) == [None]
    driver.core.on_release("a", 2, [moved])
    assert commit_reasons(driver, "a", 2, moved) == [Reason.PARTITION_NOT_OWNED]


def test_rule_31_a_partition_changes_its_owner_only_when_no_commit_for_it_is_in_flight() -> None:
    driver = CoreDriver(t=2)
    driver.joined("a")
    driver.join("b")
    driver.settle()
    (moved,) = driver.member("b").target
    driver.core.commit_began([moved])
    driver.core.commit_began([moved])
    driver.core.on_release("a", 2, [moved])
    driver.core.commit_ended([moved])
    assert driver.settle() == []
    assert moved in driver.owned("a")
    driver.core.commit_ended([moved])
    driver.settle()
    assert driver.owned("b") == {moved}


def test_rule_31_who_goes_goes_when_its_commits_in_flight_are_resolved() -> None:
    driver = CoreDriver(t=2)
    driver.joined("a")
    driver.core.commit_began(parts("t", 1))
    driver.outputs += driver.core.on_leave("a", "", driver.now_ms, returning=False)
    assert driver.settle() == []
    assert commit_reasons(driver, "a", 1, *parts("t", 1)) == [Reason.UNKNOWN_MEMBER]
    driver.core.commit_ended(parts("t", 1))
    driver.settle()
    assert not driver.group.members


def test_rule_31_what_is_committed_by_nobody_is_given_to_nobody_meanwhile() -> None:
    driver = CoreDriver(t=2)
    assert commit_reasons(driver, "", 0, *parts("t", 0)) == [None]
    driver.core.commit_began(parts("t", 0))
    driver.join("a")
    assert commit_reasons(driver, "", 0, *parts("t", 0)) == [Reason.GROUP_NOT_EMPTY]
    driver.settle()
    assert driver.owned("a") == parts("t", 1)
    driver.core.commit_ended(parts("t", 0))
    driver.settle()
    assert driver.owned("a") == parts("t", 0, 1)


# ---- takeovers of the coordinator


def test_rule_31_a_new_coordinator_begins_all_sessions_anew_and_rebalances_nothing() -> None:
    driver = CoreDriver(t=4)
    driver.joined("a", "b")
    before = driver.group
    driver.pass_time(SESSION_MS - 1_000, "a")
    driver.take_over(2)
    assert driver.settle() == []
    driver.pass_time(SESSION_MS - 1_000)
    assert driver.group is before
    driver.pass_time(LIMITS.takeover_grace_ms + 1_000)
    assert not driver.group.members


def test_rule_31_a_former_coordinator_changes_nothing() -> None:
    driver = CoreDriver(t=4)
    driver.joined("a")
    former = driver.take_over(2)
    former.on_leave("a", "", driver.now_ms, returning=False)
    change = former.decide(driver.now_ms, 1)
    assert change is not None
    before = driver.group
    assert driver.answer(change).refusal == pb.REFUSAL_NOT_COORDINATOR
    assert driver.group is before
    former.on_answer(pb.ChangeResult(refusal=pb.REFUSAL_NOT_COORDINATOR), driver.now_ms)
    former.on_leave("a", "", driver.now_ms, returning=False)
    assert former.decide(driver.now_ms + 60_000, 1) is None


def test_a_member_continues_with_the_new_coordinator() -> None:
    driver = CoreDriver(t=4)
    driver.joined("a")
    driver.take_over(2)
    stream = driver.join("a", generation=1)
    assert driver.is_joined(stream)
    assert driver.take_assigned()[-1] == stream
    assert driver.to_read("a") == parts("t", 0, 1, 2, 3)
    assert driver.settle() == []


def test_a_pause_of_this_process_is_no_members_fault() -> None:
    driver = CoreDriver(t=4)
    driver.joined("a")
    driver.now_ms += SESSION_MS + 5_000
    driver.core.on_pause(SESSION_MS + 5_000)
    assert driver.core.tick(driver.now_ms) == []
    driver.pass_time(SESSION_MS - 1_000)
    assert "a" in driver.group.members


# ---- streams


def test_a_newer_stream_ends_the_older_and_only_the_newest_counts() -> None:
    driver = CoreDriver(t=2)
    driver.joined("a")
    older = driver.core.sessions["a"].stream
    newer = driver.join("a", generation=1)
    assert reason_of(driver.ended(older)) is Reason.MEMBER_REPLACED
    driver.core.on_stream_gone("a", older)
    assert driver.core.sessions["a"].stream == newer


def test_a_repeated_first_join_is_one_member() -> None:
    driver = CoreDriver(t=2)
    first = driver.join("a")
    second = driver.join("a")
    driver.settle()
    assert reason_of(driver.ended(first)) is Reason.MEMBER_REPLACED
    assert driver.is_joined(second)
    third = driver.join("a")
    assert driver.is_joined(third)
    assert driver.group.generation == 1


def test_whose_stream_breaks_before_it_has_joined_does_not_join() -> None:
    driver = CoreDriver(t=2)
    stream = driver.join("a")
    driver.core.on_stream_gone("a", stream)
    assert driver.settle() == []
    assert driver.core.is_idle
