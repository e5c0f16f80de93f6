"""The member's core: what it believes to have, and until when (rule 21 on the client's side), all in virtual time."""

import pytest

from penstock.client.errors import make_error
from penstock.client.group.holds import HoldState
from penstock.client.group.member import JOIN_TIMEOUT_MS, Phase
from penstock.client.group.options import Subscribed
from penstock.protocol.reasons import Reason
from tests.client.group.talk import POLL_MS, REBALANCE_MS, SESSION_MS, Member, ack, assignment, joined


def test_a_member_says_who_it_is_and_what_it_wants() -> None:
    member = Member(instance_id="i", client_id="c", assignor="range", pattern="or.*")
    start = member.core.open(0).start
    assert (start.group_id, start.member_id, start.instance_id, start.client_id) == ("g", "m1", "i", "c")
    assert (list(start.subscription.topics), start.subscription.pattern) == (["orders"], "or.*")
    assert start.session_timeout.ToMilliseconds() == SESSION_MS
    assert start.generation == 0


def test_heartbeats_are_sent_as_often_as_the_coordinator_wishes_and_three_times_a_session() -> None:
    member = Member().join(0)
    assert member.core.due_ms() == 3_000
    assert member.beat(3_000) == 1
    assert member.beat(6_000) == 2
    impatient = Member(rebalance_timeout_ms=600)
    impatient.core.open(0)
    response = joined()
    response.joined.rebalance_timeout.FromMilliseconds(600)
    impatient.hear(response, 0)
    assert impatient.core.due_ms() == 200


def test_rule_21_all_is_lost_a_session_after_the_sending_of_the_last_acknowledged_heartbeat() -> None:
    member = Member().join(0, read={0: 1, 1: 1})
    sequence = member.beat(3_000)
    member.hear(ack(sequence), 5_900)
    member.tick(3_000 + SESSION_MS - 1)
    assert member.held == {0, 1}
    member.tick(3_000 + SESSION_MS)
    assert member.held == set()
    assert member.changes == [("assigned", (0, 1)), ("lost", (0, 1))]
    assert member.core.wants_new_stream


def test_rule_21_after_a_pause_of_the_process_nothing_said_before_is_believed() -> None:
    """It was stopped; what lies in the socket is older than what the coordinator did meanwhile."""
    member = Member().join(0, read={0: 1})
    sequence = member.beat(3_000)
    late_ms = 60_000
    member.hear(ack(sequence), late_ms)
    member.hear(assignment(2, {0: 1, 1: 2}), late_ms)
    assert member.held == set()
    assert member.core.valid_until_ms <= late_ms


def test_nothing_is_due_where_only_news_can_change_something() -> None:
    """A time that lies back would have the consumer look without a pause, for as long as no coordinator is there."""
    member = Member().join(0, read={0: 1})
    member.core.waiting = True
    member.core.ended(None, 1_000)
    member.tick(SESSION_MS)
    assert (member.held, member.core.phase) == (set(), Phase.AWAY)
    assert member.core.due_ms() is None
    member.core.leave("closed", returning=False)
    assert member.core.due_ms() is None


def test_a_lost_member_continues_its_membership_on_a_new_stream_and_has_its_partitions_again() -> None:
    member = Member().join(0, read={0: 1})
    member.tick(SESSION_MS)
    member.core.ended(None, SESSION_MS)
    assert member.core.open(SESSION_MS + 5).start.generation == 1
    member.hear(joined(1), SESSION_MS + 10)
    member.hear(assignment(1, {0: 1}), SESSION_MS + 10)
    assert member.changes[-1] == ("assigned", (0,))
    assert member.core.member_id == "m1"


def test_rule_21_a_loss_while_a_new_stream_is_not_answered_gives_that_up_too() -> None:
    member = Member().join(0, read={0: 1})
    member.core.ended(None, SESSION_MS - 1_000)
    member.core.open(SESSION_MS - 500)
    member.tick(SESSION_MS)
    assert member.held == set()
    assert member.core.wants_new_stream


