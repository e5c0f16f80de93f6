"""Anomalies of consumer groups, each by hand: what must pass, and what must fail with that kind."""

from pathlib import Path

import pytest

from penstock.chaos.checker import HistoryError
from tests.chaos.checker.build import kinds
from tests.chaos.checker.group_book import GroupBook


@pytest.fixture
def book(tmp_path: Path) -> GroupBook:
    made = GroupBook(tmp_path)
    made.write(8)
    return made


def two_members(book: GroupBook, commits: str = "manual") -> None:
    """Member a has the partition and was handed 0 to 3; b has joined."""
    book.join("a", commits)
    book.join("b", commits)
    book.assign_to("a", 1)
    book.hand("a", 0, 4)


# ---- who has it


def test_a_partition_goes_from_one_to_the_other(book: GroupBook) -> None:
    two_members(book)
    book.commit("a", 4)
    book.release("a")
    book.assign_to("b", 2, 4)
    book.hand("b", 4, 8)
    book.commit("b", 8)
    book.drained()
    book.committed(8)
    verdict = book.judge(8)
    assert verdict.valid is True, verdict
    assert verdict.counts["group_commit"] == {"ok": 2, "fail": 0, "info": 0}
    assert verdict.counts["group_assigned"]["ok"] == 2


def test_two_are_handed_records_at_one_time(book: GroupBook) -> None:
    two_members(book)
    book.assign_to("b", 2)
    book.hand("b", 0, 4)
    book.hand("a", 4, 8)
    verdict = book.judge(8)
    assert verdict.found == {"dual-owner": 1}
    assert "c1/member-a.0 (a) had t-0 in group g up to" in verdict.anomalies[0].message


def test_one_gives_it_up_after_the_other_had_it(book: GroupBook) -> None:
    two_members(book)
    book.assign_to("b", 2)
    book.release("a")
    book.hand("b", 0, 4)
    assert kinds(book.judge(8)) == {"dual-owner"}


def test_a_third_one_in_between_hides_nobody(book: GroupBook) -> None:
    two_members(book)
    book.join("c")
    book.assign_to("c", 2)
    book.hand("c", 0, 1)
    book.assign_to("b", 3)
    book.hand("b", 0, 1)
    book.hand("a", 4, 8)
    assert book.judge(8).found == {"dual-owner": 2}


def test_a_poll_that_began_before_proves_nothing_of_later(book: GroupBook) -> None:
    two_members(book)
    began = book.now
    book.assign_to("b", 2)
    book.hand("b", 0, 4)
    book.hand("a", 4, 8, began)
    assert book.judge(8).valid is True


def test_who_is_frozen_while_it_gives_it_up_is_no_owner_meanwhile(book: GroupBook) -> None:
    two_members(book)
    began = book.now
    book.assign_to("b", 2)
    book.hand("b", 0, 4)
    book.release("a", began)
    assert book.judge(8).valid is True


def test_who_loses_it_is_no_owner_until_then(book: GroupBook) -> None:
    two_members(book)
    book.assign_to("b", 2)
    book.hand("b", 0, 4)
    book.lose("a")
    assert book.judge(8).valid is True


def test_two_are_granted_it_in_one_generation(book: GroupBook) -> None:
    two_members(book)
    book.release("a")
    book.assign_to("b", 2, granted=1)
    assert kinds(book.judge(8)) == {"dual-owner"}


def test_one_may_be_told_of_a_grant_twice(book: GroupBook) -> None:
    two_members(book)
    book.lose("a")
    book.assign_to("a", 1)
    book.hand("a", 0, 4)
    assert book.judge(8).valid is True


# ---- zombies


def test_a_commit_of_one_that_never_had_it(book: GroupBook) -> None:
    two_members(book)
    book.commit("b", 2)
    verdict = book.judge(8)
    assert verdict.found == {"zombie-commit": 1}
    assert "it never had it" in verdict.anomalies[0].message


def test_a_commit_of_one_that_has_given_it_up(book: GroupBook) -> None:
    two_members(book)
    book.release("a")
    book.commit("a", 4)
    assert kinds(book.judge(8)) == {"zombie-commit"}


