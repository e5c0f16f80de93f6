"""Consumers in groups on real nodes: sharing, rebalances that interrupt nobody else, commits, fencing, coordinators."""

import asyncio
import itertools
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from penstock.client import (
    Admin,
    CommitFailedError,
    CommitPoint,
    CommittedOffset,
    Consumer,
    InvalidRequestError,
    Producer,
    RebalanceListener,
    Record,
    TopicPartition,
    UnknownTopicError,
    blocking,
)
from penstock.client.devcluster import DevCluster
from penstock.client.errors import make_error
from penstock.client.seams import Seams
from penstock.protocol.reasons import Reason
from tests.client.conftest import until as happens
from tests.client.test_docs import IN_GROUPS

_names = itertools.count()
SHORT_MS = 1_000
"""A session timeout for tests that let it run out."""


@pytest.fixture(scope="module")
def boot(calm_cluster: DevCluster) -> str:
    return calm_cluster.bootstrap


async def topic(boot: str, partitions: int = 2, records: int = 0, name: str | None = None) -> str:
    made = name or f"topic-{next(_names)}"
    async with Admin(boot) as admin:
        await admin.create_topic(made, partitions=partitions)
    await produce(boot, made, partitions, records)
    return made


async def produce(boot: str, name: str, partitions: int, records: int) -> None:
    """Put `records` into each partition, numbered."""
    async with Producer(boot) as producer:
        for number in range(records):
            for partition in range(partitions):
                await producer.send(name, b"%d" % number, partition=partition)
        await producer.flush()


async def committed(consumer: Consumer, place: TopicPartition) -> CommittedOffset:
    found = (await consumer.committed([place]))[place]
    assert found is not None
    return found


def new_group() -> str:
    return f"group-{next(_names)}"


async def read(consumer: Consumer, count: int) -> list[Record]:
    out: list[Record] = []
    while len(out) < count:
        out += await consumer.poll(count - len(out))
    return out


async def until(holds: Callable[[], bool], *consumers: Consumer) -> None:
    """Poll until something holds; records that come are dropped."""
    while not holds():
        await asyncio.gather(*(consumer.poll(timeout=0.05) for consumer in consumers))


class Heard(RebalanceListener):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, set[int]]] = []
        self.threads: set[int] = set()

    def on_assigned(self, partitions: tuple[TopicPartition, ...]) -> None:
        self._note("assigned", partitions)

    def on_revoked(self, partitions: tuple[TopicPartition, ...]) -> None:
        self._note("revoked", partitions)

    def on_lost(self, partitions: tuple[TopicPartition, ...]) -> None:
        self._note("lost", partitions)

    @property
    def held(self) -> set[int]:
        """What it has, by what it was told."""
        held: set[int] = set()
        for what, partitions in self.events:
            held = held | partitions if what == "assigned" else held - partitions
        return held

    def _note(self, what: str, partitions: tuple[TopicPartition, ...]) -> None:
        self.events.append((what, {partition for _, partition in partitions}))
        self.threads.add(threading.get_ident())


async def test_members_share_and_what_stays_is_not_interrupted(boot: str) -> None:
    name, group = await topic(boot, 4, records=5), new_group()
    heard = Heard()
    async with Consumer(boot, group=group, topics=name, listener=heard) as first:
        assert len(await read(first, 20)) == 20
        assert first.group_member is not None
        generation = first.group_member.generation
        cursors = dict(first._fetcher.cursors)
        async with Consumer(boot, group=group, topics=name) as second:
            await until(lambda: len(second.assignment()) == 2, first, second)
            stayed = first.assignment()
            assert len(stayed) == 2
            assert set(stayed) | set(second.assignment()) == {TopicPartition(name, p) for p in range(4)}
            assert all(first._fetcher.cursors[partition] is cursors[partition] for partition in stayed)
            assert first.group_member.generation == generation + 1
            await produce(boot, name, 4, records=1)
            both = await asyncio.gather(read(first, 2), read(second, 2))
            assert {record.offset for records in both for record in records} == {5}
        await until(lambda: len(heard.events) == 3, first)
        moved = {p for _, p in cursors} - {p for _, p in stayed}
        assert heard.events == [("assigned", {0, 1, 2, 3}), ("revoked", moved), ("assigned", moved)]
    assert heard.events[-1] == ("revoked", {0, 1, 2, 3})


