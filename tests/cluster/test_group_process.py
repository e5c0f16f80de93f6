"""process() in groups on real nodes: commits, rebalances while handlers run, crashes, dead letters, deduplication."""

import asyncio
import itertools
import re
from collections import Counter
from pathlib import Path

import pytest

from penstock.client import (
    Admin,
    Consumer,
    DeadLetter,
    Deduplicator,
    HandlerError,
    InvalidRequestError,
    Producer,
    RebalanceListener,
    Record,
    Retry,
    TopicPartition,
    blocking,
)
from penstock.client.devcluster import DevCluster
from penstock.client.processing.letters import PREFIX
from tests.client.conftest import until

_names = itertools.count()
GUIDE = Path(__file__).parents[2] / "docs" / "delivery.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def boot(calm_cluster: DevCluster) -> str:
    return calm_cluster.bootstrap


async def topic(boot: str, partitions: int = 1, records: int = 0) -> str:
    """Make a topic with so many records in each partition, of five keys."""
    name = f"processed-{next(_names)}"
    async with Admin(boot) as admin:
        await admin.create_topic(name, partitions=partitions)
    await fill(boot, name, partitions, records)
    return name


async def fill(boot: str, name: str, partitions: int, records: int) -> None:
    async with Producer(boot) as producer:
        for number in range(records):
            for partition in range(partitions):
                await producer.send(name, b"%d" % number, key=b"%d" % (number % 5), partition=partition)


def new_group() -> str:
    return f"processors-{next(_names)}"


async def committed(boot: str, group: str, name: str, partitions: int = 1) -> list[int | None]:
    async with Consumer(boot, group=group, topics=name) as consumer:
        found = await consumer.committed([TopicPartition(name, index) for index in range(partitions)])
    return [None if point is None else point.offset for point in found.values()]


async def test_what_was_processed_is_committed_and_the_next_begins_there(boot: str) -> None:
    name, group = await topic(boot, 2, records=50), new_group()
    seen: list[tuple[int, int]] = []

    async def run(count: int) -> None:
        async with Consumer(boot, group=group, topics=name) as consumer:

            async def handle(record: Record) -> None:
                await asyncio.sleep(0)
                seen.append((record.partition, record.offset))
                if len(seen) >= count:
                    consumer.stop()

            await consumer.process(handle, concurrency=4)

    await run(30)
    first = len(seen)
    await run(100)
    assert first < 100
    assert Counter(seen) == dict.fromkeys(itertools.product(range(2), range(50)), 1)
    assert await committed(boot, group, name, 2) == [50, 50]


async def test_auto_commit_does_not_commit_what_process_left_undone(boot: str) -> None:
    name, group = await topic(boot, 1, records=10), new_group()
    async with Consumer(boot, group=group, topics=name, auto_commit_interval_ms=10) as consumer:

        async def handle(record: Record) -> None:
            with pytest.raises(InvalidRequestError, match="what is not done"):
                await consumer.commit()
            if record.offset == 4:
                raise ValueError("stop here")

        with pytest.raises(HandlerError, match="offset 4"):
            await consumer.process(handle, concurrency=1)
        assert consumer.position(TopicPartition(name, 0)) == 4
    assert await committed(boot, group, name) == [4]


async def test_nobody_goes_on_iterating_meanwhile(boot: str) -> None:
    """What he took would lie below what process() commits."""
    name, group = await topic(boot, 1, records=3), new_group()
    entered, leave = asyncio.Event(), asyncio.Event()
    async with Consumer(boot, group=group, topics=name) as consumer:
        assert (await anext(consumer)).offset == 0

        async def handle(record: Record) -> None:
            entered.set()
            await leave.wait()
            if record.offset == 2:
                consumer.stop()

        task = asyncio.create_task(consumer.process(handle, max_in_flight=1))
        await entered.wait()
        with pytest.raises(InvalidRequestError, match=r"process\(\) is running"):
            await anext(consumer)
        leave.set()
        assert (await task).processed == 2
    assert await committed(boot, group, name) == [3]


class Moves(RebalanceListener):
    def __init__(self) -> None:
        self.revoked: list[TopicPartition] = []

    async def on_revoked(self, partitions: tuple[TopicPartition, ...]) -> None:
        self.revoked += partitions


