"""Trimmers: delete the oldest records of partitions, and alter the retention by size of other topics.

Before each trim a trimmer asks where the log begins and ends: so what it was told after the one before stands in the
history.
"""

from penstock.chaos.workload.ends import ask_ends, ask_starts
from penstock.chaos.workload.options import Access
from penstock.chaos.workload.process import Common, Process
from penstock.client import Admin, PenstockError, TopicPartition

EVERYTHING_SHARE = 0.15
"""Of the trims that leave nothing."""


class Trimmer(Process):
    """See the module."""

    def __init__(self, common: Common, host: str, number: int, access: Access) -> None:
        super().__init__(common, host, "trim", number, access)
        self._options = common.options.trimmers
        self._partitions = common.partitions(self._options.topics)

    async def run(self) -> None:
        """See Process."""
        access = self.access
        async with Admin(
            access.bootstrap, timeout_ms=self._options.timeout_ms, address_map=access.address_map
        ) as admin:
            while await self.pause(self.rng.uniform(0.5, 1.5) * self._options.every_s):
                if self._options.retained and self.rng.random() < self._options.alter_share:
                    await self._alter(admin, self.common.topic(self.rng.choice(self._options.retained)))
                elif self._partitions:
                    await self._trim(admin, self.rng.choice(self._partitions))

    async def _alter(self, admin: Admin, topic: str) -> None:
        config = {"retention_bytes": self.rng.randint(*self._options.retention_bytes)}
        pending = self.invoke("alter_topic", topic=topic, config=config)
        try:
            await admin.alter_topic(topic, config)
        except PenstockError as error:
            self.refused(pending, error)
        else:
            self.ok(pending)

    async def _trim(self, admin: Admin, partition: TopicPartition) -> None:
        topic, index = partition
        everything, share = self.rng.random() < EVERYTHING_SHARE, self.rng.random()
        try:
            starts = await ask_starts(self, admin, topic)
            ends = await ask_ends(self, admin, topic, "read_uncommitted", [index])
        except PenstockError:
            return
        start, end = starts[index], ends[index]
        if end <= start or self.is_stopping:
            return
        before = end if everything else start + round(share * (end - start))
        pending = self.invoke("trim", topic=topic, partition=index, before=before)
        try:
            (result,) = await admin.trim_topic(topic, {index: before})
        except PenstockError as error:
            self.refused(pending, error)
            return
        if result.error is not None:
            self.refused(pending, result.error)
        elif result.log_start_offset is None or result.log_start_offset < before:
            self.common.fault(f"{pending.process}: {partition} was to begin at {before}, and was trimmed to {result}")
        else:
            self.ok(pending, log_start=result.log_start_offset)
