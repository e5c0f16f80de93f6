"""A compacted topic on three nodes: what a reader sees, what each replica keeps, and a node that dies meanwhile."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest

from penstock.client import Admin, Consumer, NewRecord, Producer, Record, TopicPartition
from penstock.client.devcluster import DevCluster
from penstock.protocol.batch import read
from penstock.storage import Store
from penstock.storage.env import StoreOptions
from penstock.v1 import record_pb2
from tests.cluster.conftest import CALM
from tests.cluster.reading import healthy, until

TOPIC = "compacted"
PARTITION = TopicPartition(TOPIC, 0)
KEYS = 20
GONE = 5
"""The first so many keys end with a tombstone."""
ROUND = 700
VALUE_BYTES = 2_000
"""A round is more than a compaction waits for (node.cleanup.schedule.SMALL_BYTES)."""
SETTINGS: dict[str, str | int] = {"cleanup_policy": "compact", "min_dirty_ratio": 0, "delete_retention_ms": 1}


class Sent(NamedTuple):
    key: bytes
    value: bytes | None


class Written:
    """What was acknowledged, by offset."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._random = random.Random(1)
        self._number = 0
        self.records: dict[int, Sent] = {}

    async def send(self, sent: Sent) -> None:
        delivery = await (await self._producer.send(TOPIC, sent.value, key=sent.key))
        self.records[delivery.offset] = sent

    async def round(self) -> None:
        """Update keys in no order; now and then one is deleted."""
        sends = []
        for _ in range(ROUND):
            key = b"key-%02d" % self._random.randrange(KEYS)
            value = None if self._random.random() < 0.02 else (b"%08d" % self._number) * (VALUE_BYTES // 8)
            self._number += 1
            sends.append(self.send(Sent(key, value)))
        await asyncio.gather(*sends)

    def latest(self) -> dict[int, Sent]:
        """The last record of each key, by offset."""
        places = {sent.key: offset for offset, sent in sorted(self.records.items())}
        return {offset: self.records[offset] for offset in sorted(places.values())}

    def live(self) -> dict[int, Sent]:
        """Those with a value."""
        return {offset: sent for offset, sent in self.latest().items() if sent.value is not None}


class Pass:
    """One reading from the beginning on: offsets and versions only rise, and a record is what was sent."""

    def __init__(self) -> None:
        self.records: dict[int, Sent] = {}
        self._last = -1

    def take(self, records: list[Record]) -> None:
        for record in records:
            assert record.key is not None
            assert record.offset > self._last
            self._last = record.offset
            self.records[record.offset] = Sent(record.key, record.value)

    def check(self, written: Written) -> None:
        known = {offset: sent for offset, sent in self.records.items() if offset in written.records}
        assert known == {offset: written.records[offset] for offset in known}


async def read_on(bootstrap: str) -> Pass:
    """Read from the beginning to the end that there is at first."""
    found = Pass()
    async with Consumer(bootstrap) as consumer:
        await consumer.assign([PARTITION], start="earliest")
        end = (await consumer.end_offsets([PARTITION]))[PARTITION]
        while consumer.position(PARTITION) < end:
            found.take(await consumer.poll(200, timeout=5.0))
    return found


@asynccontextmanager
async def readers(bootstrap: str) -> AsyncIterator[list[Pass]]:
    """Read again and again in short steps, which take as long as they take, beside what is done meanwhile."""
    passes: list[Pass] = []
    follower = Pass()
    passes.append(follower)

    async def follow() -> None:
        async with Consumer(bootstrap) as consumer:
            await consumer.assign([PARTITION], start="earliest")
            while True:
                follower.take(await consumer.poll(20, timeout=1.0))

    async def again() -> None:
        while True:
            passes.append(await read_on(bootstrap))

    tasks = [asyncio.create_task(follow()), asyncio.create_task(again())]
    try:
        yield passes
        for task in tasks:
            assert not task.done(), task.exception()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def counts(admin: Admin) -> dict[int, tuple[int, int]]:
    """Records and cleaned offset on each node that answers."""
    found = await admin.list_logs(topics=[TOPIC])
    return {one.node_id: (log.record_count, log.cleaned_offset) for one in found for log in one.logs}


async def restart(cluster: DevCluster, node_id: int) -> None:
    await asyncio.to_thread(cluster.kill, node_id)
    cluster.start([node_id])
    await asyncio.to_thread(cluster.wait_serving)
    await healthy(cluster)


async def killed_while_compacting(cluster: DevCluster, admin: Admin, node_id: int) -> None:
    """Kill the node as soon as it has replaced some batches; it comes back by itself to what it had."""
    most = 0

    async def is_at_it() -> bool:
        nonlocal most
        now, _ = (await counts(admin)).get(node_id, (most, 0))  # a busy node may not answer
        most = max(most, now)
        return now < most

    await until(is_at_it)
    await restart(cluster, node_id)


def stored(cluster: DevCluster, node_id: int) -> dict[int, Sent]:
    """What the stopped node has on its disk."""
    store = Store.open(cluster.data_dir(node_id) / "store", StoreOptions(map_bytes=1 << 40))
    try:
        (log,) = store.logs()
        state, found, at = log.state, {}, log.state.first_offset
        for batch in log.read(at, state.log_end_offset, 1 << 40):
            assert batch.base_offset == at
            at = batch.last_offset + 1
            for record in records_of(batch.payload):
                found[batch.base_offset + record[0]] = Sent(*record[1:])
        assert at == state.log_end_offset
        return found
    finally:
        store.close()


def records_of(payload: bytes) -> list[tuple[int, bytes, bytes | None]]:
    return [
        (record.offset_delta, record.key, record.value if record.HasField("value") else None)
        for record in read(record_pb2.RecordBatch.FromString(payload))
    ]


@pytest.mark.timeout(540)
async def test_each_replica_keeps_the_latest_of_each_key_and_readers_never_see_less(
    start_cluster: Callable[..., DevCluster],
) -> None:
    cluster = start_cluster(compaction_interval_ms=100, **CALM)
    nodes = list(cluster.node_ids)
    async with Admin(cluster.bootstrap) as admin, Producer(cluster.bootstrap, linger_ms=2) as producer:
        await admin.create_topic(TOPIC, 1, 3, dict(SETTINGS))
        written = Written(producer)
        async with readers(cluster.bootstrap) as passes:
            for node_id in nodes:
                writing = asyncio.create_task(written.round())
                killing = asyncio.create_task(killed_while_compacting(cluster, admin, node_id))
                await writing
                while not killing.done():
                    await written.round()
                await killing
            for number in range(GONE):
                await written.send(Sent(b"key-%02d" % number, None))

            async def follows() -> bool:
                return max(passes[0].records, default=-1) >= max(written.records)

            await until(follows)
        assert len(passes) > 2
        for one in passes:
            one.check(written)
        assert passes[0].records.items() >= written.latest().items()

        for node_id in nodes:  # a node that has just started does not wait to compact what little there is
            await restart(cluster, node_id)
        end = max(written.records) + 1

        async def all_clean() -> bool:
            return all(cleaned == end for _, cleaned in (await counts(admin)).values())

        await until(all_clean)
        found = await read_on(cluster.bootstrap)
        found.check(written)
        assert [sent.key for sent in found.records.values()] == list({s.key: None for s in found.records.values()})
        assert written.live().items() <= found.records.items() <= written.latest().items()

        for node_id in nodes:
            await asyncio.to_thread(cluster.kill, node_id)
        cluster.start()
        await asyncio.to_thread(cluster.wait_serving)
        await healthy(cluster)
        await written.send(Sent(b"last", b"one more to compact"))  # else nothing would begin a compaction

        async def tombstones_went() -> bool:
            return [count for count, _ in (await counts(admin)).values()] == [len(written.live())] * 3

        await until(tombstones_went)
        assert (await read_on(cluster.bootstrap)).records == written.live()
        (delivery,) = await producer.append(TOPIC, 0, [NewRecord(b"next", b"key-00")])
        assert delivery.offset == end + 1
        written.records[delivery.offset] = Sent(b"key-00", b"next")
    await asyncio.to_thread(cluster.stop, None, 60)
    for node_id in nodes:
        assert stored(cluster, node_id) == written.live()
