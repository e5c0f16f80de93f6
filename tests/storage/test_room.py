"""A full store refuses appends and nothing else, and takes them again when there is room."""

import contextlib
import ctypes
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import pytest

from penstock.storage import (
    ActIn,
    Append,
    AppendFailedError,
    CheckpointHighWatermark,
    CommitFailedError,
    Committer,
    CreateLog,
    DropLog,
    Log,
    MoveStart,
    RecordStart,
    ResetLog,
    Store,
    StoreFullError,
    Truncate,
    Write,
)
from tests.storage.support import (
    append,
    batch,
    commit,
    done,
    error_of,
    formatted,
    key,
    new_log,
    new_store,
    options,
)

BIG = b"v" * 100_000
MIB = 1024 * 1024


def fill(store: Store, log: Log) -> StoreFullError:
    """Append until it is refused."""
    for _ in range(1_000):
        error = error_of(store, Append(log, 0, (batch(log.state.log_end_offset, value=BIG),)))
        if error is not None:
            assert isinstance(error, StoreFullError), error
            return error
    raise AssertionError("never full")


def sweep_all(store: Store) -> None:
    committer = Committer(store)
    for _ in range(10_000):
        if not committer.sweep():
            return
    raise AssertionError("never swept")


def goes_on_and_resumes(store: Store, log: Log) -> None:
    """Of a full store with one log."""
    end = log.state.log_end_offset
    state = log.state
    assert log.read(0, end, 2**40)[-1].last_offset == end - 1
    assert error_of(store, Append(log, 0, (batch(end, value=BIG),))) is not None
    assert log.state == state
    done(store, CheckpointHighWatermark(log, end), RecordStart(b"s" * 16), ActIn(log, 1), CreateLog(key(9)))
    done(store, MoveStart(log, 1, end - 1), DropLog(key(9)))
    sweep_all(store)
    assert error_of(store, Append(log, 1, (batch(end, epoch=1, value=BIG),))) is None
    assert [b.base_offset for b in log.read(end - 1, end + 1, 2**40)] == [end - 1, end]


def test_full_by_the_operators_limit(tmp_path: Path) -> None:
    with contextlib.closing(new_store(tmp_path / "store", limit_bytes=4 * MIB)) as store:
        log = new_log(store)
        error = fill(store, log)
        assert "is full: it needs" in str(error)
        assert "delete or trim topics, or give it more room" in str(error)
        assert 2 * MIB < log.state.size_bytes < 4 * MIB
        assert store.environment.disk_bytes() <= 4 * MIB
        goes_on_and_resumes(store, log)


def test_garbage_counts_until_it_is_swept(tmp_path: Path) -> None:
    with contextlib.closing(new_store(tmp_path / "store", limit_bytes=4 * MIB)) as store:
        log, other = new_log(store), new_log(store, 2)
        fill(store, log)
        done(store, DropLog(log.key))
        assert isinstance(error_of(store, Append(other, 0, (batch(0, value=BIG),))), StoreFullError)
        sweep_all(store)
        done(store, Append(other, 0, (batch(0, value=BIG),)))


def test_the_limit_holds_while_data_comes_and_goes(tmp_path: Path) -> None:
    with contextlib.closing(new_store(tmp_path / "store", limit_bytes=8 * MIB)) as store:
        log = new_log(store)
        for at in range(500):
            if error_of(store, Append(log, 0, (batch(at, value=BIG),))) is not None:
                done(store, MoveStart(log, 0, at - 10))
                sweep_all(store)
                done(store, Append(log, 0, (batch(at, value=BIG),)))
        used = store.environment.disk_bytes() - store.environment.tail.ballast_bytes
        assert used <= 8 * MIB * 1.15  # pages in use are counted, the file is a bit larger


def test_full_map(tmp_path: Path) -> None:
    """The limit is the map: LMDB refuses what the estimate let through."""
    with contextlib.closing(new_store(tmp_path / "store", map_bytes=4 * MIB)) as store:
        log = new_log(store)
        fill(store, log)
        goes_on_and_resumes(store, log)