def test_a_commit_after_another_was_granted_it(book: GroupBook) -> None:
    two_members(book)
    book.assign_to("b", 2)
    book.commit("a", 4)
    verdict = book.judge(8)
    assert kinds(verdict) == {"zombie-commit", "commit-regressed"}
    assert "in generation 1, and c1/member-b.0 (b) in 2" in verdict.anomalies[0].message


@pytest.mark.parametrize("kind", ["fail", "info"])
def test_a_commit_of_a_zombie_that_is_refused_is_none(book: GroupBook, kind: str) -> None:
    two_members(book)
    book.assign_to("b", 2)
    book.commit("a", 4, kind)
    book.commit("b", 0, kind)
    assert book.judge(8).valid is True


def test_a_commit_that_began_before_may_succeed(book: GroupBook) -> None:
    two_members(book)
    began = book.now
    book.assign_to("b", 2, 4)
    book.commit("a", 4, at=began)
    assert book.judge(8).valid is True


def test_who_has_it_again_may_commit(book: GroupBook) -> None:
    two_members(book)
    book.release("a")
    book.assign_to("b", 2)
    book.release("b")
    book.assign_to("a", 3)
    book.hand("a", 0, 2)
    book.commit("a", 2)
    assert book.judge(8).valid is True


# ---- offsets that skip


def test_a_commit_above_what_was_handed(book: GroupBook) -> None:
    two_members(book)
    book.commit("a", 5)
    verdict = book.judge(8)
    assert verdict.found == {"commit-skip": 1}
    assert "asked to commit 5 of t-0 in group g, and had been handed records up to 4" in verdict.anomalies[0].message


def test_who_was_handed_nothing_may_commit_where_it_began(book: GroupBook) -> None:
    two_members(book)
    book.commit("a", 4)
    book.release("a")
    book.assign_to("b", 2, 4)
    book.commit("b", 4)
    assert book.judge(8).valid is True


def test_one_begins_above_what_anybody_committed(book: GroupBook) -> None:
    two_members(book)
    book.commit("a", 2)
    book.release("a")
    book.assign_to("b", 2, 4)
    verdict = book.judge(8)
    assert verdict.found == {"commit-skip": 1}
    assert "found 4 of t-0 in group g committed, when nobody had done with 2" in verdict.anomalies[0].message


def test_one_begins_above_what_is_committed_later(book: GroupBook) -> None:
    two_members(book)
    book.assign_to("b", 2, 4)
    book.commit("a", 4, "info")
    assert kinds(book.judge(8)) == {"commit-skip"}


def test_where_nobody_says_where_it_began_the_first_record_does(book: GroupBook) -> None:
    two_members(book)
    book.commit("a", 2)
    book.release("a")
    book.assign_to("b", 2, None)
    book.hand("b", 3, 5)
    assert kinds(book.judge(8)) == {"commit-skip"}


def test_the_end_is_above_what_anybody_committed(book: GroupBook) -> None:
    two_members(book)
    book.commit("a", 2, "info")
    book.committed(3)
    assert kinds(book.judge(8)) == {"commit-skip"}


def test_by_itself_what_was_asked_past_is_committed(book: GroupBook) -> None:
    two_members(book, "auto")
    book.hand("a", 4, 6)
    book.release("a")
    book.leave("a")
    book.assign_to("b", 2, 6)
    book.hand("b", 6, 8)
    book.leave("b")
    book.committed(6)
    assert book.judge(8).valid is True


def test_by_itself_nothing_is_committed_that_was_not_asked_past(book: GroupBook) -> None:
    two_members(book, "auto")
    book.leave("a")
    book.assign_to("b", 2, 4)
    assert kinds(book.judge(8)) == {"commit-skip"}


def test_who_leaves_has_not_asked_past_it(book: GroupBook) -> None:
    book.join("a", "auto")
    book.join("b", "auto")
    book.assign_to("a", 1)
    began = book.now
    book.hand("a", 0, 4, began)
    book.release("a", began)
    book.leave("a")
    book.assign_to("b", 2, 4)
    assert kinds(book.judge(8)) == {"commit-skip"}