async def test_a_rebalance_waits_for_the_handlers_in_flight_and_repeats_none(boot: str) -> None:
    name, group = await topic(boot, 4, records=5), new_group()
    moves = Moves()
    done: list[tuple[int, int]] = []
    running: set[tuple[int, int]] = set()
    gate = asyncio.Event()

    async def handle(record: Record) -> None:
        place = (record.partition, record.offset)
        assert place not in running
        running.add(place)
        await gate.wait()
        running.remove(place)
        done.append(place)

    async with Consumer(boot, group=group, topics=name, listener=moves) as first:
        one = asyncio.create_task(first.process(handle, concurrency=20))
        await until(lambda: len(running) == 20)
        async with Consumer(boot, group=group, topics=name) as second:
            other = asyncio.create_task(second.process(handle, concurrency=20))
            await until(lambda: len(first.assignment()) == 2)  # two are revoked, and not released yet
            assert second.assignment() == ()
            assert moves.revoked == []
            gate.set()
            await until(lambda: len(second.assignment()) == 2)
            assert set(moves.revoked) == set(second.assignment())
            assert sorted(done) == sorted(itertools.product(range(4), range(5)))
            await fill(boot, name, 4, 5)
            await until(lambda: len(done) == 40)
            for consumer in (first, second):
                consumer.stop()
            counts = await asyncio.gather(one, other)
    assert Counter(done) == dict.fromkeys(itertools.product(range(4), range(10)), 1)
    assert [statistics.processed for statistics in counts] == [30, 10]
    assert await committed(boot, group, name, 4) == [10, 10, 10, 10]


async def test_who_is_fenced_has_its_handlers_cancelled_and_commits_nothing(boot: str) -> None:
    name, group = await topic(boot, 1, records=1), new_group()
    taken = asyncio.Event()
    cancelled = asyncio.Event()

    async def hang(record: Record) -> None:
        taken.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    options = {"session_timeout_ms": 1_000}
    async with Consumer(boot, group=group, topics=name, **options) as zombie:  # type: ignore[arg-type]  # of one kind
        task = asyncio.create_task(zombie.process(hang))
        await taken.wait()
        await silence(zombie)
        await cancelled.wait()
        async with Consumer(boot, group=group, topics=name) as heir:

            async def handle(record: Record) -> None:
                heir.stop()

            assert (await heir.process(handle)).processed == 1
        assert zombie.statistics().lost == 1
        task.cancel()
        await asyncio.wait([task])
    assert await committed(boot, group, name) == [1]


async def silence(consumer: Consumer) -> None:
    """Nothing of the membership is sent any more, as where the process stands still."""
    group = consumer._group
    assert group is not None
    group._tasks[0].cancel()
    if group._watchdog is not None:
        group._watchdog.close()


async def test_a_dead_letter_and_its_record_behind_a_retry(boot: str) -> None:
    name, dead, group = await topic(boot, 1, records=5), await topic(boot), new_group()
    seen: list[int] = []
    async with Consumer(boot, group=group, topics=name) as consumer:

        async def handle(record: Record) -> None:
            seen.append(record.offset)
            if record.offset == 2:
                raise ValueError("never")
            if len(set(seen)) == 5:
                consumer.stop()

        statistics = await consumer.process(
            handle, concurrency=1, on_failure=Retry(2, backoff_ms=1, then=DeadLetter(dead))
        )
        assert (statistics.processed, statistics.dead_lettered, statistics.failed) == (4, 1, 2)
    async with Consumer(boot) as reader:
        await reader.assign_topics(dead, start="earliest")
        letter = await anext(aiter(reader))
        headers = dict(letter.headers)
        assert (letter.key, letter.value) == (b"2", b"2")
        assert headers[PREFIX + "group"] == group.encode()
        assert headers[PREFIX + "topic"] == name.encode()
        assert (headers[PREFIX + "offset"], headers[PREFIX + "attempts"]) == (b"2", b"2")
    assert await committed(boot, group, name) == [5]


