"""The mixed load of `benchmarks.soak`: a steady rate into three topics, and everybody who reads them.

Open loop: record i is due at i / rate and goes to topic i mod 3, whether the cluster keeps up or not; what is overdue
by more than BACKLOG_S is not sent (and counted), so that the CPU used stays bounded however long a stall was. All on
one event loop; nothing is kept per record but the callback of its delivery.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Literal

from penstock.client import Admin, BufferFullError, Consumer, Delivery, Position, Producer
from penstock.client.bench.histogram import Histogram
from penstock.protocol.errors import PenstockError

TURN_S = 0.01
BACKLOG_S = 1.0
LINGER_MS = 100.0
"""Commits cost the most CPU, and a soak asks for time, not for latency: other work may go on beside it."""
VISIT_EVERY_S = 60.0
VISIT_WRITES = 100
VISIT_READS = 50_000
"""Most records that a visitor reads."""
AGAIN_S = 1.0
KEYS = [b"key-%d" % number for number in range(1_000)]
VALUES = 256
FLUSH_S = 10.0


@dataclass(frozen=True, slots=True)
class Flow:
    """A topic, how it is written, and how its constant reader reads it."""

    topic: str
    partitions: int
    compression: Literal["none", "lz4", "zstd"]
    keyed: bool
    in_batches: bool


FLOWS = (
    Flow("soak-plain", 6, "none", keyed=False, in_batches=True),
    Flow("soak-keyed", 6, "zstd", keyed=True, in_batches=False),
    Flow("soak-wide", 24, "lz4", keyed=True, in_batches=True),
)


class Schedule:
    """Due numbers at a steady rate. Pure."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._next = 0
        self.skipped = 0
        """Numbers that were overdue by more than BACKLOG_S."""

    def due(self, elapsed_s: float) -> range:
        """Give the numbers that are due now and were not given before."""
        end = int(elapsed_s * self._rate) + 1
        first = max(self._next, end - int(self._rate * BACKLOG_S))
        self.skipped += first - self._next
        self._next = max(end, first)
        return range(first, self._next)


@dataclass(slots=True)
class Counts:
    """What happened so far."""

    acknowledged: int = 0
    refused: int = 0
    """Not taken by a producer whose memory was full."""
    consumed: int = 0
    """By the constant readers."""
    visits: int = 0
    visit_reads: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    """Records that failed and clients that had to begin again, by the error's name."""
    latency: Histogram = field(default_factory=Histogram)
    """Due time to acknowledgement, since `take_latency` was called last."""

    def take_latency(self) -> Histogram:
        """Give the latencies and begin anew."""
        taken, self.latency = self.latency, Histogram()
        return taken


class MixedLoad:
    """Everybody who writes and reads. `run` until it is cancelled; `counts` may be read meanwhile."""

    def __init__(self, bootstrap: str, rate: int, record_bytes: int) -> None:
        self.counts = Counts()
        self.schedule = Schedule(rate)
        self._bootstrap = bootstrap
        self._rate = rate
        self._read_before: set[str] = set()
        rng = random.Random(1)  # noqa: S311 - the same each time
        # Half of a value compresses.
        self._values = [
            rng.randbytes(record_bytes - record_bytes // 2) + bytes(record_bytes // 2) for _ in range(VALUES)
        ]

    async def create(self) -> None:
        """Make the topics."""
        async with Admin(self._bootstrap) as admin:
            for flow in FLOWS:
                await admin.create_topic(flow.topic, flow.partitions, 3)

    async def run(self) -> None:
        """Write and read until cancelled; what was sent is waited for, a while."""
        async with AsyncExitStack() as stack:
            producers = [
                await stack.enter_async_context(
                    Producer(self._bootstrap, linger_ms=LINGER_MS, compression=flow.compression)
                )
                for flow in FLOWS
            ]
            async with asyncio.TaskGroup() as group:
                readers = [group.create_task(self._kept(partial(self._read, flow))) for flow in FLOWS]
                visitor = group.create_task(self._kept(self._visit_often))
                try:
                    await self._write(producers)
                finally:
                    visitor.cancel()
                    for producer in producers:
                        await self._flush(producer)
                    for reader in readers:
                        reader.cancel()

    async def _flush(self, producer: Producer) -> None:
        try:
            await producer.flush(FLUSH_S)
        except PenstockError as error:
            self.counts.errors[type(error).__name__] += 1

    async def _kept(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do it again after an error, as a service would that is started again."""
        while True:
            try:
                await work()
            except (PenstockError, TimeoutError) as error:
                self.counts.errors[type(error).__name__] += 1
            await asyncio.sleep(AGAIN_S)

    # -- writing

    async def _write(self, producers: list[Producer]) -> None:
        began = perf_counter()
        while True:
            for number in self.schedule.due(perf_counter() - began):
                index = number % len(FLOWS)
                self._send(producers[index], FLOWS[index], number, began + number / self._rate)
            await asyncio.sleep(TURN_S)

    def _send(self, producer: Producer, flow: Flow, number: int, due: float) -> None:
        key = KEYS[number % len(KEYS)] if flow.keyed else None
        value = self._values[number % VALUES]
        try:
            producer.send_nowait(flow.topic, value, key=key, on_delivery=partial(self._settled, due))
        except BufferFullError:
            self.counts.refused += 1

    def _settled(self, due: float, _delivery: Delivery | None, error: PenstockError | None) -> None:
        if error is None:
            self.counts.acknowledged += 1
            self.counts.latency.record(int((perf_counter() - due) * 1e6))
        else:
            self.counts.errors[type(error).__name__] += 1

    # -- reading

    async def _read(self, flow: Flow) -> None:
        """Follow a topic: the first time all of it, after an error what comes then."""
        async with Consumer(self._bootstrap) as consumer:
            start: Position = "latest" if flow.topic in self._read_before else "earliest"
            await consumer.assign_topics([flow.topic], start=start)
            self._read_before.add(flow.topic)
            if not flow.in_batches:
                async for _ in consumer:
                    self.counts.consumed += 1
            while True:
                for batch in await consumer.poll_batches():
                    self.counts.consumed += len(batch.records)

    async def _visit_often(self) -> None:
        """Come, write and read a little with clients of one's own, and go: what a node keeps per client must go too."""
        while True:
            await asyncio.sleep(VISIT_EVERY_S)
            flow = FLOWS[self.counts.visits % len(FLOWS)]
            async with Admin(self._bootstrap) as admin, Producer(self._bootstrap) as producer:
                await admin.list_topics()
                for number in range(VISIT_WRITES):
                    self._send(producer, flow, number, perf_counter())
                await producer.flush()
            await self._read_old(flow)
            self.counts.visits += 1

    async def _read_old(self, flow: Flow) -> None:
        """Read from the start: not in anybody's cache after a while."""
        read = 0
        async with Consumer(self._bootstrap) as consumer:
            await consumer.assign_topics([flow.topic], start="earliest")
            while read < VISIT_READS and (batches := await consumer.poll_batches(timeout=AGAIN_S)):
                read += sum(len(batch.records) for batch in batches)
        self.counts.visit_reads += read
