"""Looks after all logs of the node: retention of those that it leads. Loop thread only.

Settings are read from the applied metadata at each look, so a change holds at once. What was found out about a log
(when its first batch goes, at which size) is remembered, so that a look costs next to nothing.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from penstock.node.cleanup.retention import Choice, Retention, choose
from penstock.node.partition import Partition
from penstock.raft.image import MetadataImage, TopicConfig
from penstock.storage import BatchSummary, Log, PartitionKey, StorageError

LOG = logging.getLogger(__name__)
PORTION = 512
"""Batches read at a time."""
PORTIONS = 8
"""After so many the log start is moved; what is left has its turn at the next look."""
AGAIN_MS = 1_000
"""A move that was asked for is asked for again after this."""
LOOK_MS = 60_000
"""A log of which nothing could be found out is looked at again after this."""


@dataclass(slots=True)
class _Known:
    """What was found out about a log, under these settings."""

    retention: Retention
    due_ms: int | None = 0
    """Wall time."""
    due_bytes: int | None = 0
    again_ms: int = 0
    """Monotonic: not before."""


class WallClock(NamedTuple):
    """The time of day, in ms since the Unix epoch, and whether it may decide what is old (rule 30)."""

    now_ms: Callable[[], int]
    is_trusted: Callable[[], bool]


class Cleaner:
    """Composed by the broker; `tick` every few hundred ms."""

    def __init__(
        self,
        partitions: Callable[[], Iterable[Partition]],
        image: Callable[[], MetadataImage],
        wall: WallClock,
    ) -> None:
        self._partitions = partitions
        self._image = image
        self._wall = wall
        self._known: dict[PartitionKey, _Known] = {}
        self._busy: dict[PartitionKey, asyncio.Task[None]] = {}

    async def close(self) -> None:
        """End what is under way."""
        tasks = list(self._busy.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def tick(self, now_ms: int) -> None:
        """Look at all logs. `now_ms`: monotonic."""
        topics = self._image().topics
        wall_ms = self._wall.now_ms() if self._wall.is_trusted() else None
        former, self._known = self._known, {}
        for partition in self._partitions():
            topic = topics.get(partition.key.topic_id)
            if topic is None or not partition.is_leader:
                continue
            retention = retention_of(topic.config)
            if retention.is_unlimited:
                continue
            known = former.get(partition.key)
            if known is None or known.retention != retention:
                known = _Known(retention)
            self._known[partition.key] = known
            self._look(partition, known, now_ms, wall_ms)

    def _look(self, partition: Partition, known: _Known, now_ms: int, wall_ms: int | None) -> None:
        key, log = partition.key, partition.shell.log
        if log is None or now_ms < known.again_ms or key in self._busy:
            return
        if log.state.first_offset >= partition.high_watermark:  # nothing is committed
            return
        by_time = known.due_ms is not None and wall_ms is not None and wall_ms > known.due_ms
        by_size = known.due_bytes is not None and log.state.size_bytes >= known.due_bytes
        if by_time or by_size:
            known.again_ms = now_ms + AGAIN_MS
            task = self._busy[key] = asyncio.get_running_loop().create_task(
                self._retain(partition, log, known, now_ms, wall_ms)
            )
            task.add_done_callback(lambda _: self._busy.pop(key, None))

    async def _retain(self, partition: Partition, log: Log, known: _Known, now_ms: int, wall_ms: int | None) -> None:
        """Find out what goes, and let the log begin behind it."""
        state, mark = log.state, partition.high_watermark
        position, left, start = state.first_offset, state.size_bytes, None
        choice = Choice(None, False, None, None)  # noqa: FBT003  a NamedTuple
        try:
            for _ in range(PORTIONS):
                batches = await asyncio.to_thread(log.summaries, position, mark, PORTION)
                choice = choose(batches, left, mark, known.retention, wall_ms)
                start = choice.log_start_offset or start
                if not choice.whole or not batches:
                    break
                position, left = batches[-1].last_offset + 1, left - _size(batches)
        except StorageError as error:
            LOG.warning("retention of %s failed: %s", partition.key, error)
            return
        if start is not None and start > partition.log_start_offset:
            partition.move_start(start)
            known.again_ms = 0 if choice.whole else known.again_ms
        if choice.due_ms is not None or choice.due_bytes is not None:
            known.due_ms, known.due_bytes = choice.due_ms, choice.due_bytes
        elif not choice.whole:
            known.again_ms = now_ms + LOOK_MS


def retention_of(config: TopicConfig) -> Retention:
    """A topic's retention; unlimited where its records are compacted only."""
    return Retention(config.retention_time_ms, config.retention_bytes) if config.deletes else Retention(None, 0)


def _size(batches: Iterable[BatchSummary]) -> int:
    return sum(batch.size_bytes for batch in batches)
