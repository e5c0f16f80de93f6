"""Handling a record once that comes again: a durable memory of what is done (marks), for handlers that process records.

Guarantees: a record that is marked is not handled again, whatever crashes, by any process that uses the same file; two
records of one id are not handled at the same time in one process. A crash between the end of a wrapped handler and its
mark repeats the handler; in `transaction` the effect and the mark are one, so that this cannot be.
Never promises anything for a mark that was dropped by its age or number, nor across machines, which have a file each.
"""

import asyncio
import functools
import inspect
import os
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from sqlite3 import Connection
from typing import Self, TypeAlias, TypeVar, cast

from penstock.client.checks import between, invalid
from penstock.client.clock import Clock, SystemClock
from penstock.client.marks import Bounds, DeduplicationError, Marks
from penstock.client.processing.calls import is_asynchronous
from penstock.client.records import Record

__all__ = ["DeduplicationError", "Deduplicator", "by_header"]

MessageId: TypeAlias = Callable[[Record], str | bytes]
"""Gives what tells one message from another, wherever it stands."""
MAX_ID_BYTES = 1024
DAY_MS = 24 * 60 * 60 * 1000
_PLACE = struct.Struct(">IqqH")
H = TypeVar("H", bound=Callable[[Record], object])


def by_header(name: str) -> MessageId:
    """Have the message id from a header, the last one of this name. A record without it raises DeduplicationError."""

    def message_id(record: Record) -> bytes:
        for header, value in reversed(record.headers):
            if header == name and value:
                return value
        raise DeduplicationError(f"the record at {_where(record)} has no header {name!r} to be told apart by")

    return message_id


