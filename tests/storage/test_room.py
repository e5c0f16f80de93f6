"""A full store refuses appends and nothing else, and takes them again when there is room."""

import contextlib
import ctypes
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import pytest

from penstock.chaos import filling
from penstock.chaos.disks import DiskKind, Disks, missing
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
    Writer,
)
from penstock.storage.env import StoreOptions
from penstock.storage.room import RoomState
from tests.storage.support import (
    SMALL_MAP,
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


# ---- the state


def look(store: Store) -> RoomState:
    Committer(store).look()
    return store.room.state


def test_the_state_rises_with_the_pages_and_falls_with_a_distance(tmp_path: Path) -> None:
    with contextlib.closing(new_store(tmp_path / "store", limit_bytes=8 * MIB)) as store:
        log = new_log(store)
        assert look(store) is RoomState.OK
        seen = []
        while error_of(store, Append(log, 0, (batch(log.state.log_end_offset, value=BIG),))) is None:
            seen.append((store.room.share_used(), look(store)))
        assert [state for _, state in seen] == sorted(state for _, state in seen)
        assert {state for share, state in seen if share < 0.84} == {RoomState.OK}
        assert {state for share, state in seen if share > 0.86} == {RoomState.NEARLY_FULL}
        assert store.room.state is RoomState.FULL
        end = log.state.log_end_offset
        falling = []
        for start in range(1, end):
            done(store, MoveStart(log, 0, start))
            sweep_all(store)
            falling.append((look(store), store.room.share_used()))
        assert [state for state, _ in falling] == sorted((state for state, _ in falling), reverse=True)
        assert {state for state, share in falling if share > 0.96} <= {RoomState.FULL}
        assert {state for state, share in falling if 0.76 < share < 0.94} == {RoomState.NEARLY_FULL}
        assert falling[-1][0] is RoomState.OK


def test_full_does_not_flap_at_the_limit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What one deleted batch frees is not taken before there is room for more; and each change is told once."""
    with contextlib.closing(new_store(tmp_path / "store", limit_bytes=8 * MIB)) as store:
        log = new_log(store)
        fill(store, log)
        caplog.clear()
        done(store, MoveStart(log, 0, 1))
        sweep_all(store)
        small = Append(log, 0, (batch(log.state.log_end_offset),))
        assert [isinstance(error_of(store, small), StoreFullError) for _ in range(20)] == [True] * 20
        assert not caplog.records


def test_a_group_that_is_too_large_for_the_room_goes_in_parts(tmp_path: Path) -> None:
    with contextlib.closing(new_store(tmp_path / "store", limit_bytes=8 * MIB)) as store:
        logs = [new_log(store, number) for number in range(1, 101)]
        outcomes = commit(store, *(Append(log, 0, (batch(0, value=BIG),)) for log in logs))
        written = [outcome.error is None for outcome in outcomes]
        assert 50 < sum(written) < 80
        assert written == sorted(written, reverse=True)
        assert store.room.state is RoomState.FULL


def test_figures(tmp_path: Path) -> None:
    with contextlib.closing(new_store(tmp_path / "store", limit_bytes=8 * MIB)) as store:
        append(store, new_log(store), batch(0, value=BIG))
        look(store)
        used, capacity, disk, free = store.room.figures
        assert 100_000 < used < MIB
        assert capacity == 8 * MIB
        assert MIB <= disk < 4 * MIB
        assert free == pytest.approx(store.environment.free_bytes(), rel=0.1)


# ---- disks that others fill, to the last byte


DISKS = [(DiskKind.TMPFS, 32 * MIB), (DiskKind.EXT4, 64 * MIB)]
LEAST = 4 * MIB
"""What the store must take before it is full on the smaller one."""


@pytest.fixture(params=DISKS, ids=lambda disk: str(disk[0]))
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Where a small file system begins; the defaults of reserve and ballast fit it."""
    kind, size = request.param
    reason = missing(kind, tmp_path)
    if reason is not None:
        pytest.skip(reason)
    with Disks(tmp_path / "disks", kind, size) as disks:
        disks.prepare([1])
        yield disks.root(1)


def fill_disk(root: Path) -> None:
    filling.fill(root, 0)


def empty_disk(root: Path) -> None:
    (root / filling.FILLING).unlink()


def free_bytes(root: Path) -> int:
    stats = os.statvfs(root)
    return stats.f_bavail * stats.f_frsize


def open_default(path: Path) -> Store:
    return Store.open(path, StoreOptions(map_bytes=SMALL_MAP))


def test_the_store_leaves_room_on_a_small_disk(shared: Path) -> None:
    with contextlib.closing(open_default(formatted(shared / "store"))) as store:
        fill(store, log := new_log(store))
        assert log.state.size_bytes > LEAST
        assert free_bytes(shared) > 0.9 * store.environment.reserve_bytes
        goes_on_and_resumes(store, log)


def test_deleting_works_on_a_disk_that_others_filled_to_the_last_byte(shared: Path) -> None:
    """And brings writing back, with the disk as full as before."""
    with contextlib.closing(open_default(formatted(shared / "store"))) as store:
        log, other = new_log(store), new_log(store, 2)
        fill(store, log)
        fill_disk(shared)
        assert free_bytes(shared) < 64 * 1024
        assert look(store) is RoomState.FULL
        for at in range(200):  # what a node notes while it is full
            done(store, CheckpointHighWatermark(log, at % 10), ActIn(other, at), RecordStart(at.to_bytes(16, "big")))
        end = log.state.log_end_offset
        for start in range(1, end):
            done(store, MoveStart(log, 0, start))
            sweep_all(store)
        assert log.read(end - 1, end, 2**40)[0].last_offset == end - 1
        assert look(store) is not RoomState.FULL
        assert free_bytes(shared) < 64 * 1024
        written = 0
        while error_of(store, Append(log, 0, (batch(log.state.log_end_offset, value=BIG),))) is None:
            written += 1
        assert written * len(BIG) > LEAST // 2
        assert free_bytes(shared) < 64 * 1024


def test_a_whole_topic_is_dropped_on_a_full_disk_and_a_restart_finds_the_same(shared: Path) -> None:
    path = formatted(shared / "store")
    with contextlib.closing(open_default(path)) as store:
        log, other = new_log(store), new_log(store, 2)
        append(store, other, *(batch(at) for at in range(100)))
        fill(store, log)
        fill_disk(shared)
    with contextlib.closing(open_default(path)) as store:
        assert look(store) is RoomState.FULL
        done(store, DropLog(key(1)))
        sweep_all(store)
        assert look(store) is not RoomState.FULL
        found = store.log(key(2))
        assert found is not None
        assert len(found.read(0, 100, 2**40)) == 100
    with contextlib.closing(open_default(path)) as store:
        assert [log.key for log in store.logs()] == [key(2)]


def test_others_fill_the_disk_while_appends_go_on(shared: Path) -> None:
    """The store finds out at the next look, or when its file cannot grow; nothing that was written is lost."""
    with contextlib.closing(open_default(formatted(shared / "store"))) as store:
        log = new_log(store)
        for at in range(20):
            append(store, log, batch(at, value=BIG))
        fill_disk(shared)
        error = fill(store, log)
        assert "full" in str(error)
        assert store.room.state is RoomState.FULL
        end = log.state.log_end_offset
        assert len(log.read(0, end, 2**40)) == end
        done(store, CheckpointHighWatermark(log, end), ActIn(log, 0), MoveStart(log, 0, 1))
        sweep_all(store)
        empty_disk(shared)
        assert look(store) is RoomState.OK
        append(store, log, batch(end, value=BIG))


def test_who_takes_the_disk_is_noticed_without_an_append(shared: Path) -> None:
    with contextlib.closing(open_default(formatted(shared / "store"))) as store:
        log = new_log(store)
        while store.room.share_used() < 0.5:
            append(store, log, batch(log.state.log_end_offset, value=BIG))
            look(store)
        assert look(store) is RoomState.OK
        fill_disk(shared)
        assert look(store) is RoomState.FULL
        empty_disk(shared)
        assert look(store) is RoomState.OK


class Looking(Committer):
    """Tells when it has found the store full."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._watched = store
        self.found_full = threading.Event()

    def look(self) -> None:
        super().look()
        if self._watched.room.state is RoomState.FULL:
            self.found_full.set()


def test_the_writer_looks_by_itself(shared: Path) -> None:
    with contextlib.closing(open_default(formatted(shared / "store"))) as store:
        append(store, new_log(store), *(batch(at, value=BIG) for at in range(60)))
        committer = Looking(store)
        writer = Writer(committer, lambda _: None, lambda _: None)
        writer.start()
        try:
            fill_disk(shared)
            assert committer.found_full.wait(60)
        finally:
            assert writer.stop()


def test_the_ballast_does_not_take_the_last_of_a_disk(shared: Path) -> None:
    """A file system may allocate all it has before it says that this is too little."""
    path = formatted(shared / "store")
    filling.fill(shared, 2 * MIB)
    with contextlib.closing(open_default(path)) as store:
        assert not store.environment.has_ballast
        assert look(store) is RoomState.FULL
        assert free_bytes(shared) > MIB
        empty_disk(shared)
        assert look(store) is RoomState.OK
        assert store.environment.has_ballast