def test_a_broken_stream_costs_nothing() -> None:
    member = Member().join(0, read={0: 1})
    member.core.ended(None, 1_000)
    assert member.core.wants_stream
    assert member.held == {0}
    member.core.open(2_000)
    member.hear(joined(1), 2_100)
    member.hear(assignment(1, {0: 1}), 2_100)
    assert member.changes == [("assigned", (0,))]
    member.tick(2_000 + SESSION_MS - 1)
    assert member.held == {0}


@pytest.mark.parametrize(
    "reason", [Reason.NOT_COORDINATOR, Reason.COORDINATOR_LOADING, Reason.LEADER_NOT_AVAILABLE, Reason.INTERNAL]
)
def test_a_coordinator_that_goes_away_costs_nothing(reason: Reason) -> None:
    member = Member().join(0, read={0: 1})
    member.core.ended(make_error(reason, "gone"), 1_000)
    assert (member.held, member.core.phase, member.core.take_error()) == ({0}, Phase.AWAY, None)
    assert member.core.open(1_000).start.generation == 1


def test_what_a_former_coordinator_answers_is_neither_believed_nor_an_acknowledgement() -> None:
    member = Member().join(0, generation=4, read={0: 4})
    member.core.ended(None, 1_000)
    member.core.open(2_000)
    member.hear(joined(3), 2_100)
    member.hear(assignment(3, {0: 2, 1: 3}), 2_100)
    assert member.held == {0}
    assert member.core.wants_new_stream
    member.tick(SESSION_MS)
    assert member.held == set()


def test_a_removed_member_loses_all_and_joins_anew_as_another() -> None:
    member = Member().join(0, generation=4, read={0: 4})
    member.core.ended(make_error(Reason.UNKNOWN_MEMBER, "was silent for 9 s"), 1_000)
    member.note()
    assert member.changes[-1] == ("lost", (0,))
    start = member.core.open(1_000).start
    assert (start.member_id, start.generation) == ("m2", 0)
    assert member.core.take_error() is None


def test_a_fenced_instance_is_told_and_does_not_come_back() -> None:
    member = Member(instance_id="i").join(0, read={0: 1})
    member.core.ended(make_error(Reason.INSTANCE_FENCED, "another one"), 1_000)
    error = member.core.take_error()
    assert error is not None
    assert error.reason is Reason.INSTANCE_FENCED
    member.core.asked(2_000)
    assert not member.core.wants_stream
    assert member.held == set()


def test_an_instance_in_use_is_waited_for() -> None:
    member = Member(instance_id="i")
    member.core.open(0)
    member.core.ended(make_error(Reason.INSTANCE_IN_USE, "connected"), 10)
    assert member.core.wants_stream
    assert member.core.take_error() is None


def test_what_cannot_be_joined_is_told_once_and_tried_again_when_the_application_asks() -> None:
    member = Member()
    member.core.open(0)
    member.core.ended(make_error(Reason.UNKNOWN_TOPIC, "no topic 'orders'"), 10)
    error = member.core.take_error()
    assert error is not None
    assert error.reason is Reason.UNKNOWN_TOPIC
    assert member.core.take_error() is None
    member.core.waited(15)
    assert not member.core.wants_stream
    member.core.asked(20)
    assert member.core.wants_stream


def test_rule_21_a_revoked_partition_is_lost_at_its_deadline_and_released_so_that_the_rest_stays() -> None:
    member = Member().join(0, read={0: 1, 1: 1})
    member.core.waiting = True
    sequence = member.beat(3_000)
    member.hear(ack(sequence), 3_500)
    member.hear(assignment(2, {0: 1}, revoked=(1,), within_ms=1_000), 3_600)
    assert member.changes[-1] == ("revoked", (1,))
    assert member.held == {0, 1}
    member.said()
    member.tick(3_999)
    assert member.held == {0, 1}
    member.tick(4_000)
    assert member.held == {0}
    assert member.changes[-1] == ("lost", (1,))
    ((kind, release),) = member.said()
    assert (kind, release.generation, [p.partition for p in release.partitions]) == ("release", 2, [1])


