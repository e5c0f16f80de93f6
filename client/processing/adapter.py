"""A consumer as process() sees it: its poll, commit and seek, and pauses that leave the application's own be."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from penstock.client.group.listener import Drainer
from penstock.client.group.options import GroupConfig
from penstock.client.records import CommitPoint, Position, Record, TopicPartition

END_TIMEOUT_MS = 60_000
"""What stands for the rebalance timeout without a group: how long the end may take."""


class _Consumer(Protocol):
    async def poll(self, max_records: int = ..., timeout: float = ...) -> list[Record]: ...  # noqa: ASYNC109 - theirs
    async def seek(self, partition: TopicPartition, to: Position) -> None: ...
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
        commit: Callable[[Mapping[TopicPartition, CommitPoint]], Awaitable[None]],
        drive: Callable[[Drainer | None], None],
    ) -> None:
        self._consumer = consumer
        self._commit = commit
        self._drive = drive
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
        await self._commit(points)

    async def seek(self, partition: TopicPartition, offset: int) -> None:
        """See Source."""
        await self._consumer.seek(partition, offset)

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
        self._drive(drainer)