class Deduplicator:
    """See the module. For several threads and partitions; use it as a context manager, or close it.

    `path`: an SQLite database, made where there is none; it may be the application's own.
    `key`: gives the message id of a record; None: a record is told by topic, partition, offset and timestamp.
    `topic_id`: gives a topic's id, such as `consumer.topic_id`; without it the name stands for the topic, and its
    timestamp tells a record from that of a topic deleted and made again.
    `scope`: tells several handlers apart that share a file.
    Kept are the marks of the last `keep_ms`, at most `keep_records`: more than can come again.
    """

    def __init__(  # noqa: PLR0913 - settings, by keyword
        self,
        path: str | os.PathLike[str],
        *,
        key: MessageId | None = None,
        topic_id: Callable[[str], bytes] | None = None,
        scope: str = "",
        keep_ms: int = 7 * DAY_MS,
        keep_records: int = 1_000_000,
        clock: Clock | None = None,
    ) -> None:
        between("keep_ms", keep_ms, 1, 1 << 53)
        between("keep_records", keep_records, 1, 1 << 53)
        if key is not None and topic_id is not None:
            raise invalid("a message id has no topic: give key or topic_id, not both")
        self._key = key
        self._topic_id = topic_id
        self._scope = scope.encode()
        self._marks = Marks(Path(path), Bounds(keep_ms, keep_records), clock or SystemClock())
        self._lock = threading.Lock()
        self._claims: dict[bytes, Future[None]] = {}
        """Ids whose handlers run in this process; the future ends with the handler."""
        self._duplicates = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Marks stay."""
        self._marks.close()

    @property
    def duplicates(self) -> int:
        """Records that wrapped handlers and transactions have met as done, since this was made."""
        return self._duplicates

    def seen(self, record: Record) -> bool:
        """Say whether the record is marked as done."""
        return self._marks.has(self._identity(record))

    def done(self, record: Record) -> None:
        """Mark the record as done; returns when the mark is durable."""
        self._marks.put(self._identity(record))

    def wrap(self, handler: H) -> H:
        """Give a handler of records that calls this one for what is not done, and marks what it has returned for.

        Of a coroutine function it makes a coroutine function. A handler that raises leaves no mark. A plain one that
        gives back an awaitable has not done its work yet: DeduplicationError.
        """
        if is_asynchronous(handler):
            called = cast("Callable[[Record], Awaitable[object]]", handler)

            @functools.wraps(handler)
            async def once_async(record: Record) -> object:
                return await self._run_async(called, record)

            return cast("H", once_async)

        @functools.wraps(handler)
        def once(record: Record) -> object:
            return self._run(handler, record)

        return cast("H", once)

    def transaction(self, record: Record) -> AbstractContextManager[Connection | None]:
        """Give a connection to the database, in a transaction that also marks the record; None: it is done already.

        What is written through it and the mark become durable together when the block ends, or not at all: there is no
        commit inside. Blocks the thread, and other threads' use of this store; not to be held across an await.
        """
        return self._transaction(self._identity(record))

    @contextmanager
    def _transaction(self, identity: bytes) -> Iterator[Connection | None]:
        with self._marks.transaction(identity) as connection:
            if connection is None:
                self._count_duplicate()
            yield connection

    def _run(self, handler: Callable[[Record], object], record: Record) -> object:
        identity = self._identity(record)
        while (other := self._claim(identity)) is not None:
            wait([other])
        try:
            if self._is_duplicate(identity):
                return None
            result = handler(record)
            if inspect.isawaitable(result):
                raise DeduplicationError("the handler gave back an awaitable: wrap the coroutine function itself")
            self._marks.put(identity)
            return result
        finally:
            self._release(identity)

    async def _run_async(self, handler: Callable[[Record], Awaitable[object]], record: Record) -> object:
        identity = self._identity(record)
        while (other := self._claim(identity)) is not None:
            await asyncio.shield(asyncio.wrap_future(other))
        try:
            if await asyncio.to_thread(self._is_duplicate, identity):
                return None
            result = await handler(record)
            await _to_the_end(asyncio.create_task(asyncio.to_thread(self._marks.put, identity)))
            return result
        finally:
            self._release(identity)

    def _claim(self, identity: bytes) -> "Future[None] | None":
        """Give whom to wait for; None: this one may begin."""
        with self._lock:
            other = self._claims.get(identity)
            if other is None:
                self._claims[identity] = Future()
            return other

    def _release(self, identity: bytes) -> None:
        with self._lock:
            claim = self._claims.pop(identity)
        claim.set_result(None)

    def _is_duplicate(self, identity: bytes) -> bool:
        if self._marks.has(identity):
            self._count_duplicate()
            return True
        return False

    def _count_duplicate(self) -> None:
        with self._lock:
            self._duplicates += 1

    def _identity(self, record: Record) -> bytes:
        """What marks are kept under: never the same for two records that are told apart."""
        if not isinstance(record, Record):
            raise DeduplicationError(f"a {type(record).__name__} is no Record: parse inside the handler, not before it")
        if self._key is not None:
            told: object = self._key(record)
            message_id = told.encode() if isinstance(told, str) else told
            if not isinstance(message_id, bytes) or not 0 < len(message_id) <= MAX_ID_BYTES:
                raise DeduplicationError(
                    f"the message id of the record at {_where(record)} is {told!r}, not 1 to {MAX_ID_BYTES} bytes"
                )
            return b"m" + len(self._scope).to_bytes(4) + self._scope + message_id
        topic = record.topic.encode() if self._topic_id is None else self._topic_id(record.topic)
        place = _PLACE.pack(record.partition, record.offset, record.timestamp_ms, len(topic))
        return (b"n" if self._topic_id is None else b"i") + place + topic + self._scope


async def _to_the_end(marking: "asyncio.Task[None]") -> None:
    """Wait for a mark, also where the waiting is cancelled: what was handled is marked."""
    try:
        await asyncio.shield(marking)
    except asyncio.CancelledError:
        await asyncio.wait([marking])
        raise


def _where(record: Record) -> str:
    return f"{record.topic}-{record.partition} offset {record.offset}"
