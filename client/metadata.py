"""Keeps the Catalog up to date: a metadata watch on one broker, and refreshes from others when something looks stale.

Owns two tasks, ended by `close`. Listeners are called on the event loop after each change.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import grpc

from penstock.client.catalog import Catalog, KnownTopic
from penstock.client.clock import Clock
from penstock.client.connection import Connections
from penstock.client.errors import UnavailableError, UnknownTopicError
from penstock.client.retry import Backoff, Caller, CallPolicy
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.v1 import cluster_service_pb2 as pb

REFRESH_INTERVAL_MS = 10_000
"""A refresh is made at least this often, should the watch hang on a broker that was cut off."""
REFRESH_TIMEOUT_MS = 3_000
ABSENT_CONFIRMATIONS = 3
"""Brokers asked before a topic counts as unknown: one may not have applied its creation yet."""


class Metadata:
    """See the module. Use from one event loop."""

    def __init__(self, bootstrap: Sequence[str], connections: Connections, clock: Clock, rng: random.Random) -> None:
        self.catalog = Catalog()
        self.listeners: list[Callable[[], None]] = []
        self._bootstrap = tuple(bootstrap)
        self._connections = connections
        self._clock = clock
        self._rng = rng
        self._caller = Caller(connections, self.addresses, clock, rng)
        self._wanted: dict[str, None] = {}
        self._stale = asyncio.Event()
        self._watch_call: Any = None
        self._tasks: list[asyncio.Task[None]] = []
        self._turn = rng.randrange(1 << 16)

    def start(self) -> None:
        """Begin to watch."""
        self._tasks = [asyncio.create_task(self._watch()), asyncio.create_task(self._refresh_when_stale())]

    async def close(self) -> None:
        """End the tasks."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def addresses(self) -> tuple[str, ...]:
        """Brokers to ask, beginning with another one each time: the live ones, then the bootstrap list."""
        self._turn += 1
        known = self.catalog.live
        start = self._turn % len(known) if known else 0
        boot = self._turn % len(self._bootstrap)
        return tuple(dict.fromkeys((*known[start:], *known[:start], *self._bootstrap[boot:], *self._bootstrap[:boot])))

    def refresh_soon(self) -> None:
        """Ask a broker for the present metadata, without waiting. Any number of calls make one refresh."""
        self._stale.set()

    def learn_leader(self, topic_id: bytes, partition: int, hint: Mapping[str, str]) -> None:
        """Take a NOT_LEADER error's hint; where it is of no use, refresh."""
        if self.catalog.learn_leader(topic_id, partition, hint):
            self._notify()
        else:
            self.refresh_soon()

    def want(self, names: Iterable[str]) -> None:
        """Keep these up to date from now on: one refresh brings all that `topic` is asked for next."""
        fresh = [name for name in names if name not in self._wanted]
        self._wanted |= dict.fromkeys(fresh)
        if fresh and self._watch_call is not None:
            self._watch_call.cancel()

    async def topic(self, name: str, timeout_ms: int) -> KnownTopic:
        """Give a topic, from now on kept up to date. UnknownTopicError when no broker asked knows it."""
        if name not in self._wanted:
            self._wanted[name] = None
            if self._watch_call is not None:
                self._watch_call.cancel()
        deadline = self._clock.monotonic_ms() + timeout_ms
        backoff = Backoff(self._rng)
        for _ in range(ABSENT_CONFIRMATIONS):
            known = self.catalog.topics.get(name)
            if known is not None:
                return known
            await self.refresh(max(1, deadline - self._clock.monotonic_ms()))
            if name not in self.catalog.topics:
                await self._clock.sleep_ms(backoff.next_ms())
        known = self.catalog.topics.get(name)
        if known is None:
            self._wanted.pop(name, None)
            raise UnknownTopicError(Reason.UNKNOWN_TOPIC, f"topic {name!r} does not exist", {"topic": name})
        return known

    async def refresh(self, timeout_ms: int) -> None:
        """Ask a broker for the metadata of the topics in use."""
        names = tuple(self._wanted)
        request = pb.GetMetadataRequest(
            topics=pb.TopicSelection(names=names), min_metadata_version=self.catalog.version
        )
        policy = CallPolicy(timeout_ms, attempt_timeout_ms=REFRESH_TIMEOUT_MS)
        answer = await self._caller.call(lambda c: c.cluster.GetMetadata, request, pb.GetMetadataResponse, policy)
        self._learn(answer.metadata, names)

    def _learn(self, metadata: pb.ClusterMetadata, names: Sequence[str]) -> None:
        if self.catalog.learn(metadata, names):
            self._notify()

    def _notify(self) -> None:
        for listener in self.listeners:
            listener()

    async def _refresh_when_stale(self) -> None:
        backoff = Backoff(self._rng)
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_INTERVAL_MS / 1000):
                    await self._stale.wait()
            asked = self._stale.is_set()
            self._stale.clear()
            with contextlib.suppress(PenstockError):
                await self.refresh(REFRESH_TIMEOUT_MS)
            if asked:
                await self._clock.sleep_ms(backoff.next_ms())
            else:
                backoff.reset()

    async def _watch(self) -> None:
        backoff = Backoff(self._rng)
        while True:
            for address in self.addresses():
                with contextlib.suppress(UnavailableError, grpc.aio.AioRpcError):
                    if await self._watch_at(address, backoff):
                        break
            else:
                await self._clock.sleep_ms(backoff.next_ms())

    async def _watch_at(self, address: str, backoff: Backoff) -> bool:
        """Watch at one broker; True when the call was ended to watch other topics."""
        connection = await self._connections.ready(address)
        names = tuple(self._wanted) or ("",)  # no topic has this name: brokers only
        selection = pb.TopicSelection(names=names)
        call: Any = connection.cluster.WatchMetadata(
            pb.WatchMetadataRequest(topics=selection, min_metadata_version=self.catalog.version)
        )
        self._watch_call = call
        try:
            async for answer in call:
                backoff.reset()
                self._learn(answer.metadata, names)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return True  # only the call was cancelled: by `topic`, to watch one more
        finally:
            call.cancel()
            self._watch_call = None
        return False