def test_what_an_assignment_does_not_name_is_lost() -> None:
    member = Member().join(0, read={0: 1, 1: 1})
    member.hear(assignment(2, {1: 1}), 100)
    assert member.changes[-1] == ("lost", (0,))
    assert member.held == {1}


def test_a_partition_granted_anew_is_another_one() -> None:
    member = Member().join(0, read={0: 1})
    member.hear(assignment(3, {0: 3}), 100)
    assert member.changes == [("assigned", (0,)), ("lost", (0,)), ("assigned", (0,))]


def test_what_stays_is_not_touched_by_a_rebalance() -> None:
    member = Member().join(0, read={0: 1, 1: 1})
    (stays, _) = list(member.core.holds)
    member.hear(assignment(2, {0: 1, 2: 2}, revoked=(1,)), 100)
    assert member.core.holds.has(stays)
    assert stays.state is HoldState.READ
    assert member.changes[1:] == [("revoked", (1,)), ("assigned", (2,))]


def test_a_release_tells_the_generation_and_ends_the_hold() -> None:
    member = Member().join(0, read={0: 1})
    member.hear(assignment(2, {}, revoked=(0,)), 100)
    (hold,) = member.core.holds
    assert member.core.release([hold]) == [hold]
    assert member.core.release([hold]) == []
    ((kind, release),) = member.said()
    assert (kind, release.generation) == ("release", 2)


def test_rule_21_what_was_released_is_not_believed_until_it_is_granted_again() -> None:
    """The coordinator changed its mind before the release reached it: what it says then is older than the release."""
    member = Member().join(0, read={0: 1})
    member.hear(assignment(2, {}, revoked=(0,)), 100)
    (hold,) = member.core.holds
    member.core.release([hold])
    member.said()
    member.hear(assignment(3, {0: 1}), 200)
    assert member.held == set()
    ((kind, release),) = member.said()
    assert (kind, release.generation) == ("release", 3)
    member.hear(assignment(4, {0: 4}), 300)
    assert member.held == {0}


def test_a_release_that_was_lost_with_its_stream_is_sent_again() -> None:
    member = Member().join(0, read={0: 1})
    member.hear(assignment(2, {}, revoked=(0,)), 100)
    (hold,) = member.core.holds
    member.core.ended(None, 110)
    member.core.release([hold])
    member.core.open(120)
    member.hear(joined(2), 130)
    assert member.said() == []
    member.hear(assignment(2, {}, revoked=(0,)), 130)
    assert [kind for kind, _ in member.said()] == ["release"]


def test_rule_21_what_was_lost_by_time_and_asked_for_then_is_not_believed_by_its_older_grant() -> None:
    """The release crosses an assignment that gives it back: the coordinator may grant it to another at once."""
    member = Member().join(0, read={0: 1})
    member.tick(SESSION_MS)
    member.core.ended(None, SESSION_MS)
    member.core.open(SESSION_MS)
    member.hear(joined(2), SESSION_MS)
    member.hear(assignment(2, {}, revoked=(0,)), SESSION_MS)
    member.hear(assignment(3, {0: 1}), SESSION_MS)
    assert member.held == set()
    member.hear(assignment(3, {0: 3}), SESSION_MS)
    assert member.held == {0}


def test_a_revocation_taken_back_before_anything_was_done_is_undone() -> None:
    member = Member().join(0, read={0: 1})
    member.hear(assignment(2, {}, revoked=(0,), within_ms=1_000), 100)
    member.hear(assignment(3, {0: 1}), 200)
    assert member.changes[-1] == ("restored", (0,))
    member.tick(2_000)
    assert member.held == {0}


def test_a_revocation_that_is_being_settled_is_not_taken_back() -> None:
    member = Member().join(0, read={0: 1})
    member.hear(assignment(2, {}, revoked=(0,)), 100)
    (hold,) = member.core.holds
    hold.state = HoldState.SETTLING
    member.hear(assignment(3, {0: 1}), 200)
    assert member.changes[-1] == ("revoked", (0,))
    assert member.core.release([hold])


