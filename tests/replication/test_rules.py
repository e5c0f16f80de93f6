"""The rules of DESIGN section 6 on the pure cores, one test each, named after them."""

from typing import Any

import pytest

from penstock.node.replication.epochs import EpochEnd, EpochTable, LogBounds
from penstock.node.replication.events import (
    NO_EPOCH,
    NO_LEADER,
    Advance,
    Align,
    AppendRefusal,
    Diverge,
    Ended,
    Follow,
    InvariantViolationError,
    IsrProposal,
    Lead,
    Leave,
    Output,
    Outputs,
    PartitionView,
    Position,
    Propose,
    RefusalKind,
    Refuse,
    Resign,
    SendFetch,
    SendOpen,
    SendSeed,
    SessionKey,
    Span,
    WriteActIn,
    WriteAppend,
    WriteReset,
    WriteStart,
    WriteTruncate,
)
from penstock.node.replication.follower import FollowerCore, FollowerState
from penstock.node.replication.leader import LeaderCore
from penstock.node.replication.replica import ReplicaCore, Role

A, B, C = 1, 2, 3
LAG_MS = 3_000
EPOCH = 5
SESSION = SessionKey(10, 1, 1)


def bounds(end: int = 0, mark: int = 0, starts: tuple[tuple[int, int], ...] = (), log_start: int = 0) -> LogBounds:
    return LogBounds(EpochTable(starts or (((1, 0),) if end else ()), end), log_start, end, mark)


def view_of(isr: tuple[int, ...] = (A, B, C), partition_epoch: int = 1, **changes: Any) -> PartitionView:
    view = PartitionView(A, EPOCH, partition_epoch, (A, B, C), frozenset(isr), 10, 2)
    return view._replace(**changes)


def leader_of(log: LogBounds, isr: tuple[int, ...] = (A, B, C)) -> LeaderCore:
    return LeaderCore(A, view_of(isr), log, LAG_MS, 0)


def session(follower: int, slot: int = 1, node_epoch: int = 10) -> SessionKey:
    return SessionKey(node_epoch + follower, 1, slot)


def at(offset: int, last_epoch: int = 1, leader_epoch: int = EPOCH) -> Position:
    return Position(leader_epoch, offset, last_epoch if offset else NO_EPOCH, 0)


def join(leader: LeaderCore, follower: int, offset: int, last_epoch: int = 1) -> Outputs:
    return leader.on_open(follower, session(follower), at(offset, last_epoch))


def append(leader: LeaderCore, log: LogBounds, count: int = 1) -> None:
    """Append and make durable here."""
    leader.append(count)
    log.durable_end = log.log_end_offset
    leader.on_durable()


def proposal_in(outputs: Outputs) -> IsrProposal:
    found = [out.proposal for out in outputs if isinstance(out, Propose)]
    assert len(found) == 1, outputs
    return found[0]


def following(log: LogBounds) -> tuple[FollowerCore, Output]:
    follower = FollowerCore(A, EPOCH, log)
    (opened,) = follower.connect(SESSION)
    return follower, opened


# ---- rules 1 to 3


def test_rule_1_truncates_to_the_divergence_point_and_not_to_hw() -> None:
    follower, _ = following(bounds(10, mark=2, starts=((1, 0), (2, 6))))
    assert follower.on_divergence(SESSION, 1, 8) == [WriteTruncate(EPOCH, 6)]


@pytest.mark.parametrize(
    ("asked", "answer"),
    [(0, None), (1, EpochEnd(1, 4)), (2, EpochEnd(1, 4)), (3, EpochEnd(3, 9)), (9, EpochEnd(3, 9))],
)
def test_rule_2_the_lookup_answers_with_the_largest_epoch_not_above(asked: int, answer: EpochEnd | None) -> None:
    assert EpochTable(((1, 0), (3, 4)), 9).end_of(asked) == answer


def test_rule_2_cuts_to_the_lesser_end_and_asks_again() -> None:
    log = bounds(8, starts=((2, 0), (4, 5)))
    follower, _ = following(log)
    assert follower.on_divergence(SESSION, 3, 7) == [WriteTruncate(EPOCH, 5)]
    assert follower.state is FollowerState.CUTTING
    assert follower.on_cut(succeeded=True) == [SendFetch(SESSION, Position(EPOCH, 5, 2, 0))]
    assert follower.on_divergence(SESSION, 1, 3) == [WriteTruncate(EPOCH, 0)]


