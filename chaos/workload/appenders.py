"""Appenders: small batches at an expected offset, one after the other, several appenders racing for a partition.

Of two that expect the same end, one must be refused with EXPECTED_OFFSET_MISMATCH, which has no effect.
"""

from penstock.chaos.workload.appending import Appending
from penstock.chaos.workload.ends import ask_ends
from penstock.chaos.workload.options import Access
from penstock.chaos.workload.process import Common, Process
from penstock.client import Admin, PenstockError, Producer, TopicPartition

ASK_SHARE = 0.3
"""Of the appends before which an appender asks for the end, though it believes to know it."""
ASK_TIMEOUT_MS = 4_000


class Appender(Process):
    """See the module."""

    def __init__(self, common: Common, host: str, number: int, access: Access) -> None:
        super().__init__(common, host, "append", number, access)
        self._options = common.options.appenders
        self._partitions = common.partitions(self._options.topics)

    async def run(self) -> None:
        """See Process."""
        access = self.access
        async with (
            Producer(access.bootstrap, idempotence=False, address_map=access.address_map) as producer,
            Admin(access.bootstrap, timeout_ms=ASK_TIMEOUT_MS, address_map=access.address_map) as admin,
        ):
            appending = Appending(self, producer, self._options.timeout_s)
            while await self.pause(self.rng.uniform(0.5, 1.5) / self._options.rate):
                await self._append_somewhere(appending, admin)

    async def _append_somewhere(self, appending: Appending, admin: Admin) -> None:
        partition = self.rng.choice(self._partitions)
        count = self.rng.randint(1, self._options.most_values)
        is_conditional = self.rng.random() >= self._options.unconditional
        asks = self.rng.random() < ASK_SHARE
        if is_conditional and (asks or partition not in appending.ends):
            await self._look(appending, admin, partition.topic)
        expected = appending.ends.get(partition) if is_conditional else None
        if expected is not None or not is_conditional:
            await appending.append(partition, count, expected)

    async def _look(self, appending: Appending, admin: Admin, topic: str) -> None:
        try:
            ends = await ask_ends(self, admin, topic, "read_uncommitted")
        except PenstockError:
            return
        appending.ends.update({TopicPartition(topic, index): end for index, end in ends.items()})
