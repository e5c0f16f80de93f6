"""Giving a store's free room back: a compact copy takes its place. LMDB never shrinks its file by itself.

Offline: the store is locked meanwhile. The copy is opened and read as a whole before it gets the store's name, in one
step; so a crash at any point leaves the store as it was or the copy, and nothing that is damaged is copied on. A copy
continues the numbers of the commits (`heads.renumber`), so that the former file beside a later note is refused, and
neither of the two ever is before that.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import lmdb

from penstock.storage import layout
from penstock.storage.commit import STRUCTURE_ERRORS
from penstock.storage.env import COPY, DATA_FILE, Environment, StoreOptions, remove_copy
from penstock.storage.errors import StorageError, StoreFullError
from penstock.storage.heads import renumber
from penstock.storage.store import Store
from penstock.storage.whole import check_whole, counts

MARGIN = 1.05
"""Room that is asked for over the pages in use: a copy has a few of its own, and so has the file system."""
MARGIN_BYTES = 1024 * 1024


class Figures(NamedTuple):
    """What a store has of the disk, in bytes."""

    used_bytes: int
    """Pages in use: about what a copy takes."""
    disk_bytes: int
    """What the file takes now, but for the ballast behind its pages."""
    free_bytes: int
    """What the file system has left."""

    @property
    def needed_bytes(self) -> int:
        """What must be free for a copy."""
        return int(self.used_bytes * MARGIN) + MARGIN_BYTES


def figures(environment: Environment) -> Figures:
    """Measure an open store. Any thread; short."""
    with environment.begin() as txn:
        used = environment.used_bytes(txn)
    return Figures(used, min(environment.disk_bytes(), environment.paged_bytes()), environment.free_bytes())


def check_room(found: Figures, path: Path) -> None:
    """Raise StoreFullError where a copy does not fit beside the store."""
    if found.free_bytes < found.needed_bytes:
        text = f"a copy of the store at {path} needs {found.needed_bytes} bytes, its file system has"
        raise StoreFullError(f"{text} {found.free_bytes}; make room, or drop or trim topics first")


def compact(path: Path, options: StoreOptions, *, node_id: int | None = None) -> tuple[Figures, Figures]:
    """Put a compact copy in a closed store's place; the figures before and after.

    Raises what `Store.open` does, StoreFullError where there is no room, DamagedStoreError, and StorageError where the
    disk failed; the store is then as it was.
    """
    store = Store.open(path, options, node_id=node_id)
    environment = store.environment
    try:
        before = figures(environment)
        check_room(before, path)
        try:
            commit = _copy(store)
            _check(store, options)
            environment.adopt(path / COPY / DATA_FILE, commit)
        finally:
            remove_copy(path)
    except STRUCTURE_ERRORS as error:
        raise layout.damaged(str(error)) from error
    except (OSError, lmdb.Error) as error:
        raise StorageError(f"the store at {path} could not be copied: {error}") from error
    finally:
        store.close()
    return before, _measure(path, options, node_id)


def _measure(path: Path, options: StoreOptions, node_id: int | None) -> Figures:
    store = Store.open(path, options, node_id=node_id)
    try:
        return figures(store.environment)
    finally:
        store.close()


def _copy(store: Store) -> int:
    """Make the copy, durable as far as it goes; the number of its commit."""
    environment = store.environment
    directory = environment.path / COPY
    directory.mkdir(mode=0o700)
    file = directory / DATA_FILE
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _write(store, descriptor)
        commit = renumber(file, environment.commit_number())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return commit


def _write(store: Store, descriptor: int) -> None:
    try:
        store.environment.lmdb.copyfd(descriptor, compact=True)
    except (*STRUCTURE_ERRORS, lmdb.IncompatibleError) as error:  # the latter: more or fewer pages than it counts
        raise layout.damaged(f"LMDB cannot copy it: {error}") from error
    except lmdb.Error as error:
        text = f"the store at {store.environment.path} could not be copied: {error}"
        if isinstance(error, lmdb.DiskError) or store.room.is_exhausted():
            raise StoreFullError(text) from error
        check_whole(store)  # a page that is damaged can look like anything
        raise StorageError(text) from error


def _check(store: Store, options: StoreOptions) -> None:
    """Read the copy as a whole; where it is not what it should be, tell whether the store is damaged or the disk."""
    path = store.environment.path
    try:
        copy = Store.open(path / COPY, replace(options, ballast_bytes=0))  # it gets one in the store's place
        try:
            check_whole(copy)
            if (copy.identity, counts(copy)) != (store.identity, counts(store)):
                raise layout.damaged("its copy has other rows")
        finally:
            copy.close()
    except StorageError as error:
        check_whole(store)
        raise StorageError(f"the copy of the store at {path} is not what was written to it: {error}") from error