def test_rule_3_a_stale_leader_epoch_is_fenced_and_an_unknown_newer_one_waits() -> None:
    core = ReplicaCore(A, bounds(), NO_EPOCH, LAG_MS)
    core.on_view(view_of(), 10, 0)
    core.on_acted(EPOCH, bounds(), 0)
    assert core.on_open(B, session(B), at(0, leader_epoch=EPOCH - 1)) == [Refuse(B, session(B), RefusalKind.NOT_LEADER)]
    newer = session(B, slot=2)
    assert core.on_open(B, newer, at(0, leader_epoch=EPOCH + 1)) == []
    core.on_view(view_of(partition_epoch=2, leader_epoch=EPOCH + 1), 10, 0)
    outputs = core.on_acted(EPOCH + 1, bounds(), 0)
    assert Align(B, newer, 0) in outputs


def test_rule_3_a_last_epoch_that_ends_elsewhere_is_no_acknowledgement() -> None:
    log = bounds(4, starts=((1, 0), (3, 2)))
    leader = leader_of(log)
    assert leader.on_open(B, session(B), at(4, last_epoch=2)) == [Diverge(B, session(B), 1, 2)]
    assert leader.next_push(B, session(B)) is None


# ---- rules 4, 5, 8, 10


def test_rule_4_hw_needs_fetches_of_this_epoch() -> None:
    leader = leader_of(bounds(3, mark=1))
    assert leader.on_durable() == []
    join(leader, B, 3)
    assert Advance(3) in join(leader, C, 3)


def test_rule_5_a_pending_member_counts_and_a_shrink_only_when_applied() -> None:
    log = bounds(2, mark=2)
    leader = leader_of(log, isr=(A, B))
    join(leader, B, 2)
    assert proposal_in(join(leader, C, 2)).isr == (A, B, C)
    append(leader, log)
    assert leader.on_fetch(B, session(B), at(3, EPOCH)) == []
    assert Advance(3) in leader.on_fetch(C, session(C), at(3, EPOCH))
    shrunk = leader_of(bounds(2, mark=1))
    join(shrunk, B, 2)
    assert proposal_in(shrunk.tick(LAG_MS)).isr == (A, B)
    assert shrunk.on_durable() == []
    assert Advance(2) in shrunk.on_view(view_of((A, B), 2), 0)


def test_rule_5_pending_ends_by_a_higher_partition_epoch_or_a_final_refusal_which_is_not_sent_again() -> None:
    log = bounds(2, mark=2)
    leader = leader_of(log, isr=(A, B))
    join(leader, B, 2)
    refused = proposal_in(join(leader, C, 2))
    assert leader.on_view(view_of((A, B), 1), 0) == []
    assert leader.pending == refused
    leader.on_proposal_refused(refused)
    assert leader.tick(1) == []
    again = leader.on_open(C, session(C, node_epoch=20), at(2))
    assert proposal_in(again).node_epochs == ((C, 20 + C),)
    assert proposal_in(leader.on_view(view_of((A, B), 2), 0)).partition_epoch == 2


def test_rule_8_below_min_insync_nothing_is_appended_and_hw_stands_still() -> None:
    log = bounds(2, mark=1)
    leader = leader_of(log, isr=(A,))
    assert leader.append_refusal() is AppendRefusal.NOT_ENOUGH_REPLICAS
    outputs = join(leader, B, 2)
    assert proposal_in(outputs).isr == (A, B)
    assert log.high_watermark == 1
    assert Advance(2) in leader.on_view(view_of((A, B), 2), 0)


def test_rule_10_neither_side_counts_what_is_not_durable() -> None:
    log = bounds()
    leader = leader_of(log)
    leader.append(1)
    for node in (B, C):
        join(leader, node, 0)
        assert leader.on_fetch(node, session(node), at(1, EPOCH)) == []
    log.durable_end = 1
    assert leader.on_durable() == [Advance(1)]
    follower, _ = following(own := bounds())
    assert follower.on_batches(SESSION, [Span(0, 1, EPOCH)]) == [WriteAppend(EPOCH)]
    own.durable_end = 1
    assert follower.on_appended(1) == [SendFetch(SESSION, Position(EPOCH, 1, EPOCH, 0))]


