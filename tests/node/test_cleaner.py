"""When the cleaner of a node looks into a log, on a real store."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from penstock.node.cleanup.cleaner import AGAIN_MS, LOOK_MS, Cleaner, WallClock
from penstock.raft.topic_config import TopicConfig
from penstock.storage import MoveStart, Store
from penstock.storage.log import Log
from tests.storage.support import append, batch, done, new_log, new_store

NOW_MS = 1_000_000


class Replica:
    """What the cleaner asks of a partition that this node leads; counts the looks into its log."""

    is_leader = True

    def __init__(self, store: Store, log: Log) -> None:
        self.looks = 0
        self.high_watermark = 0
        self._store = store
        self._log = log
        self.key = log.key
        self.shell = SimpleNamespace(log=SimpleNamespace(state=log.state, summaries=self._summaries))

    @property
    def log_start_offset(self) -> int:
        return self._log.state.log_start_offset

    def _summaries(self, start: int, end: int, limit: int) -> Any:
        self.looks += 1
        return self._log.summaries(start, end, limit)

    def move_start(self, start: int) -> None:
        done(self._store, MoveStart(self._log, 0, start))

    def grow(self, *, committed: int) -> None:
        """Another batch of two records, a minute old."""
        append(self._store, self._log, batch(self._log.state.log_end_offset, [NOW_MS - 60_000] * 2))
        self.high_watermark = committed
        self.shell.log.state = self._log.state


class Bench:
    def __init__(self, store: Store, config: TopicConfig) -> None:
        log = new_log(store)
        self.replica = Replica(store, log)
        self.partitions: list[Any] = [self.replica]
        topics = {log.key.topic_id: SimpleNamespace(config=config)}
        image: Any = SimpleNamespace(topics=topics)
        self.cleaner = Cleaner(lambda: self.partitions, lambda: image, WallClock(lambda: NOW_MS, lambda: True))
        self._now_ms = 0

    async def tick(self, after_ms: int = AGAIN_MS) -> None:
        self._now_ms += after_ms
        self.cleaner.tick(self._now_ms)
        await asyncio.gather(*self.cleaner._busy.values())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = new_store(tmp_path / "store", durability="os")
    yield opened
    opened.close()


BY_TIME = TopicConfig(retention_time_ms=1_000)


async def test_a_log_without_anything_committed_costs_nothing(store: Store) -> None:
    bench = Bench(store, BY_TIME)
    await bench.tick()
    await bench.tick()
    assert bench.replica.looks == 0
    bench.replica.grow(committed=2)
    await bench.tick()
    assert bench.replica.log_start_offset == 2
    bench.replica.shell.log.state = bench.replica._log.state
    looks = bench.replica.looks
    await bench.tick()
    assert bench.replica.looks == looks, "all went: nothing is there to be looked at"


async def test_a_log_of_which_nothing_could_be_found_out_is_looked_at_again(store: Store) -> None:
    """Its first batch is not committed to its end; later it is."""
    bench = Bench(store, BY_TIME)
    bench.replica.grow(committed=1)
    await bench.tick()
    await bench.tick()
    assert (bench.replica.log_start_offset, bench.replica.looks) == (0, 1)
    bench.replica.high_watermark = 2
    await bench.tick(LOOK_MS)
    assert bench.replica.log_start_offset == 2


async def test_what_is_known_of_partitions_that_went_away_is_forgotten(store: Store) -> None:
    bench = Bench(store, BY_TIME)
    bench.replica.grow(committed=2)
    await bench.tick()
    bench.partitions.clear()
    await bench.tick()
    assert not bench.cleaner._known
