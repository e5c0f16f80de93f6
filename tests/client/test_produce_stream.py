"""What a stream takes into its next request, without a network."""

import random
from typing import Any

import pytest

from penstock.client.accumulator import Accumulator, AccumulatorLimits
from penstock.client.clock import SystemClock
from penstock.client.produce_stream import REQUESTS_IN_FLIGHT, LeaderStream, SendLane
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


class Bench:
    """A stream and lanes whose leader it goes to."""

    def __init__(self, lanes: int) -> None:
        self.accumulator = Accumulator(
            AccumulatorLimits(BATCH_BYTES, 1 << 20, 5, 1000, record_pb2.COMPRESSION_NONE), lambda: 0
        )
        owner: Any = Owner()
        template = pb.ProduceRequest(acks=common_pb2.ACKS_ALL)
        self.stream = LeaderStream("leader", owner, self.accumulator, template, SystemClock())
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
        request = self.stream._collect()
        return [] if request is None else [batch.partition for batch in pb.ProduceRequest.FromString(request).batches]


@pytest.fixture
async def bench() -> Bench:
    made = Bench(REQUESTS_IN_FLIGHT + 2)
    for lane in made.lanes[:REQUESTS_IN_FLIGHT]:
        made.due(lane)
        assert made.collect() == [lane.partition]
    return made


async def test_a_batch_that_is_due_waits_while_requests_have_no_answer_and_goes_on_filling(bench: Bench) -> None:
    waiting, other = bench.lanes[-2:]
    bench.due(waiting)
    assert bench.collect() == []
    bench.due(waiting)
    bench.due(other)
    assert bench.collect() == []
    assert bench.stream._take(1) is bench.lanes[0]  # the first request is answered
    assert sorted(bench.collect()) == [waiting.partition, other.partition]
    assert [flight.batch.record_count for flight in waiting.window.flights] == [2]


async def test_a_full_batch_does_not_wait_and_takes_along_what_is_due(bench: Bench) -> None:
    full, due = bench.lanes[-2:]
    bench.due(full, BATCH_BYTES - 100)
    assert bench.collect() == []
    bench.accumulator.append(full, None, b"x" * (BATCH_BYTES - 100), (), 7, None)  # closes the one before it
    bench.stream.mark(full)
    bench.due(due)
    assert bench.collect() == [full.partition, due.partition]


async def test_what_waits_goes_when_the_requests_are_lost_or_their_lanes_have_gone(bench: Bench) -> None:
    waiting = bench.lanes[-1]
    bench.due(waiting)
    assert bench.collect() == []
    bench.stream.forget(bench.lanes[0])
    assert bench.collect() == [waiting.partition]
    bench.due(bench.lanes[-2])
    assert bench.collect() == []
    assert waiting in bench.stream._take_all()
    assert bench.collect() == [bench.lanes[-2].partition]
