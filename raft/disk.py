"""The journal's records on disk: one LMDB environment of its own.

Invariants: one commit of this environment is one fsynced transaction, and knows its number. Every record carries a CRC
over its key and its content, checked when the journal is opened. LMDB has no page checksums: a damaged page can hide
records, or lead to pages of an earlier commit, which are intact. So the records must be as many as LMDB counts, and
the commit that they say they are of must be the one that LMDB opened.
"""

import secrets
import struct
import zlib
from pathlib import Path
from typing import Any

import lmdb

from penstock.internal.v1 import raft_pb2
from penstock.raft import errors
from penstock.raft.datafile import DATABASES, STRUCTURE_ERRORS, JournalFile, default_reserve, make
from penstock.raft.errors import damaged
from penstock.raft.journal import FIRST_INDEX, Entry, Identity, JournalBatch, JournalImage, JournalState, StoredSnapshot

FORMAT = 1

_RECORDS = (b"identity", b"state", b"commit", b"membership", b"snapshot")
_KEY = struct.Struct(">Q")
_ENTRY = struct.Struct(">QI")  # term, CRC; then the command
_CRC = struct.Struct(">I")
_STATE = struct.Struct(">QQQ?")  # term, vote (0 for none), commit index, may vote
_SNAPSHOT = struct.Struct(">QQ")  # index, term; then the frame


def _crc(key: bytes, *parts: bytes) -> int:
    crc = zlib.crc32(key)
    for part in parts:
        crc = zlib.crc32(part, crc)
    return crc


def _sealed(key: bytes, content: bytes) -> bytes:
    return _CRC.pack(_crc(key, content)) + content


def _unsealed(key: bytes, value: bytes) -> bytes:
    content = value[_CRC.size :]
    if len(value) < _CRC.size or _CRC.unpack_from(value)[0] != _crc(key, content):
        raise damaged(f"record {key[:16]!r} does not match its CRC")
    return content


def _packed(state: JournalState) -> bytes:
    return _STATE.pack(state.term, state.voted_for or 0, state.commit_index, state.may_vote)


