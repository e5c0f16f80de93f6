"""The disk in memory and the real one, driven by the same seed: the same groups of writes, the same misfortunes.

After each step every answer that a node can ask for is compared, errors by their type. What a group does is not
predicted here (tests/storage does that for the real store); most writes fit the log, some are refused.
"""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from penstock.protocol.batch import MAX_SEQUENCE, NOT_STAMPED, ProducerStamp
from penstock.storage import (
    ActIn,
    Append,
    CheckpointHighWatermark,
    CommitFailedError,
    Committer,
    Compact,
    CreateLog,
    DropLog,
    EpochStart,
    ExpireProducers,
    ForgetStarts,
    Log,
    LogBatch,
    LogState,
    MoveStart,
    Outcome,
    PartitionKey,
    RecordStart,
    ReplicaSeed,
    ResetLog,
    StorageError,
    Store,
    Truncate,
    Write,
)
from penstock.storage.compaction import Step
from penstock.storage.compaction_run import End, Run, Task
from penstock.storage.layout import offset_key, unpack_whole
from penstock.storage.producers import ProducerBatch, ProducerState
from penstock.v1 import common_pb2
from tests.simulation.store.disk import Disk, PowerLoss
from tests.simulation.store.lmdb_disk import LmdbDisk
from tests.simulation.store.memory_disk import MemoryDisk
from tests.storage.support import batch, key

KEYS = [key(1, 0), key(1, 1), key(2, 0)]
PRODUCERS = [0, 1, 2**62, -2, -(2**63)]
SIZES = (1, 1, 30, 30, 3_000, 70_000)
"""Of values; the last is above the time index's distance."""
CLOCKS = (common_pb2.TIMESTAMP_TYPE_CREATE, common_pb2.TIMESTAMP_TYPE_APPEND)
CLUSTER, NODE = "simulated", 1

Handles = tuple[Log, Log]
"""Of the same log, in memory and in LMDB."""
Built = Callable[[int], Write]
"""A write for the one side or the other."""
Planned = list[Step | End]


def answer(ask: Callable[[], object]) -> object:
    """What is answered, or the type of the error."""
    try:
        return ask()
    except StorageError as error:
        return type(error)


def observe_log(log: Log, rng: random.Random) -> list[object]:
    """Everything that a log says, reads of random places included."""
    state = log.state
    places = [state.log_start_offset, state.high_watermark, state.log_end_offset]
    offsets = [*places, *(rng.randint(places[0] - 2, places[2] + 2) for _ in range(4))]
    asks: list[Callable[[], object]] = [
        lambda: log.read(places[0], places[2], 2**40),
        log.epochs,
        log.replica_seed,
        log.dirty_bytes,
        lambda: log.summaries(places[0], places[2], 1_000),
        lambda: stored_rows(log, places[0], places[2], 2**40),
        lambda: [log.producer(producer_id) for producer_id in PRODUCERS],
        lambda: [log.end_of_epoch(epoch) for epoch in range(-1, state.acted_epoch + 2)],
        lambda: [log.epoch_start(epoch) for epoch in range(-1, state.acted_epoch + 2)],
        lambda: [log.epoch_at(offset) for offset in offsets],
    ]
    for offset in offsets:
        end, size, time = rng.choice(offsets), rng.choice((0, 1, 200, 9_000)), rng.randint(-60, 420)
        asks.append(lambda offset=offset, end=end, size=size: log.read(offset, end, size))  # type: ignore[misc]
        asks.append(lambda end=end, time=time: log.find_timestamp(time, end))  # type: ignore[misc]
        asks.append(lambda offset=offset, end=end: log.summaries(offset, end, 2))  # type: ignore[misc]
        asks.append(lambda offset=offset, end=end, size=size: stored_rows(log, offset, end, size))  # type: ignore[misc]
    return [log.key, state, *(answer(ask) for ask in asks)]