def test_map_that_is_full_before_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(new_store(tmp_path / "store", map_bytes=4 * MIB)) as store:
        log = new_log(store)
        monkeypatch.setattr(store.room, "check", lambda *_: None)
        assert "map of" in str(fill(store, log))
        monkeypatch.undo()
        assert len(log.read(0, 2**40, 2**40)) == log.state.log_end_offset
        fits = Append(log, 0, (batch(log.state.log_end_offset),))
        assert isinstance(error_of(store, fits), StoreFullError)


def test_what_relies_on_a_refused_append_fails_and_the_rest_goes_on(tmp_path: Path) -> None:
    with contextlib.closing(new_store(tmp_path / "store", limit_bytes=4 * MIB)) as store:
        log, other, third = new_log(store), new_log(store, 2), new_log(store, 3)
        append(store, other, *(batch(at) for at in range(4)))
        append(store, third, *(batch(at) for at in range(4)))
        fill(store, log)
        group: list[tuple[Write, type[Exception] | None]] = [
            (Truncate(third, 0, 2), None),
            (Append(other, 0, (batch(4, value=BIG),)), StoreFullError),
            (Truncate(other, 0, 2), AppendFailedError),
            (MoveStart(other, 0, 1), None),
            (ActIn(other, 3), None),
            (CheckpointHighWatermark(other, 2), None),
            (Append(other, 3, (batch(4, epoch=3),)), AppendFailedError),
            (ResetLog(other, 3, log.replica_seed()), AppendFailedError),
            (CreateLog(key(8)), None),
            (Append(third, 0, (batch(2),)), StoreFullError),
            (DropLog(log.key), None),
        ]
        outcomes = commit(store, *(write for write, _ in group))
        assert [outcome.error and type(outcome.error) for outcome in outcomes] == [error for _, error in group]
        assert [outcome.write for outcome in outcomes] == [write for write, _ in group]
        assert (other.state.log_start_offset, other.state.log_end_offset, other.state.acted_epoch) == (1, 4, 3)
        assert third.state.log_end_offset == 2


def test_a_warning_comes_before_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with contextlib.closing(new_store(tmp_path / "store", limit_bytes=4 * MIB)) as store:
        log = new_log(store)
        with caplog.at_level(logging.WARNING):
            fill(store, log)
        warnings = [record.getMessage() for record in caplog.records if "% of its room" in record.getMessage()]
        assert len(warnings) == 1
        assert store.room.share_used() > 0.85


def test_reserve_is_left_to_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(new_store(tmp_path / "store", reserve_bytes=10 * MIB)) as store:
        log = new_log(store)
        disk = 13 * MIB
        monkeypatch.setattr(store.environment, "free_bytes", lambda: disk - store.environment.disk_bytes())
        store.room._capacity = 0
        fill(store, log)
        assert log.state.size_bytes < 3 * MIB
        disk = 200 * MIB
        done(store, Append(log, 0, (batch(log.state.log_end_offset, value=BIG),)))


# ---- a disk that fails


class Failing:
    """A write transaction whose commit fails."""

    def __init__(self, txn: Any, error: lmdb.Error) -> None:
        self._txn, self._error = txn, error

    def __enter__(self) -> Any:
        return self._txn

    def __exit__(self, *_: object) -> None:
        self._txn.abort()
        raise self._error


@pytest.fixture
def failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Store, Log, Any]]:
    with contextlib.closing(new_store(tmp_path / "store")) as store:
        log = new_log(store)
        append(store, log, batch(0))
        begin = store.environment.begin

        def fail(error: lmdb.Error) -> None:
            failing = lambda *, write=False: Failing(begin(write=True), error) if write else begin()  # noqa: E731  short
            monkeypatch.setattr(store.environment, "begin", failing)

        yield store, log, fail


