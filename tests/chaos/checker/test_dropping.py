"""Anomalies of retention, trimming and compaction, each by hand: what must pass, and what must fail with that kind."""

from pathlib import Path

import pytest

from tests.chaos.checker.build import Book, kinds

TWO = "c1/send2.0"
SIZE = 1_000
KEPT = 2_000
"""What retention by size leaves, in these histories. A record counts for SIZE and 512 bytes."""


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path)


def create(book: Book, **config: object) -> None:
    book.change("create_topic", "t", topic_id="id", partitions=1, replication=3, config=config)


def keyed(book: Book, value: int, offset: int, key: str = "k", *, tombstone: bool = False, **fields: object) -> None:
    more = {"tombstone": True} if tombstone else {}
    book.send(value, offset, key=key, size=SIZE, **more, **fields)  # type: ignore[arg-type]  # fields of the history


def write(book: Book, count: int) -> None:
    for offset in range(count):
        book.send(offset + 1, offset, size=SIZE)


def records(first: int, end: int) -> list[tuple[int, int]]:
    return [(offset, offset + 1) for offset in range(first, end)]


# --- where logs begin


def test_what_is_trimmed_is_not_missing(book: Book) -> None:
    write(book, 4)
    book.poll(records(0, 4))
    book.trim(2)
    book.start_offset(2)
    book.final(records(2, 4), 4, start=2)
    verdict = book.check()
    assert verdict.valid is True, verdict
    assert verdict.allowed == {"dropped": 2}


def test_a_trim_of_unknown_outcome_may_have_been_made_or_not(book: Book) -> None:
    write(book, 4)
    book.trim(2, kind="info")
    book.start_offset(0, process="final/ends1.0")
    book.final(records(0, 4), 4)
    assert book.check().valid is True


def test_what_is_above_the_trim_is_missing(book: Book) -> None:
    write(book, 4)
    book.trim(2)
    book.start_offset(2)
    book.final(records(3, 4), 4, start=2)
    assert kinds(book.check()) == {"lost-write"}


def test_a_trim_that_is_undone(book: Book) -> None:
    write(book, 4)
    book.trim(3)
    book.start_offset(0, epoch=1, process="final/ends1.0")
    book.final(records(0, 4), 4)
    verdict = book.check()
    assert kinds(verdict) == {"log-start-back"}
    assert verdict.anomalies[0].message == (
        "final/ends1 was told that t-0 begins at 0 (leader epoch 1), though c1/trim1.0 had trimmed it to 3"
    ).replace("final/ends1", "final/ends1.0")


def test_whoever_trimmed_is_told_so_by_every_leader(book: Book) -> None:
    write(book, 4)
    book.trim(3)
    book.start_offset(1, epoch=1, process="c1/trim1.1")
    book.start_offset(3, epoch=2, process="final/ends1.0")
    book.final(records(3, 4), 4, start=3)
    assert kinds(book.check()) == {"log-start-back"}


def test_a_deposed_leader_may_not_know_of_a_trim(book: Book) -> None:
    write(book, 4)
    book.trim(3)
    book.start_offset(0, epoch=1, process="c1/ends1.0")
    book.start_offset(3, epoch=2, process="final/ends1.0")
    book.final(records(3, 4), 4, start=3)
    assert book.check().valid is True


def test_a_trim_that_was_asked_for_meanwhile_need_not_show(book: Book) -> None:
    write(book, 4)
    began = book.now
    book.trim(3)
    book.start_offset(0, epoch=1, began=began)
    book.start_offset(3, epoch=1)
    book.final(records(3, 4), 4, start=3)
    assert book.check().valid is True


def test_a_start_goes_back_in_an_epoch(book: Book) -> None:
    create(book, retention_bytes=KEPT)
    write(book, 4)
    book.start_offset(2, process="c1/ends1.0")
    book.start_offset(1, process="c2/ends2.0")
    book.start_offset(1, epoch=1, process="c2/ends2.0")
    book.final(records(2, 4), 4, start=2)
    assert kinds(book.check()) == {"log-start-back"}


