"""process() while partitions come and go, on a source in memory: drains, losses, commits that fail, polling."""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest

from penstock.client import CommitFailedError, HandlerError, Record, RequestTimeoutError, Retry, TopicPartition
from penstock.client.group.listener import Drainer
from penstock.client.processing.options import Handler, ProcessConfig
from penstock.client.processing.processor import Ground, Processor
from penstock.client.records import CommitPoint
from penstock.client.seams import Seams
from penstock.protocol.reasons import Reason
from tests.client.conftest import SkippingClock, until

P0, P1 = TopicPartition("orders", 0), TopicPartition("orders", 1)


def record(offset: int, key: bytes | None = None, partition: int = 0) -> Record:
    return Record("orders", partition, offset, 1000 + offset, key or b"%d" % offset, b"v", (), 3)


class ListSource:
    """Gives out what is put into it; remembers what is committed."""

    group = "billing"
    rebalance_timeout_ms = 60_000
    max_poll_interval_ms = 60_000

    def __init__(self) -> None:
        self.records: deque[Record] = deque()
        self.news = asyncio.Event()
        self.polls = 0
        self.commits: list[dict[TopicPartition, int]] = []
        self.commit_error: Exception | None = None
        self.moves: dict[TopicPartition, int] = {}
        self.drainer: Drainer | None = None
        self.assigned: list[TopicPartition] = [P0, P1]

    def put(self, *records: Record) -> None:
        self.records.extend(records)
        self.news.set()

    async def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        self.polls += 1
        if not self.records:
            self.news.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self.news.wait()
            except TimeoutError:
                pass
        return [self.records.popleft() for _ in range(min(max_records, len(self.records)))]

    async def commit(self, points: Mapping[TopicPartition, CommitPoint]) -> None:
        await asyncio.sleep(0)
        if self.commit_error is not None:
            raise self.commit_error
        self.commits.append({partition: point.offset for partition, point in points.items()})

    def assignment(self) -> Sequence[TopicPartition]:
        return self.assigned

    def move(self, partition: TopicPartition, offset: int) -> None:
        self.moves[partition] = offset

    def pause(self, partition: TopicPartition) -> None: ...

    def resume(self, partition: TopicPartition) -> None: ...

    def drive(self, drainer: Drainer | None) -> None:
        self.drainer = drainer


class CountingClock(SkippingClock):
    """Counts how often it is looked at."""

    looks = 0

    def monotonic_ms(self) -> int:
        self.looks += 1
        return super().monotonic_ms()


class Run:
    """A process() under way."""

    def __init__(self, source: ListSource, clock: CountingClock) -> None:
        self.source = source
        self.clock = clock

        async def check(_: str) -> None: ...

        def no_producer() -> "None":
            raise AssertionError

        self.processor = Processor(source, Ground(lambda: Seams(clock=clock), no_producer, check, str.encode))  # type: ignore[arg-type]
        self.task: asyncio.Task[object]

    @asynccontextmanager
    async def running(self, handler: Handler, config: ProcessConfig | None = None) -> AsyncIterator[Drainer]:
        self.task = asyncio.create_task(self.processor.run(handler, config or ProcessConfig()))
        await until(lambda: self.source.drainer is not None)
        assert self.source.drainer is not None
        yield self.source.drainer
        self.processor.stop()
        await asyncio.wait([self.task])
        assert self.source.drainer is None


@pytest.fixture
async def run() -> Run:
    return Run(ListSource(), CountingClock())


class Gates:
    """A handler that waits until it is told to go on, record by record."""

    def __init__(self) -> None:
        self.waiting: dict[tuple[int, int], asyncio.Event] = {}
        self.begun: list[tuple[int, int]] = []
        self.cancelled: list[tuple[int, int]] = []

    async def __call__(self, record: Record) -> None:
        place = (record.partition, record.offset)
        self.begun.append(place)
        self.waiting[place] = gate = asyncio.Event()
        try:
            await gate.wait()
        except asyncio.CancelledError:
            self.cancelled.append(place)
            raise
        finally:
            del self.waiting[place]

    def open(self, *places: tuple[int, int]) -> None:
        for place in places:
            self.waiting[place].set()

    async def reach(self, *places: tuple[int, int]) -> None:
        await until(lambda: set(places) <= set(self.waiting))


