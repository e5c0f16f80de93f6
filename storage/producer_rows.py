"""What a group's writes do to the producers that logs know: changed in memory, written once at the end of the group."""

from collections.abc import Mapping

from penstock.storage import layout
from penstock.storage.producers import ProducerState
from penstock.storage.rows import Rows

Identity = tuple[int, int]
"""Data id and producer id."""


class ProducerRows:
    """The store's producers, and in front of them what this group made of them."""

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
        body = self._rows.get("producers", layout.producer_key(data, producer_id))
        return None if body is None else layout.unpack_producer(body)

    def set(self, data: int, producer_id: int, state: ProducerState | None) -> None:
        """Know this of a producer from now on; None: nothing."""
        self.changed[data, producer_id] = state

    def trim(self, data: int, end: int) -> None:
        """Take the batches from `end` on out of what is known, where no undo rows are left to tell what was before."""
        known = {layout.read_producer_key(key)[1] for key, _ in self._rows.scan("producers", layout.LOCAL.pack(data))}
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
        for (data, producer_id), state in self.changed.items():
            key = layout.producer_key(data, producer_id)
            if state is None:
                self._rows.delete("producers", key)
            else:
                self._rows.put("producers", key, layout.pack_producer(state))
