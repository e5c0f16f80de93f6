"""The journal's data file: made, locked, opened, and kept long enough.

Invariants: one process at a time. The file gets its name when it is whole: one that is there was formatted to the end,
and its node may have voted. A file that was cut short, or whose two heads do not fit each other, is refused before LMDB
touches it: reading beyond its end would be a SIGBUS, and in an empty one LMDB would begin a new journal. The lock file
holds the number of the last commit, written after it: a data file that is of an earlier one is refused, too. The
reserve is allocated on the file system, so that a full data store next to it cannot stop the controller.
"""

import errno
import fcntl
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb

from penstock.raft.errors import (
    AlreadyFormattedError,
    JournalError,
    JournalLockedError,
    JournalWriteError,
    NotFormattedError,
    damaged,
)
from penstock.raft.heads import check_noted, note_commit, read_head

DATA_FILE = "data.mdb"
LOCK_FILE = "penstock.lock"
UNFINISHED = "format.tmp"
"""A journal that is being formatted; what a crash leaves of it is nothing: no node has run on it."""
DATABASES = (b"log", b"meta")
MAP_BYTES = 8 * 1024**3  # address space, not disk space
RESERVE_BYTES = 64 * 1024**2  # allocated at once; a journal between two snapshots fits many times
SMALL_SHARE = 8
"""The default reserve takes no more than this part of a file system."""
AHEAD_BYTES = 64 * 1024**2
"""The file is kept longer than its pages by half of this at least; behind the reserve as a hole."""
RETRY_COMMITS = 1_000
"""Where there was no room for more reserve it is tried again after so many."""
STRUCTURE_ERRORS = (
    lmdb.BadDbiError,
    lmdb.BadTxnError,
    lmdb.BadValsizeError,
    lmdb.CorruptedError,
    lmdb.CursorFullError,
    lmdb.IncompatibleError,
    lmdb.InvalidError,
    lmdb.KeyExistsError,
    lmdb.NotFoundError,
    lmdb.PageFullError,
    lmdb.PageNotFoundError,
    lmdb.ProblemError,
    lmdb.VersionMismatchError,
)
"""What LMDB says of pages that are not what it wrote (a transaction goes bad by one that was not told before). Other
errors are of the disk, or of this process's limits."""

log = logging.getLogger(__name__)


class JournalFile:
    """An open LMDB environment, and the lock that keeps other processes out."""

    def __init__(self, path: Path, reserve: int) -> None:
        """Raises NotFormattedError, JournalLockedError, DamagedJournalError, JournalError."""
        self.file = path / DATA_FILE
        self._reserve = reserve
        self._allocated = reserve  # from the beginning of the file
        self._retry_commit = 0
        self._handle = _lock(path)
        try:
            self.lmdb = self._open(reserve)
        except BaseException:
            os.close(self._handle)
            raise
        self._is_open = True

    def _open(self, reserve: int) -> Any:
        try:
            self._page_bytes = self._check()
            if self._length() < reserve:
                log.warning("%s is shorter than it was made; its reserve is allocated again", self.file)
                _reserve(self.file, reserve)
            elif _disk_bytes(self.file) < reserve:  # the file system was small when the journal was made
                self._allocated = 0
            environment = _environment(self.file.parent, create=False)
        except STRUCTURE_ERRORS as error:
            raise damaged(f"{self.file} cannot be opened: {error}") from error
        except (lmdb.Error, OSError) as error:
            raise JournalError(f"{self.file} cannot be opened: {error}") from error
        self._ahead = self._length()
        return environment

    def _check(self) -> int:
        """The size of a page. Raises DamagedJournalError for a file shorter than its pages, or of an earlier commit."""
        head = read_head(self.file)
        if self._length() < head.needed_bytes:
            raise damaged(f"{self.file} was cut short: it has {self._length()} of {head.needed_bytes} bytes")
        check_noted(self.file, self._handle, head.commit)
        return head.page_bytes

    @property
    def commit_number(self) -> int:
        """How many transactions were committed, as LMDB counts them."""
        return int(self.lmdb.info()["last_txnid"])

    def committed(self) -> None:
        """Follow a commit: note its number, keep the file longer than its pages.

        LMDB does not write pages at the end of the file that one transaction takes and frees, so a healthy file could
        be shorter than its last page; then one that was cut short could not be told.
        """
        info = self.lmdb.info()
        note_commit(self._handle, info["last_txnid"])
        needed = int((info["last_pgno"] + 1) * self._page_bytes)
        if self._ahead - needed < AHEAD_BYTES // 2:
            self._ahead = max(self._length(), needed + AHEAD_BYTES)
            os.truncate(self.file, self._ahead)
        if self._reserve and self._allocated - needed < self._reserve // 2:
            self._allocate(needed, info["last_txnid"])

    def _allocate(self, needed: int, commit: int) -> None:
        """Half of the reserve is used: allocate as much again behind the pages."""
        if commit < self._retry_commit:
            return
        try:
            _check_room(self.file, needed + self._reserve)
            with self.file.open("r+b") as data:
                os.posix_fallocate(data.fileno(), needed, self._reserve)
        except OSError as error:
            if not self._retry_commit:
                log.warning("%s has used half of its reserve, and there is no room for more: %s", self.file, error)
            self._retry_commit = commit + RETRY_COMMITS
            return
        self._allocated, self._retry_commit = needed + self._reserve, 0
        self._ahead = max(self._ahead, self._allocated)

    def _length(self) -> int:
        return self.file.stat().st_size

    def close(self) -> None:
        """Close the environment and let others in."""
        if self._is_open:
            self._is_open = False
            self.lmdb.close()
            os.close(self._handle)


