"""What a store and its disk promise, asked of the one in memory and of the real one alike.

`test_disks_in_lockstep` compares the two in random histories; the others name each refusal and each event of the disk.
"""

import os
import random
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from penstock.protocol.batch import NOT_STAMPED, ProducerStamp
from penstock.storage import (
    ActIn,
    Append,
    AppendFailedError,
    CheckpointHighWatermark,
    CommitFailedError,
    Committer,
    CreateLog,
    DamagedStoreError,
    DropLog,
    EpochEnd,
    EpochStart,
    ExpireProducers,
    ForeignStoreError,
    ForgetStarts,
    Log,
    LogDroppedError,
    MoveStart,
    NotFormattedError,
    OffsetAboveEndError,
    OffsetBelowStartError,
    RecordStart,
    ReplicaSeed,
    ResetLog,
    StaleEpochError,
    StorageError,
    Store,
    StoreFullError,
    StoreLockedError,
    Truncate,
    Write,
    group,
)
from penstock.storage.producers import ProducerBatch, ProducerState
from tests.simulation.store.disk import Disk, PowerLoss
from tests.simulation.store.lmdb_disk import LmdbDisk
from tests.simulation.store.lockstep import CLUSTER, NODE, Lockstep
from tests.simulation.store.memory_disk import MAX_UNSYNCED, MemoryDisk
from tests.storage.support import batch, key

SHARED_MEMORY = Path("/dev/shm")
SEEDS = range(30)
STEPS = 50
LEVELS = ("commit", "interval", "os")


@pytest.fixture
def directory() -> Iterator[Path]:
    """Where fsync takes no time, if there is such a place."""
    parent = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="penstock-", dir=parent) as path:
        yield Path(path) / "store"


class Node:
    """A disk, and the process that has its store open."""

    def __init__(self, kind: str, directory: Path, durability: str = "commit") -> None:
        self.disk: Disk[Any] = MemoryDisk(durability) if kind == "memory" else LmdbDisk(directory, durability)
        self.unique = count(1)
        self.format()
        self.store: Store
        self.committer: Committer
        self.open()

    def format(self) -> None:
        self.disk.format(CLUSTER, NODE, lambda: next(self.unique).to_bytes(16, "big"))

    def open(self) -> None:
        self.store, self.committer = self.disk.open(CLUSTER, NODE)

    def restart(self) -> None:
        self.disk.crash()
        self.open()

    def errors(self, *writes: Write) -> list[type[StorageError] | None]:
        return [None if outcome.error is None else type(outcome.error) for outcome in self.committer.commit(writes)]

    def done(self, *writes: Write) -> None:
        assert self.errors(*writes) == [None] * len(writes)

    def log(self, number: int = 1) -> Log:
        log = self.store.log(key(number))
        if log is None:
            self.done(CreateLog(key(number)))
            log = self.store.log(key(number))
        assert log is not None
        return log

    def append(self, records: int = 1, *, epoch: int = 0, number: int = 1, producer: int | None = None) -> None:
        """Append so many batches of one record, in one group."""
        log, end = self.log(number), self.log(number).state.log_end_offset
        stamps = [NOT_STAMPED if producer is None else ProducerStamp(producer, 0, at) for at in range(records)]
        batches = [batch(end + at, epoch=epoch, stamp=stamp) for at, stamp in enumerate(stamps)]
        self.done(Append(log, epoch, tuple(batches)))

    def end(self, number: int = 1) -> int:
        return self.log(number).state.log_end_offset


