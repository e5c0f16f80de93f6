"""The LMDB environment of a data directory: format, lock, open, key spaces, length of the file.

Invariants: one process at a time; synchronous commits unless the operator chose a weaker level; no writable map (a full
disk would be a SIGBUS). An unformatted, foreign, newer or cut-off file never opens, and is not written to; where every
commit is durable, nor does one of an earlier commit than the last.
"""

import fcntl
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb

from penstock.storage.errors import (
    DamagedStoreError,
    ForeignStoreError,
    NewerFormatError,
    NotFormattedError,
    OlderFormatError,
    StorageError,
    StoreLockedError,
)
from penstock.storage.heads import check_noted, note_commit, read_head
from penstock.storage.layout import DATABASES, FORMAT_VERSION, LOCAL, REPAIR, damaged, seal, unseal
from penstock.storage.tail import SMALL_SHARE, Tail, small_share
from penstock.storage.types import StoreIdentity

DATA_FILE = "data.mdb"
LOCK_FILE = "penstock.lock"
UNFINISHED = "format.tmp"
"""A store that is being formatted; what a crash leaves of it is nothing."""
COPY = "copy.tmp"
"""Directory of a copy that is to take the store's place (see `copying`); what a crash leaves of it is nothing."""
DURABILITIES = ("commit", "interval", "os")
READERS_FILE = "lock.mdb"
"""LMDB's table of readers, mapped into memory."""
_META_BYTES = 2 * 4096
_IDENTITY = (b"format", b"cluster_id", b"node_id", b"store_id")


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """How a store is opened. Sizes in bytes."""

    durability: str = "commit"
    map_bytes: int = 1 << 40  # address space, not disk
    limit_bytes: int = 0  # appends are refused above this; 0: what the file system has, less reserve_bytes
    reserve_bytes: int = 256 * 1024 * 1024  # left to the file system; less on a small one
    ballast_bytes: int = (
        64 * 1024 * 1024
    )  # allocated behind the pages, for deleting on a full disk; less on a small one
    nearly_full_share: float = 0.85  # of the capacity: the watermark from which on an operator is warned
    max_readers: int = 512
    producer_cache: int = 100_000  # producer states kept in memory

    def __post_init__(self) -> None:
        """A misspelt level must not pass for a weak one."""
        if self.durability not in DURABILITIES:
            raise StorageError(f"durability {self.durability!r} is none of {', '.join(DURABILITIES)}")


