"""Consumers in groups on real nodes: sharing, rebalances that interrupt nobody else, commits, fencing, coordinators."""

import asyncio
import contextlib
import threading
import time

import pytest

from penstock.client import (
    Admin,
    CommitFailedError,
    CommitPoint,
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
from penstock.client.seams import Seams
from tests.cluster.group_consuming import SHORT_MS, Heard, committed, new_group, new_name, produce, read, topic, until


@pytest.fixture(scope="module")
def boot(calm_cluster: DevCluster) -> str:
    return calm_cluster.bootstrap


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
    missing = new_name("topic")
    async with Consumer(boot, group=new_group(), topics=missing) as consumer:
        with pytest.raises(UnknownTopicError, match=missing):
            await until(lambda: False, consumer)
        await topic(boot, 1, records=1, name=missing)
        records: list[Record] = []
        while not records:
            with contextlib.suppress(UnknownTopicError):  # a coordinator that is slow may not know it yet
                records = await read(consumer, 1)
        assert [record.value for record in records] == [b"0"]


async def test_topics_of_a_pattern_and_added_partitions_are_picked_up_from_their_beginning(boot: str) -> None:
    stem = new_name("of-pattern")
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
