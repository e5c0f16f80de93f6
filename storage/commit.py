"""Group commit: many writes, one durable transaction. No thread; the writer (or a simulator) calls it.

Invariants: all that a write changes is in one transaction (batch, epoch, end, producer, time), so recovery is
opening the file; a write that fails changes nothing; what memory holds (rows, producers) is replaced only after the
commit succeeded. A failed commit is never tried again where the disk failed: CommitFailedError ends the process.

    a group fails by            then
    no room                     its appends are refused; all else is performed, so that deleting goes on
    damage                      DamagedStoreError: the process must end
    the disk                    CommitFailedError: the process must end
    anything else (a bug)       halves of it are tried, until the write that fails is alone and the others are done
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import lmdb

from penstock.storage.errors import (
    AppendFailedError,
    CommitFailedError,
    DamagedStoreError,
    StorageError,
    StoreFullError,
)
from penstock.storage.garbage import delete_chunk
from penstock.storage.group import Group, log_of
from penstock.storage.layout import damaged
from penstock.storage.room import RoomState
from penstock.storage.rows import Rows
from penstock.storage.writes import Append, Outcome, Write

if TYPE_CHECKING:
    from penstock.storage.store import Store

_log = logging.getLogger(__name__)

STRUCTURE_ERRORS = (
    lmdb.BadTxnError,
    lmdb.CorruptedError,
    lmdb.CursorFullError,
    lmdb.InvalidError,
    lmdb.PageFullError,
    lmdb.PageNotFoundError,
    lmdb.ProblemError,
)
"""What LMDB says of pages that are not what it wrote."""
SWEEP_ROWS = 512
SWEEP_BYTES = 64 * 1024 * 1024
"""What one sweep deletes of dropped data, so that it never holds up appends for long."""


class Committer:
    """Performs writes on a store. One at a time, from one thread at a time."""

    def __init__(self, store: "Store") -> None:
        self._store = store
        self._failed: frozenset[int] = frozenset()  # local ids of logs of which a write failed in the present call
        self._sweep_failed = False  # told once

    def commit(self, writes: Sequence[Write]) -> list[Outcome]:
        """Perform the writes in order in one transaction, durable at return as the store's level says.

        Raises CommitFailedError where the disk failed (what is durable is then unknown) and DamagedStoreError: after
        both the process must end.
        """
        self._failed = frozenset()
        return self._commit(writes)

    def _commit(self, writes: Sequence[Write]) -> list[Outcome]:
        try:
            return self._attempt(writes)
        except StoreFullError as error:
            full = error
            if len(writes) > 1 and self._store.room.state is not RoomState.FULL:  # each of them may fit
                return self._halved(writes, error)
        except (CommitFailedError, DamagedStoreError):
            raise
        except Exception as error:  # noqa: BLE001  a bug that one write shows must not fail the others
            if len(writes) == 1:
                _log.exception("a write failed: %s", type(writes[0]).__name__)
            return self._halved(writes, AppendFailedError(f"the write failed unexpectedly: {error!r}"))
        return self._without_appends(writes, full)

    def _attempt(self, writes: Sequence[Write], refused: StoreFullError | None = None) -> list[Outcome]:
        """One transaction. `refused`: what appends fail with."""
        store = self._store
        appended = sum([len(batch.payload) for write in writes if isinstance(write, Append) for batch in write.batches])
        with self._transaction() as txn:
            if appended and refused is None:
                store.room.check(appended, lambda: store.environment.used_bytes(txn))
            group = Group(store, txn, self._failed, refused)
            outcomes = [group.perform(write) for write in writes]
            group.flush()
        group.publish()
        self._failed = frozenset(group.failed)
        return outcomes

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        """A write transaction, committed at the end. Raises StoreFullError, CommitFailedError, DamagedStoreError."""
        environment = self._store.environment
        try:
            with environment.begin(write=True) as txn:
                yield txn
            environment.committed()
        except STRUCTURE_ERRORS as error:
            raise damaged(str(error)) from error
        except lmdb.MapFullError as error:
            self._store.room.exhausted()
            raise StoreFullError(f"the store's map of {environment.options.map_bytes} bytes is full") from error
        except (lmdb.TxnFullError, lmdb.BadValsizeError):
            raise  # the group's fault, not the disk's
        except lmdb.Error as error:
            # A full file system can look like EIO; an environment that panicked writes nothing any more.
            full = isinstance(error, lmdb.DiskError) or self._store.room.is_exhausted()
            if full and not isinstance(error, lmdb.PanicError):
                self._store.room.exhausted()
                raise StoreFullError(f"the file system of {environment.path} is full: {error}") from error
            raise CommitFailedError(f"a commit to {environment.path} failed: {error}") from error

    def _without_appends(self, writes: Sequence[Write], error: StoreFullError) -> list[Outcome]:
        """Without room: appends fail, and what relies on them; whatever frees or only notes something goes on."""
        try:
            return self._attempt(writes, refused=error)
        except StoreFullError as still:
            return self._halved(writes, still)

    def _halved(self, writes: Sequence[Write], error: StorageError) -> list[Outcome]:
        """Try both halves, in order; a write that was tried alone has failed."""
        if len(writes) == 1:
            log = log_of(writes[0])
            self._failed |= {log.local} if log is not None else set()
            return [Outcome(writes[0], log, error)]
        middle = len(writes) // 2
        return self._commit(writes[:middle]) + self._commit(writes[middle:])

    def sync(self) -> None:
        """Make all commits durable, at a level where they are not by themselves. Raises CommitFailedError."""
        try:
            self._store.environment.sync()
        except lmdb.Error as error:
            raise CommitFailedError(f"fsync of {self._store.environment.path} failed: {error}") from error

    def look(self) -> None:
        """See how full the store is, whoever filled or freed it; the writer calls it every second or so."""
        environment = self._store.environment
        environment.keep_ballast()
        with environment.begin() as txn:
            self._store.room.look(lambda: environment.used_bytes(txn))

    def sweep(self) -> bool:
        """Delete one chunk of what was dropped; whether there is more that can be deleted now."""
        store = self._store
        if not store.garbage:
            return False
        data, below = next(iter(store.garbage.items()))
        try:
            with self._transaction() as txn:
                rows = Rows(txn, store.environment.db)
                done = delete_chunk(rows, data, below, SWEEP_ROWS, SWEEP_BYTES)
        except StoreFullError as error:
            if not self._sweep_failed:
                _log.error("dropped data cannot be deleted now: %s", error)
            self._sweep_failed = True
            return False
        self._sweep_failed = False
        if done:
            del store.garbage[data]
        return bool(store.garbage)
