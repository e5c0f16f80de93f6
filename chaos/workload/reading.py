"""A consumer whose polls stand in the history: keeps the positions that were given out, and notes what is read.

Invariant: the `from` of a partition's reading is the `to` of the one before, or the position of an `assign` since. What
a poll gave out before it failed is not known, so after an error reading goes on at the last position noted.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from penstock.chaos.history import value_of
from penstock.chaos.workload.options import Access
from penstock.chaos.workload.process import Process
from penstock.client import (
    Consumer,
    LogDamagedError,
    LogDivergedError,
    PenstockError,
    Record,
    TopicPartition,
)
from penstock.client.records import Isolation
from penstock.protocol.reasons import Reason

REQUEST_TIMEOUT_MS = 5_000


def is_anomaly(error: PenstockError, *, drops: bool = False) -> bool:
    """Say whether a sound cluster never causes this error: what was read, or written, is gone or damaged.

    An offset above the end is none: a new consumer may ask a deposed leader, which does not know it yet. Where records
    are gone indeed, the ends of the logs and the final reading say so. `drops`: the oldest records may go.
    """
    if isinstance(error, LogDamagedError | LogDivergedError):
        return True
    return error.reason is Reason.OFFSET_BELOW_START and not drops


class Reading:
    """See the module. One consumer after the other may be used with it."""

    def __init__(self, process: Process, isolation: Isolation, *, final: bool = False, drops: bool = False) -> None:
        self.isolation: Isolation = isolation
        self.positions: dict[TopicPartition, int] = {}
        self._process = process
        self._drops = drops
        self._marks: dict[str, Any] = {"isolation": isolation, **({"final": True} if final else {})}

    def consumer(self, access: Access) -> Consumer:
        """Make a consumer for it."""
        return Consumer(
            access.bootstrap,
            isolation=self.isolation,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            address_map=access.address_map,
        )

    def begin(self, positions: Mapping[TopicPartition, int]) -> None:
        """Note that reading goes on at these positions, by the client's own will."""
        for (topic, partition), position in positions.items():
            self._process.recorder.read(
                self._process.name,
                "assign",
                self._process.recorder.now(),
                topic=topic,
                partition=partition,
                position=position,
            )
        self.positions.update(positions)

    async def resume(self, consumer: Consumer) -> None:
        """Let a consumer read where reading stopped. Raises PenstockError."""
        await consumer.assign(self.positions)

    async def poll(self, consumer: Consumer, most_records: int, timeout_s: float) -> int:
        """Poll, note what came; the number of records. Raises PenstockError, an anomaly noted as well."""
        began = self._process.recorder.now()
        try:
            records = await consumer.poll(most_records, timeout_s)
        except PenstockError as error:
            if is_anomaly(error, drops=self._drops):
                self.note_failure(error)
            raise
        reads = self._reads(consumer, records)
        if reads:
            self._process.recorder.read(self._process.name, "poll", began, reads=reads, **self._marks)
        self._process.progress.read += len(records)
        return len(records)

    def _reads(self, consumer: Consumer, records: Iterable[Record]) -> list[dict[str, Any]]:
        given: dict[TopicPartition, list[tuple[int, int, int]]] = {}
        for topic, index, offset, _, _, value, headers, leader_epoch in records:
            rows = given.setdefault(TopicPartition(topic, index), [])
            rows.append((offset, value_of(value, headers), leader_epoch))
        reads = []
        for partition, before in self.positions.items():
            after = consumer.position(partition)
            if after != before or partition in given:
                rows = given.get(partition, [])
                place = {"topic": partition.topic, "partition": partition.partition}
                reads.append({**place, "from": before, "to": after, "records": rows})
                self.positions[partition] = after
        return reads

    def note_failure(self, error: PenstockError) -> None:
        """Note an error that no sound cluster gives."""
        self._process.recorder.failed_read(
            self._process.name, "poll", error=type(error).__name__, message=str(error), **self._marks
        )
