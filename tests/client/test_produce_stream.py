"""What a stream takes into its next request, without a network."""

import random
from typing import Any

import pytest

from penstock.client.accumulator import Accumulator, AccumulatorLimits
from penstock.client.clock import SystemClock
from penstock.client.produce_stream import HOLD_MS, LeaderStream, SendLane
from penstock.client.retry import Backoff
from penstock.client.sequencing import Window
from penstock.v1 import common_pb2, record_pb2
from penstock.v1 import producer_service_pb2 as pb

BATCH_BYTES = 400


class Owner:
    """Counts attempts."""

    def __init__(self) -> None:
        self.attempts = 0

    def next_attempt(self) -> int:
        self.attempts += 1
        return self.attempts


class Clock(SystemClock):
    """Stands still."""

    now_ms = 1_000

    def monotonic_ms(self) -> int:
        return self.now_ms


class Bench:
    """A stream and lanes whose leader it goes to."""

    def __init__(self, lanes: int) -> None:
        self.clock = Clock()
        self.accumulator = Accumulator(
            AccumulatorLimits(BATCH_BYTES, 1 << 20, 5, 1000, record_pb2.COMPRESSION_NONE), lambda: 0
        )
        owner: Any = Owner()
        template = pb.ProduceRequest(acks=common_pb2.ACKS_ALL)
        self.stream = LeaderStream("leader", owner, self.accumulator, template, self.clock)
        self.lanes = [SendLane(b"t" * 16, "orders", partition) for partition in range(lanes)]
        for lane in self.lanes:
            lane.window = Window(lane.closed, Backoff(random.Random(1)), idempotent=True, max_in_flight=5)
            lane.window.adopt(1, 0)
            self.accumulator.fit(lane, 10_000)

    def due(self, lane: SendLane, size: int = 10) -> None:
        """A record whose linger is over."""
        self.accumulator.append(lane, None, b"x" * size, (), 7, None)
        assert lane.open is not None
        lane.open.due = True
        self.stream.mark(lane)

    def collect(self) -> list[int]:
        """Partitions of the next request; [] for none."""
        request = self.stream._collect() if self.stream._may_send() else None
        return [] if request is None else [batch.partition for batch in pb.ProduceRequest.FromString(request).batches]


@pytest.fixture
async def bench() -> Bench:
    """A request is under way, with batches of the first two lanes; the other two lanes are empty."""
    made = Bench(4)
    for lane in made.lanes[:2]:
        made.due(lane)
    assert made.collect() == [0, 1]
    return made


async def test_batches_wait_for_the_answer_to_the_request_before_and_go_on_filling(bench: Bench) -> None:
    waiting, other = bench.lanes[2:]
    bench.due(waiting)
    assert bench.collect() == []
    bench.due(waiting)
    bench.due(other, BATCH_BYTES - 100)
    bench.accumulator.append(other, None, b"x" * (BATCH_BYTES - 100), (), 7, None)  # closes the one before it
    assert bench.collect() == []
    bench.stream._take(1)
    assert bench.collect() == []  # half an answer
    bench.stream._wake.clear()
    bench.stream._take(2)
    assert bench.stream._wake.is_set()
    assert bench.collect() == [2, 3]
    assert [flight.batch.record_count for flight in waiting.window.flights] == [2]
    assert bench.collect() == []  # of this request there is no answer


async def test_an_answer_that_does_not_come_holds_up_nobody_for_long(bench: Bench) -> None:
    bench.due(bench.lanes[2])
    bench.clock.now_ms += HOLD_MS - 1
    assert bench.collect() == []
    bench.stream._wake.clear()
    await bench.stream._wake.wait()  # it looks again by itself
    bench.clock.now_ms += 1
    assert bench.collect() == [2]
    bench.stream._take(1)
    bench.stream._take(2)
    bench.due(bench.lanes[3])
    assert bench.collect() == []  # an answer to an older request changes nothing
    bench.stream._take(3)
    assert bench.collect() == [3]


async def test_what_waits_goes_when_the_request_is_lost_or_its_lanes_have_gone(bench: Bench) -> None:
    bench.due(bench.lanes[2])
    assert bench.collect() == []
    for lane in bench.lanes[:2]:
        bench.stream.forget(lane)
    assert bench.collect() == [2]
    bench.due(bench.lanes[3])
    assert bench.collect() == []
    bench.stream._wake.clear()
    assert bench.stream._take_all() == [bench.lanes[2]]
    assert bench.stream._wake.is_set()
    assert bench.collect() == [3]
