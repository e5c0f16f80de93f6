"""What tests of consumers in groups share."""

import asyncio
import itertools
import threading
from collections.abc import Callable

from penstock.client import (
    Admin,
    CommittedOffset,
    Consumer,
    Producer,
    RebalanceListener,
    Record,
    TopicPartition,
)

_names = itertools.count()
SHORT_MS = 1_000
"""A session timeout for tests that let it run out."""


def new_name(stem: str) -> str:
    """One that no other test has."""
    return f"{stem}-{next(_names)}"


async def topic(boot: str, partitions: int = 2, records: int = 0, name: str | None = None) -> str:
    made = name or new_name("topic")
    async with Admin(boot) as admin:
        await admin.create_topic(made, partitions=partitions)
    await produce(boot, made, partitions, records)
    return made


async def produce(boot: str, name: str, partitions: int, records: int) -> None:
    """Put `records` into each partition, numbered."""
    async with Producer(boot) as producer:
        for number in range(records):
            for partition in range(partitions):
                await producer.send(name, b"%d" % number, partition=partition)
        await producer.flush()


async def committed(consumer: Consumer, place: TopicPartition) -> CommittedOffset:
    found = (await consumer.committed([place]))[place]
    assert found is not None
    return found


def new_group() -> str:
    return new_name("group")


async def read(consumer: Consumer, count: int) -> list[Record]:
    out: list[Record] = []
    while len(out) < count:
        out += await consumer.poll(count - len(out))
    return out


async def until(holds: Callable[[], bool], *consumers: Consumer) -> None:
    """Poll until something holds; records that come are dropped."""
    while not holds():
        await asyncio.gather(*(consumer.poll(timeout=0.05) for consumer in consumers))


class Heard(RebalanceListener):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, set[int]]] = []
        self.threads: set[int] = set()

    def on_assigned(self, partitions: tuple[TopicPartition, ...]) -> None:
        self._note("assigned", partitions)

    def on_revoked(self, partitions: tuple[TopicPartition, ...]) -> None:
        self._note("revoked", partitions)

    def on_lost(self, partitions: tuple[TopicPartition, ...]) -> None:
        self._note("lost", partitions)

    @property
    def held(self) -> set[int]:
        """What it has, by what it was told."""
        held: set[int] = set()
        for what, partitions in self.events:
            held = held | partitions if what == "assigned" else held - partitions
        return held

    def _note(self, what: str, partitions: tuple[TopicPartition, ...]) -> None:
        self.events.append((what, {partition for _, partition in partitions}))
        self.threads.add(threading.get_ident())


class Knows(Heard):
    """Asks for positions while it hears of a revocation."""

    def __init__(self, position: Callable[[TopicPartition], int]) -> None:
        super().__init__()
        self._position = position
        self.positions: dict[TopicPartition, int] = {}

    def on_revoked(self, partitions: tuple[TopicPartition, ...]) -> None:
        super().on_revoked(partitions)
        self.positions |= {place: self._position(place) for place in partitions}
