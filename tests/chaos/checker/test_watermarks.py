"""Anomalies of watermarks and leader epochs, by hand: histories that must pass, and such that must fail so."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.chaos.checker.stairs import Stairs
from tests.chaos.checker.build import RC, RU, Book, kinds

ALL = [(0, 1), (1, 2), (2, 3)]


@pytest.fixture
def book(tmp_path: Path) -> Book:
    book = Book(tmp_path)
    for offset, value in ALL:
        book.send(value, offset, epoch=-1)
    return book


def test_ends_that_rise(book: Book) -> None:
    book.end_offset(1, epoch=0)
    book.end_offset(2, epoch=1)
    book.end_offset(2, epoch=1, isolation=RC)
    book.end_offset(3, epoch=1)
    book.end_offset(3, epoch=2, process="c2/ends1.0")
    book.poll(ALL)
    book.end_offset(3, epoch=2)
    book.final(ALL)
    assert book.check().valid is True


def test_a_deposed_leader_may_name_an_older_end_to_another_process(book: Book) -> None:
    book.end_offset(3, epoch=2)
    book.end_offset(1, epoch=1, process="c2/ends1.0")
    book.end_offset(1, epoch=-1, process="c3/ends1.0")
    book.final(ALL)
    assert book.check().valid is True


def test_answers_at_the_same_time_may_differ(book: Book) -> None:
    began = book.now
    book.end_offset(3)
    book.end_offset(1, process="c2/ends1.0", began=began)
    book.final(ALL)
    assert book.check().valid is True


@pytest.mark.parametrize(("isolation", "kind"), [(RU, "high-watermark-back"), (RC, "stable-offset-back")])
def test_an_end_that_goes_back_for_a_process(book: Book, isolation: str, kind: str) -> None:
    book.end_offset(3, epoch=1, isolation=isolation)
    book.end_offset(2, epoch=0, isolation=isolation)
    book.final(ALL)
    assert kinds(book.check()) == {kind}


@pytest.mark.parametrize("epoch", [1, 2])
def test_an_end_that_goes_back_for_anybody(book: Book, epoch: int) -> None:
    book.end_offset(3, epoch=1)
    book.end_offset(2, epoch=epoch, process="c2/ends1.0")
    book.final(ALL)
    assert kinds(book.check()) == {"high-watermark-back"}


@pytest.mark.parametrize(("isolation", "kind"), [(RU, "high-watermark-back"), (RC, "stable-offset-back")])
def test_an_end_that_the_log_does_not_have_in_the_end(book: Book, isolation: str, kind: str) -> None:
    book.end_offset(4, isolation=isolation)
    book.final(ALL)
    assert kinds(book.check()) == {kind}


def test_the_stable_offset_above_the_high_watermark(book: Book) -> None:
    book.end_offset(3, isolation=RC)
    book.end_offset(2)
    book.final(ALL)
    assert kinds(book.check()) == {"stable-above-high-watermark"}


@pytest.mark.parametrize(("read", "asked"), [(RU, RU), (RC, RC), (RC, RU)])
def test_a_read_past_the_end(book: Book, read: str, asked: str) -> None:
    book.poll(ALL, isolation=read)
    book.end_offset(2, isolation=asked)
    book.final(ALL)
    assert kinds(book.check()) == {"read-past-end"}


def test_a_read_past_the_stable_offset_of_later(book: Book) -> None:
    book.poll(ALL)
    book.end_offset(2, isolation=RC)
    book.poll(ALL, process="c2/read1.0")
    book.end_offset(2, epoch=-1, process="c3/ends1.0")
    book.final(ALL)
    assert book.check().valid is True


def test_a_read_by_another_process_past_the_end_of_the_last_leader(book: Book) -> None:
    book.poll([(0, 1, 0), (1, 2, 0), (2, 3, 1)])
    book.end_offset(2, epoch=1, process="c2/ends1.0")
    book.final([(0, 1, 0), (1, 2, 0), (2, 3, 1)])
    assert kinds(book.check()) == {"read-past-end"}


def test_a_read_of_an_epoch_above_that_of_the_end(book: Book) -> None:
    """The leader that named the end may have been deposed: somebody knows of a later epoch."""
    book.view(1, 5, epoch=2)
    book.poll(ALL)
    book.end_offset(2, epoch=1, process="c2/ends1.0")
    book.end_offset(2, epoch=-1, process="c3/ends1.0")
    book.final(ALL)
    assert book.check().valid is True


def test_without_a_final_reading_no_epoch_is_known_to_be_the_last(book: Book) -> None:
    book.poll(ALL)
    book.end_offset(2, epoch=0, process="c2/ends1.0")
    assert book.check().valid is None


def test_a_leader_without_an_acknowledged_record(tmp_path: Path) -> None:
    book = Book(tmp_path)
    book.send(1, 0, epoch=1)
    book.send(2, 1, epoch=1)
    book.end_offset(1, epoch=2)
    book.final([(0, 1, 1), (1, 2, 1)])
    verdict = book.check()
    assert kinds(verdict) == {"leader-incomplete"}
    assert "2 was acknowledged at t-0@1 in leader epoch 1" in verdict.anomalies[0].message


def test_a_leader_of_before_the_acknowledgement(tmp_path: Path) -> None:
    book = Book(tmp_path)
    book.send(1, 0, epoch=1)
    began = book.now
    book.send(2, 1, epoch=2)
    book.end_offset(1, epoch=1)
    book.end_offset(1, epoch=2, began=began, process="c2/ends1.0")
    book.final([(0, 1, 1), (1, 2, 2)])
    assert book.check().valid is True


def test_an_idempotent_send_acknowledged_by_a_later_leader(tmp_path: Path) -> None:
    book = Book(tmp_path)
    book.send(1, 0, epoch=3)
    book.send(2, 1, epoch=-1)
    book.poll([(0, 1, -1), (1, 2, 1)])
    book.final([(0, 1, 1), (1, 2, 1)])
    assert book.check().valid is True


def test_one_record_read_in_two_epochs(book: Book) -> None:
    book.poll(ALL)
    book.final([(0, 1, 0), (1, 2, 1), (2, 3, 1)])
    verdict = book.check()
    assert kinds(verdict) == {"epoch-mismatch"}
    assert verdict.found == {"epoch-mismatch": 2}


@pytest.mark.parametrize(("named", "idempotent"), [(0, True), (2, False)])
def test_acknowledged_in_another_epoch_than_read(tmp_path: Path, named: int, idempotent: bool) -> None:
    book = Book(tmp_path)
    book.send(1, 0, epoch=named, idempotent=idempotent)
    book.final([(0, 1, 1)])
    assert kinds(book.check()) == {"epoch-mismatch"}


def test_an_epoch_that_goes_down_along_a_log(book: Book) -> None:
    book.final([(0, 1, 1), (1, 2, 2), (2, 3, 1)])
    assert kinds(book.check()) == {"epoch-back"}


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 9))))
def test_stairs_are_as_all_that_was_added(added: list[tuple[int, int]]) -> None:
    stairs: Stairs[int] = Stairs()
    for number, (epoch, offset) in enumerate(added):
        stairs.add(epoch, offset, number)
    for asked in range(8):
        found = stairs.highest(asked)
        known = [offset for epoch, offset in added if epoch <= asked]
        assert (None if found is None else found[0]) == max(known, default=None)
        assert found is None or added[found[1]][1] == found[0]
