"""The LMDB environment of a data directory: format, lock, open, key spaces, free room.

Invariants: one process at a time; synchronous commits unless the operator chose a weaker level; no writable map (a full
disk would be a SIGBUS). An unformatted, foreign, newer or cut-off file never opens.
"""

import fcntl
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb

from penstock.storage.errors import (
    DamagedStoreError,
    ForeignStoreError,
    NewerFormatError,
    NotFormattedError,
    StorageError,
    StoreLockedError,
)
from penstock.storage.layout import DATABASES, FORMAT_VERSION, LOCAL, damaged
from penstock.storage.types import StoreIdentity

DATA_FILE = "data.mdb"
LOCK_FILE = "penstock.lock"
DURABILITIES = ("commit", "interval", "os")


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """How a store is opened. Sizes in bytes."""

    durability: str = "commit"
    map_bytes: int = 1 << 40  # address space, not disk
    limit_bytes: int = 0  # appends are refused above this; 0: what the file system has, less reserve_bytes
    reserve_bytes: int = 256 * 1024 * 1024
    max_readers: int = 512
    producer_cache: int = 100_000  # producer states kept in memory


class Environment:
    """An open LMDB environment with the store's key spaces. `db[name]` is the handle of a key space."""

    def __init__(self, path: Path, options: StoreOptions) -> None:
        self.path = path
        self.options = options
        self._lock = _lock(path)
        try:
            self.lmdb = _open(path, options)
            self.db = {name: self.lmdb.open_db(name.encode()) for name in DATABASES}
            self._check_length()
        except lmdb.Error as error:
            os.close(self._lock)
            raise damaged(f"{path / DATA_FILE} cannot be opened: {error}") from error
        except StorageError:
            os.close(self._lock)
            raise

    def begin(self, *, write: bool = False) -> Any:
        """Begin a transaction; reads give memoryviews that live as long as it does."""
        return self.lmdb.begin(write=write, buffers=True)

    def sync(self) -> None:
        """Make all commits durable, where they are not by themselves."""
        self.lmdb.sync(True)  # noqa: FBT003  lmdb's own parameter, by position only

    def close(self) -> None:
        """Close the environment and give up the lock."""
        self.lmdb.close()
        os.close(self._lock)

    def file_bytes(self) -> int:
        """Size of the data file."""
        return (self.path / DATA_FILE).stat().st_size

    def free_bytes(self) -> int:
        """What the file system has left for this process."""
        stats = os.statvfs(self.path)
        return stats.f_bavail * stats.f_frsize

    def _check_length(self) -> None:
        """Reading a page past the end of the file would be a SIGBUS."""
        needed = (self.lmdb.info()["last_pgno"] + 1) * self.lmdb.stat()["psize"]
        if self.file_bytes() < needed:
            raise damaged(f"{self.path / DATA_FILE} has {self.file_bytes()} bytes of {needed}")


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


def _open(path: Path, options: StoreOptions) -> Any:
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
        subdir=True,
        mode=0o600,
    )


def format_directory(path: Path, cluster_id: str, node_id: int) -> StoreIdentity:
    """Make a new, empty store in a directory that holds nothing yet, and return its identity."""
    if not cluster_id or node_id < 1:
        raise StorageError("a store needs a cluster id and a node id of 1 or more")
    path.mkdir(parents=True, exist_ok=True)
    found = sorted(entry.name for entry in path.iterdir())
    if DATA_FILE in found:
        raise StorageError(f"{path} is formatted already; to give its data up, move it away first")
    if found:
        raise StorageError(f"{path} is not empty: it holds {', '.join(found[:5])}")
    identity = StoreIdentity(cluster_id, node_id, secrets.token_bytes(16))
    environment = _open(path, StoreOptions(map_bytes=1 << 24))
    db = environment.open_db(b"store")
    with environment.begin(write=True) as txn:
        txn.put(b"format", LOCAL.pack(FORMAT_VERSION), db=db)
        txn.put(b"cluster_id", cluster_id.encode(), db=db)
        txn.put(b"node_id", LOCAL.pack(node_id), db=db)
        txn.put(b"store_id", identity.store_id, db=db)
    environment.close()
    _sync_directory(path)
    _sync_directory(path.parent)
    return identity


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_identity(environment: Environment) -> StoreIdentity:
    """Read who the store is. Raises NotFormattedError, NewerFormatError, DamagedStoreError."""
    with environment.begin() as txn:
        rows = {
            name: txn.get(name, db=environment.db["store"], default=None)
            for name in (b"format", b"cluster_id", b"node_id", b"store_id")
        }
        values = {name: None if row is None else bytes(row) for name, row in rows.items()}
    version = values[b"format"]
    if version is None:
        raise NotFormattedError(f"{environment.path} holds an LMDB file that is no Penstock store")
    if LOCAL.unpack(version)[0] > FORMAT_VERSION:
        raise NewerFormatError(
            f"{environment.path} has format {LOCAL.unpack(version)[0]}, this version reads up to {FORMAT_VERSION}; "
            "start it with the version that wrote it, or a newer one"
        )
    cluster_id, node_id, store_id = values[b"cluster_id"], values[b"node_id"], values[b"store_id"]
    if cluster_id is None or node_id is None or store_id is None:
        raise damaged("its identity is incomplete")
    return StoreIdentity(cluster_id.decode(), LOCAL.unpack(node_id)[0], store_id)


def check_identity(environment: Environment, found: StoreIdentity, cluster_id: str | None, node_id: int | None) -> None:
    """Refuse a store of another cluster or node. Raises ForeignStoreError."""
    if cluster_id is not None and found.cluster_id != cluster_id:
        text = f"{environment.path} belongs to cluster {found.cluster_id!r}, not {cluster_id!r}"
        raise ForeignStoreError(f"{text}; correct data_dir")
    if node_id is not None and found.node_id != node_id:
        text = f"{environment.path} belongs to node {found.node_id}, not {node_id}"
        raise ForeignStoreError(f"{text}; correct data_dir or node_id")


__all__ = [
    "DURABILITIES",
    "DamagedStoreError",
    "Environment",
    "StoreOptions",
    "check_identity",
    "format_directory",
    "read_identity",
]