async def test_auto_commit_is_of_what_was_asked_past_and_of_nothing_else(boot: str) -> None:
    name, group = await topic(boot, 1, records=10), new_group()
    place = TopicPartition(name, 0)
    async with Consumer(boot, group=group, topics=name) as consumer:
        assert len(await read(consumer, 10)) == 10
    async with Consumer(boot, group=group, topics=name) as consumer:
        assert (await consumer.committed([place])) == {place: None}
        assert [record.offset for record in await read(consumer, 4)] == [0, 1, 2, 3]
        assert [record.offset for record in await read(consumer, 3)] == [4, 5, 6]
    async with Consumer(boot, group=group, topics=name, auto_commit_interval_ms=20) as consumer:
        async for record in consumer:
            if record.offset == 7:
                break
        assert 4 <= (await committed(consumer, place)).offset <= 7
    async with Consumer(boot, group=group, topics=name) as consumer:
        assert (await read(consumer, 1))[0].offset == 7


async def test_commits_of_ones_own_in_order_and_of_given_offsets(boot: str) -> None:
    name, group = await topic(boot, 2, records=10), new_group()
    p0, p1 = TopicPartition(name, 0), TopicPartition(name, 1)
    async with Consumer(boot, group=group, topics=name, auto_commit=False) as consumer:
        await read(consumer, 20)
        await consumer.commit()
        assert [(await committed(consumer, place)).offset for place in (p0, p1)] == [10, 10]
        await consumer.commit({p0: CommitPoint(3, metadata="by hand")})
        done: list[tuple[int, Exception | None]] = []
        for offset in range(20):
            consumer.commit_soon({p1: offset % 11}, lambda points, error: done.append((points[p1].offset, error)))
        await consumer.commit({p1: 4})
        assert done == [(offset % 11, None) for offset in range(20)]
        assert (await committed(consumer, p0))[:3] == (3, None, "by hand")
        assert (await committed(consumer, p1)).offset == 4
        with pytest.raises(CommitFailedError, match="does not have it"):
            await consumer.commit({TopicPartition(name, 7): 1, p0: 5})
        assert (await committed(consumer, p0)).offset == 5
    async with Consumer(boot, group=group, topics=name) as consumer:
        assert {(record.partition, record.offset) for record in await read(consumer, 11)} >= {(0, 5), (1, 4)}


async def test_a_revocation_lets_what_is_in_hand_finish_and_be_committed(boot: str) -> None:
    name, group = await topic(boot, 2, records=10), new_group()
    async with Consumer(boot, group=group, topics=name) as first:
        in_hand = await read(first, 20)
        async with Consumer(boot, group=group, topics=name) as second:
            await until(lambda: len(first.assignment()) == 1, second)  # the first one does not ask: it works
            assert second.assignment() == ()
            await produce(boot, name, 2, records=1)
            assert len(in_hand) == 20
            await first.poll(timeout=0)
            (record,) = await read(second, 1)
            assert record.offset == 10  # nothing is repeated


async def test_offsets_committed_when_a_partition_is_revoked_are_where_the_next_owner_begins(boot: str) -> None:
    name, group = await topic(boot, 2, records=10), new_group()

    class Commits(RebalanceListener):
        async def on_revoked(self, partitions: tuple[TopicPartition, ...]) -> None:
            await first.commit(dict.fromkeys(partitions, 6))

    first = Consumer(boot, group=group, topics=name, auto_commit=False, listener=Commits())
    async with first:
        await read(first, 20)
        async with Consumer(boot, group=group, topics=name) as second:
            records: list[Record] = []
            while not records:
                _, records = await asyncio.gather(first.poll(timeout=0.05), second.poll(timeout=0.05))
            assert records[0].offset == 6


async def test_heartbeats_go_on_while_a_handler_blocks_the_loop(boot: str) -> None:
    name, group = await topic(boot, 1, records=3), new_group()
    async with Consumer(boot, group=group, topics=name, session_timeout_ms=SHORT_MS) as consumer:
        await read(consumer, 1)
        before = consumer.group_member
        time.sleep(2.5 * SHORT_MS / 1000)  # noqa: ASYNC251 - the mistake that must not cost the partitions
        assert (await read(consumer, 1))[0].offset == 1
        await consumer.commit()
        assert consumer.group_member == before