def test_retention_by_size_leaves_as_much(book: Book) -> None:
    create(book, retention_bytes=KEPT)
    write(book, 5)
    book.start_offset(3)
    book.final(records(3, 5), 5, start=3)
    assert book.check().valid is True


def test_retention_by_size_takes_too_much(book: Book) -> None:
    create(book, retention_bytes=KEPT)
    write(book, 5)
    book.start_offset(4)
    book.send(6, 5, size=SIZE)
    book.final(records(4, 6), 6, start=4)
    verdict = book.check()
    assert kinds(verdict) == {"dropped-unasked"}
    assert "there were 1512 at most" in verdict.anomalies[0].message


def test_a_smaller_size_counts_from_when_it_is_asked_for(book: Book) -> None:
    create(book, retention_bytes=KEPT)
    write(book, 5)
    book.start_offset(4)
    book.change("alter_topic", "t", "info", config={"retention_bytes": 1_000})
    book.start_offset(4)
    book.final(records(4, 5), 5, start=4)
    verdict = book.check()
    assert verdict.found == {"dropped-unasked": 1}


def test_nothing_goes_where_nobody_asked_for_it(book: Book) -> None:
    write(book, 3)
    book.start_offset(1)
    book.final(records(1, 3), 3, start=1)
    assert kinds(book.check()) == {"dropped-unasked"}


def test_a_trim_that_was_refused_explains_nothing(book: Book) -> None:
    write(book, 3)
    book.trim(2, kind="fail")
    book.start_offset(2)
    book.final(records(2, 3), 3, start=2)
    assert kinds(book.check()) == {"dropped-unasked"}


def test_retention_by_time_is_not_judged(book: Book) -> None:
    create(book, retention_ms=1)
    write(book, 3)
    book.start_offset(3)
    book.final([], 3, start=3)
    assert book.check().valid is True


def test_the_final_reading_begins_at_the_start(book: Book) -> None:
    """Without what was above it nothing can be said."""
    write(book, 4)
    book.trim(1)
    book.final(records(2, 4), 4, start=2)
    verdict = book.check()
    assert verdict.valid is None
    assert verdict.reasons


def test_an_append_may_be_trimmed_in_part(book: Book) -> None:
    book.append([1, 2, 3], 0)
    book.trim(1)
    book.final([(1, 2), (2, 3)], 3, start=1)
    assert book.check().valid is True


# --- what is compacted


def test_later_records_of_a_key_replace_it(book: Book) -> None:
    create(book, cleanup_policy="compact")
    keyed(book, 1, 0)
    keyed(book, 2, 1, "other")
    keyed(book, 3, 2)
    book.poll([(1, 2), (2, 3)], 0)
    book.final([(1, 2), (2, 3)], 3)
    verdict = book.check()
    assert verdict.valid is True, verdict
    assert verdict.allowed == {"compacted": 1}


def test_the_latest_of_a_key_is_lost(book: Book) -> None:
    create(book, cleanup_policy="compact")
    keyed(book, 1, 0)
    keyed(book, 2, 1)
    keyed(book, 3, 2, "other")
    book.final([(0, 1), (2, 3)], 3)
    assert kinds(book.check()) == {"lost-write"}


def test_records_without_a_key_stay(book: Book) -> None:
    create(book, cleanup_policy="compact,delete")
    write(book, 3)
    book.final(records(1, 3), 3)
    assert kinds(book.check()) == {"lost-write"}


def test_one_reading_may_be_compacted_further(book: Book) -> None:
    create(book, cleanup_policy="compact")
    keyed(book, 1, 0)
    keyed(book, 2, 1)
    book.final([(0, 1), (1, 2)], 2, committed=[(1, 2)])
    assert book.check().valid is True