def test_rule_21_who_does_not_ask_for_records_loses_all_leaves_and_joins_when_it_asks_again() -> None:
    member = Member().join(0, read={0: 1})
    for now_ms in range(3_000, POLL_MS, 3_000):
        member.hear(ack(member.beat(now_ms)), now_ms)
    member.tick(POLL_MS - 1)
    assert member.held == {0}
    member.said()
    member.tick(POLL_MS)
    assert member.held == set()
    assert [kind for kind, _ in member.said()] == ["leave"]
    assert not member.core.wants_stream
    member.core.asked(POLL_MS + 5)
    assert member.core.open(POLL_MS + 5).start.member_id == "m2"


def test_who_waits_for_records_is_asking_all_the_while() -> None:
    member = Member().join(0, read={0: 1})
    member.core.waiting = True
    polls = set()
    for now_ms in range(3_000, 2 * POLL_MS, 3_000):
        member.hear(ack(member.beat(now_ms)), now_ms)
        polls.add(member.core.polls)
    assert member.held == {0}
    assert len(polls) == len(range(3_000, 2 * POLL_MS, 3_000))


def test_polls_stand_still_while_nobody_asks() -> None:
    member = Member().join(0)
    member.core.asked(10)
    for now_ms in (3_000, 6_000, 9_000):
        member.tick(now_ms)
    assert {said.polls for kind, said in member.said() if kind == "heartbeat"} == {1}


def test_rule_21_heartbeats_beside_the_stream_keep_the_session_but_what_was_not_read_yet_suspends() -> None:
    """The loop was blocked, a thread sent the heartbeats: a revocation may lie unread in the stream."""
    member = Member(max_poll_interval_ms=600_000).join(0, read={0: 1})
    for now_ms in range(0, REBALANCE_MS + 3_000, 3_000):
        member.core.acknowledged(now_ms)
    now_ms = REBALANCE_MS + 3_000
    member.core.acknowledged(now_ms)
    sequence = member.beat(now_ms)
    assert member.held == {0}
    assert member.core.valid_until_ms <= now_ms
    member.hear(ack(sequence), now_ms + 10)
    assert member.core.valid_until_ms > now_ms + 10


def test_a_stream_without_acknowledgements_is_given_up_before_the_session_is_over() -> None:
    member = Member().join(0, read={0: 1})
    member.tick(SESSION_MS * 2 // 3)
    assert member.core.wants_new_stream
    assert member.held == {0}
    fresh = Member()
    fresh.core.open(0)
    fresh.tick(JOIN_TIMEOUT_MS - 1)
    assert not fresh.core.wants_new_stream
    fresh.tick(JOIN_TIMEOUT_MS)
    assert fresh.core.wants_new_stream


def test_subscribing_asks_at_once_and_after_a_break_again() -> None:
    member = Member().join(0)
    member.core.subscribe(Subscribed(("other",)))
    ((kind, said),) = member.said()
    assert (kind, list(said.topics)) == ("subscribe", ["other"])
    member.core.ended(None, 10)
    assert list(member.core.open(20).start.subscription.topics) == ["other"]


def test_without_a_subscription_there_is_no_stream() -> None:
    member = Member(topics=())
    assert not member.core.wants_stream
    member.core.subscribe(Subscribed(("orders",)))
    assert member.core.wants_stream


def test_who_leaves_while_it_joins_says_so_too() -> None:
    member = Member()
    member.core.open(0)
    assert member.core.leave("closed", returning=False)
    assert [kind for kind, _ in member.said()] == ["leave"]


def test_leaving_is_said_and_ends_everything() -> None:
    member = Member(instance_id="i").join(0, read={0: 1})
    assert member.core.leave("closed", returning=True)
    ((kind, said),) = member.said()
    assert (kind, said.reason, said.returning) == ("leave", "closed", True)
    assert member.held == set()
    assert not member.core.wants_stream
