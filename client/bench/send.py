"""One producer under load: at its rate, whatever happens (open loop), or as fast as it takes records.

The load itself must cost little: nothing is kept for a record. With a rate, records are known by their order in their
partition. Without one, some records of each block carry one callback object, and their latencies stand for all.
Latency with a rate counts from the time when a record was due, so that a stall of client or server is not left out.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, Self

from penstock.client import BatchDelivery, BufferFullError, Delivery, PenstockError, Producer
from penstock.client.bench.machine import now_ns
from penstock.client.bench.payload import STAMP_BYTES, make_keys, make_values, stamp
from penstock.client.bench.plan import Phase, Plan, Spread
from penstock.client.bench.tally import Tally
from penstock.client.options import ProducerOptions

BLOCK_RECORDS = 500
"""Records sent before the event loop gets its turn, at most."""
BLOCK_BYTES = 128 * 1024
PROBE_EVERY = 50
"""Without a rate: the latency of at least one record in so many is measured."""
STEP_S = 0.0005
"""Least sleep: what becomes due meanwhile is sent together. Event loops may round it up to a millisecond."""
LONGEST_SLEEP_S = 0.2
"""How late a stop may be heard."""


class Sender:
    """See the module. Use it as an async context manager; phases follow each other, each settled before it returns."""

    def __init__(self, servers: str, plan: Plan, stop: asyncio.Event) -> None:
        self.tally = Tally()
        """Of the phase under way."""
        self._plan = plan
        self._stop = stop
        self._run_id = bytes.fromhex(plan.run_id)
        size = plan.record_bytes - (STAMP_BYTES if self._run_id else 0)
        self._values = make_values(size, compressible=plan.compressible, seed=plan.producer)
        self._spread = Spread(plan.partitions, make_keys(plan.keys), first=plan.producer)
        self._block = max(1, min(BLOCK_RECORDS, BLOCK_BYTES // max(1, plan.record_bytes)))
        batch_records = plan.options.get("batch_bytes", BLOCK_BYTES) // max(1, plan.record_bytes)
        self._probe_every = max(1, min(PROBE_EVERY, batch_records // 4))
        options: ProducerOptions = {**plan.options, "on_batch": self._on_due_batch if plan.rate else self._on_batch}
        self._producer = Producer(servers, **options)
        self._begin()

    async def __aenter__(self) -> Self:
        await self._producer.open()
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        """End; everything is settled unless an exception is under way."""
        await self._producer.abandon()

    async def run(self, phase: Phase) -> Tally:
        """Do a phase, or what there is of it until the stop, and wait until every record is settled."""
        tally = self._begin()
        tally.first_ns = now_ns()
        ended = await _error_of(self._paced(phase) if self._plan.rate else self._flat_out(phase))
        ended = await _error_of(self._producer.flush()) or ended or self._refused
        if ended is not None:  # nothing more can be sent, the topic has gone, or records never got into a batch
            tally.fail(ended, tally.missing)
            if not (tally.failed or tally.unknown):
                raise ended
        tally.last_ns = tally.last_ns or now_ns()
        return tally

    def _begin(self) -> Tally:
        self.tally = Tally()
        self._settled = [0] * self._plan.partitions
        self._refused: PenstockError | None = None
        return self.tally

    # -- as fast as it goes

    async def _flat_out(self, phase: Phase) -> None:
        tally, most = self.tally, phase.records
        end_ns = None if phase.seconds is None else tally.first_ns + int(phase.seconds * 1e9)
        while not self._stop.is_set():
            now = now_ns()
            count = self._block if most is None else min(self._block, most - tally.sent)
            if not count or (end_ns is not None and now >= end_ns):
                return
            until = tally.sent + count
            self._send(until, now)
            await self._turn(whole=tally.sent == until)

    def _send(self, until: int, now: int) -> None:
        """Send up to a number of records; fewer where the memory is full."""
        producer, tally, topic, values = self._producer, self.tally, self._plan.topic, self._values
        keys, every, probe = self._spread.keys, self._probe_every, _Probe(self, now)
        mark = stamp(self._run_id, now) if self._run_id else b""
        number, turns, index = len(values), len(keys), tally.sent
        try:
            while index < until:
                value = mark + values[index % number]
                on_delivery = None if index % every else probe
                producer.send_nowait(topic, value, key=keys[index % turns], on_delivery=on_delivery)
                index += 1
        except BufferFullError:
            pass
        finally:
            tally.sent = index

    def probed(self, sent_ns: int, error: PenstockError | None) -> None:
        """Take the fate of a measured record; failures are counted by batch, but for one that never got into one."""
        if error is None:
            self.tally.latency.record((now_ns() - sent_ns) // 1000)
        else:
            self._refused = error

    def _on_batch(self, batch: BatchDelivery) -> None:
        tally, count = self.tally, batch.record_count
        if batch.error is not None:
            tally.fail(batch.error, count)
            return
        tally.done += count
        tally.bytes += count * self._plan.record_bytes
        tally.last_ns = now_ns()

    # -- at a rate

    async def _paced(self, phase: Phase) -> None:
        tally = self.tally
        self._schedule = schedule = self._plan.schedule(tally.first_ns)
        most = self._plan.due_records(phase)
        while tally.sent < most and not self._stop.is_set():
            until = min(most, schedule.due(now_ns()), tally.sent + self._block)
            if tally.sent < until:
                self._send_due(until)
                await self._turn(whole=tally.sent == until)
            else:
                wait_s = (schedule.due_ns(tally.sent) - now_ns()) / 1e9
                await asyncio.sleep(min(LONGEST_SLEEP_S, max(STEP_S, wait_s)))

    def _send_due(self, until: int) -> None:
        """Send the records up to a number; fewer where the memory is full. Their due times stay as they are."""
        producer, tally, topic, values = self._producer, self.tally, self._plan.topic, self._values
        keys, partitions = self._spread.keys, self._spread.partitions
        due_ns, run_id = self._schedule.due_ns, self._run_id
        number, index = len(values), tally.sent
        try:
            while index < until:
                value = values[index % number]
                if run_id:
                    value = stamp(run_id, due_ns(index)) + value
                partition = partitions[index % len(partitions)]
                producer.send_nowait(topic, value, key=keys[index % len(keys)], partition=partition)
                index += 1
        except BufferFullError:
            pass
        finally:
            tally.sent = index

    def _on_due_batch(self, batch: BatchDelivery) -> None:
        self._on_batch(batch)
        partition, count = batch.partition, batch.record_count
        done = self._settled[partition]
        self._settled[partition] = done + count
        if batch.error is None:
            now, due_ns, record = self.tally.last_ns, self._schedule.due_ns, self.tally.latency.record
            for index in self._spread.indexes(partition, done, count):
                record((now - due_ns(index)) // 1000)

    async def _turn(self, *, whole: bool) -> None:
        """Let the event loop run; where not all was taken, until there is memory or the stop comes."""
        if whole:
            await asyncio.sleep(0)
            return
        waits = [asyncio.create_task(self._producer.wait_for_room()), asyncio.create_task(_set(self._stop))]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)


async def _error_of(work: Coroutine[Any, Any, None]) -> PenstockError | None:
    try:
        await work
    except PenstockError as error:
        return error
    return None


async def _set(event: asyncio.Event) -> None:
    await event.wait()


class _Probe:
    """Callback of the measured records of one block, which were sent at the same time."""

    __slots__ = ("_sender", "_sent_ns")

    def __init__(self, sender: Sender, sent_ns: int) -> None:
        self._sender = sender
        self._sent_ns = sent_ns

    def __call__(self, _: Delivery | None, error: PenstockError | None) -> None:
        self._sender.probed(self._sent_ns, error)