def make(path: Path, reserve: int, fill: Callable[[Any], None]) -> None:
    """Make a journal in a directory that holds nothing yet; `fill` writes its first records into the environment.

    The file gets its name when it is whole: a crash leaves a journal, or nothing and this can be called again.
    """
    unfinished, its_lock = path / UNFINISHED, path / f"{UNFINISHED}-lock"
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not {entry.name for entry in path.iterdir()} <= {unfinished.name, its_lock.name}:
            raise AlreadyFormattedError(f"{path} is not empty; a journal is only made in an empty directory")
        for left in (unfinished, its_lock):
            left.unlink(missing_ok=True)
        _fill(unfinished, reserve, fill)
        its_lock.unlink()
        unfinished.rename(path / DATA_FILE)
        _sync_directory(path)
        _sync_directory(path.parent)
    except (lmdb.Error, OSError) as error:
        raise JournalWriteError(f"{path}: the journal could not be made: {error}") from error


def _fill(file: Path, reserve: int, fill: Callable[[Any], None]) -> None:
    environment = _environment(file, create=True)
    try:
        for name in DATABASES:
            environment.open_db(name)
        _reserve(file, reserve)
        fill(environment)
    finally:
        environment.close()


def _environment(place: Path, *, create: bool) -> Any:
    """Open LMDB in a directory; `create`: in that file itself, which must not be there."""
    return lmdb.open(
        str(place),
        map_size=MAP_BYTES,
        max_dbs=len(DATABASES),
        subdir=not create,
        create=create,
        max_readers=8,
        mode=0o600,
    )


def _reserve(file: Path, size: int) -> None:
    with file.open("r+b") as data:
        if os.fstat(data.fileno()).st_size < size:
            os.posix_fallocate(data.fileno(), 0, size)
            os.fsync(data.fileno())


def default_reserve(path: Path) -> int:
    """Return what is allocated for a journal in this directory, or in the nearest one above that exists."""
    while not path.exists():
        path = path.parent
    stats = os.statvfs(path)
    return min(RESERVE_BYTES, stats.f_blocks * stats.f_frsize // SMALL_SHARE)


def _disk_bytes(file: Path) -> int:
    return file.stat().st_blocks * 512


def _check_room(file: Path, wanted: int) -> None:
    """A file system may give all that it has before it says that this is not enough: others need it."""
    stats = os.statvfs(file)
    if wanted - _disk_bytes(file) > stats.f_bavail * stats.f_frsize:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(path: Path) -> int:
    if not (path / DATA_FILE).is_file():
        raise NotFormattedError(
            f"there is no journal at {path}; make one with `penstockd format` (if this node has run before, its disk "
            "is not mounted or lost: use --join, for it may have voted)"
        )
    handle = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise JournalLockedError(f"{path} is in use by another process; stop that one first") from error
    return handle