class Environment:
    """An open LMDB environment with the store's key spaces. `db[name]` is the handle of a key space."""

    def __init__(self, path: Path, options: StoreOptions) -> None:
        """Raises NotFormattedError, StoreLockedError, NewerFormatError, DamagedStoreError."""
        self.path = path
        self.options = options
        self.db: dict[str, Any] = {}
        self.on_damage: Callable[[DamagedStoreError], None] = lambda _: None
        self._is_open = True
        self._readers: int | None = None
        self._lock = _lock(path)
        try:
            remove_copy(path)
            self._check_length(_META_BYTES)  # LMDB would begin a new store in an empty file
            self._check_heads()
            self.lmdb = _open(path, options)
            try:
                self._open_spaces()
            except BaseException:
                self._close()
                raise
        except lmdb.Error as error:
            os.close(self._lock)
            raise damaged(f"{path / DATA_FILE} cannot be opened: {error}") from error
        except BaseException:
            os.close(self._lock)
            raise

    def _open_spaces(self) -> None:
        self._page_bytes = int(self.lmdb.stat()["psize"])
        self._check_length(self._needed())  # reading beyond the end would be a SIGBUS
        try:
            self.db["store"] = self.lmdb.open_db(b"store", create=False)
        except lmdb.NotFoundError as error:
            raise no_store(self.path) from error
        check_format(self)  # before the rest: a newer format may have other key spaces
        self.db.update({name: self.lmdb.open_db(name.encode(), create=False) for name in DATABASES})
        self._allocate_readers()
        self.reserve_bytes = small_share(self.path, self.options.reserve_bytes)
        self.tail = Tail(self.path / DATA_FILE, self._ballast_bytes())
        self.has_ballast = self.tail.keep(self._needed())

    def _ballast_bytes(self) -> int:
        size = small_share(self.path, self.options.ballast_bytes)
        return min(size, self.options.limit_bytes // SMALL_SHARE) if self.options.limit_bytes else size

    def _allocate_readers(self) -> None:
        """A page of the map that the file system has no room for would be a SIGBUS when a thread reads first.

        Closed with the environment, never before: a process that closes any descriptor of a file gives up all its POSIX
        locks on it, and LMDB's one says that the table is in use. Without it the next process that reads the store (a
        compaction's) makes the table anew under a running commit, which then builds on an old page and damages the
        store.
        """
        file = self.path / READERS_FILE
        self._readers = os.open(file, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.posix_fallocate(self._readers, 0, file.stat().st_size)
        except OSError as error:
            raise StorageError(f"{file} cannot be allocated: {error}; make room on the disk") from error

    def begin(self, *, write: bool = False) -> Any:
        """Begin a transaction; reads give memoryviews that live as long as it does."""
        return self.lmdb.begin(write=write, buffers=True)

    def sync(self) -> None:
        """Make all commits durable, where they are not by themselves."""
        self.lmdb.sync(True)  # noqa: FBT003  lmdb's own parameter, by position only

    def tell(self, error: DamagedStoreError) -> None:
        """A read found damage: call `on_damage`, on this thread. What a read meets after the end is none."""
        if self._is_open:
            self.on_damage(error)

    def close(self) -> None:
        """Close the environment and give up the lock."""
        self._is_open = False
        self._close()
        os.close(self._lock)

    def _close(self) -> None:
        self.lmdb.close()
        if self._readers is not None:
            os.close(self._readers)

    def commit_number(self) -> int:
        """Number of the last commit."""
        return int(self.lmdb.info()["last_txnid"])

    def committed(self) -> None:
        """Follow a commit."""
        info = self.lmdb.info()
        if self.options.durability == "commit":  # else the note could outlive what it is of
            note_commit(self._lock, info["last_txnid"])
        self.has_ballast = self.tail.keep((info["last_pgno"] + 1) * self._page_bytes)

    def forget_dead_readers(self) -> None:
        """A process that was killed while it read (a compaction's) would keep pages from being used again for ever."""
        self.lmdb.reader_check()

    def keep_ballast(self) -> None:
        """Allocate the ballast where there was no room for it before. The thread that commits."""
        self.has_ballast = self.tail.keep(self._needed(), retry=True)

    def adopt(self, file: Path, commit: int) -> None:
        """Put another data file, whole and synced, of a later commit, in the place of this environment's.

        A crash leaves the one or the other. The environment still has the former file open, and must only be closed.
        The later commit is noted when the file surely has its name: noted sooner, a loss of power could leave the
        former file beside it, which would be refused.
        """
        file.replace(self.path / DATA_FILE)
        _sync_directory(self.path)
        note_commit(self._lock, commit)

    def used_bytes(self, txn: Any) -> int:
        """Pages in use by rows, live ones and those that wait to be deleted; the rest of the file is free."""
        pages: int = 0
        for database in self.db.values():
            stat = txn.stat(database)
            pages += stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return pages * self._page_bytes

    def disk_bytes(self) -> int:
        """What the data file takes of the disk."""
        return (self.path / DATA_FILE).stat().st_blocks * 512

    def paged_bytes(self) -> int:
        """Length of the file up to its last page."""
        return self._needed()

    def free_bytes(self) -> int:
        """What the file system has left for this process."""
        stats = os.statvfs(self.path)
        return stats.f_bavail * stats.f_frsize

    def _check_heads(self) -> None:
        """Below `commit`, a loss of power may leave heads that do not fit, and counts as a lost disk anyway."""
        if self.options.durability == "commit":
            file = self.path / DATA_FILE
            check_noted(file, self._lock, read_head(file).commit)

    def _check_length(self, needed: int) -> None:
        if self._length() < needed:
            raise damaged(f"{self.path / DATA_FILE} was cut short: it has {self._length()} of {needed} bytes")

    def _length(self) -> int:
        return (self.path / DATA_FILE).stat().st_size

    def _needed(self) -> int:
        return int((self.lmdb.info()["last_pgno"] + 1) * self._page_bytes)


def remove_copy(path: Path) -> None:
    """Remove what is left of a copy of the store in `path`, if anything."""
    copy = path / COPY
    if copy.is_dir():
        for file in copy.iterdir():
            file.unlink()
        copy.rmdir()


def _lock(path: Path) -> int:
    if not (path / DATA_FILE).exists():
        raise NotFormattedError(
            f"{path} holds no store; format it with `penstockd format` (if this node had data before, its disk is not "
            "mounted or lost: use --join)"
        )
    descriptor = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StoreLockedError(f"{path} is in use by another process; stop that one first") from error
    return descriptor


def _open(path: Path, options: StoreOptions, *, create: bool = False) -> Any:
    """Open the LMDB file in a directory; `create`: that file itself, which must not be there."""
    durable = options.durability == "commit"
    return lmdb.open(
        str(path),
        map_size=options.map_bytes,
        max_dbs=len(DATABASES),
        max_readers=options.max_readers,
        sync=durable,
        metasync=durable,
        writemap=False,
        readahead=True,
        subdir=not create,
        create=create,
        mode=0o600,
    )


def format_directory(path: Path, cluster_id: str, node_id: int) -> StoreIdentity:
    """Make a new, empty store in a directory that holds nothing yet, and return its identity.

    The data file gets its name when it is whole: a crash leaves a store, or nothing and this can be called again.
    """
    if not cluster_id or not 1 <= node_id < 2**32:
        raise StorageError("a store needs a cluster id and a node id of 1 or more")
    unfinished = [UNFINISHED, f"{UNFINISHED}-lock"]
    path.mkdir(parents=True, exist_ok=True)
    found = sorted(entry.name for entry in path.iterdir() if entry.name not in unfinished)
    if DATA_FILE in found:
        raise StorageError(f"{path} is formatted already; to give its data up, move it away first")
    if found:
        raise StorageError(f"{path} is not empty: it holds {', '.join(found[:5])}")
    for name in unfinished:
        (path / name).unlink(missing_ok=True)
    identity = StoreIdentity(cluster_id, node_id, secrets.token_bytes(16))
    _write_identity(path / UNFINISHED, identity)
    (path / unfinished[1]).unlink()
    (path / UNFINISHED).rename(path / DATA_FILE)
    _sync_directory(path)
    _sync_directory(path.parent)
    return identity


def _write_identity(file: Path, identity: StoreIdentity) -> None:
    values = (LOCAL.pack(FORMAT_VERSION), identity.cluster_id.encode(), LOCAL.pack(identity.node_id), identity.store_id)
    environment = _open(file, StoreOptions(map_bytes=1 << 24), create=True)
    try:
        spaces = {name: environment.open_db(name.encode()) for name in DATABASES}
        with environment.begin(write=True) as txn:
            for name, value in zip(_IDENTITY, values, strict=True):
                txn.put(name, seal(name, value), db=spaces["store"])
    finally:
        environment.close()


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def no_store(path: Path) -> NotFormattedError:
    """It may be any program's, or what damage left of a store."""
    text = f"{path} holds an LMDB file that is no Penstock store; correct data_dir"
    return NotFormattedError(f"{text}, or if this node's store was here, it is damaged: {REPAIR}")


def check_format(environment: Environment) -> None:
    """Raise NotFormattedError, NewerFormatError, OlderFormatError."""
    with environment.begin() as txn:
        row = txn.get(b"format", db=environment.db["store"])
        if row is None:
            raise no_store(environment.path)
        version = LOCAL.unpack(unseal(b"format", row))[0]
    if version > FORMAT_VERSION:
        raise NewerFormatError(
            f"{environment.path} has format {version}, this version reads up to {FORMAT_VERSION}; "
            "start it with the version that wrote it, or a newer one"
        )
    if version < FORMAT_VERSION:
        raise OlderFormatError(
            f"{environment.path} has format {version}, this version reads {FORMAT_VERSION} only; "
            f"nothing was changed: start it with the version that wrote it, or {REPAIR}"
        )


def read_identity(environment: Environment) -> StoreIdentity:
    """Read who the store is. Raises DamagedStoreError."""
    values = []
    with environment.begin() as txn:
        for name in _IDENTITY:
            row = txn.get(name, db=environment.db["store"])
            if row is None:
                raise damaged("its identity is incomplete")
            values.append(unseal(name, row))
    return StoreIdentity(values[1].decode(), LOCAL.unpack(values[2])[0], values[3])


def check_identity(environment: Environment, found: StoreIdentity, cluster_id: str | None, node_id: int | None) -> None:
    """Refuse a store of another cluster or node. Raises ForeignStoreError."""
    if cluster_id is not None and found.cluster_id != cluster_id:
        text = f"{environment.path} belongs to cluster {found.cluster_id!r}, not {cluster_id!r}"
        raise ForeignStoreError(f"{text}; correct data_dir")
    if node_id is not None and found.node_id != node_id:
        text = f"{environment.path} belongs to node {found.node_id}, not {node_id}"
        raise ForeignStoreError(f"{text}; correct data_dir or node_id")