def stored_rows(log: Log, start: int, end: int, max_bytes: int) -> list[object]:
    """What compaction reads; the data id and a batch's position are each store's own."""
    stored = log.stored_rows(start, end, max_bytes)
    return [stored.content[1], stored.state, *((row.batch, *row[2:]) for row in stored.rows)]


def plan(log: Log, task: Task) -> tuple[tuple[int, int], Planned]:
    """All of a compaction, and the content that it is for."""
    run = Run(log, task)
    return run.content, list(run.steps())


def described(planned: object) -> object:
    """A compaction as far as it is alike in every store."""
    if not isinstance(planned, tuple):
        return planned
    (data, cuts), steps = planned
    return [cuts, *(step if isinstance(step, End) else _described(data, step) for step in steps)]


def _described(data: int, step: Step) -> object:
    rows = [unpack_whole(offset_key(data, base), memoryview(row)) for base, row in step.rows]
    batches = [(batch, head.tombstones_since_ms) for batch, head in rows]
    return step.start, step.end, step.replaced, batches, step.tombstones_below


def observe(store: Store, seed: int) -> list[object]:
    """Everything that a store says."""
    rng = random.Random(seed)
    seen: list[object] = [store.identity, store.durability, store.start_ids(), [log.key for log in store.logs()]]
    for log in store.logs():
        seen += observe_log(log, rng)
    return seen


def assert_same(memory: list[object], lmdb: list[object]) -> None:
    """With the first difference named."""
    for place, (one, other) in enumerate(zip(memory, lmdb, strict=True)):
        assert one == other, f"answer {place}: {one} in memory, {other} in LMDB"


class Draft:
    """What a log will be when the group so far has succeeded."""

    def __init__(self, log: Log) -> None:
        self.state: LogState = log.state
        read: Any = answer(lambda: log.read(log.state.log_start_offset, log.state.log_end_offset, 2**40))
        self.batches: list[LogBatch] = read if isinstance(read, list) else []
        self.end = log.state.log_end_offset
        self.epoch = max(log.state.acted_epoch, log.state.last_epoch, 0)
        self.last_epoch = log.state.last_epoch


