"""Anomalies of the metadata, by hand: histories that must pass, and such that must fail so."""

from pathlib import Path

import pytest

from tests.chaos.checker.build import Book, kinds


@pytest.fixture
def book(tmp_path: Path) -> Book:
    book = Book(tmp_path)
    book.send(1, 0)
    book.final([(0, 1)])
    return book


def test_views_that_agree(book: Book) -> None:
    book.view(1, 5, leader=1, epoch=3)
    book.view(2, 5, leader=1, epoch=3)
    book.view(2, 6, leader=None, epoch=4)
    book.view(1, 7, leader=2, epoch=4)
    book.view(2, 7, leader=2, epoch=4)
    book.view(1, 8, leader=1, epoch=1, topic_id="another")
    assert book.check().valid is True


def test_two_leaders_in_one_epoch(book: Book) -> None:
    book.view(1, 5, leader=1, epoch=3)
    for version in range(6, 20):
        book.view(2, version, leader=2, epoch=3)
    verdict = book.check()
    assert verdict.found == {"election-safety": 1}
    assert verdict.anomalies[0].operations[0].name == "line 6: view"


def test_an_epoch_that_goes_down(book: Book) -> None:
    book.view(1, 5, leader=1, epoch=3)
    book.view(1, 6, leader=1, epoch=2)
    assert kinds(book.check()) == {"election-safety"}


def test_one_version_with_two_contents(book: Book) -> None:
    book.view(1, 5, content="a")
    book.view(2, 5, content="b")
    book.view(3, 6, content="c")
    book.view(2, 5, content="b")
    assert book.check().found == {"metadata-divergence": 1}


def test_a_version_that_goes_back(book: Book) -> None:
    book.fault(1, "inject")
    book.fault(1, "injected", nodes=[1])
    book.fault(1, "healed")
    book.view(1, 5, content="a")
    book.fault(2, "inject")
    book.fault(2, "injected", nodes=[2])
    book.fault(2, "healed")
    book.view(1, 4, content="b", epoch=0)
    assert kinds(book.check()) == {"metadata-back"}


def test_a_version_that_goes_back_over_a_restart(book: Book) -> None:
    book.view(1, 5, content="a", epoch=3)
    book.fault(1, "inject")
    book.fault(1, "injected", nodes=[1])
    book.fault(1, "healed")
    book.view(1, 4, content="b", epoch=2)
    assert book.check().valid is True


def test_a_version_that_goes_back_in_overlapping_views(book: Book) -> None:
    began = book.now
    book.view(1, 5, content="a")
    book.view(1, 4, content="b", began=began)
    assert book.check().valid is True


def test_topics_as_they_were_changed(book: Book) -> None:
    book.describe("x", None)
    book.change("create_topic", "x", partitions=2, topic_id="a")
    book.describe("x", "a", 2)
    book.change("add_partitions", "x", partitions=4)
    book.describe("x", "a", 4)
    book.describe("x", "a", 2, process="c2/change1.0")
    book.change("delete_topic", "x")
    book.describe("x", None)
    book.change("create_topic", "x", partitions=1, topic_id="b")
    book.describe("x", "b", 1)
    assert book.check().valid is True


@pytest.mark.parametrize("told", [(None, 0), ("b", 2), ("a", 1)])
def test_a_creation_that_is_not_seen(book: Book, told: tuple[str | None, int]) -> None:
    book.change("create_topic", "x", partitions=2, topic_id="a")
    book.describe("x", *told)
    assert kinds(book.check()) == {"stale-metadata-read"}


@pytest.mark.parametrize("told", [(None, 0), ("a", 2)])
def test_partitions_that_are_not_seen(book: Book, told: tuple[str | None, int]) -> None:
    book.change("create_topic", "x", partitions=2, topic_id="a", process="c2/change1.0")
    book.change("add_partitions", "x", partitions=4)
    book.describe("x", *told)
    assert kinds(book.check()) == {"stale-metadata-read"}


def test_a_deletion_that_is_not_seen(book: Book) -> None:
    book.change("create_topic", "x", partitions=2, topic_id="a", process="c2/change1.0")
    book.change("delete_topic", "x")
    book.describe("x", "a", 2)
    assert kinds(book.check()) == {"stale-metadata-read"}


def test_a_deletion_that_is_not_seen_of_a_topic_that_was_only_read(book: Book) -> None:
    book.describe("x", "a", 2)
    book.change("delete_topic", "x")
    book.describe("x", "a", 2)
    assert kinds(book.check()) == {"stale-metadata-read"}


@pytest.mark.parametrize("kind", ["ok", "info"])
def test_a_deletion_by_somebody_else_in_between(book: Book, kind: str) -> None:
    book.change("delete_topic", "x", kind="info", process="c3/change1.0")
    book.change("create_topic", "x", partitions=2, topic_id="a")
    book.change("delete_topic", "x", kind=kind, process="c2/change1.0")
    book.describe("x", None)
    book.change("create_topic", "x", partitions=1, topic_id="b", process="c2/change1.0")
    book.describe("x", "b", 1)
    assert book.check().valid is True


def test_a_deletion_of_unknown_outcome_may_take_effect_late(book: Book) -> None:
    book.change("delete_topic", "x", kind="info", process="c3/change1.0")
    book.change("delete_topic", "x", process="c2/change1.0")
    book.change("create_topic", "x", partitions=2, topic_id="a")
    book.describe("x", None)
    assert book.check().valid is True


@pytest.mark.parametrize("kind", ["ok", "fail"])
def test_a_deletion_that_explains_nothing(book: Book, kind: str) -> None:
    """Acknowledged before the creation began, or failed."""
    book.change("delete_topic", "x", kind=kind, process="c2/change1.0")
    book.change("create_topic", "x", partitions=2, topic_id="a")
    book.describe("x", None)
    assert kinds(book.check()) == {"stale-metadata-read"}


def test_a_late_deletion_explains_nothing(book: Book) -> None:
    book.change("create_topic", "x", partitions=2, topic_id="a")
    book.describe("x", None)
    book.change("delete_topic", "x", process="c2/change1.0")
    assert kinds(book.check()) == {"stale-metadata-read"}
