"""Anomalies of the data, each by hand: one history that must pass, one that must fail with that kind alone."""

from pathlib import Path

import pytest

from tests.chaos.checker.build import Book, kinds


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path)


def test_what_was_acknowledged_and_is_there_is_valid(book: Book) -> None:
    book.send(1, 0)
    book.send(2, 1)
    book.poll([(0, 1), (1, 2)])
    book.final([(0, 1), (1, 2)])
    verdict = book.check()
    assert verdict.valid is True
    assert kinds(verdict) == set()
    assert verdict.counts["send"] == {"ok": 2, "fail": 0, "info": 0}
    assert not verdict.allowed


def test_an_unknown_write_may_be_there_or_not(book: Book) -> None:
    book.info(1)
    book.send(2, 1, process="c1/send1.1")
    book.info(3, process="c1/send1.1")
    book.invoke(4, process="c1/send1.2")
    book.final([(0, 1), (1, 2)])
    verdict = book.check()
    assert verdict.valid is True
    assert verdict.counts["send"] == {"ok": 1, "fail": 0, "info": 3}


def test_a_lost_write(book: Book) -> None:
    book.send(1, 0)
    book.send(2, 1)
    book.send(3, 2)
    book.final([(0, 1), (2, 3)], 3)
    verdict = book.check()
    assert verdict.valid is False
    assert kinds(verdict) == {"lost-write"}
    (anomaly,) = verdict.anomalies
    assert (anomaly.topic, anomaly.partition) == ("t", 0)
    assert anomaly.message.startswith("2 was acknowledged to c1/send1.0 at t-0@1")
    assert [operation.name for operation in anomaly.operations] == ["op 2: send"]


def test_an_unknown_write_that_somebody_read_has_to_stay(book: Book) -> None:
    book.info(1)
    book.send(2, 1, process="c1/send1.1")
    book.poll([(0, 1), (1, 2)])
    book.final([(1, 2)], 2)
    assert kinds(book.check()) == {"lost-write"}


def test_unseen(book: Book) -> None:
    book.send(1, 0)
    book.send(2, 1)
    book.final([(0, 1)], 2)
    assert kinds(book.check()) == {"unseen"}


def test_acknowledged_past_the_final_log(book: Book) -> None:
    book.send(1, 0)
    book.send(2, 1)
    book.final([(0, 1)], 1)
    assert kinds(book.check()) == {"acked-past-final-log"}


def test_what_the_leader_alone_acknowledged_may_be_lost(book: Book) -> None:
    book.send(1, 0)
    book.send(2, 1, acks="leader", process="c1/send2.0")
    book.send(3, -1, acks="none", idempotent=False, process="c1/send3.0")
    book.send(4, 1)
    book.final([(0, 1), (1, 4)])
    assert book.check().valid is True


def test_two_values_at_one_offset(book: Book) -> None:
    book.send(1, 0)
    book.info(2, process="c1/send2.0")
    book.info(3, process="c1/send3.0")
    book.poll([(0, 1), (1, 2)])
    book.final([(0, 1), (1, 3)])
    assert kinds(book.check()) == {"inconsistent-offsets"}


def test_an_acknowledgement_at_the_offset_of_another_value(book: Book) -> None:
    book.send(1, 0)
    book.send(2, 0, process="c1/send2.0")
    book.final([(0, 1)])
    assert kinds(book.check()) == {"inconsistent-offsets"}


def test_a_duplicate(book: Book) -> None:
    book.send(1, 0)
    book.final([(0, 1), (1, 1)])
    verdict = book.check()
    assert kinds(verdict) == {"duplicate"}
    assert "is at t-0@0 and at @1" in verdict.anomalies[0].message


def test_a_record_elsewhere_than_acknowledged_is_a_duplicate(book: Book) -> None:
    book.send(1, 0)
    book.send(2, 1)
    book.final([(0, 1), (2, 2)], 3)
    assert kinds(book.check()) == {"duplicate"}


def test_a_send_that_is_not_idempotent_may_be_there_twice(book: Book) -> None:
    book.send(1, 0, idempotent=False)
    book.final([(0, 1), (1, 1)])
    verdict = book.check()
    assert verdict.valid is True
    assert verdict.allowed == {"repeated-send": 1}


def test_failed_but_present(book: Book) -> None:
    book.send(1, 0)
    book.end(book.invoke(2), "fail")
    book.final([(0, 1), (1, 2)])
    assert kinds(book.check()) == {"failed-but-present"}


@pytest.mark.parametrize("value", [77, -1])
def test_a_value_that_nobody_sent(book: Book, value: int) -> None:
    book.send(1, 0)
    book.final([(0, 1), (1, value)])
    assert kinds(book.check()) == {"invented"}


