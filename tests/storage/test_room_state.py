"""The state of the store: its distances, who looks, and what goes on with the disk filled to the last byte."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.chaos import filling
from penstock.chaos.disks import DiskKind, Disks, missing
from penstock.storage import (
    ActIn,
    Append,
    CheckpointHighWatermark,
    Committer,
    DropLog,
    MoveStart,
    RecordStart,
    Store,
    StoreFullError,
    Writer,
)
from penstock.storage.env import StoreOptions
from penstock.storage.room import RoomState
from tests.storage.support import SMALL_MAP, append, batch, commit, done, error_of, formatted, key, new_log, new_store
from tests.storage.test_room import BIG, MIB, fill, goes_on_and_resumes, sweep_all


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