async def test_a_member_that_was_frozen_knows_that_it_has_nothing_and_is_told(boot: str) -> None:
    name, group = await topic(boot, 1, records=20), new_group()
    heard = Heard()
    frozen = Consumer(boot, group=group, topics=name, session_timeout_ms=SHORT_MS, listener=heard)
    frozen._seams = Seams(watchdog=None)
    thawed = threading.Event()
    async with frozen:
        await read(frozen, 1)
        thread = threading.Thread(target=_take_over, args=(boot, group, name, thawed))
        thread.start()
        thawed.wait()  # the loop stands still until another member reads
        with pytest.raises(CommitFailedError, match="session_timeout"):
            await frozen.commit({TopicPartition(name, 0): 1})
        records = await frozen.poll(timeout=0.2)
        assert ("lost", {0}) in heard.events
        assert [record.offset for record in records[:1]] in ([], [5])
        await asyncio.to_thread(thread.join)
        await until(lambda: len(frozen.assignment()) == 1, frozen)


def _take_over(boot: str, group: str, name: str, done: threading.Event) -> None:
    with blocking.Consumer(boot, group=group, topics=name) as consumer:
        while not consumer.poll(5):
            pass
        consumer.commit()
        done.set()


async def test_the_death_of_the_coordinator_costs_no_rebalance(boot: str, calm_cluster: DevCluster) -> None:
    name, group = await topic(boot, 2, records=1), new_group()
    heard = Heard()
    async with Consumer(boot, group=group, topics=name, listener=heard) as consumer:
        await read(consumer, 2)
        member = consumer.group_member
        assert consumer._group is not None
        port = int(str(consumer._group._coordinator.known).rpartition(":")[2])
        (node_id,) = [node for node in calm_cluster.node_ids if port in _ports(calm_cluster, node)]
        calm_cluster.kill(node_id)
        try:
            await consumer.commit({TopicPartition(name, 0): 1})
            await until(lambda: consumer.group_member == member, consumer)
            await produce(boot, name, 2, records=1)
            assert {record.offset for record in await read(consumer, 2)} == {1}
            await consumer.commit()
        finally:
            calm_cluster.start()
            await asyncio.to_thread(calm_cluster.wait_serving)
        assert heard.events == [("assigned", {0, 1})]
        assert consumer.group_member == member


def _ports(cluster: DevCluster, node_id: int) -> list[int]:
    return [node.client_port for node in cluster.plan.nodes if node.node_id == node_id]


async def test_a_static_member_that_comes_back_has_its_partitions_and_nobody_notices(boot: str) -> None:
    name, group = await topic(boot, 4, records=1), new_group()
    heard = Heard()
    async with Consumer(boot, group=group, topics=name, listener=heard) as other:
        async with Consumer(boot, group=group, topics=name, instance_id="i") as static:
            await until(lambda: len(static.assignment()) == len(heard.held) == 2, other, static)
            had = set(static.assignment())
            seen = list(heard.events)
            async with Consumer(boot, group=group, topics=name, instance_id="i") as twin:
                assert await twin.poll(timeout=0.3) == []
                assert twin.assignment() == ()
        async with Consumer(boot, group=group, topics=name, instance_id="i") as static:
            await until(lambda: len(static.assignment()) == 2, other, static)
            assert set(static.assignment()) == had
        assert heard.events == seen


async def test_subscribing_to_a_missing_topic_is_told(boot: str) -> None:
    missing = f"topic-{next(_names)}"
    async with Consumer(boot, group=new_group(), topics=missing) as consumer:
        with pytest.raises(UnknownTopicError, match=missing):
            await until(lambda: False, consumer)
        await topic(boot, 1, records=1, name=missing)
        assert len(await read(consumer, 1)) == 1


async def test_topics_of_a_pattern_and_added_partitions_are_picked_up_from_their_beginning(boot: str) -> None:
    stem = f"of-pattern-{next(_names)}"
    await topic(boot, 1, records=1, name=f"{stem}-a")
    async with Consumer(boot, group=new_group(), pattern=f"{stem}-.*", start="latest") as consumer:
        await until(lambda: len(consumer.assignment()) == 1, consumer)
        await produce(boot, f"{stem}-a", 1, records=1)
        assert [(record.partition, record.offset) for record in await read(consumer, 1)] == [(0, 1)]
        await topic(boot, 1, records=2, name=f"{stem}-b")
        assert {(record.topic, record.offset) for record in await read(consumer, 2)} == {
            (f"{stem}-b", 0),
            (f"{stem}-b", 1),
        }
        async with Admin(boot) as admin:
            await admin.add_partitions(f"{stem}-a", 2)
        async with Producer(boot) as producer:
            await (await producer.send(f"{stem}-a", b"0", partition=1))
        assert [(record.partition, record.offset) for record in await read(consumer, 1)] == [(1, 0)]


