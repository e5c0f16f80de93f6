"""What a group commit does with writes that fail, in ways that random groups seldom meet."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.protocol.batch import ProducerStamp
from penstock.storage import (
    ActIn,
    Append,
    AppendFailedError,
    CheckpointHighWatermark,
    Committer,
    CreateLog,
    DropLog,
    ExpireProducers,
    LogDroppedError,
    RecordStart,
    StaleEpochError,
    Store,
    Truncate,
)
from tests.storage.support import append, batch, commit, done, key, new_log, new_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with contextlib.closing(new_store(tmp_path / "store", durability="os")) as opened:
        yield opened


def errors(store: Store, *writes: object) -> list[type[BaseException] | None]:
    outcomes = commit(store, *writes)  # type: ignore[arg-type]  # also what is no write
    return [None if outcome.error is None else type(outcome.error) for outcome in outcomes]


def test_a_write_that_breaks_fails_alone(store: Store) -> None:
    one, other, third = (new_log(store, number) for number in (1, 2, 3))
    done(store, ActIn(one, 5))
    breaks = Append(other, 0, (batch(0), batch(1, append_time_ms=2**70)))
    assert errors(
        store,
        Append(one, 4, (batch(0, epoch=4),)),  # stale
        Append(third, 0, (batch(0),)),
        breaks,
        Append(one, 5, (batch(0, epoch=5),)),  # behind a failed one, though in another half of the group
        Append(other, 0, (batch(0),)),
        Append(third, 0, (batch(1),)),
        "no write at all",
    ) == [StaleEpochError, None, AppendFailedError, AppendFailedError, AppendFailedError, None, AppendFailedError]
    assert [log.state.log_end_offset for log in (one, other, third)] == [0, 0, 2]
    assert other.epochs() == []


def test_a_failure_ends_with_its_group(store: Store) -> None:
    log, committer = new_log(store), Committer(store)
    (failed,) = committer.commit([Append(log, 0, (batch(1),))])
    assert isinstance(failed.error, AppendFailedError)
    (fine,) = committer.commit([Append(log, 0, (batch(0),))])
    assert fine.error is None


def test_an_empty_group(store: Store) -> None:
    assert commit(store) == []
    log = new_log(store)
    done(store, Append(log, 0, ()))
    assert log.state.log_end_offset == 0


def test_a_log_dropped_and_made_again_in_one_group_is_another(store: Store) -> None:
    old = new_log(store)
    append(store, old, batch(0), batch(1))
    outcomes = commit(store, DropLog(old.key), Append(old, 0, (batch(2),)), CreateLog(old.key), CreateLog(old.key))
    assert [type(outcome.error) for outcome in outcomes] == [type(None), LogDroppedError, type(None), type(None)]
    new = outcomes[2].log
    assert new is outcomes[3].log is store.log(old.key)
    assert new is not None
    assert new is not old
    assert new.state.log_end_offset == 0
    with pytest.raises(LogDroppedError):
        old.read(0, 2, 100)
    with pytest.raises(LogDroppedError):
        old.producer(1)
    assert errors(store, Append(old, 0, (batch(2),)), CheckpointHighWatermark(old, 1)) == [LogDroppedError] * 2
    append(store, new, batch(0))
    assert len(new.read(0, 1, 100)) == 1


def test_made_and_dropped_in_one_group_leaves_nothing(store: Store) -> None:
    done(store, CreateLog(key(1)), DropLog(key(1)), CreateLog(key(2)), DropLog(key(2)), DropLog(key(3)))
    assert store.logs() == []
    new_log(store, 1)
    assert [log.key for log in store.logs()] == [key(1)]


def test_dropping_goes_on_behind_a_failure(store: Store) -> None:
    log = new_log(store)
    assert errors(store, Append(log, 0, (batch(7),)), DropLog(log.key)) == [AppendFailedError, None]
    assert store.logs() == []


def test_a_cut_below_the_high_watermark_forgets_producers_of_the_same_group(store: Store) -> None:
    """Their rows are not written yet, and below the high watermark no batch says what it replaced."""
    log = new_log(store)
    new = tuple(batch(at, stamp=ProducerStamp(9, 0, at)) for at in range(4))
    done(store, Append(log, 0, new), CheckpointHighWatermark(log, 4), Truncate(log, 0, 2))
    state = log.producer(9)
    assert state is not None
    assert [b.base_offset for b in state.batches] == [0, 1]
    done(store, Truncate(log, 0, 0))
    assert log.producer(9) is None


def test_expiry_looks_at_all_in_turn(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.storage.group.EXPIRE_ROWS", 4)
    log = new_log(store)
    new = [batch(at, stamp=ProducerStamp(at, 0, 0), append_time_ms=at) for at in range(10)]
    append(store, log, *new)
    known = []
    for _ in range(4):
        done(store, ExpireProducers(before_ms=8))
        known.append(sum(log.producer(producer) is not None for producer in range(10)))
    assert known[-1] == 2
    assert known[0] == 6
    assert log.producer(8) is not None


def test_start_ids_are_bounded_and_of_one_size(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.storage.group.MAX_STARTS", 3)
    ids = [bytes([at]) * 16 for at in range(5)]
    done(store, *(RecordStart(start_id) for start_id in ids))
    assert store.start_ids() == tuple(ids[2:])
    assert errors(store, RecordStart(b"short")) == [AppendFailedError]
    assert store.start_ids() == tuple(ids[2:])


@pytest.mark.parametrize(("name", "limit", "expected"), [("SWEEP_ROWS", 4, 4), ("SWEEP_BYTES", 30_000, 2)])
def test_a_sweep_deletes_a_bounded_part(
    store: Store, monkeypatch: pytest.MonkeyPatch, name: str, limit: int, expected: int
) -> None:
    monkeypatch.setattr(f"penstock.storage.commit.{name}", limit)
    log = new_log(store)
    append(store, log, *(batch(at, value=b"v" * 10_000) for at in range(10)))
    done(store, DropLog(log.key))
    assert Committer(store).sweep()
    with store.environment.begin() as txn:
        left = txn.stat(store.environment.db["batches"])["entries"]
    assert left in {10 - expected, 10 - expected - 1}
