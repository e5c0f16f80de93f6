"""The rows of a transaction: sealed, and looked up so that damage shows.

LMDB has no page checksums: a damaged branch page leads a search astray, to rows that are intact but not those asked
for. So a row is believed by its CRC, and the lack of one only where its neighbours are in order around the gap.
"""

from collections.abc import Iterator
from typing import Any

from penstock.storage.layout import LOCAL, damaged, seal, unpack_head, unseal

MAX_KEY = 64


class Rows:
    """All key spaces in one transaction. Not thread-safe; dies with the transaction."""

    def __init__(self, txn: Any, databases: dict[str, Any]) -> None:
        self.txn = txn
        self.databases = databases

    def get(self, space: str, key: bytes) -> bytes | None:
        """Content of a row, or None. Raises DamagedStoreError."""
        row = self.txn.get(key, db=self.databases[space])
        if row is not None:
            return unseal(key, row)
        with self.txn.cursor(self.databases[space]) as cursor:
            if self._seek(space, cursor, key):
                _check_order(key, key_of(cursor), strict=True)
                _check_row(space, cursor)
        return None

    def put(self, space: str, key: bytes, body: bytes) -> None:
        """Write a row."""
        self.txn.put(key, seal(key, body), db=self.databases[space])

    def delete(self, space: str, key: bytes) -> None:
        """Delete a row, where it is."""
        self.txn.delete(key, db=self.databases[space])

    def scan(self, space: str, first: bytes) -> Iterator[tuple[bytes, memoryview]]:
        """Keys and unopened rows from `first` on under the same id, in order. The space must not change meanwhile."""
        prefix, before, strict = first[: LOCAL.size], first, False
        with self.txn.cursor(self.databases[space]) as cursor:
            found = self._seek(space, cursor, first)
            while found:
                key = key_of(cursor)
                _check_order(before, key, strict=strict)
                if key[: LOCAL.size] != prefix:
                    return
                yield key, cursor.value()
                before, strict = key, True
                found = self._following(space, cursor, key)

    def all(self, space: str) -> Iterator[tuple[bytes, bytes]]:
        """Keys and contents of all rows of a space, which must be as many as it says."""
        for key, row in self.walk(space):
            yield key, unseal(key, row)

    def walk(self, space: str) -> Iterator[tuple[bytes, memoryview]]:
        """Keys and unopened rows of a whole space, in order, which must be as many as it says."""
        count, before = 0, b""
        with self.txn.cursor(self.databases[space]) as cursor:
            found = cursor.first()
            while found:
                key = key_of(cursor)
                _check_order(before, key, strict=True)
                yield key, cursor.value()
                count, before = count + 1, key
                found = self._following(space, cursor, key)
        expected = self.txn.stat(self.databases[space])["entries"]
        if count != expected:
            raise damaged(f"there are {count} rows of {expected} in {space}")

    def keys_from(self, space: str, first: bytes) -> Iterator[bytes]:
        """All keys of a space from `first` on."""
        with self.txn.cursor(self.databases[space]) as cursor:
            found = cursor.set_range(first) if first else cursor.first()
            while found:
                key = key_of(cursor)
                yield key
                found = self._following(space, cursor, key)

    def last(self, space: str, local: int, before: bytes | None = None) -> tuple[bytes, memoryview] | None:
        """Last row under an id; `before`: the last one with a lower key than that."""
        limit = before if before is not None else LOCAL.pack(local + 1)
        with self.txn.cursor(self.databases[space]) as cursor:
            if self._seek(space, cursor, limit):
                _check_order(limit, key_of(cursor), strict=False)
                found = cursor.prev()
            else:
                found = cursor.last()
            if not found:
                return None
            key = key_of(cursor)
            _check_order(key, limit, strict=True)
            return (key, cursor.value()) if key[: LOCAL.size] == LOCAL.pack(local) else None

    def pop(self, space: str, first: bytes, until: bytes) -> Iterator[tuple[bytes, memoryview]]:
        """Yield the rows from `first` to below `until`, in order; each is deleted when the next one is asked for."""
        before, strict = first, False
        with self.txn.cursor(self.databases[space]) as cursor:
            found = self._seek(space, cursor, first)
            while found:
                key = key_of(cursor)
                _check_order(before, key, strict=strict)
                if key >= until:
                    return
                yield key, cursor.value()
                before, strict = key, True
                found = cursor.delete() and len(cursor.key()) > 0  # delete() moves on to the next, if there is one

    def _seek(self, space: str, cursor: Any, key: bytes) -> bool:
        """Put the cursor on the first row at or after `key`. Raises DamagedStoreError where that cannot be believed.

        The row before it must be lower and whole: one whose place in its page is damaged is jumped over by searches.
        """
        with self.txn.cursor(self.databases[space]) as probe:
            if probe.prev() if probe.set_range(key) else probe.last():
                lower = key_of(probe)
                _check_order(lower, key, strict=True)
                _check_row(space, probe)
                if probe.prev():
                    _check_order(key_of(probe), lower, strict=True)
        return bool(cursor.set_range(key))

    def _following(self, space: str, cursor: Any, key: bytes) -> bool:
        """Put the cursor on the row after that of `key`: by a search, which must not jump over another row.

        LMDB aborts the process where it steps to a page that is no leaf, or searches from there; hence the probe.
        """
        after = key + b"\0"
        with self.txn.cursor(self.databases[space]) as probe:
            if not (probe.prev() if probe.set_range(after) else probe.last()) or key_of(probe) != key:
                raise damaged(f"the row after key {key.hex()} is missing")
        return bool(cursor.set_range(after))


def key_of(cursor: Any) -> bytes:
    """Key under the cursor."""
    key = cursor.key()
    if len(key) > MAX_KEY:
        raise damaged(f"a key has {len(key)} bytes")
    return bytes(key)


def _check_row(space: str, cursor: Any) -> None:
    """The CRC of the row under the cursor."""
    check = unpack_head if space == "batches" else unseal
    check(key_of(cursor), cursor.value())


def _check_order(lower: bytes, higher: bytes, *, strict: bool) -> None:
    if lower > higher or (strict and lower == higher):
        raise damaged(f"key {higher.hex()} comes after {lower.hex()}")