def test_a_poll_without_the_latest_of_a_key(book: Book) -> None:
    create(book, cleanup_policy="compact")
    keyed(book, 1, 0)
    keyed(book, 2, 1, "other")
    book.poll([(1, 2)], 0)
    keyed(book, 3, 2)
    book.final([(1, 2), (2, 3)], 3)
    verdict = book.check()
    assert kinds(verdict) == {"lost-latest"}
    assert verdict.anomalies[0].message.startswith("c1/read1.0 read past t-0@0 and was not given it")


def test_an_unknown_record_may_have_replaced_it_for_a_while(book: Book) -> None:
    create(book, cleanup_policy="compact")
    keyed(book, 1, 0)
    book.info(2, process=TWO, key="k", size=SIZE)
    keyed(book, 3, 2, "other")
    book.poll([(2, 3)], 0)
    keyed(book, 4, 3)
    book.final([(2, 3), (3, 4)], 4)
    assert book.check().valid is True


def test_an_unknown_record_that_is_not_there_in_the_end_replaced_nothing(book: Book) -> None:
    create(book, cleanup_policy="compact")
    keyed(book, 1, 0)
    book.info(2, process=TWO, key="k", size=SIZE)
    keyed(book, 3, 2, "other")
    book.final([(2, 3)], 3)
    assert kinds(book.check()) == {"lost-write"}


def test_an_unknown_tombstone_may_have_been_there(book: Book) -> None:
    create(book, cleanup_policy="compact")
    keyed(book, 1, 0)
    book.info(2, process=TWO, key="k", size=SIZE, tombstone=True)
    keyed(book, 3, 2, "other")
    book.final([(2, 3)], 3)
    assert book.check().valid is True


def test_tombstones_may_go(book: Book) -> None:
    create(book, cleanup_policy="compact")
    keyed(book, 1, 0)
    keyed(book, 2, 1, tombstone=True)
    keyed(book, 3, 2, "other")
    book.start_offset(0)
    book.final([(2, 3)], 3)
    book.start_offset(0)
    assert book.check().valid is True


@pytest.mark.parametrize("committed", [True, False])
def test_a_deleted_key_comes_back(book: Book, *, committed: bool) -> None:
    create(book, cleanup_policy="compact")
    keyed(book, 1, 0)
    keyed(book, 2, 1, tombstone=True)
    keyed(book, 3, 2, "other")
    book.start_offset(0)
    readings = [[(0, 1), (2, 3)], [(2, 3)]]
    book.final(readings[committed], 3, committed=readings[not committed])
    book.start_offset(0)
    verdict = book.check()
    assert verdict.found == {"resurrected": 1}
    assert "has 1 at t-0@0 as the last of key k, which was deleted by 2 at @1" in verdict.anomalies[0].message


@pytest.mark.parametrize(
    ("config", "before", "after"),
    [({}, 0, 1), ({}, 1, None), ({}, None, 1), ({"delete_retention_ms": 50}, 1, 1)],
    ids=["another leader", "not asked after", "not asked before", "slower than tombstones go"],
)
def test_a_tombstone_may_go_while_a_key_is_read(
    book: Book, config: dict[str, object], before: int | None, after: int | None
) -> None:
    create(book, cleanup_policy="compact", **config)
    keyed(book, 1, 0)
    keyed(book, 2, 1, tombstone=True)
    keyed(book, 3, 2, "other")
    if before is not None:
        book.start_offset(0, epoch=before)
    book.final([(0, 1), (2, 3)], 3)
    if after is not None:
        book.start_offset(0, epoch=after)
    assert book.check().valid is True


def test_a_newer_record_after_the_tombstone_is_read(book: Book) -> None:
    create(book, cleanup_policy="compact")
    keyed(book, 1, 0)
    keyed(book, 2, 1, tombstone=True)
    keyed(book, 3, 2)
    book.start_offset(0)
    book.final([(0, 1), (2, 3)], 3)
    book.start_offset(0)
    assert book.check().valid is True
