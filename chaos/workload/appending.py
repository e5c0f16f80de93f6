"""Conditional appends that stand in the history, with what is known of the logs' ends."""

from penstock.chaos.history import payload
from penstock.chaos.workload.process import Pending, Process
from penstock.client import (
    Delivery,
    ExpectedOffsetMismatchError,
    NewRecord,
    PenstockError,
    Producer,
    TopicPartition,
)


class Appending:
    """Appends with one producer, one batch after the other; learns `ends`."""

    def __init__(self, process: Process, producer: Producer, timeout_s: float) -> None:
        self.ends: dict[TopicPartition, int] = {}
        """Where the logs end, as far as is known."""
        self._process = process
        self._producer = producer
        self._timeout_s = timeout_s

    async def append(self, partition: TopicPartition, count: int, expected: int | None) -> None:
        """Append `count` new values and note what came of it."""
        process = self._process
        values = [process.recorder.next_value() for _ in range(count)]
        topic, index = partition
        process.common.wrote(partition)
        pending = process.invoke("append", topic=topic, partition=index, values=values, expected=expected)
        records = [NewRecord(payload(value)) for value in values]
        try:
            done = await self._producer.append(topic, index, records, expected_offset=expected, timeout=self._timeout_s)
        except PenstockError as error:
            self._learn_from(partition, error)
            process.refused(pending, error)
        else:
            self._take(pending, partition, done, count)

    def _take(self, pending: Pending, partition: TopicPartition, done: list[Delivery], count: int) -> None:
        common = self._process.common
        first = done[0].offset if done else 0
        expected = [(*partition, first + step) for step in range(count)]
        if [(delivery.topic, delivery.partition, delivery.offset) for delivery in done] != expected:
            common.fault(f"{pending.process}: {count} records appended to {partition} were delivered to {done}")
            return
        self.ends[partition] = first + count
        self._process.ok(pending, offset=first)
        common.acknowledged(partition, first + count - 1)

    def _learn_from(self, partition: TopicPartition, error: PenstockError) -> None:
        self.ends.pop(partition, None)
        if isinstance(error, ExpectedOffsetMismatchError) and "log_end_offset" in error.metadata:
            self.ends[partition] = int(error.metadata["log_end_offset"])
