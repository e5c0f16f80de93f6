"""A consumer as process() sees it: its poll, commit and seek, and pauses that leave the application's own be."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from penstock.client.group.listener import Drainer
from penstock.client.processing.dead_letters import producer_beside
from penstock.client.processing.processor import Ground, Processor
from penstock.client.producer import Producer
from penstock.client.records import CommitPoint, Record, TopicPartition

if TYPE_CHECKING:
    from penstock.client.consumer import Consumer

END_TIMEOUT_MS = 60_000
"""What stands for the rebalance timeout without a group: how long the end may take."""


class ConsumerSource:
    """See the module and Source."""

    def __init__(self, consumer: "Consumer") -> None:
        group = consumer.group_config
        self._consumer = consumer
        self._paused: set[TopicPartition] = set()
        """Paused from here."""
        self.group = "" if group is None else group.group
        self.rebalance_timeout_ms = END_TIMEOUT_MS if group is None else group.rebalance_timeout_ms
        self.max_poll_interval_ms = 0 if group is None else group.max_poll_interval_ms

    async def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        """See Source."""
        return await self._consumer.poll(max_records, timeout_s)

    async def commit(self, points: Mapping[TopicPartition, CommitPoint]) -> None:
        """See Source."""
        if self.group:
            await self._consumer.commit(points)

    def move(self, partition: TopicPartition, offset: int) -> None:
        """See Source."""
        self.resume(partition)
        if partition in self._consumer.assignment():
            self._consumer._move(partition, offset)  # noqa: SLF001 - its own part

    def assignment(self) -> Sequence[TopicPartition]:
        """See Source."""
        return self._consumer.assignment()

    def pause(self, partition: TopicPartition) -> None:
        """See Source."""
        if partition in self._consumer.assignment() and partition not in self._consumer.paused():
            self._consumer.pause(partition)
            self._paused.add(partition)

    def resume(self, partition: TopicPartition) -> None:
        """See Source."""
        if partition in self._paused:
            self._paused.remove(partition)
            if partition in self._consumer.assignment():
                self._consumer.resume(partition)

    def drive(self, drainer: Drainer | None) -> None:
        """See Source."""
        # nobody goes on iterating where he left off
        self._consumer._left = self._consumer._left_in_group = iter(())  # noqa: SLF001 - its own part
        if self.group:
            self._consumer._drive(drainer)  # noqa: SLF001 - its own part


def processor_of(consumer: "Consumer") -> Processor:
    """Make what runs process() for a consumer."""

    def make_producer() -> Producer:
        return producer_beside(consumer._bootstrap, consumer.config, consumer._seams)  # noqa: SLF001 - its own part

    def topic_id(name: str) -> bytes | None:
        known = consumer._session.metadata.catalog.topics.get(name)  # noqa: SLF001 - its own part
        return None if known is None else known.topic_id

    check_topic = consumer._metadata_topic  # noqa: SLF001 - its own part
    ground = Ground(lambda: consumer._seams, make_producer, check_topic, topic_id)  # noqa: SLF001 - its own part
    return Processor(ConsumerSource(consumer), ground)