# ---- rules 6, 7, 11


def test_rule_6_joins_only_at_or_past_the_epochs_start_and_hw() -> None:
    leader = leader_of(bounds(5, mark=3), isr=(A, B))
    join(leader, B, 5)
    assert [out for out in join(leader, C, 4) if isinstance(out, Propose)] == []
    assert proposal_in(leader.on_fetch(C, session(C), at(5))).isr == (A, B, C)


def test_rule_7_an_isr_change_carries_the_node_epoch_of_the_fetch() -> None:
    leader = leader_of(bounds(1, mark=1), isr=(A, B))
    assert proposal_in(leader.on_open(C, SessionKey(77, 4, 2), at(1))).node_epochs == ((C, 77),)


def test_rule_11_messages_of_an_earlier_session_change_nothing() -> None:
    leader = leader_of(bounds(3))
    join(leader, B, 3)
    later = session(B, slot=2)
    leader.on_open(B, later, at(3))
    assert leader.on_open(B, session(B), at(0)) == []
    assert leader.on_fetch(B, session(B), at(1)) == []
    assert leader.next_push(B, later) == 3
    follower, _ = following(bounds(3))
    follower.connect(SESSION._replace(slot=2))
    assert follower.on_divergence(SESSION, 1, 0) == []
    assert follower.on_batches(SESSION, [Span(3, 4, EPOCH)]) == []


def test_rule_11_who_leaves_the_replicas_is_refused_and_comes_back_with_a_new_session() -> None:
    leader = leader_of(bounds(4, 4))
    leader.on_open(B, SESSION, Position(EPOCH, 4, 1, 0))
    outputs = leader.on_view(view_of((A, C), 2, replicas=(A, C)), 0)
    assert outputs == [Refuse(B, SESSION, RefusalKind.NOT_REPLICA)]
    leader.on_view(view_of((A, C), 3), 0)
    assert leader.on_fetch(B, SESSION, Position(EPOCH, 4, 1, 0)) == []
    later = SESSION._replace(slot=2)
    assert Align(B, later, 4) in leader.on_open(B, later, Position(EPOCH, 4, 1, 0))


def test_rule_11_a_session_opens_only_when_earlier_writes_are_done() -> None:
    follower, _ = following(log := bounds())
    follower.on_batches(SESSION, [Span(0, 1, EPOCH)])
    follower.disconnect()
    later = SESSION._replace(stream_number=2)
    assert follower.connect(later) == []
    log.durable_end = 1
    assert follower.on_appended(1) == [SendOpen(later, Position(EPOCH, 1, EPOCH, 0))]


# ---- rules 12, 14, 22, 28


def test_rule_12_the_end_is_known_at_the_epochs_start() -> None:
    leader = leader_of(bounds(2, mark=1))
    assert not leader.end_is_known
    join(leader, B, 2)
    join(leader, C, 2)
    assert leader.end_is_known


def test_rule_14_a_duplicate_is_answered_below_hw_only() -> None:
    leader = leader_of(bounds(2, mark=1))
    assert leader.may_answer_duplicate(0)
    assert not leader.may_answer_duplicate(1)


def test_rule_14_a_replica_below_the_log_start_gets_a_seed_and_starts_there() -> None:
    leader = leader_of(bounds(9, mark=5, starts=((1, 0), (3, 4)), log_start=5), isr=(A, B))
    assert leader.on_open(C, session(C), at(0)) == [SendSeed(C, session(C))]
    follower, _ = following(log := bounds(2))
    assert follower.on_seed(SESSION, 5, ((1, 0), (3, 4))) == [WriteReset(EPOCH, 5)]
    assert follower.on_cut(succeeded=True) == [SendFetch(SESSION, Position(EPOCH, 5, 3, 5))]
    assert (log.log_start_offset, log.log_end_offset, log.high_watermark) == (5, 5, 5)


def test_rule_22_the_log_start_travels_and_never_passes_hw() -> None:
    follower, _ = following(bounds(9))
    assert follower.on_progress(SESSION, 4, 6) == [WriteStart(EPOCH, 4)]
    assert follower.on_progress(SESSION, 9, 6) == [WriteStart(EPOCH, 6)]
    assert follower.on_progress(SESSION, 9, 5) == []


