"""Clients that write: a Producer with its batches, and conditional appends."""

import functools
import random

from penstock.client import (
    BufferFullError,
    ClientClosedError,
    Delivery,
    ExpectedOffsetMismatchError,
    NewRecord,
    PenstockError,
    Producer,
)
from penstock.client.options import ProducerOptions
from penstock.client.records import Headers
from tests.simulation.cluster.cleaning import ID
from tests.simulation.cluster.history import Appended, Outcome, Sent
from tests.simulation.cluster.process import ALLOWED, CLOSE_TIMEOUT_S, ClientProcess, Site, Topics

KEYS = (0, 1, 1, 2, 2, 2, 3)
KEY_LIFE = 9
"""A key is written a few times and then never again; it often ends with a tombstone."""
TOMBSTONES = 0.35
SETTLE_GRACE_S = 3.0
"""A record is settled within its delivery timeout and this."""


def producer_options(rng: random.Random) -> ProducerOptions:
    """Draw what a producer is like."""
    options = ProducerOptions(
        acks=rng.choices(("all", "leader", "none"), (80, 12, 8))[0],
        linger_ms=rng.choice((0, 0, 2, 5, 20)),
        batch_bytes=rng.choice((64, 200, 1_000, 16_384)),
        compression=rng.choices(("none", "zstd", "lz4"), (90, 5, 5))[0],
        delivery_timeout_ms=rng.choice((600, 1_500, 4_000, 120_000)),
        request_timeout_ms=rng.choice((300, 1_500, 15_000)),
        max_in_flight=rng.choice((1, 2, 5, 5, 5)),
        buffer_bytes=rng.choice((4_096, 1 << 20, 1 << 20, 1 << 20)),
    )
    if options["acks"] == "all" and rng.random() < 0.1:
        options["idempotence"] = False
    return options


