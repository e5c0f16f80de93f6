"""A disk that is a directory with the real store in it, for worlds that run the real thing (in tmpfs, for speed).

A crash closes the store: what LMDB gave to the operating system stays. No power is ever lost in earnest: where commits
are not durable by themselves, the file is copied at each sync and the groups since are kept, so that a power loss can
put the copy back and commit a part of them again. Only what ExpireProducers of those groups did may then differ, where
there are more producers than it looks at in one go: where it goes on is the process's memory.
"""

import contextlib
import os
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from penstock.storage import (
    Append,
    Committer,
    CreateLog,
    DropLog,
    ExpireProducers,
    ForgetStarts,
    Log,
    Outcome,
    PartitionKey,
    RecordStart,
    Store,
    StoreFullError,
    StoreIdentity,
    StoreOptions,
    Write,
)
from penstock.storage.env import DATA_FILE
from penstock.storage.layout import seal
from penstock.storage.producer_rows import scan_producers
from penstock.storage.room import Room, RoomState
from penstock.storage.rows import Rows
from tests.simulation.store.disk import Disk, FaultyCommitter, check_format
from tests.simulation.store.memory import Row, Undo

MAP_BYTES = 1 << 30


class LmdbCopy(NamedTuple):
    """A data file: its content up to the hole at its end, and its length."""

    content: bytes
    length: int


class _Written(NamedTuple):
    """A group that was committed, and whether the disk was full."""

    writes: tuple[Write, ...]
    full: bool


class _Store(Store):
    """May be closed again: by the world as a crash, by the process in its last breath."""

    is_closed = False

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            super().close()


class _Room(Room):
    """Full when the disk says so."""

    def __init__(self, store: Store, is_full: Callable[[], bool]) -> None:
        self._is_full = is_full
        super().__init__(store.environment)

    @property
    def state(self) -> RoomState:
        return RoomState.FULL if self._is_full() else self._state

    @state.setter
    def state(self, state: RoomState) -> None:
        self._state = state

    def check(self, appended: int, count_used: Callable[[], int]) -> None:
        if self._is_full():
            raise StoreFullError("the simulated disk is full")
        super().check(appended, count_used)


class _Committer(Committer):
    """Tells what was committed and synced."""

    def __init__(self, store: Store, written: Callable[[Sequence[Write]], None], synced: Callable[[], None]) -> None:
        super().__init__(store)
        self._written = written
        self._synced = synced

    def commit(self, writes: Sequence[Write]) -> list[Outcome]:
        outcomes = super().commit(writes)
        self._written(writes)
        return outcomes

    def sync(self) -> None:
        super().sync()
        self._synced()