async def test_a_revocation_waits_for_handlers_and_gives_what_to_commit_while_others_go_on(run: Run) -> None:
    gates = Gates()
    async with run.running(gates, ProcessConfig(concurrency=3)) as drainer:
        run.source.put(record(0), record(1), record(2), record(3, b"0"))
        await gates.reach((0, 0), (0, 1), (0, 2))
        gates.open((0, 1))
        drained = asyncio.create_task(drainer.drain((P0,)))
        await asyncio.sleep(0)
        gates.open((0, 0))
        run.source.put(record(0, partition=1), record(1, partition=1))
        await gates.reach((1, 0), (1, 1))  # the other partition is not interrupted
        assert not drained.done()
        gates.open((0, 2))
        assert await drained == {P0: CommitPoint(3, 3)}
        assert (0, 3) not in gates.begun  # it comes again elsewhere
        gates.open((1, 0), (1, 1))
    assert run.task.done()
    assert P0 not in run.source.moves


async def test_what_waits_is_given_up_when_half_the_time_is_over(run: Run) -> None:
    run.source.rebalance_timeout_ms = 20
    gates = Gates()
    async with run.running(gates, ProcessConfig(concurrency=2)) as drainer:
        run.source.put(record(0, b"a"), record(1, b"a"), record(2, b"b"))
        await gates.reach((0, 0), (0, 2))
        drained = asyncio.create_task(drainer.drain((P0,)))
        gates.open((0, 2))
        await until(lambda: run.processor._run is not None and run.processor._run._core._progress[P0].is_cut)
        gates.open((0, 0))
        assert await drained == {P0: CommitPoint(1, 3)}
        assert (0, 1) not in gates.begun


async def test_a_lost_partitions_handlers_are_cancelled_and_nothing_of_it_is_committed(run: Run) -> None:
    gates = Gates()
    async with run.running(gates, ProcessConfig(concurrency=3, commit_interval_ms=1)) as drainer:
        run.source.put(record(0), record(1), record(0, partition=1))
        await gates.reach((0, 0), (0, 1), (1, 0))
        drainer.lost((P0,))
        await until(lambda: len(gates.cancelled) == 2)
        gates.open((1, 0))
        await until(lambda: run.source.commits == [{P1: 1}])
        assert run.processor.statistics.lost == 2
        run.source.put(record(0), record(1))  # it came back, to the same three workers
        await gates.reach((0, 0), (0, 1))
        gates.open((0, 0), (0, 1))
        await until(lambda: run.source.commits[-1] == {P0: 2})
    assert [P0 in commit for commit in run.source.commits[:-1]].count(True) <= 1


async def test_a_plain_handler_of_a_lost_partition_ends_by_itself_and_its_failure_is_nobodys(run: Run) -> None:
    entered, leave = threading.Event(), threading.Event()

    def handle(record: Record) -> None:
        entered.set()
        leave.wait(60)
        raise ValueError("too late")

    async with run.running(handle) as drainer:
        run.source.put(record(0))
        await until(entered.is_set)
        drainer.lost((P0,))
        leave.set()
        await until(lambda: run.processor.statistics.running == 0)
    assert run.task.exception() is None
    assert run.source.commits == []


async def test_a_failed_commit_is_tried_again_and_is_an_error_only_at_the_end(run: Run) -> None:
    async def handle(record: Record) -> None: ...

    run.source.commit_error = RequestTimeoutError(Reason.NOT_SERVING, "no coordinator")
    async with run.running(handle, ProcessConfig(commit_interval_ms=1)):
        run.source.put(record(0))
        await until(lambda: run.processor.statistics.processed == 1)
        run.source.commit_error = None
        await until(lambda: run.source.commits == [{P0: 1}])
        run.source.commit_error = RequestTimeoutError(Reason.NOT_SERVING, "no coordinator")
        run.source.put(record(1))
        await until(lambda: run.processor.statistics.processed == 2)
    with pytest.raises(RequestTimeoutError, match="no coordinator"):
        run.task.result()
    assert run.source.moves[P0] == 2