def test_rule_22_a_follower_whose_next_batch_is_dropped_starts_anew() -> None:
    log = bounds(9, mark=9)
    leader = leader_of(log, isr=(A, B))
    join(leader, C, 2)
    log.log_start_offset, log.first_offset = 5, 4
    assert SendSeed(C, session(C)) in leader.on_start_moved()


def test_rule_28_without_a_comparable_epoch_the_follower_resets() -> None:
    leader = leader_of(bounds(4, mark=0, starts=((3, 0),)), isr=(A, B))
    assert leader.on_open(C, session(C), at(2, last_epoch=1)) == [SendSeed(C, session(C))]


# ---- rules 26, 27, 29


def test_rule_26_acts_only_when_the_epoch_is_durable_and_granted() -> None:
    core = ReplicaCore(A, bounds(), NO_EPOCH, LAG_MS)
    assert core.on_view(view_of(), 9, 0) == []  # granted to node_epoch 10
    assert core.role is Role.IDLE
    assert core.on_view(view_of(), 10, 0) == [WriteActIn(EPOCH)]
    assert core.append_refusal() is AppendRefusal.NOT_LEADER
    assert Lead(EPOCH) in core.on_acted(EPOCH, bounds(), 0)
    assert core.append_refusal() is None


def test_rule_26_a_lower_epoch_than_the_last_acted_in_is_never_acted_on() -> None:
    core = ReplicaCore(C, bounds(), EPOCH + 1, LAG_MS)
    assert core.on_view(view_of(), 10, 0) == []
    assert core.on_view(view_of(partition_epoch=2, leader_epoch=EPOCH + 1), 10, 0) == [WriteActIn(EPOCH + 1)]
    assert core.on_acted(EPOCH + 1, bounds(), 0) == [Follow(A, EPOCH + 1)]


def test_rule_26_resigns_after_a_failed_commit_of_what_was_pushed() -> None:
    core = ReplicaCore(A, bounds(), NO_EPOCH, LAG_MS)
    core.on_view(view_of(), 10, 0)
    core.on_acted(EPOCH, bounds(), 0)
    core.on_open(B, session(B), at(0))
    assert core.append(1) == 0
    assert core.on_commits(0, 1, 0) == []  # pushed to nobody: the offset is free again
    assert core.append(1) == 0
    assert core.append(1) == 1
    assert core.leader is not None
    core.leader.on_pushed(B, session(B), 1)
    assert core.on_commits(0, 1, 0) == [Resign(EPOCH)]
    assert core.append_refusal() is AppendRefusal.RECOVERING
    core.on_commits(0, 1, 0)
    assert core.append_refusal() is AppendRefusal.RESIGNED
    assert core.tick(0) == [Resign(EPOCH)]


def test_rule_26_a_role_change_ends_the_old_role_first_and_waits_for_its_writes() -> None:
    core = ReplicaCore(A, bounds(), NO_EPOCH, LAG_MS)
    core.on_view(view_of(), 10, 0)
    core.on_acted(EPOCH, bounds(), 0)
    core.append(1)
    deposed = view_of(partition_epoch=2, leader=B, leader_epoch=EPOCH + 1)
    assert core.on_view(deposed, 10, 0) == [Ended(), WriteActIn(EPOCH + 1)]
    assert core.on_commits(1, 0, 1) == []
    assert core.on_acted(EPOCH + 1, bounds(1), 0) == [Follow(B, EPOCH + 1)]
    gone = view_of(partition_epoch=3, leader=NO_LEADER, leader_epoch=EPOCH + 2)
    core.connect(SESSION)
    assert core.on_view(gone, 10, 0) == [Ended(), Leave(SESSION, retry=False)]
    assert core.role is Role.IDLE


def test_rule_27_an_isr_member_below_hw_leaves_as_a_new_store() -> None:
    leader = leader_of(bounds(3, mark=3))
    proposal = proposal_in(leader.on_open(C, session(C), at(0)))
    assert (proposal.isr, proposal.lost) == ((A, B), (C,))


