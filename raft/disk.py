"""The journal's place on disk: one LMDB environment of its own, with room reserved beforehand.

Invariants: one commit of this environment is one fsynced transaction. Every record carries a CRC over its key and its
content, checked when the journal is opened. A lock file keeps a second process out. The reserve is allocated on the
file system when the journal is made, so that a full data store next to it cannot stop the controller.
"""

import fcntl
import os
import secrets
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb

from penstock.internal.v1 import raft_pb2
from penstock.raft import errors
from penstock.raft.journal import Entry, Identity, JournalBatch, JournalImage, JournalState, StoredSnapshot

FORMAT = 1
MAP_BYTES = 8 * 1024**3  # address space, not disk space
RESERVE_BYTES = 64 * 1024**2  # allocated at once; a journal between two snapshots fits many times
LOCK_FILE = "penstock.lock"

_KEY = struct.Struct(">Q")
_ENTRY = struct.Struct(">QI")  # term, CRC; then the command
_CRC = struct.Struct(">I")
_STATE = struct.Struct(">QQQ?")  # term, vote (0 for none), commit index, may vote
_SNAPSHOT = struct.Struct(">QQ")  # index, term; then the frame
_REPLACE = (
    "Move the raft directory away, format it anew with `penstockd format --join`,"
    " and have this voter removed and added again; it is filled from its peers."
)


def _crc(key: bytes, *parts: bytes) -> int:
    crc = zlib.crc32(key)
    for part in parts:
        crc = zlib.crc32(part, crc)
    return crc


def _lock(path: Path) -> int:
    handle = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise errors.JournalLockedError(f"{path} is in use by another process; stop that one first") from error
    return handle


def _reserve(path: Path, size: int) -> None:
    with (path / "data.mdb").open("r+b") as data:
        if os.fstat(data.fileno()).st_size < size:
            os.posix_fallocate(data.fileno(), 0, size)
            os.fsync(data.fileno())


def _environment(path: Path) -> Any:
    return lmdb.open(str(path), map_size=MAP_BYTES, max_dbs=2, subdir=True, max_readers=8, mode=0o600)


