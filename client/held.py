"""Keeps records of topics that are not known yet, in order and within a bound; hands them over once they are.

Owns one task a topic, for its first use. Each record is handed over, or its waiter is told why not.
"""

import asyncio
from collections import deque
from typing import Protocol, TypeAlias

from penstock.client.accumulator import Waiter
from penstock.client.catalog import KnownTopic
from penstock.client.clock import Clock
from penstock.client.errors import BufferFullError
from penstock.client.metadata import Metadata
from penstock.client.produce_stream import end
from penstock.client.records import Headers
from penstock.client.routing import Route
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason

RECORD_MEMORY = 512
"""Bytes that a held record costs beside its content."""

Held: TypeAlias = tuple[bytes | None, bytes | None, Headers, int, int | None, Waiter]
"""Value, key, headers, timestamp, partition, waiter."""


class Host(Protocol):
    """Where held records go."""

    def begin_route(self, known: KnownTopic) -> Route:
        """Make the route of a topic, to be used by `put` only."""

    def put(self, route: Route, record: Held, deadline_ms: int) -> None:
        """Hand a record over, to be given up at `deadline_ms`; raises BufferFullError, or why it cannot be."""

    def open_route(self, route: Route) -> None:
        """From now on records may be put into the route past this module."""

    def refuse(self, waiter: Waiter, error: PenstockError) -> None:
        """Tell of a record that cannot be handed over."""

    async def wait_for_room(self) -> None:
        """Return when there is memory."""

    def memory_freed(self) -> None:
        """`bytes_held` went down."""


class HeldRecords:
    """See the module."""

    def __init__(self, metadata: Metadata, host: Host, clock: Clock, limit_bytes: int, timeout_ms: int) -> None:
        self.bytes_held = 0
        self._metadata = metadata
        self._host = host
        self._clock = clock
        self._limit_bytes = limit_bytes
        self._timeout_ms = timeout_ms
        self._records: dict[str, deque[tuple[Held, int]]] = {}
        """With the time of each at which it is given up: the wait for the topic counts."""
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def count(self) -> int:
        """Number of records held."""
        return sum(map(len, self._records.values()))

    def hold(self, topic: str, record: Held) -> None:
        """Keep a record; BufferFullError where the bound is reached."""
        size = _size(record)
        if self.bytes_held + size > self._limit_bytes:
            raise BufferFullError(Reason.OVERLOADED, f"{self.bytes_held} bytes wait for metadata of their topics")
        self.bytes_held += size
        self._records.setdefault(topic, deque()).append((record, self._clock.monotonic_ms() + self._timeout_ms))
        if topic not in self._tasks:
            self._tasks[topic] = asyncio.create_task(self._resolve(topic))

    async def handed_over(self) -> None:
        """Return when what is held now is handed over or refused."""
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    def refuse_all(self, error: PenstockError) -> None:
        """Give up everything."""
        for topic in list(self._records):
            self._refuse(topic, error)

    async def close(self) -> None:
        """End the tasks."""
        await end(self._tasks.values())

    async def _resolve(self, topic: str) -> None:
        try:
            route = self._host.begin_route(await self._metadata.topic(topic, self._timeout_ms))
            await self._hand_over(topic, route)
        except PenstockError as error:
            self._refuse(topic, error)
        finally:
            self._tasks.pop(topic, None)

    async def _hand_over(self, topic: str, route: Route) -> None:
        held = self._records[topic]
        while held:
            route.check_open()
            record, deadline_ms = held[0]
            try:
                self._host.put(route, record, deadline_ms)
            except BufferFullError:
                await self._host.wait_for_room()
                continue
            except PenstockError as error:
                self._host.refuse(record[-1], error)
            held.popleft()
            self.bytes_held -= _size(record)
        del self._records[topic]
        self._host.open_route(route)
        self._host.memory_freed()

    def _refuse(self, topic: str, error: PenstockError) -> None:
        for record, _ in self._records.pop(topic, ()):
            self.bytes_held -= _size(record)
            self._host.refuse(record[-1], error)
        self._host.memory_freed()


def _size(record: Held) -> int:
    return RECORD_MEMORY + len(record[0] or b"") + len(record[1] or b"")