class ProducingClient(ClientProcess):
    """Sends numbered values at a drawn rate, until `finish`, `crash`, or `limit` records were sent."""

    ALLOWED = (*ALLOWED, ClientClosedError)  # what is not settled when it closes, after CLOSE_TIMEOUT_S

    def __init__(
        self,
        site: Site,
        topics: Topics,
        *,
        records_per_s: float = 20.0,
        limit: int = 400,
        options: ProducerOptions | None = None,
        keyed: bool = False,
    ) -> None:
        """`keyed`: each record has one of a few keys, some are tombstones."""
        super().__init__(site)
        self.topics = topics
        self._keyed = keyed
        self._per_s = records_per_s
        self._limit = limit
        self._given = options
        self._count = 0
        self._open: dict[bytes, Sent] = {}
        """Not settled yet, oldest first."""
        self._overdue: Sent | None = None

    async def work(self) -> None:
        options = self._given or producer_options(self.rng)
        self._open = {}
        producer = Producer(self.site.bootstrap, **options)
        producer._seams = self.seams()
        await producer.open()
        self._idempotent = producer.config.is_idempotent
        self.trace("opens", sorted(options.items()))
        while await self.pause(3 / self._per_s) and self._count < self._limit:
            for _ in range(self.rng.randint(1, 5)):
                await self._send(producer)
            self._look_after(producer)
        await self.stopping.wait()
        await self._close(producer)

    async def _send(self, producer: Producer) -> None:
        rng = self.rng
        topic = rng.choice(list(self.topics.counts))
        value = b"%s-%d" % (self.name.encode(), self._count)
        partition, key = None, None
        if rng.random() < 0.4:
            partition = rng.randrange(self.topics.counts[topic])
        elif rng.random() < 0.5:
            key = b"key-%d" % rng.randrange(16)
        self._count += 1
        written: bytes | None = value
        headers: Headers = ()
        if self._keyed:
            key = b"key-%d" % (self._count // KEY_LIFE + rng.choice(KEYS))
            if rng.random() < TOMBSTONES:
                written, headers = None, [(ID, value)]
        sent = Sent(self.name, value, topic, partition, producer.config.acks, self._idempotent, self.now)
        self.history.sent.append(sent)
        self._open[value] = sent
        told = functools.partial(self._told, producer, sent)
        while True:
            try:
                producer.send_nowait(topic, written, key=key, headers=headers, partition=partition, on_delivery=told)
            except BufferFullError:
                await producer.wait_for_room()
                sent.began = self.now
            except PenstockError as error:
                self._told(producer, sent, None, error)
                return
            else:
                return

    def _told(self, producer: Producer, sent: Sent, delivery: Delivery | None, error: PenstockError | None) -> None:
        """What became of a record."""
        if self.loop.is_closed():
            return
        if sent.outcome is not Outcome.OPEN:
            self.fault(f"{sent.value!r} was settled twice")
        if self.now > sent.began + producer.config.delivery_timeout_ms / 1000 + SETTLE_GRACE_S:
            self.fault(f"{sent.value!r}, sent at {sent.began:.3f}, is settled only now")
        self._open.pop(sent.value, None)
        sent.ended = self.now
        if error is not None:
            sent.error = str(error)
            sent.outcome = self.tolerate(error, self.ALLOWED, f"sending {sent.value!r} to {sent.topic}")
        elif delivery is not None and delivery.offset >= 0:
            sent.outcome = Outcome.ACKED
            sent.topic_id = producer._dispatcher._known[sent.topic].topic_id  # an answer of a former one is an error
            sent.at_partition, sent.offset = delivery.partition, delivery.offset
        else:
            sent.outcome = Outcome.UNKNOWN
            if sent.acks != "none":
                self.fault(f"{sent.value!r} was delivered nowhere")
        self.trace(sent.value, sent.outcome.value, sent.at_partition, sent.offset)

    def _look_after(self, producer: Producer) -> None:
        self.look_after([*producer._dispatcher._tasks, *producer._session.metadata._tasks])
        oldest = next(iter(self._open.values()), None)
        if oldest is not None and self.now > oldest.began + producer.config.delivery_timeout_ms / 1000 + SETTLE_GRACE_S:
            if oldest is self._overdue:  # it was so at the last look too: no matter of a process that stood still
                self.fault(f"{oldest.value!r}, sent at {oldest.began:.3f}, is not settled")
            self._overdue = oldest

    async def _close(self, producer: Producer) -> None:
        self._look_after(producer)
        await producer.close(CLOSE_TIMEOUT_S)
        if self._open:
            self.fault(f"closed with {len(self._open)} records that were not settled")


class AppendingClient(ClientProcess):
    """Appends small batches by `Producer.append`, mostly at an expected offset, racing with whoever else writes."""

    ALLOWED = (*ALLOWED, ExpectedOffsetMismatchError)

    def __init__(self, site: Site, topics: Topics, *, appends_per_s: float = 3.0, limit: int = 60) -> None:
        super().__init__(site)
        self.topics = topics
        self._per_s = appends_per_s
        self._limit = limit
        self._count = 0
        self._ends: dict[tuple[str, int], int] = {}

    async def work(self) -> None:
        producer = Producer(self.site.bootstrap, acks="all", idempotence=False)
        producer._seams = self.seams()
        await producer.open()
        while await self.pause(1 / self._per_s) and self._count < self._limit:
            await self._append(producer)
            self.look_after([*producer._dispatcher._tasks, *producer._session.metadata._tasks])
        await self.stopping.wait()
        await producer.close(CLOSE_TIMEOUT_S)

    async def _append(self, producer: Producer) -> None:
        rng = self.rng
        topic = rng.choice(list(self.topics.counts))
        partition = rng.randrange(self.topics.counts[topic])
        first = self._count
        self._count += rng.randint(1, 3)
        values = tuple(b"%s-%d" % (self.name.encode(), number) for number in range(first, self._count))
        expected = None if rng.random() < 0.2 else self._ends.get((topic, partition), 0)
        append = Appended(self.name, values, topic, partition, expected, self.now)
        self.history.appended.append(append)
        timeout_s = rng.choice((0.5, 2.0, 10.0))
        try:
            done = await producer.append(
                topic,
                partition,
                [NewRecord(value, b"appended") for value in values],
                expected_offset=expected,
                timeout=timeout_s,
            )
        except PenstockError as error:
            append.outcome = self.tolerate(error, self.ALLOWED, f"appending {values!r} to {topic}-{partition}")
            append.error = str(error)
            if "log_end_offset" in error.metadata:
                self._ends[topic, partition] = int(error.metadata["log_end_offset"])
        else:
            append.outcome = Outcome.ACKED
            append.offsets = tuple(delivery.offset for delivery in done)
            self._ends[topic, partition] = append.offsets[-1] + 1
        append.ended = self.now
        self.trace(values, append.outcome.value, append.offsets)
