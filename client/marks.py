"""Marks of what is done, durable in an SQLite database.

Owns one table, `penstock_done`, and one connection, behind a lock; the rest of the database is the application's. WAL
and synchronous=FULL: a mark that `put` or `transaction` has returned for is on the disk. Several processes of one
machine may share the file. Bounded by age and by number: the oldest marks go, some with every PURGE_EVERY new ones.
"""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from penstock.client.clock import Clock

LOCK_TIMEOUT_S = 30.0
"""How long another process may hold the database."""
OPEN_AGAIN_S = 0.02
PURGE_EVERY = 1_000
PURGE_ROWS = 10_000
"""Rows that one purge drops, at most, for each of the two bounds."""
_TABLES = """
CREATE TABLE IF NOT EXISTS penstock_done (number INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE,
    done_ms INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS penstock_done_by_time ON penstock_done (done_ms);
"""
_TOO_OLD = "SELECT number FROM penstock_done WHERE done_ms < ? ORDER BY done_ms LIMIT ?"
_TOO_MANY = "SELECT number FROM penstock_done WHERE number <= (SELECT max(number) FROM penstock_done) - ? LIMIT ?"


class DeduplicationError(Exception):
    """The store of marks cannot be used, or not so; the message says why. The record is not marked."""


class Bounds(NamedTuple):
    """What is kept: marks within both."""

    keep_ms: int
    keep_records: int


class Marks:
    """See the module. For several threads."""

    def __init__(self, path: Path, bounds: Bounds, clock: Clock) -> None:
        self._path = path
        self._bounds = bounds
        self._clock = clock
        self._lock = threading.Lock()
        self._owner: int | None = None
        """Thread that has the lock."""
        self._puts = 0
        with self._told():
            self._connection = self._open()

    def _open(self) -> sqlite3.Connection:
        """SQLite waits for others by itself, but not where a database that others write to gets a write-ahead log."""
        deadline_ms = self._clock.monotonic_ms() + LOCK_TIMEOUT_S * 1000
        while True:
            try:
                return self._connect()
            except sqlite3.OperationalError as error:
                busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or self._clock.monotonic_ms() >= deadline_ms:
                    raise
            time.sleep(OPEN_AGAIN_S)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        try:
            (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
            connection.execute("PRAGMA synchronous=FULL")
            connection.executescript(_TABLES)
        except BaseException:
            connection.close()
            raise
        if mode != "wal":
            connection.close()
            raise DeduplicationError(f"{self._path} cannot have a write-ahead log (it is {mode!r}): not durable")
        return connection

    def has(self, identity: bytes) -> bool:
        """Say whether this one is marked."""
        with self._held(), self._told():
            return self._has(identity)

    def put(self, identity: bytes) -> None:
        """Mark this one; returns when that is durable. Nothing where it is marked."""
        with self._held(), self._told(), self._written():
            self._insert(identity)

    @contextmanager
    def transaction(self, identity: bytes) -> Iterator[sqlite3.Connection | None]:
        """Give the connection, inside the transaction that will hold the mark; None: it is marked already.

        Whoever leaves by an exception has changed nothing. What is run in it cannot end the transaction.
        """
        with self._held(), self._written():
            if self._has(identity):
                yield None
                return
            self._connection.set_authorizer(_refuse_ends)
            try:
                yield self._connection
            except sqlite3.DatabaseError as error:
                if "not authorized" in str(error):
                    error.add_note("transaction() commits by itself: no COMMIT, ROLLBACK or executescript inside it")
                raise
            finally:
                self._connection.set_authorizer(None)
            with self._told():
                self._insert(identity)

    def close(self) -> None:
        """Close the database. Marks stay."""
        with self._held():
            self._connection.close()

    def _has(self, identity: bytes) -> bool:
        return self._connection.execute("SELECT 1 FROM penstock_done WHERE id = ?", (identity,)).fetchone() is not None

    def _insert(self, identity: bytes) -> None:
        now_ms = self._clock.wall_ms()
        statement = "INSERT INTO penstock_done (id, done_ms) VALUES (?, ?) ON CONFLICT DO NOTHING"
        self._connection.execute(statement, (identity, now_ms))
        if self._puts % PURGE_EVERY == 0:
            self._purge(now_ms)
        self._puts += 1

    def _purge(self, now_ms: int) -> None:
        for rows, bound in ((_TOO_OLD, now_ms - self._bounds.keep_ms), (_TOO_MANY, self._bounds.keep_records)):
            self._connection.execute(f"DELETE FROM penstock_done WHERE number IN ({rows})", (bound, PURGE_ROWS))  # noqa: S608 - constants of this module

    @contextmanager
    def _written(self) -> Iterator[None]:
        """One durable transaction; nothing of it where it is left by an exception."""
        with self._told():
            self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            with self._told():
                self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    @contextmanager
    def _held(self) -> Iterator[None]:
        """One thread at a time; a second use inside a transaction of the same thread would wait for itself."""
        if self._owner == threading.get_ident():
            raise DeduplicationError(
                "this thread is in a transaction() of the same store: hold none across an await, and mark nothing in it"
            )
        with self._lock:
            self._owner = threading.get_ident()
            try:
                yield
            finally:
                self._owner = None

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise DeduplicationError(f"the store of marks at {self._path} cannot be used: {error}") from error


def _refuse_ends(action: int, *_: object) -> int:
    return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_TRANSACTION else sqlite3.SQLITE_OK
