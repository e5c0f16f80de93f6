"""A writer that goes on whatever happens to the cluster, and the check of what it was told against what is there."""

import asyncio
from collections import Counter

from penstock.client import Delivery, OutcomeUnknownError, Producer, TopicPartition

IN_FLIGHT = 200


class Writer:
    """Writes distinct values until told to stop, and knows which were acknowledged where."""

    def __init__(self, producer: Producer, topic: str) -> None:
        self._producer = producer
        self._topic = topic
        self._sent = 0
        self._progress = asyncio.Condition()
        self.acknowledged: dict[bytes, Delivery] = {}
        self.unknown: set[bytes] = set()
        self._pending: set[asyncio.Task[None]] = set()
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            while len(self._pending) < IN_FLIGHT:
                value = b"%08d" % self._sent
                self._sent += 1
                self._pending.add(asyncio.create_task(self._write(value)))
            done, _ = await asyncio.wait(self._pending, return_when=asyncio.FIRST_COMPLETED)
            self._pending -= done

    async def _write(self, value: bytes) -> None:
        try:
            delivery = await (await self._producer.send(self._topic, value, key=value))
        except OutcomeUnknownError:
            self.unknown.add(value)
            return
        async with self._progress:
            self.acknowledged[value] = delivery
            self._progress.notify_all()

    async def more(self, count: int) -> None:
        """Wait until so many more are acknowledged."""
        goal = len(self.acknowledged) + count
        async with self._progress:
            await self._progress.wait_for(lambda: len(self.acknowledged) >= goal)

    async def stop(self) -> None:
        """Stop sending, and wait for the fate of what was sent."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._producer.flush(120)
        await asyncio.gather(*self._pending)


def check(writer: Writer, found: dict[TopicPartition, list[tuple[int, bytes]]]) -> None:
    """Acknowledged is there, once, where it was said to be; offsets rise without a gap."""
    place = {value: (partition.partition, offset) for partition, rows in found.items() for offset, value in rows}
    missing = [value for value in writer.acknowledged if value not in place]
    assert not missing, f"{len(missing)} acknowledged records are lost, the first {missing[0]!r}"
    counts = Counter(value for rows in found.values() for _, value in rows)
    assert [value for value, count in counts.items() if count > 1] == []
    moved = [v for v, delivery in writer.acknowledged.items() if place[v] != (delivery.partition, delivery.offset)]
    assert moved == []
    for rows in found.values():
        assert [offset for offset, _ in rows] == list(range(len(rows)))