async def test_latest_is_committed_at_once_and_error_asks_for_a_seek(boot: str) -> None:
    name, group = await topic(boot, 1, records=5), new_group()
    place = TopicPartition(name, 0)
    async with Consumer(boot, group=group, topics=name, start="latest", auto_commit=False) as consumer:
        await until(lambda: len(consumer.assignment()) == 1, consumer)
    await produce(boot, name, 1, records=1)
    async with Consumer(boot, group=group, topics=name, start="latest") as consumer:
        assert (await read(consumer, 1))[0].offset == 5
    async with Consumer(boot, group=new_group(), topics=name, start="error") as consumer:
        with pytest.raises(InvalidRequestError, match="no committed offset"):
            await until(lambda: False, consumer)
        await consumer.seek(place, 2)
        assert (await read(consumer, 1))[0].offset == 2


async def test_pause_and_seek_outlast_a_rebalance(boot: str) -> None:
    name, group = await topic(boot, 2, records=5), new_group()
    async with Consumer(boot, group=group, topics=name) as consumer:
        await read(consumer, 10)
        for partition in consumer.assignment():
            consumer.pause(partition)
            await consumer.seek(partition, 3)
        async with Consumer(boot, group=group, topics=name) as other:
            await until(lambda: len(other.assignment()) == 1, consumer, other)
            (stayed,) = consumer.assignment()
            assert consumer.paused() == (stayed,)
            assert consumer.position(stayed) == 3
            consumer.resume(stayed)
            assert (await read(consumer, 1))[0].offset == 3


async def test_what_cannot_be_done_in_a_group_or_without_one_is_told(boot: str) -> None:
    with pytest.raises(InvalidRequestError, match="group"):
        Consumer(boot, group="")
    with pytest.raises(InvalidRequestError, match="in a group only"):
        Consumer(boot, topics="a")
    async with Consumer(boot, group=new_group()) as consumer:
        with pytest.raises(InvalidRequestError, match="nothing is subscribed"):
            await consumer.poll()
        with pytest.raises(InvalidRequestError, match="subscribe"):
            await consumer.assign([TopicPartition("a", 0)])
        with pytest.raises(InvalidRequestError, match="neither"):
            await consumer.subscribe()
    async with Consumer(boot) as consumer:
        with pytest.raises(InvalidRequestError, match="no group"):
            await consumer.commit()


async def test_subscribing_anew_changes_what_is_read(boot: str) -> None:
    one, two = await topic(boot, 1, records=1), await topic(boot, 1, records=1)
    async with Consumer(boot, group=new_group(), topics=one) as consumer:
        assert (await read(consumer, 1))[0].topic == one
        await consumer.subscribe(two)
        assert (await read(consumer, 1))[0].topic == two
        assert consumer.assignment() == (TopicPartition(two, 0),)


class Blocked:
    """A blocking consumer in a thread of its own, stopped from here."""

    def __init__(self, boot: str, **options: Any) -> None:
        self.records: list[Record] = []
        self.heard = Heard()
        self._consumer = blocking.Consumer(boot, listener=self.heard, **options)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with self._consumer:
            while not self._stop.is_set():
                self.records += self._consumer.poll(timeout=0.05)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def test_the_blocking_face_shares_and_hands_over_record_by_record(boot: str) -> None:
    """What was taken ahead of a revoked partition is not handed out, and nothing is repeated."""
    name, group = asyncio.run(topic(boot, 2, records=20)), new_group()
    handled: list[Record] = []
    heard = Heard()
    with blocking.Consumer(boot, group=group, topics=name, listener=heard) as consumer:
        for record in consumer:
            handled.append(record)
            if len(handled) == 5:
                break
        assert consumer._group is not None
        assert consumer._inner._group is not None
        ahead = {TopicPartition(*record[:2]) for record in consumer._group._lookahead}
        assert ahead
        assert all(consumer._inner._group.positions.is_in_hand(place) for place in ahead)
        other = Blocked(boot, group=group, topics=name)
        while (member := consumer.group_member) is None or member.generation < 2:
            pass
        for record in consumer:
            handled.append(record)
            if heard.events[-1][0] == "revoked":
                break
        by_then = len(handled)
        while len(handled) + len(other.records) < 40:
            handled += consumer.poll(timeout=0.05)
        other.stop()
    every = sorted((record.partition, record.offset) for record in handled + other.records)
    assert every == [(partition, offset) for partition in range(2) for offset in range(20)]
    assert by_then == 6
    assert [what for what, _ in heard.events[:2]] == ["assigned", "revoked"]
    assert heard.threads == {threading.get_ident()}
    assert threading.get_ident() not in other.heard.threads
    assert len(other.heard.threads) == 1