class LmdbDisk:
    """A JournalDisk in LMDB. `log`: index -> entry; `meta`: identity, state, membership, snapshot, commit."""

    def __init__(self, file: JournalFile) -> None:
        self._file = file
        self._environment = file.lmdb
        try:
            self._log, self._meta = (self._environment.open_db(name, create=False) for name in DATABASES)
            self._records, count = self._load_meta()
            self._identity = self._load_identity()  # a newer format may have other records
        except lmdb.Error as error:
            raise damaged(f"{file.file} cannot be read: {error}") from error
        if len(self._records) != count:
            raise damaged(f"there are {len(self._records)} records of {count}")

    @classmethod
    def format(
        cls, path: Path, cluster_id: str, node_id: int, *, founding: bool, reserve: int | None = None
    ) -> Identity:
        """Make an empty journal in a directory that does not exist or is empty. A crash leaves all of it or nothing."""
        identity = Identity(cluster_id, node_id, secrets.token_bytes(16))
        record = raft_pb2.JournalIdentity(format=FORMAT, **identity._asdict())
        records = {
            b"state": _packed(JournalState(may_vote=founding)),
            b"identity": record.SerializeToString(deterministic=True),
        }

        def fill(environment: Any) -> None:
            with environment.begin(write=True, db=environment.open_db(b"meta", create=False)) as transaction:
                for key, content in {**records, b"commit": _KEY.pack(transaction.id())}.items():
                    transaction.put(key, _sealed(key, content))

        make(path, default_reserve(path) if reserve is None else reserve, fill)
        return identity

    @classmethod
    def open(cls, path: Path, node_id: int | None, cluster_id: str | None, *, reserve: int | None = None) -> "LmdbDisk":
        """Open a formatted journal and check whose it is; a JournalError says why not, and what to do."""
        file = JournalFile(path, default_reserve(path) if reserve is None else reserve)
        try:
            disk = cls(file)
            disk._check_identity(path, node_id, cluster_id)
        except BaseException:
            file.close()
            raise
        return disk

    def _check_identity(self, path: Path, node_id: int | None, cluster_id: str | None) -> None:
        cluster, node, _ = self._identity
        if cluster_id is not None and cluster != cluster_id:
            raise errors.ForeignJournalError(f"{path} belongs to cluster {cluster!r}, not to {cluster_id!r}")
        if node_id is not None and node != node_id:
            raise errors.ForeignJournalError(f"{path} belongs to node {node}, not to node {node_id}")

    # --- reading -----------------------------------------------------------------------------------------------------

    def _load_meta(self) -> tuple[dict[bytes, bytes], int]:
        """The records, and how many there must be."""
        with self._environment.begin(db=self._meta) as transaction:
            values = {key: transaction.get(key) for key in _RECORDS}
            found = {key: _unsealed(key, value) for key, value in values.items() if value is not None}
            return found, int(transaction.stat(self._meta)["entries"])

    def _load_identity(self) -> Identity:
        if b"identity" not in self._records:
            raise damaged("whose it is cannot be found in it")
        record = raft_pb2.JournalIdentity()
        try:
            record.ParseFromString(self._records[b"identity"])
        except ValueError as error:
            raise damaged("the record of whose it is cannot be read") from error
        if record.format > FORMAT:
            message = f"{self._file.file} has format {record.format}; this version reads up to {FORMAT}"
            raise errors.NewerFormatError(f"{message}: run a newer one")
        return Identity(record.cluster_id, record.node_id, record.journal_id)

    def load(self) -> JournalImage:
        """Read everything, checking each record."""
        records, snapshot = self._records, None
        state = records.get(b"state", b"")
        if len(state) != _STATE.size:
            raise damaged("term and vote are missing")
        self._check_commit(records.get(b"commit"))
        if b"snapshot" in records:
            stored = records[b"snapshot"]
            index, at_term = _SNAPSHOT.unpack_from(stored)
            snapshot = StoredSnapshot(index, at_term, stored[_SNAPSHOT.size :])
        term, vote, commit_index, may_vote = _STATE.unpack(state)
        image_state = JournalState(term, vote or None, commit_index, may_vote)
        return JournalImage(self._identity, image_state, records.get(b"membership"), snapshot, self._load_entries())

    def _check_commit(self, record: bytes | None) -> None:
        """A journal that was last written by a version without this record has none."""
        found, opened = None if record is None else _KEY.unpack(record)[0], self._file.commit_number
        if found not in {None, opened}:
            raise damaged(f"its records are of commit {found}, its file says {opened}")

    def _load_entries(self) -> list[Entry]:
        """Each by a search of its own: LMDB aborts the process where it steps from a leaf to what is none."""
        try:
            with self._environment.begin(db=self._log) as transaction:
                return [self._entry(key, transaction.get(key)) for key in self._keys(transaction)]
        except lmdb.Error as error:
            raise damaged(f"{self._file.file} cannot be read: {error}") from error

    def _keys(self, transaction: Any) -> list[bytes]:
        """The keys of all entries, which must follow one another and be as many as LMDB counts."""
        count = transaction.stat(self._log)["entries"]
        cursor = transaction.cursor()
        first = _index(cursor) if cursor.first() else FIRST_INDEX
        end = _index(cursor) + 1 if cursor.last() else first
        if end - first != count:
            raise damaged(f"there are {count} entries from {first} to {end - 1}")
        return [_KEY.pack(index) for index in range(first, end)]

    @staticmethod
    def _entry(key: bytes, value: bytes | None) -> Entry:
        index = _KEY.unpack(key)[0]
        if value is None or len(value) < _ENTRY.size:
            raise damaged(f"entry {index} is missing or cut short")
        term, crc = _ENTRY.unpack_from(value)
        command = value[_ENTRY.size :]
        if _crc(key, value[:8], command) != crc:
            raise damaged(f"entry {index} does not match its CRC")
        return Entry(command, index, term)

    # --- writing -----------------------------------------------------------------------------------------------------

    def commit(self, batch: JournalBatch) -> None:
        """One write transaction with fsync. Raises DamagedJournalError, JournalWriteError."""
        try:
            with self._environment.begin(write=True) as transaction:
                self._delete(transaction, batch)
                self._append(transaction, batch)
                self._put(transaction, b"state", _packed(batch.state))
                self._put(transaction, b"commit", _KEY.pack(transaction.id()))
                if batch.membership is not None:
                    self._put(transaction, b"membership", batch.membership)
                if batch.snapshot is not None:
                    header = _SNAPSHOT.pack(batch.snapshot.index, batch.snapshot.term)
                    self._put(transaction, b"snapshot", header + batch.snapshot.frame)
            self._file.committed()
        except STRUCTURE_ERRORS as error:
            raise damaged(f"{self._file.file} could not be written: {error}") from error
        except (lmdb.Error, OSError) as error:
            message = f"{self._file.file}: the journal could not be written: {error}"
            raise errors.JournalWriteError(f"{message}. Free space or mend the disk, then restart") from error

    def _put(self, transaction: Any, key: bytes, content: bytes) -> None:
        transaction.put(key, _sealed(key, content), db=self._meta)

    def _append(self, transaction: Any, batch: JournalBatch) -> None:
        records = [self._record(entry) for entry in batch.entries]
        added = transaction.cursor(db=self._log).putmulti(records, append=True)[1] if records else 0
        if added != len(records):
            raise damaged(f"{added} entries of {len(records)} could be put behind the last one")

    @staticmethod
    def _record(entry: Entry) -> tuple[bytes, bytes]:
        key, term = _KEY.pack(entry.index), _KEY.pack(entry.term)
        return key, term + _CRC.pack(_crc(key, term, entry.command)) + entry.command

    def _delete(self, transaction: Any, batch: JournalBatch) -> None:
        """What then stays must end where the batch goes on, or entries that were acknowledged are gone."""
        cursor = transaction.cursor(db=self._log)
        found = cursor.last()
        while found and _index(cursor) >= batch.delete_from:
            found = cursor.delete() and cursor.last()
        found = cursor.first()
        while found and _index(cursor) < batch.delete_below:
            found = cursor.delete() and cursor.first()
        end = _index(cursor) + 1 if cursor.last() else batch.delete_below
        if end != batch.delete_from:
            raise damaged(f"its entries end before {end}, where they should before {batch.delete_from}")

    def close(self) -> None:
        """Close the environment and let others in."""
        self._file.close()


def _index(cursor: Any) -> int:
    key = cursor.key()
    if len(key) != _KEY.size:
        raise damaged(f"an entry's key has {len(key)} bytes")
    return int(_KEY.unpack(key)[0])
