"""A consumer as process() sees it: its poll, commit and seek, and pauses that leave the application's own be."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from penstock.client.group.listener import Drainer
from penstock.client.group.options import GroupConfig
from penstock.client.records import CommitPoint, Record, TopicPartition

END_TIMEOUT_MS = 60_000
"""What stands for the rebalance timeout without a group: how long the end may take."""


class _Consumer(Protocol):
    async def poll(self, max_records: int = ..., timeout: float = ...) -> list[Record]: ...  # noqa: ASYNC109 - theirs
    async def commit(self, offsets: Mapping[TopicPartition, int | CommitPoint] | None = ...) -> None: ...
    def assignment(self) -> tuple[TopicPartition, ...]: ...
    def pause(self, *partitions: TopicPartition) -> None: ...
    def resume(self, *partitions: TopicPartition) -> None: ...
    def paused(self) -> tuple[TopicPartition, ...]: ...


class ConsumerSource:
    """See the module and Source."""

    def __init__(
        self,
        consumer: _Consumer,
        group: GroupConfig | None,
        drive: Callable[[Drainer | None], None],
        move: Callable[[TopicPartition, int], None],
    ) -> None:
        self._consumer = consumer
        self._drive = drive
        self._move = move
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
            self._move(partition, offset)

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
        if self.group:
            self._drive(drainer)