async def test_a_commit_for_what_was_lost_is_no_error_of_process(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def handle(record: Record) -> None: ...

    run.source.commit_error = CommitFailedError(Reason.PARTITION_NOT_OWNED, "orders-0 is another's")
    async with run.running(handle):
        run.source.put(record(0))
        await until(lambda: run.processor.statistics.processed == 1)
    assert run.task.exception() is None
    assert "orders-0 is another's" in caplog.text


async def test_a_commit_that_fails_does_not_hide_the_handlers_error(run: Run) -> None:
    async def handle(record: Record) -> None:
        if record.offset == 1:
            raise ValueError("no")

    run.source.commit_error = RequestTimeoutError(Reason.NOT_SERVING, "no coordinator")
    async with run.running(handle, ProcessConfig(concurrency=1)):
        run.source.put(record(0), record(1))
        await asyncio.wait([run.task])
    with pytest.raises(HandlerError) as raised:
        run.task.result()
    assert "no coordinator" in raised.value.__notes__[0]
    assert run.source.moves[P0] == 1


async def test_cancelled_twice_it_does_not_wait_and_nothing_undone_counts_as_given_out(run: Run) -> None:
    leave = threading.Event()
    entered = threading.Event()

    def handle(record: Record) -> None:
        entered.set()
        leave.wait(60)

    async with run.running(handle):
        run.source.put(record(4))
        await until(entered.is_set)
        run.task.cancel()
        await asyncio.sleep(0.01)
        assert not run.task.done()
        run.task.cancel()
        await asyncio.wait([run.task])
        assert run.task.cancelled()
    leave.set()
    assert run.source.moves == {P0: 4}


async def test_polling_goes_on_with_a_full_window_and_ends_where_a_handler_takes_too_long(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.client.processing.run.TICK_S", 0.001)
    gates = Gates()
    async with run.running(gates, ProcessConfig(max_in_flight=1)):
        run.source.put(record(0))
        await gates.reach((0, 0))
        polls = run.source.polls
        await until(lambda: run.source.polls >= polls + 2)
        run.clock.skip(run.source.max_poll_interval_ms // 2 + 1)
        looks = run.clock.looks
        await until(lambda: run.clock.looks >= looks + 10)
        polls = run.source.polls
        await until(lambda: run.clock.looks >= looks + 50)
        assert run.source.polls == polls
        gates.open((0, 0))
        await until(lambda: run.source.polls > polls + 1)


async def test_a_retry_waits_its_time_while_all_workers_idle(run: Run) -> None:
    times: list[int] = []

    async def handle(record: Record) -> None:
        times.append(run.clock.monotonic_ms())
        if len(times) < 3:
            raise ValueError("not yet")

    config = ProcessConfig(on_failure=Retry(3, backoff_ms=40, max_backoff_ms=40))
    async with run.running(handle, config):
        run.source.put(record(0))
        await until(lambda: run.processor.statistics.processed == 1)
    assert all(later - earlier >= 19 for earlier, later in pairwise(times))


async def test_a_worker_whose_handler_was_cancelled_is_as_before(run: Run) -> None:
    gates = Gates()

    async def handle(record: Record) -> None:
        if record.partition == 1:
            raise asyncio.CancelledError  # of its own making
        await gates(record)

    async with run.running(handle, ProcessConfig(concurrency=1)) as drainer:
        run.source.put(record(0))
        await gates.reach((0, 0))
        drainer.lost((P0,))
        run.source.put(record(0, partition=1))
        await asyncio.wait([run.task])
    with pytest.raises(HandlerError, match="CancelledError"):
        run.task.result()


async def test_handlers_that_wait_for_nothing_leave_the_loop_to_others(run: Run) -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def handle(record: Record) -> None:
        run.clock.skip(5)

    task = asyncio.create_task(others())
    async with run.running(handle, ProcessConfig(concurrency=1)):
        before = turns
        run.source.put(*(record(offset) for offset in range(400)))
        await until(lambda: run.processor.statistics.processed == 400)
        assert turns - before >= 190
    task.cancel()
