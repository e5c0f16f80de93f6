"""Rereaders: read topics that drop records from their start, follow for a while, and begin anew.

Each asks the leaders for the starts, so that what it may miss stands in the history. What it was to read next may be
gone meanwhile: then it begins anew.
"""

from penstock.chaos.workload.ends import ask_starts
from penstock.chaos.workload.options import Access
from penstock.chaos.workload.process import Common, Process
from penstock.chaos.workload.reading import Reading
from penstock.client import Admin, Consumer, PenstockError, TopicPartition

POLL_TIMEOUT_S = 0.5
RETRY_S = 0.3
"""After an error."""
ASK_TIMEOUT_MS = 4_000


class Rereader(Process):
    """See the module."""

    def __init__(self, common: Common, host: str, number: int, access: Access) -> None:
        super().__init__(common, host, "reread", number, access)
        self._options = common.options.rereaders
        topics = {plan.name for plan in common.options.topics}
        self._topics = [common.topic(name) for name in self._options.topics if name in topics]
        isolation = common.options.readers.isolations[number % len(common.options.readers.isolations)]
        self._reading = Reading(self, isolation, drops=True)

    async def run(self) -> None:
        """See Process."""
        access = self.access
        async with Admin(access.bootstrap, timeout_ms=ASK_TIMEOUT_MS, address_map=access.address_map) as admin:
            while not self.is_stopping:
                consumer = self._reading.consumer(access)
                await consumer.open()
                try:
                    await self._begin(admin)
                    await self._reading.resume(consumer)
                    await self._read(consumer)
                except PenstockError:
                    await self.pause(RETRY_S)
                finally:
                    await consumer.close()

    async def _begin(self, admin: Admin) -> None:
        starts: dict[TopicPartition, int] = {}
        for topic in self._topics:
            found = await ask_starts(self, admin, topic)
            starts |= {TopicPartition(topic, index): start for index, start in found.items()}
        self._reading.begin(starts)

    async def _read(self, consumer: Consumer) -> None:
        until_s = self.soon(self._options.every_s)
        while await self.pause(self._options.pace_s) and self.recorder.now() < until_s:
            await self._reading.poll(consumer, self._options.most_records, POLL_TIMEOUT_S)