class LmdbDisk(Disk[LmdbCopy | None]):
    """See Disk. Its directory is its own; the caller takes it away in the end, after `crash`."""

    def __init__(self, path: Path, durability: str = "commit") -> None:
        super().__init__(durability)
        self._path = path
        self._store: _Store | None = None
        self._synced: LmdbCopy | None = None
        self._groups: list[_Written] = []  # committed since the last sync

    def _options(self) -> StoreOptions:
        return StoreOptions(durability=self.durability, map_bytes=MAP_BYTES, reserve_bytes=0, ballast_bytes=0)

    def format(self, cluster_id: str, node_id: int, unique: Callable[[], bytes]) -> StoreIdentity:
        """See Disk. The real format draws the store's id itself; this puts the caller's in its place."""
        check_format(cluster_id, node_id, is_formatted=self._is_formatted)
        identity = Store.format(self._path, cluster_id=cluster_id, node_id=node_id)
        store_id = unique()
        store = Store.open(self._path, self._options())
        with store.environment.begin(write=True) as txn:
            txn.put(b"store_id", seal(b"store_id", store_id), db=store.environment.db["store"])
        store.close()
        self._mark_synced()
        return identity._replace(store_id=store_id)

    @property
    def _is_formatted(self) -> bool:
        return (self._path / DATA_FILE).exists()

    def open(self, cluster_id: str | None = None, node_id: int | None = None) -> tuple[Store, Committer]:
        """See Disk."""
        store = self._open(cluster_id, node_id)
        self._store = store
        return store, FaultyCommitter(self, _Committer(store, self._note, self._mark_synced))

    def _open(self, cluster_id: str | None = None, node_id: int | None = None) -> _Store:
        store = _Store.open(self._path, self._options(), cluster_id=cluster_id, node_id=node_id)
        assert isinstance(store, _Store)
        store.room = _Room(store, lambda: self.full)
        return store

    def _note(self, writes: Sequence[Write]) -> None:
        if self.durability != "commit":
            self._groups.append(_Written(tuple(writes), self.full))

    def _mark_synced(self) -> None:
        if self.durability != "commit":
            self._synced, self._groups = self.copy(), []

    def crash(self) -> None:
        """See Disk."""
        self.disarm()
        if self._store is not None:
            self._store.close()
            self._store = None

    def power_loss(self, rng: random.Random) -> None:
        """See Disk."""
        self.crash()
        if not self._groups:
            return
        kept = self._groups[: rng.randrange(len(self._groups) + 1)]
        self._put(self._synced)
        store, full = self._open(), self.full
        for group in kept:
            self.full = group.full
            logs = {log.local: log for log in store.logs()}
            Committer(store).commit([_renamed(write, logs) for write in group.writes])
        self.full = full
        store.close()
        self._mark_synced()

    def row(self, key: PartitionKey) -> Row | None:
        """See Disk. Reads all of it: slow."""
        if not self._is_formatted:
            return None
        running = self._store is not None and not self._store.is_closed
        store = self._store if running and self._store is not None else self._open()
        try:
            log = store.log(key)
            return None if log is None else _row(store, log)
        finally:
            if not running:
                store.close()

    def copy(self) -> LmdbCopy | None:
        """See Disk."""
        if not self._is_formatted:
            return None
        with (self._path / DATA_FILE).open("rb") as file:
            length = file.seek(0, os.SEEK_END)
            end = _end_of_data(file.fileno(), length)
            file.seek(0)
            return LmdbCopy(file.read(end), length)

    def restore(self, copy: LmdbCopy | None) -> None:
        """See Disk."""
        self.crash()
        self._put(copy)
        self._mark_synced()

    def _put(self, copy: LmdbCopy | None) -> None:
        shutil.rmtree(self._path, ignore_errors=True)
        if copy is not None:
            self._path.mkdir(parents=True)
            with (self._path / DATA_FILE).open("wb") as file:
                file.write(copy.content)
                file.truncate(copy.length)

    def wipe(self) -> None:
        """See Disk."""
        self.restore(None)


def _end_of_data(descriptor: int, length: int) -> int:
    """Where the hole at the end of a file begins."""
    end = 0
    with contextlib.suppress(OSError):  # there is no data after the last extent
        while end < length:
            end = os.lseek(descriptor, os.lseek(descriptor, end, os.SEEK_DATA), os.SEEK_HOLE)
    return end


def _row(store: Store, log: Log) -> Row:
    """All that the store holds of a log, but for what undoes its batches and what is below its start."""
    state, found = log.state, store.row(log.local)
    data = 0 if found is None else found.data
    batches = log.read(state.log_start_offset, state.log_end_offset, 2**62)
    with store.environment.begin() as txn:
        producers = dict(scan_producers(Rows(txn, store.environment.db), data))
    undo: list[Undo | None] = [None] * len(batches)
    epochs = tuple(log.epochs())
    return Row(log.key, log.local, data, state, batches, undo, 0, len(batches), epochs, producers, state.log_end_offset)


def _renamed(write: Write, logs: Mapping[int, Log]) -> Write:
    """The write, naming the store's present handle of its log; one of a dropped log is refused as it was."""
    if isinstance(write, CreateLog | DropLog | RecordStart | ForgetStarts | ExpireProducers):
        return write
    if isinstance(write, Append):
        return write._replace(log=logs.get(write.log.local, write.log))
    return replace(write, log=logs.get(write.log.local, write.log))
