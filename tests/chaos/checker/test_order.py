"""Anomalies of order, each by hand: one history that must pass, one that must fail with that kind alone."""

from pathlib import Path

import pytest

from tests.chaos.checker.build import Book, kinds

ALL = [(0, 1), (1, 2), (2, 3)]


@pytest.fixture
def book(tmp_path: Path) -> Book:
    book = Book(tmp_path)
    for offset, value in ALL:
        book.send(value, offset)
    return book


def test_readers_that_go_on_where_they_stopped(book: Book) -> None:
    book.assign(0)
    book.poll([], 0, 0)
    book.poll(ALL[:2])
    book.poll(ALL[2:])
    book.assign(1)
    book.poll(ALL[1:])
    book.poll(ALL[1:], process="c1/read2.0")
    book.final(ALL)
    assert book.check().valid is True


def test_skipped_within_a_poll(book: Book) -> None:
    book.poll([ALL[0], ALL[2]], 0, 3)
    book.final(ALL)
    assert kinds(book.check()) == {"poll-skip"}


def test_skipped_at_the_end_of_a_poll(book: Book) -> None:
    book.poll(ALL[:2], 0, 3)
    book.final(ALL)
    assert kinds(book.check()) == {"poll-skip"}


def test_skipped_between_polls(book: Book) -> None:
    book.poll(ALL[:1])
    book.poll(ALL[2:])
    book.final(ALL)
    assert kinds(book.check()) == {"poll-skip"}


def test_what_nobody_ever_read_is_not_skipped(tmp_path: Path) -> None:
    book = Book(tmp_path)
    book.send(1, 0)
    book.send(2, 2)
    book.poll([(0, 1), (2, 2)])
    book.final([(0, 1), (2, 2)], 3)
    assert book.check().valid is True


def test_an_assignment_may_skip_and_go_back(book: Book) -> None:
    book.poll(ALL[:1])
    book.assign(2)
    book.poll(ALL[2:])
    book.assign(0)
    book.poll(ALL)
    book.final(ALL)
    assert book.check().valid is True


@pytest.mark.parametrize("records", [[ALL[0], ALL[2], ALL[1]], [*ALL, ALL[1]], [ALL[0], *ALL]])
def test_back_within_a_poll(book: Book, records: list[tuple[int, int]]) -> None:
    book.poll(records, 0, 3)
    book.final(ALL)
    assert kinds(book.check()) == {"nonmonotonic-poll"}


def test_back_between_polls(book: Book) -> None:
    book.poll(ALL[:2])
    book.poll(ALL[1:])
    book.final(ALL)
    assert kinds(book.check()) == {"nonmonotonic-poll"}


def test_positions_that_do_not_fit_each_other(book: Book) -> None:
    book.poll(ALL[:2])
    book.poll([], 1, 1)
    book.final(ALL)
    assert kinds(book.check()) == {"position-error"}


def test_a_position_past_all_records(book: Book) -> None:
    book.poll(ALL)
    book.poll([], 7, 7)
    book.final(ALL)
    assert kinds(book.check()) == {"position-error"}


def test_records_outside_of_the_positions(book: Book) -> None:
    book.poll(ALL, 0, 2)
    book.final(ALL)
    assert kinds(book.check()) == {"position-error"}


def test_a_position_that_goes_back(book: Book) -> None:
    book.poll([], 2, 1)
    book.final(ALL)
    assert kinds(book.check()) == {"position-error"}


def test_an_assignment_that_was_not_heeded(book: Book) -> None:
    book.poll(ALL)
    book.assign(2)
    book.poll(ALL, 0, 3)
    book.final(ALL)
    assert kinds(book.check()) == {"reset-on-assignment"}


def test_an_assignment_that_was_skipped(book: Book) -> None:
    book.assign(0)
    book.poll(ALL[2:])
    book.final(ALL)
    assert kinds(book.check()) == {"reset-on-assignment"}


def test_a_read_that_says_that_the_log_lost_something(book: Book) -> None:
    book.recorder.failed_read("c1/read1.0", "poll", "LogDivergedError", "what was read is gone", isolation="x")
    book.final(ALL)
    verdict = book.check()
    assert kinds(verdict) == {"broken-read"}
    assert "LogDivergedError" in verdict.anomalies[0].message
    assert verdict.counts["poll"]["fail"] == 1


def test_sends_in_order_with_others_between(tmp_path: Path) -> None:
    book = Book(tmp_path)
    book.send(1, 0)
    book.send(2, 1, process="c1/send2.0")
    book.send(3, 2)
    book.info(4)
    book.send(5, 3, process="c1/send1.1")
    book.final([(0, 1), (1, 2), (2, 3), (3, 5), (4, 4)])
    verdict = book.check()
    assert verdict.valid is True
    assert verdict.allowed == {"int-send-skip": 2}


def test_acknowledged_in_another_order_than_sent(tmp_path: Path) -> None:
    book = Book(tmp_path)
    first, second = book.invoke(1), book.invoke(2)
    book.end(second, "ok", offset=0, leader_epoch=0)
    book.end(first, "ok", offset=1, leader_epoch=0)
    book.final([(0, 2), (1, 1)])
    assert kinds(book.check()) == {"nonmonotonic-send"}


def test_an_unknown_send_below_an_acknowledged_one_before_it(tmp_path: Path) -> None:
    book = Book(tmp_path)
    book.send(1, 1)
    book.info(2)
    book.final([(0, 2), (1, 1)])
    assert kinds(book.check()) == {"nonmonotonic-send"}


def test_a_send_that_the_log_took_too_late(tmp_path: Path) -> None:
    book = Book(tmp_path)
    late, second = book.invoke(1), book.invoke(2)
    book.end(second, "ok", offset=0, leader_epoch=0)
    book.end(late, "info")
    book.final([(0, 2), (1, 1)])
    assert kinds(book.check()) == {"send-skip"}


def test_without_idempotence_there_is_no_order(tmp_path: Path) -> None:
    book = Book(tmp_path)
    first, second = book.invoke(1, idempotent=False), book.invoke(2, idempotent=False)
    book.end(second, "ok", offset=0, leader_epoch=0)
    book.end(first, "ok", offset=1, leader_epoch=0)
    book.final([(0, 2), (1, 1)])
    assert book.check().valid is True


def test_appends_in_another_order_than_invoked(tmp_path: Path) -> None:
    book = Book(tmp_path)
    book.append([1, 2], 2)
    book.append([3, 4], 0)
    book.final([(0, 3), (1, 4), (2, 1), (3, 2)])
    assert kinds(book.check()) == {"nonmonotonic-send"}