def test_the_blocking_face_gives_out_nothing_of_what_was_lost(boot: str) -> None:
    name = asyncio.run(topic(boot, 1, records=20))
    with blocking.Consumer(boot, group=new_group(), topics=name) as consumer:
        records = iter(consumer)
        assert next(records).offset == 0
        assert next(records).offset == 1
        assert consumer._group is not None
        assert consumer._group._lookahead
        consumer._run(_lose(consumer._inner))
        assert next(records).offset == 0  # of the next membership: nothing was committed


async def _lose(consumer: Consumer) -> None:
    assert consumer._group is not None
    core = consumer._group._core
    core._lose_all(make_error(Reason.UNKNOWN_MEMBER, "it is a test"))
    core.wants_new_stream = True
    consumer._group.changed()


def test_the_blocking_face_commits_and_closes(boot: str) -> None:
    name, group = asyncio.run(topic(boot, 1, records=5)), new_group()
    place = TopicPartition(name, 0)
    with blocking.Consumer(boot, group=group, topics=name) as consumer:
        for record in consumer:
            if record.offset == 2:
                break
        assert consumer.position(place) == 3
    with blocking.Consumer(boot, group=group, topics=name, auto_commit=False) as consumer:
        records: list[Record] = []
        while not records:
            records = consumer.poll(max_records=2)
        assert [record.offset for record in records] == [2, 3]
        consumer.pause(place)
        assert consumer.poll(timeout=0.05) == []
        consumer.resume(place)
        assert next(iter(consumer)).offset == 4
        consumer.commit()
        found = consumer.committed([place])[place]
        assert found is not None
        assert found.offset == 5