def test_rule_29_leaves_who_never_reached_the_end_that_stood_at_the_windows_start() -> None:
    log = bounds()
    leader = leader_of(log)
    for follower in (B, C):
        join(leader, follower, 0)
    append(leader, log, 10)
    assert leader.tick(100) == []
    leader.on_fetch(B, session(B), at(10, EPOCH))
    append(leader, log, 10)
    assert leader.tick(3_099) == []  # B reached 10, the end that stood at 100
    assert proposal_in(leader.tick(3_100)).isr == (A, B)


def test_rule_29_an_idle_follower_that_has_everything_stays() -> None:
    leader = leader_of(bounds(2, mark=2))
    for follower in (B, C):
        join(leader, follower, 2)
    assert leader.tick(1_000_000) == []


def test_rule_29_a_refused_connection_is_answered_at_once() -> None:
    leader = leader_of(bounds(2, mark=2))
    for follower in (B, C):
        join(leader, follower, 2)
    assert proposal_in(leader.on_unreachable(C)).isr == (A, B)


def test_rule_29_who_refuses_connections_does_not_join_before_it_opens_again() -> None:
    leader = leader_of(bounds(2, mark=2))
    for follower in (B, C):
        join(leader, follower, 2)
    leader.on_unreachable(C)
    assert leader.on_view(view_of((A, B), 2), 0) == []
    assert leader.tick(1) == []
    assert proposal_in(leader.on_open(C, session(C, slot=2), at(2))).isr == (A, B, C)


# ---- what must not be


def test_batches_that_do_not_tile_end_the_session() -> None:
    for span in (Span(1, 2, EPOCH), Span(0, 0, EPOCH), Span(0, 1, EPOCH + 1)):
        follower, _ = following(bounds())
        assert follower.on_batches(SESSION, [span]) == [Leave(SESSION, retry=True)]


def test_a_leadership_does_not_begin_on_undrained_writes() -> None:
    log = bounds(3)
    log.durable_end = 2
    with pytest.raises(InvariantViolationError):
        leader_of(log)


def test_a_failed_append_at_a_follower_reopens_when_the_queue_is_empty() -> None:
    core = ReplicaCore(B, bounds(), NO_EPOCH, LAG_MS)
    core.on_view(view_of(), 10, 0)
    core.on_acted(EPOCH, bounds(), 0)
    core.connect(SESSION)
    core.on_batches(SESSION, [Span(0, 1, EPOCH)])
    core.on_batches(SESSION, [Span(1, 2, EPOCH)])
    assert core.on_commits(0, 1, 0) == [Leave(SESSION, retry=True)]
    later = SESSION._replace(slot=2)
    assert core.connect(later) == []
    assert core.on_commits(0, 1, 0) == [SendOpen(later, Position(EPOCH, 0, NO_EPOCH, 0))]


def test_hw_is_followed_while_catching_up() -> None:
    follower, _ = following(log := bounds())
    follower.on_progress(SESSION, 2, 0)
    follower.on_batches(SESSION, [Span(0, 1, EPOCH)])
    assert log.high_watermark == 1
    follower.on_batches(SESSION, [Span(1, 3, EPOCH)])
    assert log.high_watermark == 2


# ---- rule 22


def begins(offset: int, log_start: int, last_epoch: int = EPOCH) -> Position:
    return at(offset, last_epoch)._replace(log_start_offset=log_start)


def trimming_leader(isr: tuple[int, ...]) -> tuple[LeaderCore, LogBounds]:
    """Ten records are committed, and the leader's log begins at 4."""
    log = bounds(10, mark=10)
    leader = leader_of(log, isr)
    assert leader.move_start(4) == [WriteStart(EPOCH, 4)]
    log.log_start_offset = 4
    leader.on_start_moved()
    return leader, log


def test_rule_22_a_trim_is_confirmed_once_each_isr_member_has_it() -> None:
    leader, _ = trimming_leader((A, B))
    leader.on_open(B, session(B), begins(10, 3, 1))
    assert not leader.has_trimmed(4)
    leader.on_fetch(B, session(B), begins(10, 4, 1))
    assert leader.has_trimmed(4)


def test_rule_22_below_min_insync_replicas_a_trim_is_not_confirmed_since_an_elr_member_may_lead_without_it() -> None:
    leader, _ = trimming_leader((A,))
    assert not leader.has_trimmed(4)


