"""The consumer against real gRPC: positions, leaders that move, policies, damage, credit, cancelling."""

import asyncio
import re
from typing import Literal

import pytest

from penstock.client import (
    ClientClosedError,
    Consumer,
    InvalidRequestError,
    LogDamagedError,
    LogDivergedError,
    OffsetOutOfRangeError,
    OutcomeUnknownError,
    PenstockError,
    Record,
    Timestamp,
    TopicPartition,
    UnknownPartitionError,
    UnknownTopicError,
)
from penstock.client.clock import SystemClock
from penstock.client.cursor import Cursor
from penstock.client.fetcher import MAX_FAULTS
from penstock.client.seams import Seams
from penstock.protocol.batch import NewRecord, build, header_of, seal
from penstock.protocol.reasons import Reason
from penstock.v1.record_pb2 import RecordSet
from tests.client.conftest import until
from tests.client.reference_server import Cluster

P0, P1 = TopicPartition("orders", 0), TopicPartition("orders", 1)


def fill(cluster: Cluster, partition: int = 0, batches: int = 10, records: int = 5, size: int = 0) -> None:
    log = cluster.log("orders", partition)
    for _ in range(batches):
        base = log.end
        stamps = range(base, base + records)
        log.append(build([NewRecord(None, (b"%d" % stamp).ljust(size, b"."), 1000 + stamp) for stamp in stamps]))


async def read(consumer: Consumer, count: int) -> list[Record]:
    out: list[Record] = []
    while len(out) < count:
        out += await consumer.poll(count - len(out))
    return out


async def test_all_records_come_once_and_in_order(cluster: Cluster) -> None:
    cluster.create("orders", 3)
    for partition in range(3):
        fill(cluster, partition)
    async with Consumer(cluster.bootstrap()) as consumer:
        await consumer.assign_topics(["orders"], start="earliest")
        records = await read(consumer, 150)
        assert await consumer.poll(timeout=0.01) == []
        for partition in range(3):
            offsets = [record.offset for record in records if record.partition == partition]
            assert offsets == list(range(50))
            assert consumer.position(TopicPartition("orders", partition)) == 50
        assert set((await consumer.lag()).values()) == {0}


@pytest.mark.parametrize(
    ("start", "first"), [("earliest", 0), ("latest", 50), (17, 17), (Timestamp(1023), 23), (Timestamp(9999), 50)]
)
async def test_where_to_start(cluster: Cluster, start: object, first: int) -> None:
    cluster.create("orders")
    fill(cluster)
    async with Consumer(cluster.bootstrap()) as consumer:
        await consumer.assign([P0], start=start)  # type: ignore[arg-type]  # a Position
        assert consumer.position(P0) == first
        fill(cluster)
        assert (await read(consumer, 1))[0].offset == first


async def test_iterating_polling_and_batches_share_one_position(cluster: Cluster) -> None:
    cluster.create("orders")
    fill(cluster)
    async with Consumer(cluster.bootstrap()) as consumer:
        await consumer.assign({P0: 2})
        async for record in consumer:
            assert record == Record("orders", 0, 2, 1002, None, b"2", (), 0)
            break
        assert [record.offset for record in await read(consumer, 4)] == [3, 4, 5, 6]
        assert consumer.position(P0) == 7
        (batch,) = await consumer.poll_batches(max_batches=1)
        assert [batch.base_offset + record.offset_delta for record in batch.records] == [7, 8, 9]
        assert consumer.position(P0) == 10


async def test_seek_drops_what_was_fetched(cluster: Cluster) -> None:
    cluster.create("orders")
    fill(cluster)
    async with Consumer(cluster.bootstrap()) as consumer:
        await consumer.assign([P0], start="earliest")
        await read(consumer, 7)
        await consumer.seek(P0, 30)
        assert (await read(consumer, 1))[0].offset == 30
        await consumer.seek(P0, "earliest")
        assert (await read(consumer, 1))[0].offset == 0