def test_the_examples_of_the_guide_run(boot: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = asyncio.run(topic(boot, 2, records=20))
    for example in IN_GROUPS:
        names: dict[str, Any] = {"BOOTSTRAP": boot}
        exec(compile(example.replace('"orders"', repr(name)), "client.md", "exec"), names)
        asyncio.run(names["main"]())
    out = capsys.readouterr().out
    assert "CommittedOffset(offset=" in out
    assert out.count("mine now") == 1
    assert "another member" not in out


async def test_of_what_was_given_up_before_it_was_told_the_listener_hears_nothing(boot: str) -> None:
    name, group = await topic(boot, 4), new_group()
    heard = Heard()
    async with Consumer(boot, group=group, topics=name, listener=heard) as first:
        await happens(lambda: len(first.assignment()) == 4)  # it does not poll: nothing is told
        async with Consumer(boot, group=group, topics=name):
            while len(first.assignment()) == 4:  # noqa: ASYNC110  another task's doing, of which nothing tells
                await asyncio.sleep(0)
            assert first._group is not None
            await first._group.rebalances.tell_all()  # at once: they are not released yet
            assert heard.events == [("assigned", {partition for _, partition in first.assignment()})]


class Knows(Heard):
    """Asks for positions while it hears of a revocation."""

    def __init__(self, position: Callable[[TopicPartition], int]) -> None:
        super().__init__()
        self._position = position
        self.positions: dict[TopicPartition, int] = {}

    def on_revoked(self, partitions: tuple[TopicPartition, ...]) -> None:
        super().on_revoked(partitions)
        self.positions |= {place: self._position(place) for place in partitions}


async def test_the_position_of_what_is_given_up_is_known_until_it_is(boot: str) -> None:
    name, group = await topic(boot, 2, records=10), new_group()
    knows = Knows(lambda place: first.position(place))  # noqa: PLW0108  it is not there yet
    async with Consumer(boot, group=group, topics=name, listener=knows, auto_commit=False) as first:
        given = Counter(record.partition for record in await read(first, 13))
        async with Consumer(boot, group=group, topics=name) as second:
            await until(lambda: len(first.assignment()) == 1, second)
            await first.poll(timeout=0)
            (revoked,) = {0, 1} - {partition for _, partition in first.assignment()}
            assert knows.positions == {TopicPartition(name, revoked): given[revoked]}


def test_the_blocking_face_commits_what_is_in_hand_when_its_next_poll_gives_a_partition_up(boot: str) -> None:
    name, group = asyncio.run(topic(boot, 2, records=10)), new_group()
    with blocking.Consumer(boot, group=group, topics=name) as first:
        while len(first.poll()) < 20:  # until one poll gives all
            for place in first.assignment():
                first.seek(place, 0)
            first.end_offsets(first.assignment())  # some time passes
        with blocking.Consumer(boot, group=group, topics=name) as second:
            while len(first.assignment()) == 2:  # it does not ask: it works
                second.poll(timeout=0.05)
            (revoked,) = {0, 1} - {partition for _, partition in first.assignment()}
            first.poll(timeout=0)
            while not second.assignment():
                second.poll(timeout=0.05)
            place = TopicPartition(name, revoked)
            found = second.committed([place])[place]
            assert found is not None
            assert found.offset == 10  # nothing is repeated


def test_what_a_poll_had_read_when_it_was_interrupted_comes_with_the_next_one(boot: str) -> None:
    name, group = asyncio.run(topic(boot, 1, records=5)), new_group()
    with blocking.Consumer(boot, group=group, topics=name) as consumer:
        assert consumer._group is not None
        run, positions = consumer._group._run, consumer._group._group.positions

        def interrupted(coroutine: Any) -> Any:
            result = run(coroutine)
            if positions.is_in_hand(TopicPartition(name, 0)):
                consumer._group._run = run  # type: ignore[union-attr]  # it is there
                raise KeyboardInterrupt
            return result

        consumer._group._run = interrupted
        with pytest.raises(KeyboardInterrupt):
            list(iter(consumer.poll, None))  # again and again
        asyncio.run(produce(boot, name, 1, records=1))
        records: list[Record] = []
        while not records:
            records = consumer.poll()
        assert records[0].offset == 0


def test_the_blocking_face_knows_the_position_of_what_is_given_up(boot: str) -> None:
    with blocking.Producer(boot) as producer, blocking.Admin(boot) as admin:
        name, group = f"topic-{next(_names)}", new_group()
        admin.create_topic(name, partitions=2)
        for number in range(20):
            producer.send_nowait(name, b"", partition=number % 2)
        producer.flush()
    knows = Knows(lambda place: first.position(place))  # noqa: PLW0108  it is not there yet
    with blocking.Consumer(boot, group=group, topics=name, listener=knows, auto_commit=False) as first:
        given = Counter(record.partition for _, record in zip(range(13), first, strict=False))
        with blocking.Consumer(boot, group=group, topics=name) as second:
            while len(first.assignment()) == 2:
                second.poll(timeout=0.05)
            first.poll(timeout=0)
            (revoked,) = {0, 1} - {partition for _, partition in first.assignment()}
            assert knows.positions == {TopicPartition(name, revoked): given[revoked]}


async def test_what_is_not_given_up_after_all_is_as_it_was(boot: str) -> None:
    name, group = await topic(boot, 2, records=10), new_group()
    places = {TopicPartition(name, partition) for partition in range(2)}
    heard = Heard()
    async with Consumer(boot, group=group, topics=name, listener=heard) as first:
        given = Counter(record.partition for record in await read(first, 13))
        first.pause(*places)
        async with Consumer(boot, group=group, topics=name) as second:
            await until(lambda: len(first.assignment()) == 1, second)
        await happens(lambda: len(first.assignment()) == 2)
        assert set(first.paused()) == places
        assert {place: first.position(place) for place in places} == {place: given[place.partition] for place in places}
        assert await first.poll(timeout=0.1) == []
        first.resume(*places)
        assert len(await read(first, 7)) == 7
        assert heard.events == [("assigned", {0, 1})]


async def test_who_waits_for_an_instance_that_is_in_use_says_so_once(
    boot: str, caplog: pytest.LogCaptureFixture
) -> None:
    name, group = await topic(boot, 1), new_group()
    caplog.set_level(logging.DEBUG, "penstock.client")

    def refusals() -> list[logging.LogRecord]:
        return [record for record in caplog.records if "instance_id 'one' is in use" in record.getMessage()]

    async with Consumer(boot, group=group, topics=name, instance_id="one") as first:
        await until(lambda: bool(first.assignment()), first)
        async with Consumer(boot, group=group, topics=name, instance_id="one"):
            await happens(lambda: len(refusals()) >= 3)
    assert [record.levelno for record in refusals()[:3]] == [logging.WARNING, logging.DEBUG, logging.DEBUG]