def test_who_gives_it_up_in_the_next_poll_has_asked_past_it(book: GroupBook) -> None:
    two_members(book, "auto")
    book.release("a")
    book.leave("a")
    book.assign_to("b", 2, 4)
    book.leave("b")
    assert book.judge(8).valid is True


def test_an_empty_poll_has_asked_past_it(book: GroupBook) -> None:
    two_members(book, "auto")
    book.hand("a", 4, 4)
    book.leave("a")
    book.assign_to("b", 2, 4)
    book.leave("b")
    assert book.judge(8).valid is True


def test_who_was_killed_may_have_asked_past_it(book: GroupBook) -> None:
    two_members(book, "auto")
    book.assign_to("b", 2, 4)
    assert book.judge(8).valid is True


def test_handlers_that_have_ended_are_committed(book: GroupBook) -> None:
    book.join("a", "process")
    book.join("b", "process")
    book.assign_to("a", 1)
    book.handle("a", 1)
    book.handle("a", 3, 0)
    book.assign_to("b", 2, 2)
    assert book.judge(8).valid is True


def test_a_handler_that_has_not_ended_is_left_out(book: GroupBook) -> None:
    book.join("a", "process")
    book.join("b", "process")
    book.assign_to("a", 1)
    book.handle("a", 1, 3)
    book.assign_to("b", 2, 2)
    assert kinds(book.judge(8)) == {"commit-skip"}


# ---- offsets that go back


def test_one_begins_below_what_was_committed(book: GroupBook) -> None:
    two_members(book)
    book.commit("a", 4)
    book.release("a")
    book.assign_to("b", 2, 3)
    verdict = book.judge(8)
    assert verdict.found == {"commit-regressed": 1}
    assert "c1/member-a.0, granted it in generation 1, had committed 4" in verdict.anomalies[0].message


def test_a_commit_that_is_told_later_counts_too(book: GroupBook) -> None:
    two_members(book)
    began = book.now
    book.assign_to("b", 2, 0)
    book.commit("a", 4, at=began)
    assert kinds(book.judge(8)) == {"commit-regressed"}


@pytest.mark.parametrize("kind", ["fail", "info"])
def test_one_may_begin_below_a_commit_that_is_not_known_to_be_there(book: GroupBook, kind: str) -> None:
    two_members(book)
    book.commit("a", 4, kind)
    book.release("a")
    book.assign_to("b", 2, 0)
    assert book.judge(8).valid is True


def test_the_end_is_below_what_was_committed(book: GroupBook) -> None:
    two_members(book)
    book.commit("a", 4)
    book.committed(2)
    assert kinds(book.judge(8)) == {"commit-regressed"}


@pytest.mark.parametrize("commits", ["auto", "process"])
def test_one_begins_below_what_a_former_owner_has_found(book: GroupBook, commits: str) -> None:
    two_members(book)
    book.commit("a", 4, "info")
    book.release("a")
    book.join("c", commits)
    book.assign_to("c", 2, 4)
    book.release("c")
    book.assign_to("b", 3, 2)
    verdict = book.judge(8)
    assert verdict.found == {"commit-regressed": 1}
    assert "c1/member-c.0, granted it in generation 2, had found 4" in verdict.anomalies[0].message


# ---- handlers


def processing(book: GroupBook) -> None:
    """Members a and b process; a has the partition and has handled 0."""
    book.join("a", "process")
    book.join("b", "process")
    book.assign_to("a", 1)
    book.handle("a", 0)


def test_a_partition_is_given_up_when_its_handlers_have_ended(book: GroupBook) -> None:
    processing(book)
    book.release("a")
    book.assign_to("b", 2, 1)
    book.handle("b", 1)
    assert book.judge(8).valid is True


def test_a_handler_that_ends_after_its_partition_was_given_up(book: GroupBook) -> None:
    processing(book)
    began = book.now
    book.release("a")
    book.handle("a", 1, began=began)
    verdict = book.judge(8)
    assert verdict.found == {"released-too-soon": 1}
    text = "c1/member-a.0 gave t-0 in group g up, and a handler of it ended with 1 after that"
    assert verdict.anomalies[0].message == text


