"""Readers under measurement: of a whole topic as fast as it goes, and of what a run appends, as it comes."""

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Literal, Self, TypeAlias

from penstock.client import Consumer, TopicPartition
from penstock.client.bench.machine import now_ns
from penstock.client.bench.payload import due_ns_of
from penstock.client.bench.tally import Tally
from penstock.client.errors import RequestTimeoutError
from penstock.client.options import ConsumerOptions
from penstock.protocol.reasons import Reason

Form: TypeAlias = Literal["records", "batches"]
"""What the application works on: one record after the other, or whole batches, whose records are parsed only."""
POLL_RECORDS = 5_000
POLL_BATCHES = 100
POLL_S = 0.2


class TopicReader:
    """Reads partitions from their starts; `tally` is that of the reading under way."""

    def __init__(self, servers: str, partitions: Sequence[TopicPartition], form: Form, timeout_s: float) -> None:
        self.tally = Tally()
        self.stop = asyncio.Event()
        """Set it to end the reading early."""
        self._servers = servers
        self._partitions = partitions
        self._form = form
        self._timeout_s = timeout_s
        self._options: ConsumerOptions = {"request_timeout_ms": int(timeout_s * 1000)}

    async def read(self, *, seconds: float | None = None, records: int | None = None) -> Tally:
        """Read up to the end that the log has now, or less; counted from the subscription to the last record.

        Raises RequestTimeoutError where no more comes although there is more.
        """
        tally = self.tally = Tally()
        async with Consumer(self._servers, **self._options) as consumer:
            ends = await consumer.end_offsets(self._partitions)
            starts = await consumer.earliest_offsets(self._partitions)
            there = sum(ends.values()) - sum(starts.values())
            tally.first_ns = tally.last_ns = now_ns()
            end_ns = None if seconds is None else tally.first_ns + int(seconds * 1e9)
            await consumer.assign(starts)
            while not self.stop.is_set() and (end_ns is None or now_ns() < end_ns):
                left = None if records is None else records - tally.done
                if left is not None and left <= 0:
                    break
                quiet = not await self._poll(consumer, left)
                if (quiet or tally.done >= there) and self._is_done(consumer, ends):
                    break
        return tally

    async def _poll(self, consumer: Consumer, left: int | None) -> bool:
        tally = self.tally
        before = tally.done
        if self._form == "records":
            for record in await consumer.poll(POLL_RECORDS if left is None else min(left, POLL_RECORDS), POLL_S):
                tally.done += 1
                tally.bytes += len(record.value or b"")
        else:
            for batch in await consumer.poll_batches(POLL_BATCHES, POLL_S):
                tally.done += len(batch.records)
                tally.bytes += batch.size
        if tally.done == before:
            return False
        tally.last_ns = now_ns()
        return True

    def _is_done(self, consumer: Consumer, ends: dict[TopicPartition, int]) -> bool:
        """Say whether all that was there at the beginning is read."""
        left = sum(max(0, end - consumer.position(partition)) for partition, end in ends.items())
        if left and now_ns() - self.tally.last_ns > self._timeout_s * 1e9:
            message = f"nothing more came for {self._timeout_s:g} s, and {left} records are left"
            raise RequestTimeoutError(Reason.LEADER_NOT_AVAILABLE, message)
        return not left


class Arrivals:
    """Reads what one run appends to a topic, and how long after its due time each record comes.

    Use it as an async context manager around the run; it begins at the end that the topic has then.
    """

    def __init__(self, servers: str, topic: str, run_id: str, timeout_s: float) -> None:
        self.tally = Tally()
        """Of the records that were due since the last `begin`."""
        self._run_id = bytes.fromhex(run_id)
        self._topic = topic
        self._timeout_s = timeout_s
        self._consumer = Consumer(servers, request_timeout_ms=int(timeout_s * 1000))
        self._wanted: int | None = None
        self._reached = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self._consumer.open()
        try:
            await self._consumer.assign_topics(self._topic, "latest")
        except BaseException:
            await self._consumer.close()
            raise
        self._task = asyncio.create_task(self._follow())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._consumer.close()

    def begin(self) -> None:
        """Count from now on only what is due from now on."""
        self.tally = Tally(first_ns=now_ns())

    async def wait(self, count: int) -> Tally:
        """Wait until so many have come, or none has for as long as the timeout; what has come."""
        self._reached.clear()
        self._wanted = count
        self._look()
        reached, before = asyncio.create_task(self._reached.wait()), -1
        try:
            while not (self._task.done() or reached.done()) and self.tally.done > before:
                before = self.tally.done
                await asyncio.wait([self._task, reached], timeout=self._timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._wanted = None
            reached.cancel()
            await asyncio.gather(reached, return_exceptions=True)
        if self._task.done():
            self._task.result()  # it ends by an error only
        return self.tally

    async def _follow(self) -> None:
        run_id = self._run_id
        while True:
            for batch in await self._consumer.poll_batches(POLL_BATCHES, POLL_S):
                values = [record.value for record in batch.records]
                now, tally = now_ns(), self.tally
                for value in values:
                    due_ns = due_ns_of(value, run_id)
                    if due_ns is not None and due_ns >= tally.first_ns:
                        tally.done += 1
                        tally.bytes += len(value)
                        tally.last_ns = now
                        tally.latency.record((now - due_ns) // 1000)
            self._look()

    def _look(self) -> None:
        if self._wanted is not None and self.tally.done >= self._wanted:
            self._reached.set()