def test_rule_22_who_joins_the_isr_has_what_was_trimmed() -> None:
    leader, _ = trimming_leader((A, B))
    leader.on_open(B, session(B), begins(10, 4, 1))
    assert leader.has_trimmed(4)
    assert not any(isinstance(out, Propose) for out in leader.on_open(C, session(C), begins(10, 0, 1)))
    joined = leader.on_fetch(C, session(C), begins(10, 4, 1))
    assert proposal_in(joined).isr == (A, B, C)


def test_rule_22_a_new_leader_takes_what_its_log_lacks_as_trimmed() -> None:
    leader = leader_of(bounds(10, mark=10, log_start=4), (A, B))
    assert not any(isinstance(out, Propose) for out in leader.on_open(C, session(C), begins(10, 0, 1)))


def test_rule_22_a_leader_begins_where_a_follower_does_that_heard_of_it_from_a_former_leader() -> None:
    leader = leader_of(bounds(10, mark=10))
    assert WriteStart(EPOCH, 4) in leader.on_open(B, session(B), begins(10, 4, 1))


def test_rule_22_a_follower_that_catches_up_begins_where_the_leader_does_without_being_told_again() -> None:
    log = bounds(2, mark=2)
    follower, _ = following(log)
    assert follower.on_progress(SESSION, 10, 6) == [WriteStart(EPOCH, 2)]
    log.log_start_offset = 2
    follower.on_start_moved()
    spans = [Span(2, 8, EPOCH)]
    assert follower.on_batches(SESSION, spans) == [WriteAppend(EPOCH), WriteStart(EPOCH, 6)]


def test_rule_22_a_follower_that_starts_anew_within_a_batch_begins_where_the_leader_does() -> None:
    """The leader said so before, and does not again."""
    log = bounds(20, mark=20)
    follower, _ = following(log)
    assert follower.on_progress(SESSION, 20, 12) == [WriteStart(EPOCH, 12)]
    log.log_start_offset = 12
    follower.on_start_moved()
    follower.on_seed(SESSION, 10, ())
    follower.on_cut(succeeded=True)
    assert WriteStart(EPOCH, 12) in follower.on_batches(SESSION, [Span(10, 20, EPOCH)])


# ---- rule 19


def lacking(offset: int, tombstones_below: int) -> Position:
    """The position of a replica whose log is as one where tombstones below an offset may be gone."""
    return at(offset)._replace(tombstones_below=tombstones_below)


@pytest.mark.parametrize(("offset", "below", "starts_anew"), [(5, 0, True), (5, 7, True), (5, 8, False), (8, 0, False)])
def test_rule_19_who_will_not_see_tombstones_that_are_gone_starts_anew(
    offset: int, below: int, *, starts_anew: bool
) -> None:
    log = bounds(10, mark=10)
    log.tombstones_below = 8
    outputs = leader_of(log, isr=(A, B)).on_open(C, session(C), lacking(offset, below))
    assert (SendSeed(C, session(C)) in outputs) is starts_anew


def test_rule_19_every_replica_has_passed_what_the_one_that_is_furthest_back_has() -> None:
    leader = leader_of(bounds(10, mark=10), isr=(A, B))
    join(leader, B, 10)
    assert leader.passed_offset == 0  # nothing is known of C, which is in no ISR
    join(leader, C, 4)
    assert leader.passed_offset == 4
    leader.on_open(C, session(C, slot=2), at(3, last_epoch=9, leader_epoch=EPOCH))
    assert leader.passed_offset == 0  # its log does not agree


def test_rule_19_what_a_replica_is_filled_with_tells_which_tombstones_it_need_not_see() -> None:
    follower, _ = following(log := bounds(2))
    follower.on_seed(SESSION, 0, (), 8)
    (fetch,) = follower.on_cut(succeeded=True)
    assert isinstance(fetch, SendFetch)
    assert fetch.position.tombstones_below == log.tombstones_below == 8


def test_rule_19_what_was_passed_holds_in_its_session_only() -> None:
    follower, _ = following(bounds(9))
    follower.on_progress(SESSION, 9, 0, 7)
    assert follower.passed_offset == 7
    follower.disconnect()
    assert follower.passed_offset == 0