def test_a_handler_may_end_after_its_partition_was_lost_or_when_it_has_it_again(book: GroupBook) -> None:
    processing(book)
    book.lose("a")
    book.handle("a", 1)
    book.assign_to("a", 2, 1)
    book.release("a")
    book.assign_to("a", 3, 1)
    book.handle("a", 1)
    assert book.judge(8).valid is True


# ---- lost, stalled, out of order


def test_a_record_that_nobody_was_handed(book: GroupBook) -> None:
    two_members(book)
    book.hand("a", 4, 7)
    book.drained()
    verdict = book.judge(8)
    assert verdict.found == {"group-lost": 1}
    assert verdict.anomalies[0].message == "nobody was handed t-0 in group g@7"


def test_a_record_that_is_committed_and_nobody_was_handed(book: GroupBook) -> None:
    two_members(book)
    book.commit("a", 4)
    book.release("a")
    book.assign_to("b", 2, 5)
    book.hand("b", 5, 8)
    book.commit("b", 8)
    book.committed(8)
    assert kinds(book.judge(8)) == {"group-lost", "commit-skip"}


def test_what_the_group_has_not_come_to_is_not_lost(book: GroupBook) -> None:
    two_members(book)
    book.committed(0)
    assert book.judge(8).valid is True


def test_a_topic_that_the_group_does_not_read(book: GroupBook) -> None:
    book.join("a", topics=("other",))
    book.drained()
    assert book.judge(8).valid is True


def test_what_is_trimmed_need_not_be_handed(book: GroupBook) -> None:
    book.join("a")
    book.trim(4)
    book.assign_to("a", 1, 4)
    book.hand("a", 4, 8)
    book.drained()
    book.start_offset(4)
    book.final([(offset, offset + 1) for offset in range(4, 8)], 8, start=4)
    assert book.check().valid is True


def test_a_group_that_does_not_go_on(book: GroupBook) -> None:
    two_members(book)
    book.drained(("t", 0, 4, 8))
    verdict = book.judge(8)
    assert verdict.found == {"group-stalled": 1}
    assert "group g had not read everything after 30 s in health: t-0 from 4 to 8" in verdict.anomalies[0].message


def test_generations_go_up(book: GroupBook) -> None:
    two_members(book)
    book.assign_to("a", 3, partition=1)
    book.assign_to("a", 2, partition=2)
    book.assign_to("a", 3, granted=4, partition=3)
    assert book.judge(8).found == {"generation-back": 2}


# ---- what members read is read


def test_members_skip_nothing_and_begin_where_they_are_told(book: GroupBook) -> None:
    two_members(book)
    book.hand("a", 5, 8)
    book.lose("a")
    book.assign_to("a", 1, 0)
    book.hand("a", 1, 8)
    assert kinds(book.judge(8)) == {"poll-skip", "reset-on-assignment"}


# ---- what is no history


def test_a_member_joins_before_it_does_anything(book: GroupBook) -> None:
    book.assign_to("a", 1)
    with pytest.raises(HistoryError, match=r"c1/member-a\.0 has not joined a group"):
        book.check()


def test_a_life_joins_once(book: GroupBook) -> None:
    book.join("a")
    book.join("a")
    with pytest.raises(HistoryError, match="joins twice"):
        book.check()


def test_a_way_to_commit_that_is_not_known(book: GroupBook) -> None:
    book.join("a", "sometimes")
    with pytest.raises(HistoryError, match="'sometimes', not one of auto, manual, process"):
        book.check()


def test_a_commit_that_ends_twice(book: GroupBook) -> None:
    two_members(book)
    op = book.recorder.invoke("c1/member-a.0", "group_commit", group="g", member="a", at=1.0, offsets=[["t", 0, 1]])
    for _ in range(2):
        book.end(op, "ok", "group_commit", "c1/member-a.0")
    with pytest.raises(HistoryError, match="is not a commit under way"):
        book.check()
