"""Group commit: many writes, one durable transaction. No thread; the writer (or a simulator) calls it.

Invariants: all that a write changes is in one transaction (batch, epoch, end, producer, time, undo), so recovery is
opening the file; a write that fails changes nothing; what memory holds (rows, producers) is replaced only after the
commit succeeded. A failed commit is never tried again where the disk failed: CommitFailedError ends the process.
"""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import lmdb

from penstock.storage.errors import CommitFailedError, StoreFullError
from penstock.storage.garbage import delete_chunk
from penstock.storage.group import Group
from penstock.storage.writes import Append, Outcome, Write

if TYPE_CHECKING:
    from penstock.storage.store import Store

_log = logging.getLogger(__name__)

SWEEP_ROWS = 512
"""Rows of dropped data that one sweep deletes, so that it never holds up appends for long."""


class Committer:
    """Performs writes on a store. One at a time, from one thread at a time."""

    def __init__(self, store: "Store") -> None:
        self._store = store

    def commit(self, writes: Sequence[Write]) -> list[Outcome]:
        """Perform the writes in order in one transaction, durable at return as the store's level says.

        Raises CommitFailedError where the disk failed: what is durable is then unknown, and the process must end.
        """
        try:
            return self._attempt(writes)
        except StoreFullError as error:
            return self._one_by_one(writes, error)

    def _attempt(self, writes: Sequence[Write]) -> list[Outcome]:
        store = self._store
        self._check_room(writes)
        try:
            with store.environment.begin(write=True) as txn:
                group = Group(store, txn)
                outcomes = [group.perform(write) for write in writes]
                group.flush()
        except lmdb.MapFullError as error:
            raise StoreFullError(f"the store's map of {store.environment.options.map_bytes} bytes is full") from error
        except lmdb.Error as error:
            if store.room.is_exhausted():  # a full file system can look like EIO
                raise StoreFullError(f"the file system of {store.environment.path} is full: {error}") from error
            raise CommitFailedError(f"a commit to {store.environment.path} failed: {error}") from error
        group.publish()
        return outcomes

    def _check_room(self, writes: Sequence[Write]) -> None:
        appended = sum(len(b.payload) for w in writes if isinstance(w, Append) for b in w.batches)
        if appended:
            self._store.room.check(appended)

    def _one_by_one(self, writes: Sequence[Write], error: StoreFullError) -> list[Outcome]:
        """Without room: appends fail, whatever frees or only notes something is tried by itself."""
        _log.warning("appends are refused: %s", error)
        outcomes = []
        for write in writes:
            if isinstance(write, Append):
                outcomes.append(Outcome(write, write.log, error))
                continue
            try:
                outcomes += self._attempt([write])
            except StoreFullError as full:
                outcomes.append(Outcome(write, getattr(write, "log", None), full))
        return outcomes

    def sync(self) -> None:
        """Make all commits durable, at a level where they are not by themselves. Raises CommitFailedError."""
        try:
            self._store.environment.sync()
        except lmdb.Error as error:
            raise CommitFailedError(f"fsync of {self._store.environment.path} failed: {error}") from error

    def sweep(self) -> bool:
        """Delete one chunk of what was dropped; whether there is more."""
        store = self._store
        if not store.garbage:
            return False
        data, below = next(iter(store.garbage.items()))
        try:
            with store.environment.begin(write=True) as txn:
                done, freed = delete_chunk(store, txn, data, below, SWEEP_ROWS)
        except lmdb.Error as error:
            if isinstance(error, lmdb.MapFullError) or store.room.is_exhausted():
                _log.warning("cannot delete dropped data now: %s", error)
                return False
            raise CommitFailedError(f"a commit to {store.environment.path} failed: {error}") from error
        if freed is not None:
            store.replace(*freed)
        if done and store.garbage.get(data) == below:
            del store.garbage[data]
        return bool(store.garbage)
