"""Hand-written wire forms against the generated classes; the tail, the waiters and the producers in memory."""

import pytest

from penstock.internal.v1 import replication_pb2 as pb
from penstock.node.partition import producing
from penstock.node.partition.producing import Producers
from penstock.node.replication.tail import BATCH_OVERHEAD_BYTES, Tail, TailBudget
from penstock.node.replication.wire import append_parts, batch_of, seed_message, seed_of
from penstock.node.waiters import Waiters
from penstock.protocol.batch import NewRecord, ProducerStamp, build, header_of
from penstock.storage import EpochStart, LogBatch, ReplicaSeed
from penstock.storage.producers import ACCEPT, Duplicate, ProducerBatch, ProducerState
from penstock.v1 import record_pb2


def batch(base: int, size: int = 10, producer: int = 7, sequence: int | None = None) -> LogBatch:
    stamp = ProducerStamp(producer, 0, base if sequence is None else sequence)
    message = build([NewRecord(b"k", b"v" * size, 1)], record_pb2.COMPRESSION_NONE, stamp)
    return LogBatch(base, base, 4, 99, header_of(message), message.SerializeToString())


@pytest.mark.parametrize("size", [0, 1, 100, 127, 128, 20_000, 3_000_000])
def test_append_parts_are_a_partition_append(size: int) -> None:
    batches = [batch(0, size), batch(1, size, producer=-5)]
    rest = pb.ReplicateResponse(progress=[pb.PartitionProgress(slot=9, high_watermark=1)])
    data = b"".join((*append_parts(300, batches, cold=True), rest.SerializeToString()))
    response = pb.ReplicateResponse.FromString(data)
    (append,) = response.appends
    assert (append.slot, append.cold) == (300, True)
    assert [batch_of(stored) for stored in append.batches] == batches
    assert response.progress[0].slot == 9


def test_a_seed_comes_through_whole() -> None:
    state = ProducerState(3, (ProducerBatch(0, 4, 10, 14), ProducerBatch(5, 5, 15, 15)), 1234)
    seed = ReplicaSeed(20, (EpochStart(1, 0), EpochStart(4, 12)), ((7, state), (-9, state)))
    assert seed_of(seed_message(1, seed)) == seed


def test_the_tail_evicts_the_oldest_but_never_what_is_not_durable() -> None:
    payload = len(batch(0).payload)
    budget = TailBudget(3 * (payload + BATCH_OVERHEAD_BYTES))
    tail = Tail(budget, 0)
    for base in range(5):
        tail.add(batch(base))
    assert tail.start_offset == 0
    tail.on_durable(5)
    tail.add(batch(5))
    assert (tail.start_offset, tail.end_offset) == (3, 6)
    assert tail.read(2, 6, 1000) is None
    assert [found.base_offset for found in tail.read(4, 6, 1000) or ()] == [4, 5]
    assert [found.base_offset for found in tail.read(3, 6, 1) or ()] == [3]
    assert [found.base_offset for found in tail.read(3, 5, 1000) or ()] == [3, 4]
    tail.truncate(4)
    assert (tail.start_offset, tail.end_offset) == (3, 4)
    tail.reset(9)
    assert tail.read(9, 10, 1000) is None
    other = Tail(budget, 0)
    for base in range(3):
        other.add(batch(base))
    assert other.start_offset == 0


def test_waiters_leave_in_order_by_offset_deadline_or_end() -> None:
    waiters: Waiters[str] = Waiters()
    waiters.add(3, 100, "a")
    waiters.add(2, 50, "duplicate")
    waiters.add(5, 200, "b")
    assert waiters.reached(2) == []
    assert waiters.reached(3) == ["a", "duplicate"]
    waiters.add(6, 150, "c")
    assert waiters.expired(149) == []
    assert waiters.expired(150) == ["c"]
    waiters.add(9, 300, "d")
    assert waiters.drain(5) == (["b"], ["d"])
    assert len(waiters) == 0


def test_producers_in_memory_stand_in_front_of_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producing, "PRODUCERS_IN_MEMORY", 2)
    loaded: list[int] = []

    def load(producer_id: int) -> ProducerState | None:
        loaded.append(producer_id)
        return None

    producers = Producers(load)
    first = batch(0, sequence=0)
    assert producers.check(first.header) == ACCEPT
    producers.note(first, durable_end=0)
    assert producers.check(first.header) == Duplicate(0, 0)
    for producer_id in (8, 9):
        producers.note(batch(producer_id, producer=producer_id, sequence=0), durable_end=0)
    assert producers.check(first.header) == Duplicate(0, 0)  # not durable: kept above the bound
    producers.note(batch(20, producer=10, sequence=0), durable_end=20)
    assert loaded.count(8) == 1
    assert producers.check(batch(8, producer=8, sequence=0).header) == ACCEPT  # durable: asked of the log again
    assert loaded.count(8) == 2
    producers.clear()
    assert producers.check(first.header) == ACCEPT