@pytest.fixture(params=["memory", "lmdb"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def node(kind: str, directory: Path) -> Iterator[Node]:
    node = Node(kind, directory)
    yield node
    node.disk.crash()


@pytest.fixture(params=["interval", "os"])
def weak(kind: str, directory: Path, request: pytest.FixtureRequest) -> Iterator[Node]:
    """A node whose commits are durable only at a sync."""
    node = Node(kind, directory, request.param)
    yield node
    node.disk.crash()


@pytest.mark.parametrize("seed", SEEDS)
def test_disks_in_lockstep(seed: int, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "EXPIRE_ROWS", 3)
    lockstep = Lockstep(seed, directory, LEVELS[seed % len(LEVELS)])
    try:
        for _ in range(STEPS):
            lockstep.run()
    finally:
        lockstep.close()


# ---- the disk's store


def test_a_store_is_formatted_once_and_is_who_it_was_told_to_be(node: Node) -> None:
    assert node.store.identity == (CLUSTER, NODE, (1).to_bytes(16, "big"))
    assert node.store.durability == "commit"
    assert node.store.logs() == []
    assert node.store.log(key(1)) is None
    node.disk.crash()
    with pytest.raises(StorageError, match="formatted already"):
        node.format()


def test_a_store_needs_a_cluster_and_a_node(kind: str, directory: Path) -> None:
    disk: Disk[Any] = MemoryDisk() if kind == "memory" else LmdbDisk(directory)
    for cluster_id, node_id in (("", 1), ("x", 0), ("x", 2**32)):
        with pytest.raises(StorageError):
            disk.format(cluster_id, node_id, lambda: b"x" * 16)
    with pytest.raises(NotFormattedError):
        disk.open()


def test_a_store_is_open_once_and_only_for_its_own_node(node: Node) -> None:
    with pytest.raises(StoreLockedError):
        node.disk.open()
    node.store.close()
    with pytest.raises(ForeignStoreError):
        node.disk.open("other", NODE)
    with pytest.raises(ForeignStoreError):
        node.disk.open(CLUSTER, NODE + 1)
    node.disk.open()


def test_a_closed_store_answers_and_writes_nothing(node: Node) -> None:
    node.append()
    log = node.log()
    node.store.close()
    node.store.close()
    node.disk.crash()
    for ask in (log.epochs, log.replica_seed, lambda: log.read(0, 1, 1), lambda: log.producer(1)):
        with pytest.raises(DamagedStoreError):
            ask()
    with pytest.raises(CommitFailedError):
        node.committer.commit([Append(log, 0, (batch(1),))])
    with pytest.raises(CommitFailedError):
        node.committer.sync()


def test_handles_of_before_stay_closed_beside_a_new_process(node: Node) -> None:
    node.append(2)
    former, committer = node.log(), node.committer
    node.restart()
    with pytest.raises(CommitFailedError):
        committer.commit([Append(former, 0, (batch(2),))])
    assert node.end() == 2


# ---- refusals


def test_writes_of_a_lower_epoch_are_stale(node: Node) -> None:
    node.append(3, epoch=4)
    log = node.log()
    for write in (
        Append(log, 3, (batch(3, epoch=3),)),
        Truncate(log, 3, 0),
        ResetLog(log, 3, ReplicaSeed(0, (), ())),
        MoveStart(log, 3, 1),
        ActIn(log, 3),
    ):
        assert node.errors(write) == [StaleEpochError]
    assert node.end() == 3


def test_every_write_in_an_epoch_acts_in_it(node: Node) -> None:
    log = node.log()
    writes: list[Write] = [
        ActIn(log, 0),
        Append(log, 1, ()),
        Truncate(log, 2, 0),
        MoveStart(log, 3, 0),
        ResetLog(log, 4, ReplicaSeed(0, (), ())),
    ]
    for epoch, write in enumerate(writes):
        node.done(write)
        assert log.state.acted_epoch == epoch
    node.restart()
    assert node.log().state.acted_epoch == 4


def test_appends_continue_the_log(node: Node) -> None:
    node.append(2, epoch=3)
    log = node.log()
    for epoch, batches in (
        (3, (batch(1, epoch=3),)),
        (3, (batch(3, epoch=3),)),
        (3, (batch(2, epoch=2),)),
        (3, (batch(2, epoch=4),)),
        (3, (batch(2, epoch=3), batch(4, epoch=3))),
    ):
        assert node.errors(Append(log, epoch, batches)) == [AppendFailedError]
    assert log.state.log_end_offset == 2


def test_what_is_queued_behind_a_failed_write_fails_and_other_logs_do_not(node: Node) -> None:
    log, other = node.log(), node.log(2)
    errors = node.errors(
        Append(log, 0, (batch(0),)),
        Append(log, 0, (batch(5),)),
        Append(log, 0, (batch(1),)),
        Truncate(log, 0, 0),
        ResetLog(log, 0, ReplicaSeed(9, (), ())),
        CheckpointHighWatermark(log, 1),
        Append(other, 0, (batch(0),)),
    )
    assert errors == [None, *[AppendFailedError] * 4, None, None]
    assert (node.end(), log.state.high_watermark, node.end(2)) == (1, 1, 1)
    node.append()


def test_a_cut_is_where_a_batch_begins(node: Node) -> None:
    node.done(Append(node.log(), 0, (batch(0, (1, 2, 3)), batch(3))))
    for end in (-1, 1, 5):
        assert node.errors(Truncate(node.log(), 0, end)) == [AppendFailedError]
    node.done(Truncate(node.log(), 0, 4), Truncate(node.log(), 0, 3))
    assert node.end() == 3


def test_an_impossible_seed_is_refused(node: Node) -> None:
    log = node.log()
    for start, epochs in ((-1, ()), (5, ((1, 5),)), (5, ((2, 1), (1, 2))), (5, ((1, 2), (2, 2))), (5, ((8, 1),))):
        seed = ReplicaSeed(start, tuple(EpochStart(*epoch) for epoch in epochs), ())
        assert node.errors(ResetLog(log, 7, seed)) == [AppendFailedError]


def test_a_dropped_log_is_gone_and_its_successor_is_another(node: Node) -> None:
    node.append(2)
    former = node.log()
    assert node.errors(DropLog(key(1)), CheckpointHighWatermark(former, 1), CreateLog(key(1)), DropLog(key(9))) == [
        None,
        LogDroppedError,
        None,
        None,
    ]
    with pytest.raises(LogDroppedError):
        former.read(0, 1, 1)
    assert node.errors(Append(former, 0, (batch(2),))) == [LogDroppedError]
    assert node.log().state.log_end_offset == 0
    node.append()
    node.restart()
    assert node.end() == 1


def test_creating_a_log_again_leaves_it(node: Node) -> None:
    node.append()
    first, second = node.committer.commit([CreateLog(key(1)), CreateLog(key(1))])
    assert first.log is second.log is node.log()
    assert node.end() == 1


def test_reads_below_the_start_and_above_the_end_are_told_apart(node: Node) -> None:
    node.append(5)
    node.done(MoveStart(node.log(), 0, 2))
    log = node.log()
    with pytest.raises(OffsetBelowStartError):
        log.read(1, 5, 1)
    with pytest.raises(OffsetAboveEndError):
        log.read(6, 9, 1)
    assert log.read(5, 9, 1) == []
    assert [found.base_offset for found in log.read(2, 4, 2**30)] == [2, 3]
    assert [found.base_offset for found in log.read(3, 5, 0)] == [3]


def test_start_ids_are_kept_until_one_is_answered(node: Node) -> None:
    starts = [bytes([at]) * 16 for at in range(3)]
    assert node.errors(*(RecordStart(start) for start in starts), RecordStart(b"short")) == [
        *[None] * 3,
        AppendFailedError,
    ]
    node.restart()
    assert node.store.start_ids() == tuple(starts)
    node.done(ForgetStarts(b"?" * 16), ForgetStarts(starts[1]))
    node.restart()
    assert node.store.start_ids() == tuple(starts[1:])


# ---- producers


def test_rule_13_a_cut_above_the_high_watermark_puts_back_what_was_replaced(node: Node) -> None:
    for _ in range(8):
        node.append(producer=7)
    before = node.log().producer(7)
    node.append(3, producer=7)
    node.append(producer=8)
    assert node.log().producer(8) is not None
    node.restart()
    node.done(Truncate(node.log(), 0, 8))
    assert node.log().producer(7) == before
    assert node.log().producer(8) is None


def test_a_cut_below_the_high_watermark_takes_the_cut_batches_out(node: Node) -> None:
    node.append(4, producer=7)
    node.append(1, producer=8)
    node.done(CheckpointHighWatermark(node.log(), 5), Truncate(node.log(), 0, 2))
    known = node.log().producer(7)
    assert known is not None
    assert [place.base_offset for place in known.batches] == [0, 1]
    assert node.log().producer(8) is None
    assert node.log().state.high_watermark == 2


def test_rule_14_a_seed_says_what_came_before_the_start(node: Node) -> None:
    node.append(3, epoch=1, producer=7)
    node.append(2, epoch=2)
    node.done(MoveStart(node.log(), 2, 4))
    seed = node.log().replica_seed()
    known = ProducerState(0, tuple(ProducerBatch(at, at, at, at) for at in range(3)), 5_000)
    assert seed == ReplicaSeed(4, (EpochStart(2, 3),), ((7, known),))
    node.done(ResetLog(node.log(2), 2, seed))
    copy = node.log(2)
    assert copy.replica_seed() == seed
    assert (copy.state.log_start_offset, copy.state.log_end_offset, copy.state.last_epoch) == (4, 4, 2)
    assert copy.end_of_epoch(2) == EpochEnd(2, 4)
    assert copy.end_of_epoch(1) is None


def test_producers_expire_a_few_at_a_time_and_in_turn(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "EXPIRE_ROWS", 2)
    log = node.log()
    stamps = [ProducerStamp(producer, 0, 0) for producer in (-3, 1, 2, 3, 4)]
    batches = [batch(at, stamp=stamp, append_time_ms=10 * at) for at, stamp in enumerate(stamps)]
    node.done(Append(log, 0, tuple(batches)))
    left = []
    for before in (15, 100, 100, 5, 100):
        node.done(ExpireProducers(before))
        left.append([stamp.producer_id for stamp in stamps if log.producer(stamp.producer_id)])
    assert left == [[2, 3, 4], [4], [], [], []]


def test_producers_of_the_same_group_do_not_expire_yet(node: Node) -> None:
    log = node.log()
    new = batch(0, stamp=ProducerStamp(7, 0, 0), append_time_ms=10)
    node.done(Append(log, 0, (new,)), ExpireProducers(100))
    assert log.producer(7) is not None
    node.done(ExpireProducers(100))
    assert log.producer(7) is None


def test_a_cut_does_not_bring_a_producer_back_that_was_forgotten(node: Node) -> None:
    """What its batch replaced is older still."""
    log = node.log()
    first, second = (batch(at, stamp=ProducerStamp(7, 0, at), append_time_ms=10) for at in range(2))
    node.done(Append(log, 0, (first, second)))
    node.done(ExpireProducers(100))
    node.done(Truncate(log, 0, 1))
    assert log.producer(7) is None
    node.done(Append(log, 0, (batch(1, stamp=ProducerStamp(7, 0, 0), append_time_ms=200),)))
    assert log.producer(7) is not None
    node.done(Truncate(log, 0, 0))
    assert log.producer(7) is None


def test_a_log_that_is_replaced_while_its_producers_expire_begins_empty(node: Node) -> None:
    expire, drop, create = ExpireProducers(2**40), DropLog(key(1)), CreateLog(key(1))
    for writes in ((expire, drop, expire, create, expire), (drop, create, expire)):
        node.append(producer=7)
        node.done(*writes)
    assert node.end() == 0
    node.append()
    node.restart()
    assert node.end() == 1


def test_times_are_found_to_the_record(node: Node) -> None:
    node.done(Append(node.log(), 0, (batch(0, (10, 30, 20)), batch(3, (5, 40)))))
    log = node.log()
    assert [log.find_timestamp(time, 5) for time in (0, 11, 31, 41)] == [(0, 10), (1, 30), (4, 40), None]
    assert log.find_timestamp(31, 4) is None


# ---- a full disk


def test_a_full_disk_refuses_appends_and_what_relies_on_them(node: Node) -> None:
    node.append(2)
    log = node.log()
    node.disk.full = True
    errors = node.errors(
        CheckpointHighWatermark(log, 1),
        Append(log, 0, (batch(2),)),
        Truncate(log, 0, 1),
        CreateLog(key(3)),
        MoveStart(log, 0, 1),
        RecordStart(b"x" * 16),
    )
    assert errors == [None, StoreFullError, AppendFailedError, None, None, None]
    assert node.errors(Append(log, 0, ())) == [None]
    assert node.errors(Truncate(log, 0, 1)) == [None]
    node.disk.full = False
    node.append(2)
    node.restart()
    assert node.end() == 3


# ---- failed commits


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("power", [False, True])
def test_a_failed_commit_took_effect_as_a_whole_or_not_at_all(node: Node, *, durable: bool, power: bool) -> None:
    node.append(producer=7)
    log, other = node.log(), node.log(2)
    (node.disk.arm_power_loss if power else node.disk.arm_failure)(durable=durable, after=1)
    node.append()
    with pytest.raises(PowerLoss if power else CommitFailedError):
        node.committer.commit([Append(log, 0, (batch(2),)), Append(other, 1, (batch(0, epoch=1),))])
    for _ in range(2):  # nothing is written after it
        with pytest.raises(CommitFailedError):
            node.committer.commit([ActIn(log, 9)])
    node.disk.power_loss(random.Random(1))
    node.open()
    assert (node.end(1), node.end(2)) == ((3, 1) if durable else (2, 0))
    assert node.log().state.acted_epoch == 0
    node.append()


def test_a_failure_that_was_armed_for_a_process_does_not_meet_the_next(node: Node) -> None:
    node.disk.arm_failure()
    node.restart()
    node.append()
    node.disk.arm_power_loss(durable=False)
    node.disk.disarm()
    node.append()
    assert node.end() == 2


# ---- crashes and power


def test_a_crash_loses_nothing_that_was_committed(kind: str, directory: Path) -> None:
    for level in LEVELS:
        node = Node(kind, directory / level, level)
        for _ in range(3):
            node.append(2, producer=7)
            before = node.log().state, node.log().producer(7), node.log().read(0, 99, 2**30)
            node.restart()
            assert (node.log().state, node.log().producer(7), node.log().read(0, 99, 2**30)) == before
        node.disk.crash()


def test_at_level_commit_a_power_loss_loses_nothing(node: Node) -> None:
    node.append(3)
    node.disk.power_loss(random.Random(1))
    node.open()
    assert node.end() == 3


def test_a_power_loss_goes_back_to_any_commit_since_the_sync(weak: Node) -> None:
    weak.append(2, producer=7)
    weak.committer.sync()
    copy, found = weak.disk.copy(), set()
    for seed in range(20):
        for _ in range(2):
            log, end = weak.log(), weak.end()
            weak.done(Append(log, 0, (batch(end), batch(end + 1))), CheckpointHighWatermark(log, end + 2))
        weak.disk.power_loss(random.Random(seed))
        weak.open()
        state = weak.log().state
        found.add((state.log_end_offset, state.high_watermark))
        weak.append()
        weak.disk.restore(copy)
        weak.open()
    assert found == {(2, 0), (4, 4), (6, 6)}


def test_what_a_power_loss_left_is_durable(weak: Node) -> None:
    weak.log()
    for _ in range(5):
        weak.append()
    weak.disk.power_loss(random.Random(3))
    weak.open()
    assert weak.store.log(key(1)) is not None
    end = weak.end()
    for seed in range(5):
        weak.disk.power_loss(random.Random(seed))
        weak.open()
        assert weak.end() == end


def test_a_failed_sync_ends_the_process(weak: Node) -> None:
    weak.append()
    weak.committer.sync()
    weak.append()
    weak.disk.arm_failure(durable=True, after=1)
    weak.append()
    with pytest.raises(CommitFailedError):
        weak.committer.sync()
    with pytest.raises(CommitFailedError):
        weak.committer.commit([])
    weak.disk.power_loss(random.Random(1))
    weak.open()
    assert weak.end() == 3


def test_much_unsynced_is_thinned_out() -> None:
    node = Node("memory", Path(), "os")
    node.append()
    node.committer.sync()
    for _ in range(3 * MAX_UNSYNCED):
        node.append()
    node.disk.power_loss(random.Random(5))
    node.open()
    assert 1 < node.end() < 3 * MAX_UNSYNCED


# ---- what a world looks at


def test_what_the_disk_holds_is_seen_with_and_without_a_process(node: Node) -> None:
    assert node.disk.row(key(1)) is None
    node.append(5, epoch=1, producer=7)
    node.done(MoveStart(node.log(), 1, 2))
    known = node.log().producer(7)
    for _ in range(2):
        row = node.disk.row(key(1))
        assert row is not None
        assert (row.state.log_start_offset, row.state.log_end_offset, row.producers) == (2, 5, {7: known})
        assert [found.base_offset for found in row.batches[row.place(3) : row.stop]] == [3, 4]
        node.disk.crash()
    node.disk.wipe()
    assert node.disk.row(key(1)) is None


# ---- copies


def test_an_old_copy_comes_back_and_is_independent_of_what_followed(node: Node) -> None:
    node.append(3, producer=7)
    copy, before = node.disk.copy(), (node.log().state, node.log().producer(7))
    node.append(2, producer=7)
    node.done(CreateLog(key(2)))
    late = node.disk.copy()
    for _ in range(2):
        node.disk.restore(copy)
        node.open()
        assert (node.log().state, node.log().producer(7)) == before
        assert node.store.log(key(2)) is None
        node.append(4, epoch=5)
        assert node.log().read(3, 4, 1)[0].leader_epoch == 5
    node.disk.restore(late)
    node.open()
    assert node.end() == 5
    assert node.log().read(3, 4, 1)[0].leader_epoch == 0


def test_a_wiped_disk_is_formatted_as_another_store(node: Node) -> None:
    node.append()
    copy, former = node.disk.copy(), node.store.identity
    node.disk.wipe()
    with pytest.raises(NotFormattedError):
        node.open()
    node.format()
    node.open()
    assert node.store.identity == former._replace(store_id=(2).to_bytes(16, "big"))
    assert node.store.logs() == []
    node.disk.restore(copy)
    node.open()
    assert node.store.identity == former
    assert node.end() == 1
