"""What process() asks of the consumer."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from penstock.client.group.listener import Drainer
from penstock.client.records import CommitPoint, Record, TopicPartition


class Source(Protocol):
    """A consumer, as process() sees it."""

    @property
    def group(self) -> str:
        """Empty where there is none: then nothing is committed."""

    @property
    def rebalance_timeout_ms(self) -> int:
        """How long giving up a partition may take."""

    @property
    def max_poll_interval_ms(self) -> int:
        """How long a handler may take."""

    async def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        """Give out records; with `max_records` 0 only say that the application lives. Raises errors of partitions."""

    async def commit(self, points: Mapping[TopicPartition, CommitPoint]) -> None:
        """Return when these are durable. Raises PenstockError."""

    def move(self, partition: TopicPartition, offset: int) -> None:
        """Read from here on, where the partition is assigned; nothing from here on counts as given out."""

    def assignment(self) -> Sequence[TopicPartition]:
        """Give the partitions being read."""

    def pause(self, partition: TopicPartition) -> None:
        """Give out no records of it for now. Nothing where it is not assigned."""

    def resume(self, partition: TopicPartition) -> None:
        """Give them out again."""

    def drive(self, drainer: Drainer | None) -> None:
        """Have revocations drained by this one; None: by nobody any more."""
