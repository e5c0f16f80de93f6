"""When the compactor of a node takes up a log again, on a real store."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from penstock.node.cleanup.cleaner import WallClock
from penstock.node.cleanup.compacting import CompactionLimits, Compactor
from penstock.node.cleanup.compactor import Planned
from penstock.node.cleanup.schedule import PAUSE_MS
from penstock.raft.topic_config import TopicConfig
from penstock.storage import CheckpointHighWatermark, Compact, Store, Write
from penstock.storage.compaction_run import End, Run, Task
from penstock.storage.log import Log
from penstock.v1 import common_pb2
from tests.storage.support import append, batch, commit, done, new_log, new_store

NOW_MS = 1_000_000
BATCHES = 40
VALUE = bytes(100_000)
"""So many are much more than what a small log holds (node.cleanup.schedule.SMALL_BYTES)."""


@dataclass
class Replica:
    """What the compactor asks of a partition."""

    log: Log
    passed_offset: int = 0

    @property
    def key(self) -> Any:
        return self.log.key

    @property
    def shell(self) -> Any:
        return self


class Bench:
    """A compactor over one log, its compactions planned in this process."""

    def __init__(self, store: Store, log: Log, config: TopicConfig, *, grows: bool = True) -> None:
        self.runs = 0
        self.replica = Replica(log)
        self._grows = grows
        self._store = store
        self.log = log
        topic = SimpleNamespace(config=config)
        self.compactor = Compactor(
            lambda: [self.replica],  # type: ignore[list-item]  # all that is asked of it
            lambda: SimpleNamespace(topics={log.key.topic_id: topic}),  # type: ignore[arg-type, return-value]
            self._submit,
            self._plan,
            WallClock(lambda: NOW_MS, lambda: True),
            CompactionLimits(1, 1 << 20),
        )

    def _submit(self, write: Write) -> None:
        self.compactor.on_outcomes(commit(self._store, write))

    async def _plan(self, log: Log, task: Task) -> AsyncIterator[Planned]:
        self.runs += 1
        run = Run(log, task)
        for item in run.steps():
            if isinstance(item, End):
                at = item.cleaned_offset
                yield Planned(
                    Compact(log, run.content, at, at, (), (), cleaned_offset=at), last=True, due_ms=item.due_ms
                )
            else:
                yield Planned(Compact(log, run.content, *item[:4]))
        if self._grows:
            self.more()

    def long_after(self) -> None:
        """The pause after a compaction is over."""
        for past in self.compactor._past.values():
            past.ended_s -= PAUSE_MS / 1000

    def more(self) -> None:
        """A log of a busy topic grows meanwhile."""
        append(self._store, self.log, batch(self.log.state.log_end_offset, [NOW_MS], value=VALUE))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = new_store(tmp_path / "store", durability="os")
    yield opened
    opened.close()


def grown(store: Store) -> Log:
    log = new_log(store)
    append(store, log, *(batch(at, [NOW_MS], value=VALUE) for at in range(BATCHES)))
    return log


CONFIG = replace(TopicConfig(), cleanup_policy=common_pb2.CLEANUP_POLICY_COMPACT, min_dirty_ratio=0.0)


async def test_a_log_is_not_taken_up_while_its_records_are_young(store: Store) -> None:
    """It would be read on and on, for nothing."""
    bench = Bench(store, grown(store), replace(CONFIG, min_compaction_lag_ms=1_000))
    done(store, CheckpointHighWatermark(bench.log, BATCHES))
    assert not await bench.compactor.compact_next()
    assert bench.runs == 0


async def test_a_log_of_which_nothing_is_noted_as_committed_is_not_taken_up(store: Store) -> None:
    bench = Bench(store, grown(store), CONFIG)
    assert not await bench.compactor.compact_next()
    done(store, CheckpointHighWatermark(bench.log, BATCHES))
    assert await bench.compactor.compact_next()
    assert bench.log.state.cleaned_offset == BATCHES
    assert bench.log.state.record_count == 2  # the latest of the one key, and one more since


async def test_tombstones_that_wait_for_a_replica_are_not_looked_at_until_it_is_back(store: Store) -> None:
    """Each look reads the whole log, and a replica may be away for days."""
    log = new_log(store)
    append(store, log, *(batch(at, [NOW_MS], value=VALUE) for at in range(BATCHES)))
    append(store, log, batch(BATCHES, [NOW_MS], value=None))
    done(store, CheckpointHighWatermark(log, BATCHES + 1))
    bench = Bench(store, log, replace(CONFIG, delete_retention_ms=0), grows=False)
    assert await bench.compactor.compact_next()
    bench.long_after()
    assert await bench.compactor.compact_next(), "its time is over at once, but a replica has not passed it"
    bench.long_after()
    assert not await bench.compactor.compact_next()
    assert (bench.runs, log.state.record_count) == (2, 1)
    bench.replica.passed_offset = BATCHES + 1
    assert await bench.compactor.compact_next()
    assert log.state.record_count == 0