class LmdbDisk:
    """A JournalDisk in LMDB. `log`: index -> entry; `meta`: identity, state, membership, snapshot."""

    def __init__(self, path: Path, environment: Any, lock: int) -> None:
        self._path = path
        self._environment = environment
        self._lock: int | None = lock
        self._log = environment.open_db(b"log")
        self._meta = environment.open_db(b"meta")

    @classmethod
    def format(
        cls, path: Path, cluster_id: str, node_id: int, *, founding: bool, reserve: int = RESERVE_BYTES
    ) -> Identity:
        """Make an empty journal in a directory that does not exist or is empty."""
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise errors.AlreadyFormattedError(f"{path} is not empty; a journal is only made in an empty directory")
        identity = Identity(cluster_id, node_id, secrets.token_bytes(16))
        record = raft_pb2.JournalIdentity(format=FORMAT, **identity._asdict())
        try:
            disk = cls(path, _environment(path), _lock(path))
            try:
                _reserve(path, reserve)
                with disk._environment.begin(write=True, db=disk._meta) as transaction:
                    disk._put(transaction, b"state", disk._state(JournalState(may_vote=founding)))
                    disk._put(transaction, b"identity", record.SerializeToString(deterministic=True))
            finally:
                disk.close()
        except (lmdb.Error, OSError) as error:
            raise errors.JournalWriteError(f"{path}: the journal could not be made: {error}") from error
        return identity

    @classmethod
    def open(cls, path: Path, node_id: int | None, cluster_id: str | None) -> "LmdbDisk":
        """Open a formatted journal and check whose it is."""
        if not (path / "data.mdb").is_file():
            raise errors.NotFormattedError(f"there is no journal at {path}; make one with `penstockd format`")
        lock = _lock(path)
        try:
            disk = cls(path, _environment(path), lock)
        except lmdb.Error as error:
            os.close(lock)
            raise errors.DamagedJournalError(f"{path} is no LMDB environment: {error}. {_REPLACE}") from error
        except BaseException:
            os.close(lock)
            raise
        try:
            disk._check_identity(node_id, cluster_id)
        except BaseException:
            disk.close()
            raise
        return disk

    def _check_identity(self, node_id: int | None, cluster_id: str | None) -> None:
        with self._environment.begin(db=self._meta) as transaction:
            self._identity = self._load_identity(transaction)
        cluster, node, _ = self._identity
        if cluster_id is not None and cluster != cluster_id:
            raise errors.ForeignJournalError(f"{self._path} belongs to cluster {cluster!r}, not to {cluster_id!r}")
        if node_id is not None and node != node_id:
            raise errors.ForeignJournalError(f"{self._path} belongs to node {node}, not to node {node_id}")

    def _load_identity(self, transaction: Any) -> Identity:
        if transaction.get(b"identity") is None and transaction.get(b"state") is None:
            raise errors.NotFormattedError(f"{self._path} was never formatted to the end; remove it and format again")
        record = raft_pb2.JournalIdentity()
        try:
            record.ParseFromString(self._get(transaction, b"identity") or b"")
        except ValueError as error:
            raise errors.DamagedJournalError(f"{self._path}: the identity is damaged. {_REPLACE}") from error
        if record.format > FORMAT:
            message = f"{self._path} has format {record.format}; this version reads up to {FORMAT}: run a newer one"
            raise errors.NewerFormatError(message)
        return Identity(record.cluster_id, record.node_id, record.journal_id)

    def load(self) -> JournalImage:
        """Read everything, checking each record."""
        try:
            with self._environment.begin() as transaction:
                meta = {key: self._get(transaction, key) for key in (b"state", b"membership", b"snapshot")}
                entries = list(self._entries(transaction))
        except lmdb.Error as error:
            raise errors.DamagedJournalError(f"{self._path}: {error}. {_REPLACE}") from error
        state = meta[b"state"]
        if state is None or len(state) != _STATE.size:
            raise errors.DamagedJournalError(f"{self._path}: term and vote are missing. {_REPLACE}")
        term, vote, commit_index, may_vote = _STATE.unpack(state)
        stored, snapshot = meta[b"snapshot"], None
        if stored is not None:
            index, at_term = _SNAPSHOT.unpack_from(stored)
            snapshot = StoredSnapshot(index, at_term, stored[_SNAPSHOT.size :])
        image_state = JournalState(term, vote or None, commit_index, may_vote)
        return JournalImage(self._identity, image_state, meta[b"membership"], snapshot, entries)

    def _entries(self, transaction: Any) -> Iterator[Entry]:
        for key, value in transaction.cursor(db=self._log):
            if len(key) != _KEY.size or len(value) < _ENTRY.size:
                raise errors.DamagedJournalError(f"{self._path}: an entry is cut short. {_REPLACE}")
            index = _KEY.unpack(key)[0]
            term, crc = _ENTRY.unpack_from(value)
            command = value[_ENTRY.size :]
            if _crc(key, value[:8], command) != crc:
                raise errors.DamagedJournalError(f"{self._path}: entry {index} does not match its CRC. {_REPLACE}")
            yield Entry(command, index, term)

    @staticmethod
    def _state(state: JournalState) -> bytes:
        return _STATE.pack(state.term, state.voted_for or 0, state.commit_index, state.may_vote)

    def _put(self, transaction: Any, key: bytes, content: bytes) -> None:
        transaction.put(key, _CRC.pack(_crc(key, content)) + content, db=self._meta)

    def _get(self, transaction: Any, key: bytes) -> bytes | None:
        value: bytes | None = transaction.get(key, db=self._meta)
        if value is None:
            return None
        content = value[_CRC.size :]
        if len(value) < _CRC.size or _CRC.unpack_from(value)[0] != _crc(key, content):
            raise errors.DamagedJournalError(f"{self._path}: {key.decode()} does not match its CRC. {_REPLACE}")
        return content

    def commit(self, batch: JournalBatch) -> None:
        """One write transaction with fsync."""
        try:
            with self._environment.begin(write=True) as transaction:
                self._delete(transaction, batch)
                records = [self._record(entry) for entry in batch.entries]
                if records:
                    transaction.cursor(db=self._log).putmulti(records, append=True)
                self._put(transaction, b"state", self._state(batch.state))
                if batch.membership is not None:
                    self._put(transaction, b"membership", batch.membership)
                if batch.snapshot is not None:
                    header = _SNAPSHOT.pack(batch.snapshot.index, batch.snapshot.term)
                    self._put(transaction, b"snapshot", header + batch.snapshot.frame)
        except (lmdb.Error, OSError) as error:
            message = (
                f"{self._path}: the journal could not be written: {error}. Free space or mend the disk, then restart"
            )
            raise errors.JournalWriteError(message) from error

    @staticmethod
    def _record(entry: Entry) -> tuple[bytes, bytes]:
        key, term = _KEY.pack(entry.index), _KEY.pack(entry.term)
        return key, term + _CRC.pack(_crc(key, term, entry.command)) + entry.command

    def _delete(self, transaction: Any, batch: JournalBatch) -> None:
        cursor = transaction.cursor(db=self._log)
        found = cursor.last()
        while found and _KEY.unpack(cursor.key())[0] >= batch.delete_from:
            found = cursor.delete() and cursor.last()
        found = cursor.first()
        while found and _KEY.unpack(cursor.key())[0] < batch.delete_below:
            found = cursor.delete() and cursor.first()

    def close(self) -> None:
        """Close the environment and let others in."""
        if self._lock is not None:
            self._environment.close()
            os.close(self._lock)
            self._lock = None