def test_a_value_in_another_partition_than_sent(book: Book) -> None:
    book.send(1, 0)
    book.info(2, process="c1/send2.0")
    book.send(3, 0, partition=1)
    book.final([(0, 1)])
    book.final([(0, 3), (1, 2)], partition=1)
    assert kinds(book.check()) == {"invented"}


def test_a_value_read_before_it_was_sent(book: Book) -> None:
    book.poll([(0, 1)])
    book.send(1, 0)
    book.final([(0, 1)])
    assert kinds(book.check()) == {"invented"}


def test_appends(book: Book) -> None:
    book.append([1, 2], 0)
    book.append([3, 4], 2, expected=2)
    book.append([5, 6], None, expected=4, kind="info", process="c1/append2.0")
    book.append([7, 8], None, kind="info", process="c1/append3.0")
    book.append([9], None, expected=3, kind="fail")
    book.final([(offset, offset + 1) for offset in range(6)])
    assert book.check().valid is True


def test_an_append_that_is_there_in_part(book: Book) -> None:
    book.send(9, 0)
    book.append([1, 2, 3], None, kind="info")
    book.final([(0, 9), (1, 1), (2, 2)])
    assert kinds(book.check()) == {"torn-append"}


def test_an_append_that_is_not_in_a_row(book: Book) -> None:
    book.send(9, 1)
    book.append([1, 2], None, kind="info")
    book.final([(0, 1), (1, 9), (2, 2)])
    assert kinds(book.check()) == {"torn-append"}


def test_an_append_acknowledged_elsewhere_than_expected(book: Book) -> None:
    book.send(9, 0)
    book.append([1, 2], 1, expected=0)
    book.final([(0, 9), (1, 1), (2, 2)])
    assert kinds(book.check()) == {"torn-append"}


def test_an_unknown_append_elsewhere_than_expected(book: Book) -> None:
    book.send(9, 0)
    book.append([1, 2], None, expected=0, kind="info")
    book.final([(0, 9), (1, 1), (2, 2)])
    assert kinds(book.check()) == {"torn-append"}


def test_the_final_readings_differ(book: Book) -> None:
    book.send(1, 0)
    book.send(2, 1)
    book.final([(0, 1), (1, 2)], 2, committed=[(0, 1)])
    assert kinds(book.check()) == {"final-readings-differ"}


def test_a_gap_that_nothing_explains_is_told(book: Book) -> None:
    book.send(1, 0)
    book.send(2, 2)
    book.final([(0, 1), (2, 2)], 3)
    verdict = book.check()
    assert verdict.valid is True
    assert verdict.allowed["unexplained-gap"] == 1


def test_two_acknowledgements_at_one_offset_that_nobody_read(book: Book) -> None:
    book.send(1, 0)
    book.send(2, 0, process="c1/send2.0")
    assert kinds(book.check()) == {"inconsistent-offsets"}


def test_what_was_acknowledged_and_read_is_lost_once(book: Book) -> None:
    book.send(1, 0)
    book.send(2, 1)
    book.poll([(0, 1), (1, 2)])
    book.final([(1, 2)], 2)
    assert book.check().found == {"lost-write": 1}


def test_an_offset_of_another_value_is_not_lost_as_well(book: Book) -> None:
    book.send(1, 0)
    book.info(2, process="c1/send2.0")
    book.send(3, 1)
    book.poll([(0, 2)])
    book.final([(1, 3)], 2)
    assert book.check().found == {"inconsistent-offsets": 1, "lost-write": 1}


def test_a_gap_at_the_end_is_told(book: Book) -> None:
    book.send(1, 0)
    book.final([(0, 1)], 3)
    assert book.check().allowed == {"unexplained-gap": 2}


def test_an_append_that_is_turned_around(book: Book) -> None:
    book.append([1, 2], None, kind="info")
    book.send(3, 2)
    book.final([(0, 2), (1, 1), (2, 3)])
    assert kinds(book.check()) == {"torn-append"}


def test_an_append_acknowledged_elsewhere_than_expected_that_nobody_read(book: Book) -> None:
    book.append([1, 2], 1, expected=0)
    assert kinds(book.check()) == {"torn-append"}


def test_what_is_missing_in_a_deleted_topic_is_not_lost(book: Book) -> None:
    book.send(1, 0)
    book.change("delete_topic", "t", kind="info")
    book.final([], 0)
    assert book.check().valid is True


def test_an_offset_that_is_far_off_does_not_take_all_memory(book: Book) -> None:
    book.send(1, 0)
    book.poll([(0, 1), (10**15, 1)], 0, 10**15 + 1)
    book.final([(0, 1)])
    assert kinds(book.check()) == {"duplicate"}
