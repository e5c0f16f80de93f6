"""The producers that logs know: reading them, and what a group's writes do to them.

Invariant: `producers` and `known` have the same keys. So the lack of a producer is believed only where both lack it: a
page that is damaged so that it hides some is not taken for their absence, which would let a retry in twice.
"""

from collections.abc import Iterator, Mapping
from itertools import zip_longest

from penstock.storage import layout
from penstock.storage.producers import ProducerState
from penstock.storage.rows import Rows

Identity = tuple[int, int]
"""Data id and producer id."""


def read_producer(rows: Rows, data: int, producer_id: int) -> ProducerState | None:
    """What a log knows of a producer. Raises DamagedStoreError."""
    key = layout.producer_key(data, producer_id)
    body = rows.get("producers", key)
    if body is not None:
        return layout.unpack_producer(body)
    if rows.get("known", key) is not None:
        raise layout.damaged(f"the row of producer {producer_id} of local partition {data} is missing")
    return None


def scan_producers(rows: Rows, data: int) -> Iterator[tuple[int, ProducerState]]:
    """All producers that a log knows. Raises DamagedStoreError."""
    first = layout.LOCAL.pack(data)
    none: tuple[bytes, memoryview] = (b"", memoryview(b""))
    for (key, row), (known, _) in zip_longest(rows.scan("producers", first), rows.scan("known", first), fillvalue=none):
        if key != known:
            raise layout.damaged(f"the row of key {max(key, known).hex()} or the one before it is missing")
        yield layout.read_producer_key(key)[1], layout.unpack_producer(layout.unseal(key, row))


class ProducerRows:
    """The store's producers, and in front of them what this group made of them. Written at the end of the group."""

    def __init__(self, rows: Rows, cache: Mapping[Identity, ProducerState | None]) -> None:
        self.changed: dict[Identity, ProducerState | None] = {}
        self._rows = rows
        self._cache = cache

    def get(self, data: int, producer_id: int) -> ProducerState | None:
        """What is known of a producer."""
        identity = (data, producer_id)
        if identity in self.changed:
            return self.changed[identity]
        if identity in self._cache:
            return self._cache[identity]
        return read_producer(self._rows, data, producer_id)

    def set(self, data: int, producer_id: int, state: ProducerState | None) -> None:
        """Know this of a producer from now on; None: nothing."""
        self.changed[data, producer_id] = state

    def trim(self, data: int, end: int) -> None:
        """Take the batches from `end` on out of what is known, where nothing says what was before."""
        known = {producer_id for producer_id, _ in scan_producers(self._rows, data)}
        known.update(producer_id for changed, producer_id in self.changed if changed == data)
        for producer_id in known:
            state = self.get(data, producer_id)
            if state is not None and state.batches and state.batches[-1].last_offset >= end:
                kept = tuple(batch for batch in state.batches if batch.last_offset < end)
                self.set(data, producer_id, state._replace(batches=kept) if kept else None)

    def expire(self, position: bytes, before_ms: int, max_rows: int) -> bytes:
        """Forget those that were idle since `before_ms`, of the next few from `position` on; where to go on."""
        left = max_rows
        for key in self._rows.keys_from("producers", position):
            if left == 0:
                return key
            left -= 1
            identity = layout.read_producer_key(key)
            state = self.get(*identity)
            if state is not None and state.timestamp_ms < before_ms:
                self.set(*identity, None)
        return b""

    def flush(self) -> None:
        """Write what changed."""
        for identity, state in self.changed.items():
            key = layout.producer_key(*identity)
            if state is None:
                self._rows.delete("producers", key)
                self._rows.delete("known", key)
                continue
            if self._cache.get(identity) is None and self._rows.get("known", key) is None:
                self._rows.put("known", key, b"")
            self._rows.put("producers", key, layout.pack_producer(state))
