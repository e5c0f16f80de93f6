"""Compacts the logs of this node, one at a time: chooses, has the compaction planned, hands the writes to the writer.

Each replica is compacted by itself, whether it leads or follows: they may differ in how far, never in what a record
says. The writes go in small groups, each waited for, with rests between, so that appends hardly notice. Loop thread
only. What is under way may end at any time (the node stops, the log is reset): the next one begins anew.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass

from penstock.node.cleanup.cleaner import WallClock
from penstock.node.cleanup.compactor import Planned
from penstock.node.cleanup.schedule import Candidate, next_log
from penstock.node.partition import Partition
from penstock.raft.image import MetadataImage, TopicConfig
from penstock.storage import Compact, DamagedStoreError, Log, Outcome, PartitionKey, StorageError, Write
from penstock.storage.compaction_run import Task

LOG = logging.getLogger(__name__)
GROUP_BYTES = 512 * 1024
GROUP_WRITES = 16
"""So much is written at a time."""
MAX_REST_S = 1.0

Plan = Callable[[Log, Task], AsyncIterator[Planned]]


@dataclass(frozen=True, slots=True)
class CompactionLimits:
    """Named limits."""

    interval_ms: int
    """Between two looks at the logs."""
    key_bytes: int
    """Memory for the keys of one compaction."""


@dataclass(slots=True)
class _Past:
    """What the last compaction of a log left."""

    ended_s: float
    was_vain: bool
    tombstones_due_ms: int | None
    passed_offset: int
    """What every replica had passed then (rule 19)."""


class Compactor:
    """Composed by the broker."""

    def __init__(
        self,
        partitions: Callable[[], Iterable[Partition]],
        image: Callable[[], MetadataImage],
        submit: Callable[[Write], None],
        plan: Plan,
        wall: WallClock,
        limits: CompactionLimits,
    ) -> None:
        self._partitions = partitions
        self._image = image
        self._submit = submit
        self._plan = plan
        self._wall = wall
        self._limits = limits
        self._past: dict[PartitionKey, _Past] = {}
        self.on_damage: Callable[[DamagedStoreError], None] = lambda _: None
        """The process that plans has found damage: the node must end."""
        self._waiting: dict[int, asyncio.Future[Outcome]] = {}
        """By the identity of the write."""
        self._replaced = 0
        """Batches, in all compactions."""

    async def run(self) -> None:
        """Compact what is due, until cancelled."""
        while True:
            await asyncio.sleep(self._limits.interval_ms / 1000)
            try:
                while await self.compact_next():
                    pass
            except DamagedStoreError as error:
                self.on_damage(error)
            except Exception:  # a node that never compacts again, and does not say so, would be worst
                LOG.exception("logs could not be compacted; tried again")

    def on_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """What a group commit brought."""
        if not self._waiting:
            return
        for outcome in outcomes:
            if isinstance(outcome.write, Compact):
                waiting = self._waiting.pop(id(outcome.write), None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(outcome)

    async def compact_next(self) -> bool:
        """Compact the log that is most due; whether there was one. A damaged store has ended the node."""
        found = {}
        for partition, config in self._compacted():
            if (candidate := await self._candidate(partition, config)) is not None:
                found[candidate] = (partition, config)
        chosen = next_log(found, self._wall.now_ms())
        if chosen is None:
            return False
        partition, config = found[chosen]
        log = partition.shell.log
        if log is None:
            return False
        cleaned, replaced = log.state.cleaned_offset, self._replaced
        due_ms: int | None = None
        passed = partition.passed_offset if self._wall.is_trusted() else 0  # rule 30: no tombstone's time is over then
        try:
            due_ms = await self._compact(partition, log, config, passed)
        except DamagedStoreError:
            raise
        except StorageError as error:
            LOG.warning("compaction of %s ends early: %s", partition.key, error)
        finally:
            did = (cleaned, replaced) != (log.state.cleaned_offset, self._replaced)
            self._past[partition.key] = _Past(asyncio.get_running_loop().time(), not did, due_ms, passed)
        return True

    def _compacted(self) -> list[tuple[Partition, TopicConfig]]:
        """The logs of this node whose topic is compacted."""
        topics = self._image().topics
        found = []
        for partition in self._partitions():
            topic = topics.get(partition.key.topic_id)
            if topic is not None and topic.config.compacts:
                found.append((partition, topic.config))
        present = {partition.key for partition, _ in found}
        for key in self._past.keys() - present:
            del self._past[key]
        return found

    async def _candidate(self, partition: Partition, config: TopicConfig) -> Candidate | None:
        log = partition.shell.log
        if log is None:
            return None
        past = self._past.get(partition.key)
        try:
            dirty, oldest_ms = await asyncio.to_thread(_look_at, log)
        except DamagedStoreError:
            raise
        except StorageError:  # dropped meanwhile
            return None
        idle_s = None if past is None else asyncio.get_running_loop().time() - past.ended_s
        return Candidate(
            partition.key,
            log.state.size_bytes,
            dirty,
            oldest_ms,
            config.min_dirty_ratio,
            config.min_compaction_lag_ms,
            config.max_compaction_lag_ms,
            _tombstones_due_ms(past, partition.passed_offset),
            None if idle_s is None else int(idle_s * 1000),
            past is not None and past.was_vain,
        )

    async def _compact(self, partition: Partition, log: Log, config: TopicConfig, passed: int) -> int | None:
        """Compact one log; when its next tombstone is due."""
        task = Task(
            self._wall.now_ms(),
            config.delete_retention_ms,
            config.min_compaction_lag_ms,
            passed,
            self._limits.key_bytes,
        )
        began_s, before = asyncio.get_running_loop().time(), log.state
        group: list[Compact] = []
        size, end = 0, None
        async with contextlib.aclosing(self._plan(log, task)) as planned:  # type: ignore[type-var]
            async for item in planned:
                group.append(item.write)
                size += sum(len(row) for _, row in item.write.rows)
                if item.last or size >= GROUP_BYTES or len(group) >= GROUP_WRITES:
                    await self._write(group)
                    group, size = [], 0
                end = item if item.last else None
        if end is None:
            return None
        after = log.state
        LOG.info(
            "compacted %s up to offset %d in %.1f s: %d of %d records and %d of %d bytes are left (%d keys looked at)",
            partition.key,
            after.cleaned_offset,
            asyncio.get_running_loop().time() - began_s,
            after.record_count,
            before.record_count,
            after.size_bytes,
            before.size_bytes,
            end.keys,
        )
        return end.due_ms

    async def _write(self, group: Sequence[Compact]) -> None:
        """Have the writes performed, in one commit or a few; then rest as long as that took. Raises StorageError."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        waiting = []
        for write in group:
            future: asyncio.Future[Outcome] = loop.create_future()
            self._waiting[id(write)] = future
            waiting.append(future)
            self._submit(write)
        try:
            outcomes = await asyncio.gather(*waiting)
        finally:
            for write in group:
                self._waiting.pop(id(write), None)
        for outcome in outcomes:
            if outcome.error is not None:
                raise outcome.error
        self._replaced += sum(len(write.replaced) for write in group)
        await asyncio.sleep(min(MAX_REST_S, loop.time() - began_s))


def _tombstones_due_ms(past: _Past | None, passed_offset: int) -> int | None:
    """When tombstones may go, as far as that is known; not while they wait for a replica that is away."""
    if past is None or (past.was_vain and passed_offset <= past.passed_offset):
        return None
    return past.tombstones_due_ms


def _look_at(log: Log) -> tuple[int, int | None]:
    """Dirty bytes, and the time of the first dirty batch. None before any is noted as committed."""
    state = log.state
    if state.high_watermark <= max(state.cleaned_offset, state.first_offset):  # noted every few seconds only
        return 0, None
    first = log.summaries(max(state.cleaned_offset, state.first_offset), state.log_end_offset, 1)
    return log.dirty_bytes(), first[0].max_time_ms if first else None