def test_a_failed_commit_with_room_ends_the_process(failing: tuple[Store, Log, Any]) -> None:
    store, log, fail = failing
    fail(lmdb.Error("mdb_txn_commit: Input/output error"))
    before = log.state
    with pytest.raises(CommitFailedError, match="Input/output error"):
        commit(store, Append(log, 0, (batch(1),)))
    assert log.state == before
    with pytest.raises(CommitFailedError):
        done(store, DropLog(log.key))
    with pytest.raises(CommitFailedError):
        Committer(store).commit([CheckpointHighWatermark(log, 1)])


def test_a_failed_commit_without_room_refuses(failing: tuple[Store, Log, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """It can look like EIO (seen on ext4 and tmpfs)."""
    store, log, fail = failing
    fail(lmdb.Error("mdb_txn_commit: Input/output error"))
    monkeypatch.setattr(store.environment, "free_bytes", lambda: 0)
    outcomes = commit(store, Append(log, 0, (batch(1),)), CheckpointHighWatermark(log, 1))
    assert [type(outcome.error) for outcome in outcomes] == [StoreFullError, StoreFullError]
    monkeypatch.undo()
    done(store, Append(log, 0, (batch(1),)))


def test_no_space_left_is_no_failed_disk(failing: tuple[Store, Log, Any]) -> None:
    store, log, fail = failing
    fail(lmdb.DiskError("mdb_txn_commit: No space left on device"))
    assert isinstance(error_of(store, Append(log, 0, (batch(1),))), StoreFullError)


def test_an_environment_that_panicked_ends_the_process(
    failing: tuple[Store, Log, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, log, fail = failing
    fail(lmdb.PanicError("mdb_txn_begin: MDB_PANIC"))
    monkeypatch.setattr(store.environment, "free_bytes", lambda: 0)
    with pytest.raises(CommitFailedError):
        commit(store, Append(log, 0, (batch(1),)))


def test_a_sweep_without_room_waits(failing: tuple[Store, Log, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    store, log, fail = failing
    done(store, DropLog(log.key))
    fail(lmdb.DiskError("mdb_txn_commit: No space left on device"))
    assert not Committer(store).sweep()
    assert store.garbage
    monkeypatch.undo()
    sweep_all(store)
    assert not store.garbage


# ---- a real small disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.getuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    libc = ctypes.CDLL(None, use_errno=True)
    path = tmp_path / "disk"
    path.mkdir()
    if libc.mount(b"tmpfs", os.fsencode(path), b"tmpfs", 0, b"size=16m") != 0:
        pytest.skip(f"no tmpfs can be mounted here: {os.strerror(ctypes.get_errno())}")
    try:
        yield path
    finally:
        libc.umount2(os.fsencode(path), 2)


def test_full_file_system(small_disk: Path) -> None:
    """Without a reserve and with somebody else's file on the disk, LMDB itself runs out."""
    (small_disk / "somebody").write_bytes(bytes(4 * MIB))
    formatted(small_disk / "store")
    with contextlib.closing(Store.open(small_disk / "store", options())) as store:
        log = new_log(store)
        store.room._capacity = 2**40
        store.room._measure = lambda: 2**40  # type: ignore[method-assign]  # as if the others came just now
        error = fill(store, log)
        assert "file system" in str(error)
        end = log.state.log_end_offset
        assert len(log.read(0, end, 2**40)) == end
        assert isinstance(error_of(store, Append(log, 0, (batch(end, value=BIG),))), StoreFullError)
        (small_disk / "somebody").unlink()
        done(store, Append(log, 0, (batch(end, value=BIG),)))
    with contextlib.closing(Store.open(small_disk / "store", options())) as store:
        found = store.log(key(1))
        assert found is not None
        assert len(found.read(0, end + 1, 2**40)) == end + 1


def test_full_file_system_with_a_reserve(small_disk: Path) -> None:
    with contextlib.closing(Store.open(formatted(small_disk / "store"), options(reserve_bytes=4 * MIB))) as store:
        log = new_log(store)
        fill(store, log)
        assert store.environment.free_bytes() >= 4 * MIB
        goes_on_and_resumes(store, log)
