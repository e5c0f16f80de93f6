"""Which batches retention drops, and which log is compacted next: the pure parts."""

from typing import NamedTuple

import pytest

from penstock.node.cleanup.retention import Choice, Retention, choose
from penstock.node.cleanup.schedule import PAUSE_MS, SMALL_BYTES, Candidate, is_due, next_log
from penstock.storage import PartitionKey

NOW_MS = 1_000_000
MARK = 1_000


class Batch(NamedTuple):
    last_offset: int
    size_bytes: int
    max_time_ms: int


def batches(*sizes: int, age_ms: int = 0) -> list[Batch]:
    """Ten offsets each, the first `age_ms` old and each next one a ms younger."""
    return [Batch(10 * at + 9, size, NOW_MS - age_ms + at) for at, size in enumerate(sizes)]


def chosen(found: list[Batch], retention: Retention, *, mark: int = MARK, now_ms: int | None = NOW_MS) -> Choice:
    return choose(found, sum(batch.size_bytes for batch in found), mark, retention, now_ms)


@pytest.mark.parametrize(
    ("keep", "start"), [(100, None), (61, None), (60, 10), (59, 10), (31, 20), (30, 30), (29, 30), (1, 30)]
)
def test_by_size_at_least_what_was_asked_for_is_kept(keep: int, start: int | None) -> None:
    choice = chosen(batches(20, 20, 10, 30), Retention(None, keep))
    assert choice.log_start_offset == start


def test_by_size_it_is_known_when_the_next_one_goes() -> None:
    found = batches(20, 20, 10, 30)
    choice = chosen(found, Retention(None, 61))
    assert choice == Choice(None, False, None, 81)  # noqa: FBT003
    assert chosen([*found, Batch(49, 1, NOW_MS)], Retention(None, 61)).log_start_offset == 10


def test_by_time_the_latest_record_of_a_batch_decides() -> None:
    found = batches(20, 20, 20, age_ms=100)
    assert chosen(found, Retention(99, 0)).log_start_offset == 10
    assert chosen(found, Retention(98, 0)).log_start_offset == 20
    assert chosen(found, Retention(100, 0)) == Choice(None, False, NOW_MS, None)  # noqa: FBT003
    late = [found[0]._replace(max_time_ms=NOW_MS + 5), *found[1:]]
    assert chosen(late, Retention(10, 0)).log_start_offset is None, "one that is young keeps those behind it"


def test_rule_30_nothing_goes_by_time_without_a_clock_to_be_trusted() -> None:
    found = batches(20, 20, 20, age_ms=100)
    assert chosen(found, Retention(1, 0), now_ms=None).log_start_offset is None
    assert chosen(found, Retention(1, 40), now_ms=None).log_start_offset == 10


def test_all_may_go_by_time_and_then_there_may_be_more() -> None:
    choice = chosen(batches(20, 20, age_ms=100), Retention(1, 0))
    assert choice == Choice(20, True, None, None)  # noqa: FBT003


def test_only_what_is_committed_goes() -> None:
    found = batches(20, 20, 20, age_ms=100)
    assert chosen(found, Retention(1, 0), mark=19).log_start_offset == 10
    assert chosen(found, Retention(1, 0), mark=20).log_start_offset == 20
    assert chosen(found, Retention(None, 1), mark=9).log_start_offset is None


# ---- schedule

LARGE = 10 * SMALL_BYTES


def candidate(number: int = 0, **changes: object) -> Candidate:
    key = PartitionKey(bytes(16), number)
    fields = Candidate(key, LARGE, 0, None, 0.5, None, None, None, was_vain=False)
    return fields._replace(**changes)  # type: ignore[arg-type]


def test_a_log_is_due_by_its_dirty_share() -> None:
    assert not is_due(candidate(dirty_bytes=LARGE // 2 - 1), NOW_MS)
    assert is_due(candidate(dirty_bytes=LARGE // 2), NOW_MS)
    assert is_due(candidate(dirty_bytes=1, min_dirty_ratio=0.0), NOW_MS)
    assert not is_due(candidate(min_dirty_ratio=0.0), NOW_MS), "there is nothing to do"
    assert not is_due(candidate(size_bytes=0, min_dirty_ratio=0.0), NOW_MS)


def test_a_log_is_due_by_the_age_of_what_is_dirty() -> None:
    old = candidate(dirty_bytes=1, max_lag_ms=100, oldest_dirty_ms=NOW_MS - 100)
    assert is_due(old, NOW_MS)
    assert not is_due(old, NOW_MS - 1)
    assert not is_due(old._replace(max_lag_ms=None), NOW_MS)


def test_a_log_is_due_by_its_tombstones() -> None:
    assert is_due(candidate(tombstones_due_ms=NOW_MS), NOW_MS)
    assert not is_due(candidate(tombstones_due_ms=NOW_MS + 1), NOW_MS)


def test_small_logs_and_vain_attempts_wait() -> None:
    small = candidate(size_bytes=10, dirty_bytes=10, idle_ms=PAUSE_MS - 1)
    assert not is_due(small, NOW_MS)
    assert is_due(small._replace(idle_ms=PAUSE_MS), NOW_MS)
    assert is_due(small._replace(idle_ms=None), NOW_MS)
    large = candidate(dirty_bytes=LARGE, idle_ms=1)
    assert is_due(large, NOW_MS)
    assert not is_due(large._replace(was_vain=True), NOW_MS)


def test_the_dirtiest_is_next() -> None:
    logs = [candidate(1, dirty_bytes=LARGE // 2), candidate(2, dirty_bytes=LARGE), candidate(3)]
    assert next_log(logs, NOW_MS) == logs[1]
    assert next_log([logs[2]], NOW_MS) is None