async def test_deduplicated_effects_are_once_over_a_crash(boot: str, tmp_path: Path) -> None:
    """The first member ends without committing what it did last; the second is given it again."""
    name, group = await topic(boot, 1, records=20), new_group()
    with Deduplicator(tmp_path / "done.db") as done:
        effects: list[int] = []

        async def handle(record: Record) -> None:
            effects.append(record.offset)

        once = done.wrap(handle)
        async with Consumer(boot, group=group, topics=name, auto_commit=False) as crashed:
            task = asyncio.create_task(crashed.process(once, commit_interval_ms=1 << 30))
            await until(lambda: len(effects) == 20)
            assert crashed.processor._run is not None
            core = crashed.processor._run._core
            core.committed(core.to_commit())  # that is what keeps the end from committing
            task.cancel()
            await asyncio.wait([task])
        assert await committed(boot, group, name) == [None]
        async with Consumer(boot, group=group, topics=name) as heir:
            task = asyncio.create_task(heir.process(once))
            await until(lambda: heir.statistics().processed == 20)
            heir.stop()
            await task
        assert Counter(effects) == dict.fromkeys(range(20), 1)
        assert done.duplicates == 20
    assert await committed(boot, group, name) == [20]


def test_the_blocking_face_in_a_group_with_a_listener_that_commits(boot: str) -> None:
    name = asyncio.run(topic(boot, 2, records=20))
    group = new_group()
    heard: list[str] = []
    seen: list[int] = []
    consumer = blocking.Consumer(boot, group=group, topics=name)

    class Listener(RebalanceListener):
        def on_assigned(self, partitions: tuple[TopicPartition, ...]) -> None:
            heard.append(f"assigned {len(partitions)}")
            assert consumer.committed(partitions) == dict.fromkeys(partitions)  # it may wait for its consumer

    with consumer:
        consumer.subscribe(name, listener=Listener())

        def handle(record: Record) -> None:
            seen.append(record.offset)
            if len(seen) == 40:
                consumer.stop()

        statistics = consumer.process(handle)
    assert statistics.processed == 40
    assert heard == ["assigned 2"]
    assert asyncio.run(committed(boot, group, name, 2)) == [20, 20]


@pytest.fixture(scope="module")
def orders(boot: str) -> str:
    """The topic of the guide: two partitions with a hundred records."""

    async def make() -> None:
        async with Admin(boot) as admin:
            await admin.create_topic("orders", partitions=2)
        async with Producer(boot) as producer:
            for number in range(100):
                await producer.send("orders", b"%d" % number, key=b"%d" % (number % 9))

    asyncio.run(make())
    return boot


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_of_the_guide_runs(number: int, orders: str, tmp_path: Path) -> None:
    names: dict[str, object] = {"BOOTSTRAP": orders, "DIRECTORY": str(tmp_path)}
    exec(compile(EXAMPLES[number], f"{GUIDE.name} example {number}", "exec"), names)
    main = names["main"]
    assert callable(main)
    result = main()
    if asyncio.iscoroutine(result):
        asyncio.run(result)
    (group,) = re.findall(r'group="([a-z-]+)"', EXAMPLES[number])
    assert sum(offset or 0 for offset in asyncio.run(committed(orders, group, "orders", 2))) == 100


class OneByOne(RebalanceListener):
    """Takes its time, and notes what it is told and whether two things were told at once."""

    def __init__(self) -> None:
        self.events: list[tuple[str, set[int]]] = []
        self.at_once = 0
        self.gate = asyncio.Event()
        self._inside = False

    async def on_assigned(self, partitions: tuple[TopicPartition, ...]) -> None:
        await self._note("assigned", partitions)

    async def on_revoked(self, partitions: tuple[TopicPartition, ...]) -> None:
        await self._note("revoked", partitions)

    async def _note(self, what: str, partitions: tuple[TopicPartition, ...]) -> None:
        self.at_once += self._inside
        self._inside = True
        self.events.append((what, {partition for _, partition in partitions}))
        await self.gate.wait()
        self._inside = False


async def test_process_tells_the_listener_one_thing_after_another(boot: str) -> None:
    name, group = await topic(boot, 4, records=1), new_group()
    one = OneByOne()
    async with Consumer(boot, group=group, topics=name, listener=one) as first:
        working = asyncio.create_task(first.process(lambda _: None))
        await until(lambda: bool(one.events))
        async with Consumer(boot, group=group, topics=name) as second:
            while len(first.assignment()) > 2:
                await second.poll(timeout=0.05)
            one.gate.set()
            while len(second.assignment()) < 2:
                await second.poll(timeout=0.05)
            await until(lambda: len(one.events) == 2)
            kept = {partition for _, partition in first.assignment()}
            assert one.events == [("assigned", set(range(4))), ("revoked", set(range(4)) - kept)]
            assert not one.at_once
            first.stop()
            await working
