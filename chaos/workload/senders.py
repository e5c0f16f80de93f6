"""Senders: one Producer each, an open loop by schedule. Owns the count of what is under way.

Records go in bursts to one partition or two a tick, so that batches are of several records, as applications' are.

Order: all records of one incarnation go through one Producer, and its contract keeps them in the order of the invokes
in a partition, over retries and changes of leaders. Without idempotence a record of unknown outcome may also land
behind later ones of its incarnation; those that are acknowledged are in order even then.
"""

import asyncio
import functools
from typing import Any, NamedTuple

from penstock.chaos.history import HEADER, payload
from penstock.chaos.workload.options import Access, Senders
from penstock.chaos.workload.process import Common, Pending, Process, WorkloadError
from penstock.client import NO_OFFSET, Delivery, PenstockError, Producer, TopicPartition
from penstock.client.options import ProducerOptions
from penstock.protocol.keys import partition_of
from penstock.protocol.reasons import Reason

TICK_S = 0.1
MOST_LATE_S = 1.0
"""A sender that is further behind its schedule than this, for the program stood still, leaves out the rest."""


class _Target(NamedTuple):
    """Where a record goes; the key says the same."""

    partition: TopicPartition
    key: bytes | None


class Sender(Process):
    """See the module."""

    def __init__(self, common: Common, host: str, number: int, access: Access, group: Senders) -> None:
        super().__init__(common, host, "send", number, access)
        self.under_way = 0
        self._group = group
        self._targets = self._make_targets()
        self._droppers = common.droppers()
        self._fields = {"acks": group.acks, "idempotent": group.idempotent}
        self._due = 0.0
        """Records that were due and are neither sent nor skipped."""

    async def run(self) -> None:
        """See Process."""
        await self.pause(self.rng.uniform(0, TICK_S))  # senders do not tick in step
        while not self.is_stopping:
            await self._live()
            self.next_life()

    async def _live(self) -> None:
        """Send through one producer, until it is to crash or the workload stops."""
        producer = Producer(self.access.bootstrap, **self._producer_options())
        await producer.open()
        try:
            await self._send_by_schedule(producer, self.soon(self._group.crash_every_s))
            if self.is_stopping:
                await producer.close(self.common.patience_s)
        finally:
            await producer.abandon()
        if self.under_way:
            raise WorkloadError(f"{self.name}: the producer has ended and left {self.under_way} records open")

    async def _send_by_schedule(self, producer: Producer, until_s: float) -> None:
        loop = asyncio.get_running_loop()
        last_s = loop.time() - TICK_S
        while not self.is_stopping and self.recorder.now() < until_s:
            now_s = loop.time()
            self._due += (now_s - last_s) * self._group.rate
            last_s = now_s
            self._send_due(producer)
            if not await self.pause(last_s + TICK_S - loop.time()):
                return

    def _send_due(self, producer: Producer) -> None:
        most = min(MOST_LATE_S * self._group.rate + 1, self._group.most_under_way - self.under_way)
        count = int(self._due)
        self._due -= count
        sent = max(0, min(count, int(most)))
        self.progress.skipped += count - sent
        self._send_burst(producer, (sent + 1) // 2)
        self._send_burst(producer, sent // 2)

    def _send_burst(self, producer: Producer, count: int) -> None:
        target = self.rng.choice(self._targets)
        low, high = self._group.sizes
        for _ in range(count):
            self._send(producer, target, self.rng.randint(low, high))

    def _send(self, producer: Producer, target: _Target, size: int) -> None:
        topic, partition = target.partition
        value = self.recorder.next_value()
        is_tombstone = self._group.tombstones > 0 and self.rng.random() < self._group.tombstones
        record = None if is_tombstone else payload(value, size)
        fields = self._fields | self._dropping_fields(target, record)
        self.common.wrote(target.partition)
        pending = self.invoke("send", topic=topic, partition=partition, value=value, **fields)
        self.under_way += 1
        try:
            producer.send_nowait(
                topic,
                record,
                key=target.key,
                headers=((HEADER, payload(value)),) if is_tombstone else (),
                partition=None if target.key is not None else partition,
                on_delivery=functools.partial(self._told, pending, target.partition),
            )
        except PenstockError as error:  # it was not taken
            self._told(pending, target.partition, None, error)

    def _dropping_fields(self, target: _Target, record: bytes | None) -> dict[str, Any]:
        """What the history says of records that may go."""
        if target.partition.topic not in self._droppers:
            return {}
        fields: dict[str, Any] = {"size": len(target.key or b"") + len(record or b"")}
        if target.key is not None:
            fields["key"] = target.key.decode()
        if record is None:
            fields["tombstone"] = True
        return fields

    def _told(
        self, pending: Pending, partition: TopicPartition, delivery: Delivery | None, error: PenstockError | None
    ) -> None:
        """What became of a record; called once for each."""
        self.under_way -= 1
        if error is not None:
            if error.reason is Reason.PRODUCER_FENCED:
                self.common.fault(f"{pending.process}: fenced, though nobody else has its producer id: {error.message}")
            self.refused(pending, error)
        elif delivery is None or delivery.offset == NO_OFFSET:
            self.unknown(pending, "NOT_ANSWERED", "sent without acknowledgement")
        elif (delivery.topic, delivery.partition) != partition:
            self.common.fault(f"{pending.process}: a record for {partition} was delivered to {delivery}")
        else:
            self.ok(pending, offset=delivery.offset, leader_epoch=delivery.leader_epoch)
            if self._group.acks == "all":
                self.common.acknowledged(partition, delivery.offset)

    def _make_targets(self) -> list[_Target]:
        if not self._group.keyed:
            return [_Target(partition, None) for partition in self.common.partitions(self._group.topics)]
        targets = []
        for plan in self.common.options.topics:
            if plan.name in self._group.topics:
                for number in range(self._group.keys):
                    key = b"key-%d" % number
                    index = partition_of(key, plan.partitions)
                    targets.append(_Target(TopicPartition(self.common.topic(plan.name), index), key))
        return targets

    def _producer_options(self) -> ProducerOptions:
        group = self._group
        return ProducerOptions(
            acks=group.acks,
            idempotence=group.idempotent,
            compression=group.compression,
            linger_ms=group.linger_ms,
            delivery_timeout_ms=group.delivery_timeout_ms,
            request_timeout_ms=group.request_timeout_ms,
            address_map=self.access.address_map,
        )
