"""Readers: consumers that follow the logs, now and then go back to read again, and now and then are replaced.

An error of a read is no outcome that matters, except those that say that the log has lost something: `reading` notes
them. A reader goes on after any of them, with a new consumer.
"""

from penstock.chaos.workload.options import Access
from penstock.chaos.workload.process import Common, Process
from penstock.chaos.workload.reading import Reading, is_anomaly
from penstock.client import Consumer, PenstockError, TopicPartition

POLL_TIMEOUT_S = 0.5
RETRY_S = 0.5
"""After an error."""
BEGINNING_SHARE = 0.1
"""Of the times that a reader goes back: to the very beginning."""


class Reader(Process):
    """See the module."""

    def __init__(self, common: Common, host: str, number: int, access: Access) -> None:
        super().__init__(common, host, "read", number, access)
        self._options = common.options.readers
        isolations = self._options.isolations
        self._reading = Reading(self, isolations[(number - 1) % len(isolations)])

    async def run(self) -> None:
        """See Process."""
        self._reading.begin(dict.fromkeys(self._choose(), 0))
        while not self.is_stopping:
            consumer = self._reading.consumer(self.access)
            await consumer.open()
            try:
                await self._reading.resume(consumer)
                await self._read(consumer)
            except PenstockError as error:
                if is_anomaly(error):
                    self._reading.begin(dict.fromkeys(self._reading.positions, 0))
                await self.pause(RETRY_S)
            finally:
                await consumer.close()

    async def _read(self, consumer: Consumer) -> None:
        """Read with one consumer, until it is replaced or the workload stops."""
        until_s = self.soon(self._options.reopen_every_s)
        seek_s = self.soon(self._options.seek_every_s)
        while await self.pause(self._options.pace_s) and self.recorder.now() < until_s:
            await self._reading.poll(consumer, self._options.most_records, POLL_TIMEOUT_S)
            if self.recorder.now() >= seek_s:
                seek_s = self.soon(self._options.seek_every_s)
                await self._go_back(consumer)

    async def _go_back(self, consumer: Consumer) -> None:
        """Choose any partition, and a position that was passed."""
        partition = self.rng.choice(list(self._reading.positions))
        back = self.rng.randint(0, self._options.seek_back)
        to = max(0, self._reading.positions[partition] - back)
        if self.rng.random() < BEGINNING_SHARE:
            to = 0
        await consumer.seek(partition, to)
        self._reading.begin({partition: to})

    def _choose(self) -> list[TopicPartition]:
        every = self.common.partitions(self._options.topics)
        count = max(1, round(self._options.share * len(every)))
        return sorted(self.rng.sample(every, min(count, len(every))))