class Lockstep:
    """A disk of each kind. `run` takes one step; a difference is an AssertionError."""

    def __init__(self, seed: int, path: Path, durability: str) -> None:
        self.rng = random.Random(seed)
        self.disks: tuple[Disk[Any], Disk[Any]] = (MemoryDisk(durability), LmdbDisk(path, durability))
        self.sweeps_at_once = self.rng.random() < 0.6  # producers that wait to be deleted take their turn in expiring
        self.copies: list[tuple[Any, Any]] = []
        self.stale: list[Handles] = []
        self.sizes = SIZES if self.rng.random() < 0.5 else SIZES[:4]
        self.clock = 0
        self.format()
        self.open()

    def format(self) -> None:
        store_id = self.rng.randbytes(16)
        identities = [disk.format(CLUSTER, NODE, lambda: store_id) for disk in self.disks]
        assert identities[0] == identities[1]
        assert identities[0].store_id == store_id

    def open(self) -> None:
        opened = [disk.open(CLUSTER, NODE) for disk in self.disks]
        self.stores: list[Store] = [store for store, _ in opened]
        self.committers: list[Committer] = [committer for _, committer in opened]
        self.stale = []
        self.plans: list[tuple[Handles, list[Any]]] = []
        if self.sweeps_at_once:
            self.sweep()
        self.compare()

    def close(self) -> None:
        for disk in self.disks:
            disk.crash()

    def compare(self) -> None:
        seed = self.rng.getrandbits(32)
        memory, lmdb = (observe(store, seed) for store in self.stores)
        assert_same(memory, lmdb)
        self.compare_rows()
        for handles in self.stale:
            memory, lmdb = (observe_log(log, random.Random(seed)) for log in handles)
            assert_same(memory, lmdb)

    def compare_rows(self) -> None:
        for k in KEYS:
            memory, lmdb = (disk.row(k) for disk in self.disks)
            assert (memory is None) == (lmdb is None)
            if memory is not None and lmdb is not None:
                assert memory.batches[memory.first : memory.stop] == lmdb.batches[lmdb.first : lmdb.stop]
                assert (memory.state, memory.epochs, memory.producers) == (lmdb.state, lmdb.epochs, lmdb.producers)

    # ---- steps

    def run(self) -> None:
        steps: list[tuple[int, Callable[[], None]]] = [
            (60, self.commit),
            (4, self.reopen),
            (4, self.crash),
            (4, self.lose_power),
            (4, self.sync),
            (4, self.arm),
            (3, self.fill),
            (3, self.copy),
            (2, self.restore),
            (1, self.wipe),
        ]
        self.rng.choices([step for _, step in steps], [weight for weight, _ in steps])[0]()

    def commit(self) -> None:
        built = self.group()
        self.meet_fault([lambda side=side: self.perform(side, built) for side in range(2)])  # type: ignore[misc]
        if self.sweeps_at_once or self.rng.random() < 0.1:
            self.sweep()
        self.compare()

    def sweep(self) -> None:
        while any(committer.sweep() for committer in self.committers):
            pass

    def perform(self, side: int, built: Sequence[Built]) -> list[Outcome]:
        return self.committers[side].commit([build(side) for build in built])

    def meet_fault(self, acts: Sequence[Callable[[], object]]) -> None:
        """Do it on both sides. Where a fault was armed, the process ends."""
        results = []
        for act in acts:
            try:
                results.append(act())
            except (CommitFailedError, PowerLoss) as error:
                results.append(type(error))
        memory, lmdb = results
        if isinstance(memory, type):
            assert memory is lmdb
            if memory is PowerLoss:
                self.lose_power()
            else:
                self.crash()
        elif isinstance(memory, list) and isinstance(lmdb, list):
            self.compare_outcomes(memory, lmdb)
        else:
            assert memory == lmdb

    def compare_outcomes(self, memory: list[Outcome], lmdb: list[Outcome]) -> None:
        assert len(memory) == len(lmdb)
        for one, other in zip(memory, lmdb, strict=True):
            assert type(one.error) is type(other.error), (one, other)
            assert (one.log and one.log.key) == (other.log and other.log.key)
            if isinstance(one.write, DropLog) and one.log is not None and other.log is not None:
                self.stale.append((one.log, other.log))

    def reopen(self) -> None:
        if self.rng.random() < 0.5 and self.disks[0].durability == "interval":
            self.sync()
        for store in self.stores:
            store.close()
        self.open()

    def crash(self) -> None:
        self.close()
        self.open()

    def lose_power(self) -> None:
        seed = self.rng.getrandbits(32)
        for disk in self.disks:
            disk.power_loss(random.Random(seed))
        self.open()

    def sync(self) -> None:
        self.meet_fault([committer.sync for committer in self.committers])

    def arm(self) -> None:
        after, durable, power = self.rng.randrange(3), self.rng.random() < 0.5, self.rng.random() < 0.5
        for disk in self.disks:
            (disk.arm_power_loss if power else disk.arm_failure)(durable=durable, after=after)

    def fill(self) -> None:
        for disk in self.disks:
            disk.full = not disk.full

    def copy(self) -> None:
        self.copies.append((self.disks[0].copy(), self.disks[1].copy()))

    def restore(self) -> None:
        if self.copies:
            for disk, copy in zip(self.disks, self.rng.choice(self.copies), strict=True):
                disk.restore(copy)
            self.open()

    def wipe(self) -> None:
        for disk in self.disks:
            disk.wipe()
        assert {answer(disk.open) for disk in self.disks} == {self.not_formatted()}
        self.format()
        self.open()

    @staticmethod
    def not_formatted() -> object:
        return answer(MemoryDisk().open)

    # ---- writes

    def group(self) -> list[Built]:
        self.handles: list[Handles] = [*self.stale[-2:]]
        for k in KEYS:
            memory, lmdb = (store.log(k) for store in self.stores)
            if memory is not None and lmdb is not None:
                self.handles += [(memory, lmdb)] * 4
        self.drafts: dict[Log, Draft] = {}
        makers: list[tuple[int, Callable[[], Built]]] = [(3, self.create), (1, self.drop), (1, self.start)]
        if self.sweeps_at_once and self.disks[0].durability == "commit":  # see LmdbDisk
            makers.append((5, self.expire))
        if self.handles:
            makers += [
                (30, self.append),
                (5, self.truncate),
                (2, self.reset),
                (4, self.move_start),
                (9, self.checkpoint),
                (12, self.compact),
                (2, self.act_in),
            ]
        weights = [weight for weight, _ in makers]
        count = self.rng.choice((1, 1, 2, 3, 6))
        return [make() for _, make in self.rng.choices(makers, weights, k=count)]

    def pick(self) -> tuple[Handles, Draft]:
        handles = self.rng.choice(self.handles)
        draft = self.drafts.get(handles[0])
        if draft is None:
            draft = self.drafts[handles[0]] = Draft(handles[0])
        return handles, draft

    def epoch(self, draft: Draft) -> int:
        """Usually one that may write."""
        draft.epoch += self.rng.choice((0, 0, 0, 0, 1))
        return draft.epoch - (self.rng.random() < 0.03)

    def create(self) -> Built:
        k = self.rng.choice(KEYS)
        return lambda _: CreateLog(k)

    def drop(self) -> Built:
        k: PartitionKey = self.rng.choice(KEYS)
        return lambda _: DropLog(k)

    def start(self) -> Built:
        starts = self.stores[0].start_ids()
        if self.rng.random() < 0.6 or not starts:
            start_id = self.rng.randbytes(16 if self.rng.random() < 0.9 else 15)
            return lambda _: RecordStart(start_id)
        forgotten = self.rng.choice([*starts, b"?" * 16])
        return lambda _: ForgetStarts(forgotten)

    def expire(self) -> Built:
        before = self.clock - self.rng.randint(-5, 30)
        return lambda _: ExpireProducers(before)

    def append(self) -> Built:
        handles, draft = self.pick()
        rng = self.rng
        epoch = self.epoch(draft)
        end, last = draft.end + (rng.random() < 0.02) - (rng.random() < 0.02), max(draft.last_epoch, 0)
        made: list[LogBatch] = []
        for _ in range(rng.choice((0, 1, 1, 1, 2, 4))):
            times = [rng.randint(-50, 400) for _ in range(rng.randint(1, 3))]
            self.clock += 1
            last = rng.randint(min(last, epoch), epoch) + (rng.random() < 0.01) - (rng.random() < 0.01)
            value = None if rng.random() < 0.15 else b"v" * rng.choice(self.sizes)
            stamp, clock = self.stamp(len(times)), rng.choice(CLOCKS)
            made.append(
                batch(end, times, epoch=last, value=value, stamp=stamp, append_time_ms=self.clock, timestamp_type=clock)
            )
            end = made[-1].last_offset + 1
        draft.end, draft.last_epoch = end, last if made else draft.last_epoch
        draft.batches += made
        return lambda side: Append(handles[side], epoch, tuple(made))

    def stamp(self, count: int) -> ProducerStamp:
        if self.rng.random() < 0.3:
            return NOT_STAMPED
        sequence = self.rng.choice((self.clock, MAX_SEQUENCE - count + 1, MAX_SEQUENCE))
        return ProducerStamp(self.rng.choice(PRODUCERS), self.rng.choice((0, 0, 0, 1)), sequence)

    def place(self, draft: Draft) -> int:
        """Usually where a batch begins or the log ends."""
        if self.rng.random() < 0.1:
            return self.rng.randint(-1, draft.end + 3)
        bases = [known.base_offset for known in draft.batches] or [draft.state.log_start_offset]
        return self.rng.choice([*bases[-6:], self.rng.choice(bases), draft.end])

    def truncate(self) -> Built:
        handles, draft = self.pick()
        end, epoch = self.place(draft), self.epoch(draft)
        draft.batches = [known for known in draft.batches if known.base_offset < end]
        draft.end = draft.batches[-1].last_offset + 1 if draft.batches else draft.state.log_start_offset
        draft.last_epoch = draft.batches[-1].leader_epoch if draft.batches else -1
        return lambda side: Truncate(handles[side], epoch, end)

    def reset(self) -> Built:
        handles, draft = self.pick()
        source = self.rng.choice(self.handles)
        seeds = [answer(log.replica_seed) for log in source]
        assert seeds[0] == seeds[1]
        seed = seeds[0] if isinstance(seeds[0], ReplicaSeed) and self.rng.random() < 0.5 else self.seed()
        draft.epoch = max(draft.epoch, *(epoch.leader_epoch for epoch in seed.epochs), 0)
        draft.batches, draft.end = [], seed.start_offset
        draft.last_epoch = seed.epochs[-1].leader_epoch if seed.epochs else -1
        epoch = self.epoch(draft)
        return lambda side: ResetLog(handles[side], epoch, seed)

    def seed(self) -> ReplicaSeed:
        rng = self.rng
        start = rng.randint(-1 if rng.random() < 0.1 else 10, 40)
        epochs = [EpochStart(epoch, start - 9 + place) for place, epoch in enumerate(rng.sample(range(5), 3))]
        known = tuple(ProducerBatch(at, at, start - 9 + at, start - 9 + at) for at in range(rng.randint(1, 5)))
        states = [ProducerState(rng.randrange(3), known[:count], self.clock) for count in (1, 5)]
        order = sorted if rng.random() < 0.8 else list
        return ReplicaSeed(start, tuple(order(epochs)), ((PRODUCERS[4], states[0]), (PRODUCERS[0], states[1])))

    def move_start(self) -> Built:
        handles, draft = self.pick()
        lowest = min(draft.state.log_start_offset, draft.end) - 1
        start, epoch = self.rng.randint(lowest, draft.end + 2), self.epoch(draft)
        if self.rng.random() < 0.7:
            start = min(start, draft.state.log_start_offset + 5)
        return lambda side: MoveStart(handles[side], epoch, start)

    def compact(self) -> Built:
        """The next step of a compaction that was planned at any time before, or of a new one."""
        rng = self.rng
        if not self.plans or rng.random() < 0.3:
            handles, draft = self.pick()
            passed, lag = rng.choice((0, draft.end, rng.randint(0, draft.end + 1))), rng.choice((0, 0, 30))
            task = Task(self.clock, rng.choice((0, 5, 1_000)), lag, passed, rng.choice((1, 400, 1 << 20)))
            planned = [answer(lambda log=log: plan(log, task)) for log in handles]  # type: ignore[misc]
            assert described(planned[0]) == described(planned[1])
            self.plans.append((handles, planned))
        place = rng.randrange(len(self.plans))
        handles, sides = self.plans[place]
        if not all(isinstance(side, tuple) and side[1] for side in sides):
            del self.plans[place]
            return self.checkpoint()
        if rng.random() < 0.1:
            del sides[0][1][0], sides[1][1][0]  # one is left out
            return self.checkpoint()
        writes = [self.step(log, content, steps.pop(0)) for log, (content, steps) in zip(handles, sides, strict=True)]
        return lambda side: writes[side]

    def step(self, log: Log, content: tuple[int, int], step: Step | End) -> Compact:
        if isinstance(step, End):
            at = step.cleaned_offset
            return Compact(log, content, at, at, (), (), cleaned_offset=at)
        return Compact(log, content, step.start, step.end, step.replaced, step.rows, step.tombstones_below)

    def checkpoint(self) -> Built:
        handles, draft = self.pick()
        mark = draft.end if self.rng.random() < 0.4 else self.place(draft)
        return lambda side: CheckpointHighWatermark(handles[side], mark)

    def act_in(self) -> Built:
        handles, draft = self.pick()
        epoch = self.epoch(draft)
        return lambda side: ActIn(handles[side], epoch)