async def test_a_paused_partition_gives_nothing_and_goes_on_where_it_was(cluster: Cluster) -> None:
    cluster.create("orders", 2)
    fill(cluster, 0)
    fill(cluster, 1)
    async with Consumer(cluster.bootstrap()) as consumer:
        await consumer.assign([P0, P1], start="earliest")
        await read(consumer, 3)
        consumer.pause(P0)
        at = consumer.position(P0)
        assert consumer.paused() == (P0,)
        assert {record.partition for record in await read(consumer, 50 - consumer.position(P1))} == {1}
        assert await consumer.poll(timeout=0.01) == []
        consumer.resume(P0)
        assert [record.offset for record in await read(consumer, 50 - at)] == list(range(at, 50))


async def test_leaders_are_followed_without_loss_or_repeat(cluster: Cluster) -> None:
    cluster.create("orders", 2)
    async with Consumer(cluster.bootstrap()) as consumer:
        await consumer.assign_topics(["orders"], start="earliest")
        seen: dict[int, list[int]] = {0: [], 1: []}
        for step in range(12):
            fill(cluster, step % 2, batches=2)
            if step % 4 == 1:
                cluster.lead("orders", step % 2, 1 + step % 3, tell=step % 8 == 1)
            if step % 4 == 3:
                cluster.brokers[1 + step % 3].cut_streams()
            for record in await read(consumer, 10):
                seen[record.partition].append(record.offset)
        assert seen == {0: list(range(60)), 1: list(range(60))}


async def test_a_broker_that_stops_is_survived(cluster: Cluster) -> None:
    cluster.create("orders")
    fill(cluster)
    async with Consumer(cluster.bootstrap()) as consumer:
        await consumer.assign([P0], start="earliest")
        await read(consumer, 50)
        await cluster.brokers[1].stop()
        cluster.lead("orders", 0, 2)
        fill(cluster, batches=1)
        assert [record.offset for record in await read(consumer, 5)] == list(range(50, 55))


@pytest.mark.parametrize(("policy", "first"), [("earliest", 20), ("latest", 50)])
async def test_dropped_records_are_skipped_by_policy(cluster: Cluster, policy: str, first: int) -> None:
    cluster.create("orders")
    fill(cluster)
    cluster.log("orders").log_start_offset = 20
    async with Consumer(cluster.bootstrap(), auto_offset_reset=policy) as consumer:  # type: ignore[arg-type]
        await consumer.assign([P0], start=3)
        while consumer.position(P0) == 3:
            await consumer.poll(1, timeout=0.01)
        fill(cluster, batches=1)
        if policy == "latest":
            assert (await read(consumer, 1))[0].offset == first
        else:
            assert consumer.position(P0) >= first


async def test_dropped_records_are_an_error_by_default_and_a_seek_goes_on(cluster: Cluster) -> None:
    cluster.create("orders", 2)
    fill(cluster)
    fill(cluster, 1)
    cluster.log("orders").log_start_offset = 20
    async with Consumer(cluster.bootstrap()) as consumer:
        await consumer.assign({P0: 3, P1: 0})
        error: Exception | None = None
        while error is None:
            try:
                await consumer.poll()
            except OffsetOutOfRangeError as caught:
                error = caught
        await consumer.seek(P0, "earliest")
        while consumer.position(P0) < 50 or consumer.position(P1) < 50:
            await consumer.poll()


async def test_above_the_end_is_never_a_reset(cluster: Cluster) -> None:
    cluster.create("orders")
    fill(cluster)
    async with Consumer(cluster.bootstrap(), auto_offset_reset="earliest") as consumer:
        await consumer.assign([P0], start=90)
        with pytest.raises(OffsetOutOfRangeError, match="OFFSET_ABOVE_END"):
            await consumer.poll(timeout=60)
        assert consumer.position(P0) == 90


