"""The load of one producer against a producer of the test's, on a virtual clock: due times and what is charged to them.

The rule under test: a record's latency counts from its due time, so a stall is charged to every record due in it
("coordinated omission", Gil Tene: How NOT to Measure Latency).
"""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from penstock.client import BatchDelivery, BufferFullError, PenstockError
from penstock.client.bench import send
from penstock.client.bench.payload import due_ns_of
from penstock.client.bench.plan import Phase, Plan
from penstock.client.errors import make_error
from penstock.protocol.reasons import Reason

MS = 1_000_000
SLEEP = asyncio.sleep
RUN_ID = b"12345678"


class Clock:
    """Time passes where the sender sleeps, and where the test says so."""

    def __init__(self) -> None:
        self.now = 10**12

    def now_ns(self) -> int:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += int(seconds * 1e9)
        await SLEEP(0)


class FakeProducer:
    """Settles what it has, as one batch a partition, when it is waited for or the test says so."""

    def __init__(self, on_batch: Callable[[BatchDelivery], None], partitions: int) -> None:
        self.sent: list[tuple[bytes, int]] = []
        """Value and partition, all."""
        self.before: Callable[[int], None] = lambda _: None
        """Called before each record with the number of those before it."""
        self.error: PenstockError | None = None
        self._on_batch = on_batch
        self._open: list[tuple[int, Any]] = []
        self._partitions = partitions

    def send_nowait(
        self, topic: str, value: bytes, *, key: bytes | None, partition: int | None = None, on_delivery: Any = None
    ) -> None:
        self.before(len(self.sent))
        at = len(self.sent) % self._partitions if partition is None else partition
        self.sent.append((value, at))
        self._open.append((at, on_delivery))

    def settle(self) -> None:
        settled, self._open = self._open, []
        for partition in range(self._partitions):
            waiters = [waiter for at, waiter in settled if at == partition]
            if waiters:
                self._on_batch(
                    BatchDelivery("t", partition, 0, len(waiters), 0, 1, "commit", duplicate=False, error=self.error)
                )
                for waiter in filter(None, waiters):
                    waiter(None, self.error)

    async def wait_for_room(self) -> None:
        self.settle()
        await SLEEP(0)

    async def flush(self) -> None:
        self.settle()


class Bench:
    """A sender with its producer and clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
        self.clock, self.stop = Clock(), asyncio.Event()
        monkeypatch.setattr(send, "now_ns", self.clock.now_ns)
        monkeypatch.setattr(asyncio, "sleep", self.clock.sleep)
        self.sender = send.Sender("127.0.0.1:1", plan, self.stop)
        on_batch = self.sender._on_due_batch if plan.rate else self.sender._on_batch
        self.producer = FakeProducer(on_batch, plan.partitions)
        self.sender._producer = self.producer  # type: ignore[assignment]  # in place of one with a network


def plan(**changes: Any) -> Plan:
    return Plan(**{"topic": "t", "partitions": 3, "record_bytes": 100, "phase": Phase(1), "rate": 1000.0, **changes})


async def test_a_stall_is_charged_to_every_record_due_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, plan())

    def stall(number: int) -> None:
        bench.producer.settle()  # what was sent is acknowledged at once
        if number == 100:
            bench.clock.now += 500 * MS

    bench.producer.before = stall
    tally = await bench.sender.run(Phase(records=1000))
    assert (tally.sent, tally.done, tally.latency.count) == (1000, 1000, 1000)
    slow = sum(count for upper_us, count in tally.latency.to_json() if upper_us > 250_000)
    assert 240 <= slow <= 260  # of the 500 that were due meanwhile half waited longer than 250 ms; by sending time: 1
    assert tally.latency.max_us == pytest.approx(500_000, rel=0.01)
    assert tally.latency.percentile(45) < 5


async def test_full_memory_is_charged_too(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, plan())
    refused: list[int] = []

    def full(number: int) -> None:
        if number == 50 and not refused:
            refused.append(number)
            bench.clock.now += 200 * MS
            raise BufferFullError(Reason.OVERLOADED, "full")

    bench.producer.before = full
    tally = await bench.sender.run(Phase(records=300))
    assert (tally.sent, tally.done, refused) == (300, 300, [50])
    assert sum(count for upper_us, count in tally.latency.to_json() if upper_us > 100_000) >= 100


async def test_records_carry_their_due_times_not_those_of_sending(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, plan(run_id=RUN_ID.hex(), rate=100.0))
    began = bench.clock.now

    def stall(number: int) -> None:
        if number == 3:
            bench.clock.now += 1000 * MS

    bench.producer.before = stall
    await bench.sender.run(Phase(seconds=0.5))
    due = [due_ns_of(value, RUN_ID) for value, _ in bench.producer.sent]
    assert due == [began + number * 10 * MS for number in range(50)]
    assert {len(value) for value, _ in bench.producer.sent} == {100}


async def test_records_are_never_sent_before_they_are_due(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, plan())
    began, early = bench.clock.now, []

    def check(number: int) -> None:
        if bench.clock.now < began + number * MS:
            early.append(number)

    bench.producer.before = check
    await bench.sender.run(Phase(seconds=0.3))
    assert (len(bench.producer.sent), early) == (300, [])


@pytest.mark.parametrize("rate", [1000.0, None])
async def test_failed_records_are_counted_once_and_have_no_latency(
    rate: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(monkeypatch, plan(rate=rate))
    bench.producer.error = make_error(Reason.STORE_FULL, "full", {})
    tally = await bench.sender.run(Phase(records=120))
    assert (tally.done, tally.failures, tally.latency.count) == (0, {"STORE_FULL": 120}, 0)


async def test_records_that_never_got_into_a_batch_are_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, plan(rate=None, record_bytes=100_000))  # each is measured: its own callback is told

    def refuse(_: object) -> None:
        for _, waiter in bench.producer._open:
            waiter(None, make_error(Reason.RECORD_TOO_LARGE, "large", {}))
        bench.producer._open = []

    monkeypatch.setattr(bench.producer, "settle", lambda: refuse(None))
    tally = await bench.sender.run(Phase(records=4))
    assert (tally.sent, tally.failures) == (4, {"RECORD_TOO_LARGE": 4})


async def test_what_cannot_be_sent_at_all_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, plan(rate=None))

    def refuse(_: int) -> None:
        raise make_error(Reason.RECORD_TOO_LARGE, "large", {})

    bench.producer.before = refuse
    with pytest.raises(PenstockError, match="large"):
        await bench.sender.run(Phase(records=4))


@pytest.mark.parametrize("rate", [1000.0, None])
async def test_a_stop_ends_it_early_with_everything_settled(
    rate: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(monkeypatch, plan(rate=rate))
    bench.producer.before = lambda number: bench.stop.set() if number == 70 else None
    tally = await bench.sender.run(Phase(records=1_000_000))
    assert 70 < tally.sent < 1_000_000
    assert tally.done == tally.sent


async def test_a_phase_begins_with_nothing_of_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, plan())
    await bench.sender.run(Phase(records=100))
    bench.clock.now += 1000 * MS
    tally = await bench.sender.run(Phase(records=50))
    assert (tally.sent, tally.latency.count) == (50, 50)
    assert tally.latency.max_us < 60_000  # against the schedule of this phase, and its own order in the partitions
