"""Durable commits of a ceiling's server: LMDB as Penstock's store opens it, keys only appended, values opaque.

A topic has two key spaces, of the batches that this server leads and of those pushed to it; keys are their running
number in 8 bytes, values are frames. One thread writes. The file is kept longer than its pages, as Penstock's.
"""

import asyncio
import os
import queue
import struct
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import lmdb

from benchmarks.systems.limit_wire import FRAME, REPLY, Outbox

MAP_BYTES = 1 << 40
AHEAD_BYTES = 64 * 1024 * 1024
CHUNK_BYTES = 1024 * 1024
"""Of a message to a consumer."""
_KEY = struct.Struct(">Q")
_FAILED = 70

Work: TypeAlias = tuple[bool, Outbox, bytes]
"""Whether this server leads it; whom to tell; a message."""


@dataclass(slots=True)
class Taken:
    """What one commit made durable."""

    led: list[tuple[Outbox, bytes, bytes]] = field(default_factory=list)
    """Whom to answer, the message, the answer."""
    followed: dict[Outbox, int] = field(default_factory=dict)
    """Bytes of the stream that are durable."""


class Store:
    """See the module. `committed` is called on the loop."""

    def __init__(self, folder: Path, loop: asyncio.AbstractEventLoop, committed: Callable[[Taken], None]) -> None:
        self.positions: dict[Outbox, int] = {}
        self._file = folder / "data.mdb"
        self._env: Any = lmdb.open(str(folder), map_size=MAP_BYTES, max_dbs=256, writemap=False, readahead=True)
        self._page_bytes = int(self._env.stat()["psize"])
        self._ahead = 0
        self._loop = loop
        self._committed = committed
        self._queue: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self._led: Any = None
        self._followed: Any = None
        self._ends: dict[int, int] = {}
        self._next_key = 0
        threading.Thread(target=self._run, daemon=True).start()

    def begin(self, topic: str) -> None:
        """Begin a topic. Nothing may be under way."""
        self._led = self._env.open_db(f"led {topic}".encode())
        self._followed = self._env.open_db(f"followed {topic}".encode())
        self._ends = {}
        self._keep_ahead()

    def submit(self, work: Work) -> None:
        """Queue a message."""
        self._queue.put(work)

    def chunks(self, topic: str) -> Iterator[bytes]:
        """Give the frames that this server leads, as stored, joined."""
        space = self._env.open_db(f"led {topic}".encode(), create=False)
        with self._env.begin(buffers=True) as txn, txn.cursor(space) as cursor:
            parts, size = [], 0
            for value in cursor.iternext(keys=False, values=True):
                parts.append(value)
                size += len(value)
                if size >= CHUNK_BYTES:
                    yield b"".join(parts)
                    parts, size = [], 0
            if parts:
                yield b"".join(parts)

    def _run(self) -> None:
        try:
            while True:
                self._commit(self._next())
        except BaseException:  # noqa: BLE001 - whatever it is, nothing may be written or answered after it
            traceback.print_exc()
            os._exit(_FAILED)

    def _next(self) -> list[Work]:
        works = [self._queue.get()]
        try:
            while True:
                works.append(self._queue.get_nowait())
        except queue.Empty:
            return works

    def _commit(self, works: list[Work]) -> None:
        taken = Taken()
        led: list[tuple[bytes, memoryview]] = []
        followed: list[tuple[bytes, memoryview]] = []
        for leads, outbox, message in works:
            if leads:
                taken.led.append((outbox, message, self._lead(message, led)))
            else:
                self._follow(message, followed)
                position = self.positions.get(outbox, 0) + len(message)
                self.positions[outbox] = taken.followed[outbox] = position
        with self._env.begin(write=True) as txn:
            for space, rows in ((self._led, led), (self._followed, followed)):
                if rows:
                    with txn.cursor(space) as cursor:
                        cursor.putmulti(rows, append=True)
        self._loop.call_soon_threadsafe(self._committed, taken)
        self._keep_ahead()

    def _lead(self, message: bytes, rows: list[tuple[bytes, memoryview]]) -> bytes:
        """Add a message's frames as rows, and give what answers them."""
        view, at, replies, ends, key = memoryview(message), 0, [], self._ends, self._next_key
        while at < len(message):
            number, partition, count, size = FRAME.unpack_from(message, at)
            stop = at + FRAME.size + size
            rows.append((_KEY.pack(key), view[at:stop]))
            base = ends.get(partition, 0)
            ends[partition] = base + count
            replies.append(REPLY.pack(number, base))
            key += 1
            at = stop
        self._next_key = key
        return b"".join(replies)

    def _follow(self, message: bytes, rows: list[tuple[bytes, memoryview]]) -> None:
        view, at, key = memoryview(message), 0, self._next_key
        while at < len(message):
            stop = at + FRAME.size + FRAME.unpack_from(message, at)[3]
            rows.append((_KEY.pack(key), view[at:stop]))
            key += 1
            at = stop
        self._next_key = key

    def _keep_ahead(self) -> None:
        needed = (self._env.info()["last_pgno"] + 1) * self._page_bytes
        if self._ahead - needed < AHEAD_BYTES // 2:
            self._ahead = max(self._file.stat().st_size, needed + AHEAD_BYTES)
            os.truncate(self._file, self._ahead)