async def test_an_error_from_before_a_seek_moves_nothing(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seed 73 of the simulated worlds: the reset ended after the seek, and read from the log start."""
    cluster.create("orders")
    fill(cluster)
    async with Consumer(cluster.bootstrap(), auto_offset_reset="earliest") as consumer:
        await consumer.assign([P0], start=10)
        fetcher = consumer._fetcher
        cursor, find = fetcher.cursors[P0], fetcher._offset

        async def find_late(cursor: Cursor, to: Literal["earliest", "latest"]) -> int:
            await until(lambda: cursor not in fetcher._places)
            return await find(cursor, to)

        monkeypatch.setattr(fetcher, "_offset", find_late)
        fetcher.failed(cursor, PenstockError(Reason.OFFSET_BELOW_START, "it was dropped"))
        await consumer.seek(P0, 90)
        with pytest.raises(OffsetOutOfRangeError, match="OFFSET_ABOVE_END"):
            await consumer.poll(timeout=60)
        assert consumer.position(P0) == 90


async def test_a_log_that_was_cut_is_an_error_or_gone_on_with_by_policy(cluster: Cluster) -> None:
    cluster.create("orders")
    fill(cluster)
    for policy in ("error", "continue"):
        async with Consumer(cluster.bootstrap(), on_divergence=policy) as consumer:
            await consumer.assign([P0], start="earliest")
            end = cluster.log("orders").end
            await read(consumer, end)
            cluster.truncate("orders", 0, end - 10)
            cluster.lead("orders", 0, 1 + cluster.log("orders").leader % 3)
            fill(cluster, batches=4)
            if policy == "error":
                with pytest.raises(LogDivergedError):
                    await consumer.poll(timeout=60)
            else:
                assert [record.offset for record in await read(consumer, 20)] == list(range(end - 10, end + 10))


async def test_a_cut_of_what_was_not_given_out_goes_unnoticed(cluster: Cluster) -> None:
    cluster.create("orders")
    fill(cluster)
    async with Consumer(cluster.bootstrap()) as consumer:
        await consumer.assign([P0], start="earliest")
        await read(consumer, 3)
        cluster.truncate("orders", 0, 40)
        cluster.lead("orders", 0, 2)
        fetched = consumer._fetcher.cursors[P0]
        await until(lambda: fetched.fetch_offset <= 40)
        fill(cluster, batches=4)
        assert [record.offset for record in await read(consumer, 57)] == list(range(3, 60))


async def test_a_flipped_bit_is_raised_and_a_seek_tries_again(cluster: Cluster) -> None:
    cluster.create("orders")
    fill(cluster, batches=1)
    cluster.corrupt_reads = 1
    async with Consumer(cluster.bootstrap()) as consumer:
        await consumer.assign([P0], start="earliest")
        with pytest.raises(LogDamagedError):
            await consumer.poll(timeout=60)
        await consumer.seek(P0, consumer.position(P0))
        assert len(await read(consumer, 5)) == 5


class QuickClock(SystemClock):
    """Waits between attempts are noted and not waited for."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    async def sleep_ms(self, duration_ms: float) -> None:
        self.waits.append(duration_ms)
        await asyncio.sleep(0)


def injected(cluster: Cluster, where: str, reason: Reason, count: int) -> None:
    (cluster.stream_faults if where == "stream" else cluster.read_faults).extend([reason] * count)


@pytest.mark.parametrize("where", ["stream", "assignment"])
async def test_faults_of_the_server_are_survived_for_a_while_and_logged(
    cluster: Cluster, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.create("orders")
    fill(cluster)
    consumer = Consumer(cluster.bootstrap())
    clock = QuickClock()
    consumer._seams = Seams(clock=clock)
    async with consumer:
        for start in (0, 5):  # what was read in between begins the count anew
            injected(cluster, where, Reason.INTERNAL, MAX_FAULTS - 1)
            await consumer.assign({P0: start})
            assert (await read(consumer, 1))[0].offset == start
    # gRPC does not always bring the words of a stream that ends as it begins.
    assert sum(re.search(r"INTERNAL: (injected|.*from Core)", line) is not None for line in caplog.messages) == 2 * (
        MAX_FAULTS - 1
    )
    assert max(clock.waits) > 100  # ever longer


@pytest.mark.parametrize("where", ["stream", "assignment"])
async def test_a_server_that_goes_on_failing_is_an_error_and_a_seek_tries_again(cluster: Cluster, where: str) -> None:
    cluster.create("orders")
    fill(cluster)
    injected(cluster, where, Reason.INTERNAL, MAX_FAULTS)
    consumer = Consumer(cluster.bootstrap())
    consumer._seams = Seams(clock=QuickClock())
    async with consumer:
        await consumer.assign({P0: 7})
        with pytest.raises(
            PenstockError, match=r"orders.* from offset 7 failed 8 times in a row.*(injected|from Core)"
        ) as caught:
            await read(consumer, 1)
        assert caught.value.reason is Reason.INTERNAL
        assert not isinstance(caught.value, OutcomeUnknownError)
        await consumer.seek(P0, 7)
        assert (await read(consumer, 1))[0].offset == 7


async def test_a_stream_that_ends_for_a_retriable_reason_is_no_fault(cluster: Cluster) -> None:
    cluster.create("orders")
    fill(cluster)
    injected(cluster, "stream", Reason.OVERLOADED, 3 * MAX_FAULTS)
    consumer = Consumer(cluster.bootstrap())
    consumer._seams = Seams(clock=QuickClock())
    async with consumer:
        await consumer.assign({P0: 0})
        assert (await read(consumer, 1))[0].offset == 0


async def test_prefetch_is_bounded_and_the_credit_comes_back(cluster: Cluster) -> None:
    cluster.create("orders")
    fill(cluster, batches=100, records=1, size=1000)
    async with Consumer(cluster.bootstrap(), prefetch_bytes=3 * 8000) as consumer:
        await consumer.assign([P0], start="earliest")
        await read(consumer, 1)
        for _ in range(50):
            await asyncio.sleep(0)
        cursor = consumer._fetcher.cursors[P0]
        assert cursor.fetch_offset - cursor.position <= 12
        assert [record.offset for record in await read(consumer, 99)] == list(range(1, 100))
        await consumer.seek(P0, "earliest")
        assert len(await read(consumer, 100)) == 100


async def test_a_deleted_topic_is_an_error(cluster: Cluster) -> None:
    cluster.create("orders")
    async with Consumer(cluster.bootstrap()) as consumer:
        await consumer.assign([P0], start="earliest")
        cluster.drop("orders")
        with pytest.raises(UnknownTopicError):
            await consumer.poll(timeout=60)


async def test_what_cannot_be_assigned(cluster: Cluster) -> None:
    cluster.create("orders")
    async with Consumer(cluster.bootstrap()) as consumer:
        with pytest.raises(UnknownTopicError):
            await consumer.assign_topics(["nope"])
        for start in ("latest", 0):
            with pytest.raises(UnknownPartitionError):
                await consumer.assign([P1], start=start)
        for start in (-1, 1 << 63):
            with pytest.raises(InvalidRequestError):
                await consumer.assign([P0], start=start)
        with pytest.raises(InvalidRequestError, match="not assigned"):
            consumer.position(P0)
    with pytest.raises(ClientClosedError):
        await consumer.poll()


async def test_an_error_that_a_seek_came_before_is_not_raised(cluster: Cluster) -> None:
    """The seek is the answer to it: of a listener that knows where to begin, say."""
    cluster.create("orders")
    fill(cluster)
    async with Consumer(cluster.bootstrap()) as consumer:
        await consumer.assign([P0], start=1000)
        await until(lambda: bool(consumer._fetcher.errors))
        await consumer.seek(P0, 7)
        assert (await read(consumer, 1))[0].offset == 7


async def test_closing_ends_the_waits_of_others(cluster: Cluster) -> None:
    cluster.create("orders")
    async with Consumer(cluster.bootstrap()) as consumer:
        await consumer.assign([P0])
        iterating = asyncio.create_task(anext(consumer))
        polling = asyncio.create_task(consumer.poll(timeout=60))
        for _ in range(3):
            await asyncio.sleep(0)  # both wait by now
        await consumer.close()
        for task in (iterating, polling):
            with pytest.raises(ClientClosedError):
                await task


async def test_a_cancelled_poll_loses_nothing_and_closing_leaves_no_task(cluster: Cluster) -> None:
    cluster.create("orders")
    before = asyncio.all_tasks()
    async with Consumer(cluster.bootstrap()) as consumer:
        await consumer.assign([P0], start="earliest")

        async def forever() -> None:
            async for _ in consumer:
                pass

        task = asyncio.create_task(forever())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        fill(cluster, batches=1)
        assert [record.offset for record in await read(consumer, 5)] == list(range(5))
    assert {task for task in asyncio.all_tasks() - before if "penstock/client" in str(task.get_coro())} == set()


async def test_assigning_anew_replaces_everything(cluster: Cluster) -> None:
    cluster.create("orders", 2)
    fill(cluster, 0)
    fill(cluster, 1)
    async with Consumer(cluster.bootstrap()) as consumer:
        await consumer.assign([P0], start="earliest")
        await read(consumer, 5)
        await consumer.assign([P1], start=40)
        assert consumer.assignment() == (P1,)
        assert [(record.partition, record.offset) for record in await read(consumer, 2)] == [(1, 40), (1, 41)]
        assert await consumer.earliest_offsets([P0, P1]) == {P0: 0, P1: 0}
        assert await consumer.end_offsets([P0, P1]) == {P0: 50, P1: 50}


def compacted(cluster: Cluster, last_offset: int, *offsets: int) -> None:
    """Append what compaction left of a batch that reaches to `last_offset`: perhaps nothing."""
    log = cluster.log("orders")
    base = log.end
    if offsets:
        batch = build([NewRecord(b"key", b"%d" % offset, 1000 + offset) for offset in offsets])
        record_set = RecordSet.FromString(batch.records)
        for record, offset in zip(record_set.records, offsets, strict=True):
            record.offset_delta = offset - base
        batch = seal(record_set.SerializeToString(), header_of(batch))
    else:
        header = header_of(build([NewRecord(None, b"", 0)]))
        batch = seal(b"", header._replace(record_count=0, base_timestamp_ms=-1, max_timestamp_ms=-1))
    log.append(batch)
    log.batches[-1].last_offset = last_offset


async def test_batches_that_lost_records_move_the_position_on(cluster: Cluster) -> None:
    cluster.create("orders")
    compacted(cluster, 9)
    compacted(cluster, 19, 12, 15, 16)
    compacted(cluster, 29)
    async with Consumer(cluster.bootstrap()) as consumer:
        await consumer.assign([P0], start="earliest")
        records = await read(consumer, 3)
        assert [(one.offset, one.value, one.timestamp_ms) for one in records] == [
            (offset, b"%d" % offset, 1000 + offset) for offset in (12, 15, 16)
        ]
        while consumer.position(P0) < 30:
            assert await consumer.poll(timeout=60) == []
        assert consumer.position(P0) == 30
        await consumer.seek(P0, 16)
        assert [one.offset for one in await read(consumer, 1)] == [16]
        await consumer.seek(P0, 17)
        following = asyncio.ensure_future(anext(consumer))
        await until(lambda: consumer.position(P0) == 30)
        assert not following.done()
        fill(cluster, batches=1, records=1)
        assert (await following).offset == 30
