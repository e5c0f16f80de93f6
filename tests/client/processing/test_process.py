"""process() against the reference cluster: order, concurrency, policies, dead letters, stopping and cancelling."""

import asyncio
import threading
from collections import defaultdict
from collections.abc import AsyncIterator

import pytest

from penstock.client import (
    ClientClosedError,
    Consumer,
    DeadLetter,
    Failure,
    HandlerError,
    InvalidRequestError,
    OffsetOutOfRangeError,
    Producer,
    Record,
    Retry,
    Skip,
    Stop,
    TopicPartition,
    UnknownTopicError,
)
from penstock.client.processing.letters import PREFIX
from penstock.protocol.batch import NewRecord, build
from penstock.protocol.reasons import Reason
from tests.client.conftest import until
from tests.client.reference_server import Cluster

P0, P1 = TopicPartition("orders", 0), TopicPartition("orders", 1)


def fill(cluster: Cluster, keys: list[bytes | None], partition: int = 0) -> None:
    log = cluster.log("orders", partition)
    log.append(build([NewRecord(key, b"%d" % number, 1000 + number) for number, key in enumerate(keys)]))


@pytest.fixture
async def consumer(cluster: Cluster) -> AsyncIterator[Consumer]:
    cluster.create("orders", 2)
    cluster.create("dead")
    async with Consumer(cluster.bootstrap()) as made:
        await made.assign_topics(["orders"], start="earliest")
        yield made


async def test_every_record_is_handled_in_the_order_of_its_key_while_others_run(
    cluster: Cluster, consumer: Consumer
) -> None:
    keys: list[bytes | None] = [b"%d" % (number % 7) for number in range(200)]
    fill(cluster, keys)
    fill(cluster, keys, 1)
    seen: dict[tuple[int, bytes | None], list[int]] = defaultdict(list)
    busy: set[tuple[int, bytes | None]] = set()
    most = 0

    async def handle(record: Record) -> None:
        nonlocal most
        lane = (record.partition, record.key)
        assert lane not in busy
        busy.add(lane)
        most = max(most, len(busy))
        for _ in range(record.offset % 3):
            await asyncio.sleep(0)
        seen[lane].append(record.offset)
        busy.remove(lane)
        if sum(map(len, seen.values())) == 400:
            consumer.stop()

    statistics = await consumer.process(handle, concurrency=4)
    assert statistics == (400, 0, 0, 0, 0, 0, 0, 0)
    assert all(offsets == sorted(offsets) for offsets in seen.values())
    assert most == 4
    assert consumer.position(P0) == 200


async def test_plain_handlers_run_in_threads_and_the_loop_lives(cluster: Cluster, consumer: Consumer) -> None:
    fill(cluster, [b"a", b"b", b"c"])
    together = threading.Barrier(3, timeout=60)
    loop = asyncio.get_running_loop()

    def handle(value: str) -> None:
        together.wait()  # passes only where three run at the same time
        assert threading.current_thread() is not threading.main_thread()
        loop.call_soon_threadsafe(consumer.stop)

    statistics = await consumer.process(handle, concurrency=3, parse=lambda record: str(record.value))
    assert statistics.processed == 3


async def test_a_callable_that_gives_a_coroutine_is_awaited(cluster: Cluster, consumer: Consumer) -> None:
    fill(cluster, [None])
    seen = []

    async def work(record: Record) -> None:
        seen.append(record.offset)
        consumer.stop()

    await consumer.process(lambda record: work(record))  # noqa: PLW0108 - a plain callable, as the core sees it
    assert seen == [0]


async def test_stop_is_the_default_and_the_record_comes_again(cluster: Cluster, consumer: Consumer) -> None:
    fill(cluster, [b"a", b"b", b"c", b"d"])
    seen: list[int] = []

    async def fail_at_two(record: Record) -> None:
        seen.append(record.offset)
        if record.offset == 2:
            raise ValueError("broken")

    with pytest.raises(HandlerError, match=r"orders-0 offset 2 failed .* ValueError: broken") as raised:
        await consumer.process(fail_at_two, concurrency=1)
    assert raised.value.record.offset == 2
    assert isinstance(raised.value.__cause__, ValueError)
    assert consumer.statistics() == (2, 1, 0, 0, 0, 0, 0, 0)
    assert consumer.position(P0) == 2

    async def handle(record: Record) -> None:
        seen.append(record.offset)
        if record.offset == 3:
            consumer.stop()

    await consumer.process(handle, concurrency=1)
    assert seen == [0, 1, 2, 2, 3]


async def test_skip_tells_and_goes_on(cluster: Cluster, consumer: Consumer, caplog: pytest.LogCaptureFixture) -> None:
    fill(cluster, [b"a", b"b", b"c"])
    told: list[Failure] = []

    def parse(record: Record) -> int:
        if record.offset == 1:
            raise ValueError("no number")
        return record.offset

    async def handle(offset: int) -> None:
        if offset == 2:
            consumer.stop()

    statistics = await consumer.process(handle, parse=parse, on_failure=Skip(told.append))
    assert (statistics.processed, statistics.skipped, statistics.failed) == (2, 1, 1)
    assert (told[0].record.offset, told[0].stage, told[0].attempts) == (1, "parse", 0)
    assert "orders-0 offset 1 cannot be parsed: ValueError: no number" in caplog.text
    assert consumer.position(P0) == 3


async def test_retry_keeps_the_keys_order_and_lets_others_pass(cluster: Cluster, consumer: Consumer) -> None:
    fill(cluster, [b"a", b"a", b"b"])
    seen: list[tuple[int, int]] = []
    attempts = 0

    async def handle(record: Record) -> None:
        nonlocal attempts
        if record.offset == 0:
            attempts += 1
            if attempts < 3:
                raise ConnectionError("not yet")
        seen.append((record.offset, attempts))
        if len(seen) == 3:
            consumer.stop()

    statistics = await consumer.process(handle, concurrency=1, on_failure=Retry(3, backoff_ms=20))
    assert seen == [(2, 1), (0, 3), (1, 3)]
    assert (statistics.processed, statistics.failed, statistics.retried) == (3, 2, 2)


async def test_retries_end_as_asked_and_what_cannot_be_parsed_has_none(cluster: Cluster, consumer: Consumer) -> None:
    fill(cluster, [b"a"])
    calls = 0

    async def handle(record: Record) -> None:
        nonlocal calls
        calls += 1
        raise ConnectionError("down")

    with pytest.raises(HandlerError, match=r"\(3 attempts\): ConnectionError: down"):
        await consumer.process(handle, on_failure=Retry(3, backoff_ms=1))
    assert calls == 3

    def parse(record: Record) -> int:
        return int(b"x")

    with pytest.raises(HandlerError, match="cannot be parsed: ValueError"):
        await consumer.process(handle, parse=parse, on_failure=Retry(3, backoff_ms=1, then=Stop()))
    assert calls == 3
    assert consumer.position(P0) == 0


async def test_a_dead_letter_is_the_record_and_its_story(cluster: Cluster, consumer: Consumer) -> None:
    log = cluster.log("orders", 1)
    log.append(build([NewRecord(b"k", b"bad", 1234, (("trace", b"t"), ("none", None)))]))
    log.append(build([NewRecord(b"k", None, 1235)]))

    async def handle(record: Record) -> None:
        if record.offset == 1:
            consumer.stop()
            return
        raise ValueError("never")

    statistics = await consumer.process(handle, on_failure=Retry(2, backoff_ms=1, then=DeadLetter("dead")))
    assert (statistics.dead_lettered, statistics.processed, statistics.failed) == (1, 1, 2)
    (letter,) = cluster.records("dead")
    assert (letter.key, letter.value) == (b"k", b"bad")
    headers = [(header.key, header.value if header.HasField("value") else None) for header in letter.headers]
    assert headers[:2] == [("trace", b"t"), ("none", None)]
    story = {name.removeprefix(PREFIX): value for name, value in headers[2:]}
    assert (story["topic"], story["partition"]) == (b"orders", b"1")
    assert (story["offset"], story["attempts"], story["timestamp-ms"]) == (b"0", b"2", b"1234")
    assert (story["exception"], story["message"]) == (b"ValueError", b"never")
    assert b'raise ValueError("never")' in (story["stack"] or b"")


async def test_a_dead_letter_that_cannot_be_written_stops_and_loses_nothing(
    cluster: Cluster, consumer: Consumer
) -> None:
    fill(cluster, [b"a"])

    async def handle(record: Record) -> None:
        cluster.drop("dead")
        raise ValueError("never")

    with pytest.raises(HandlerError, match=r"could not be written to the dead-letter topic 'dead': UNKNOWN_TOPIC"):
        await consumer.process(handle, on_failure=DeadLetter("dead"))
    assert consumer.position(P0) == 0


async def test_a_record_of_the_dead_letter_topic_itself_stops(cluster: Cluster, consumer: Consumer) -> None:
    fill(cluster, [b"a"])

    async def handle(record: Record) -> None:
        raise ValueError("never")

    with pytest.raises(HandlerError, match="it would come again for ever"):
        await consumer.process(handle, on_failure=DeadLetter("orders"))
    assert cluster.log("orders").end == 1


async def test_what_cannot_work_is_said_at_once(cluster: Cluster, consumer: Consumer) -> None:
    async def handle(record: Record) -> None: ...

    with pytest.raises(UnknownTopicError, match="missing"):
        await consumer.process(handle, on_failure=DeadLetter("missing"))
    with pytest.raises(InvalidRequestError, match="cannot be called"):
        await consumer.process(3)  # type: ignore[arg-type]  # what is tested
    with pytest.raises(InvalidRequestError, match="no asyncio Producer"):
        await consumer.process(handle, on_failure=DeadLetter("dead", producer="other"))
    weak = Producer(cluster.bootstrap(), acks="leader")
    with pytest.raises(InvalidRequestError, match="acks below 'all'"):
        await consumer.process(handle, on_failure=DeadLetter("dead", producer=weak))


async def test_cancelling_cancels_handlers_and_keeps_what_was_not_done(cluster: Cluster, consumer: Consumer) -> None:
    fill(cluster, [b"a", b"b", b"c"])
    entered = asyncio.Event()
    cancelled: list[int] = []

    async def handle(record: Record) -> None:
        if record.offset == 1:
            entered.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(record.offset)
                raise

    task = asyncio.create_task(consumer.process(handle))
    await entered.wait()
    await until(lambda: consumer.statistics().processed == 2)
    with pytest.raises(InvalidRequestError, match="running already"):
        await consumer.process(handle)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled == [1]
    assert consumer.position(P0) == 1


async def test_what_a_cancelled_handler_raises_is_no_failure_of_its_record(
    cluster: Cluster, consumer: Consumer
) -> None:
    fill(cluster, [b"a"])
    entered = asyncio.Event()

    async def handle(record: Record) -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ConnectionError("aborted") from None  # as libraries do

    task = asyncio.create_task(consumer.process(handle, on_failure=Skip()))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert consumer.statistics().skipped == 0
    assert consumer.position(P0) == 0


async def test_cancelling_waits_for_plain_handlers_and_counts_them(cluster: Cluster, consumer: Consumer) -> None:
    fill(cluster, [b"a"])
    entered, leave = threading.Event(), threading.Event()

    def handle(record: Record) -> None:
        entered.set()
        leave.wait(60)

    task = asyncio.create_task(consumer.process(handle))
    await until(entered.is_set)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    leave.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert consumer.statistics().processed == 1
    assert consumer.position(P0) == 1


async def test_closing_ends_process_in_order(cluster: Cluster, consumer: Consumer) -> None:
    fill(cluster, [b"a"])
    entered, leave = asyncio.Event(), asyncio.Event()

    async def handle(record: Record) -> None:
        entered.set()
        with pytest.raises(InvalidRequestError, match="call stop"):
            await consumer.close()
        await leave.wait()

    task = asyncio.create_task(consumer.process(handle))
    await entered.wait()
    closing = asyncio.create_task(consumer.close())
    await asyncio.sleep(0)
    leave.set()
    await closing
    assert (await task).processed == 1


async def test_a_close_that_is_cancelled_while_it_waits_for_handlers_closes_all_the_same(
    cluster: Cluster, consumer: Consumer
) -> None:
    fill(cluster, [b"a"])
    entered, leave = asyncio.Event(), asyncio.Event()

    async def handle(record: Record) -> None:
        entered.set()
        await leave.wait()

    task = asyncio.create_task(consumer.process(handle))
    await entered.wait()
    closing = asyncio.create_task(consumer.close())
    await asyncio.sleep(0)
    closing.cancel()
    try:
        with pytest.raises(asyncio.CancelledError):
            await closing
        with pytest.raises(ClientClosedError):
            await consumer.poll()
    finally:
        leave.set()
    await asyncio.wait([task])
    assert task.exception() is None or isinstance(task.exception(), ClientClosedError)
    assert consumer.statistics().processed == 1


async def test_a_handlers_own_cancelled_error_is_a_failure_like_any(cluster: Cluster, consumer: Consumer) -> None:
    fill(cluster, [b"a"])

    async def handle(record: Record) -> None:
        raise asyncio.CancelledError

    with pytest.raises(HandlerError, match="CancelledError"):
        await consumer.process(handle)


async def test_an_error_of_polling_ends_process_after_what_runs(cluster: Cluster, consumer: Consumer) -> None:
    fill(cluster, [b"a"])
    await consumer.seek(P1, 7)
    seen: list[int] = []

    async def handle(record: Record) -> None:
        seen.append(record.offset)

    with pytest.raises(OffsetOutOfRangeError) as raised:
        await consumer.process(handle)
    assert raised.value.reason is Reason.OFFSET_ABOVE_END
    assert consumer.position(P0) == len(seen)


async def test_a_slow_key_does_not_starve_other_partitions(
    cluster: Cluster, consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.client.processing.core.STALL_MS", 0)
    fill(cluster, [b"a"] * 50)
    entered, leave = asyncio.Event(), asyncio.Event()

    async def handle(record: Record) -> None:
        if record.partition == 0:
            entered.set()
            await leave.wait()
        elif record.offset == 4:
            assert consumer.paused() == (P0,)
            leave.set()
        if consumer.statistics().processed == 54:
            consumer.stop()

    task = asyncio.create_task(consumer.process(handle, max_in_flight=10))
    await entered.wait()
    fill(cluster, [b"b"] * 5, 1)
    statistics = await task
    assert statistics.processed == 55
    assert consumer.paused() == ()


async def test_the_window_bounds_what_is_taken(cluster: Cluster, consumer: Consumer) -> None:
    fill(cluster, [b"%d" % number for number in range(100)])
    leave = asyncio.Event()
    most = 0

    async def handle(record: Record) -> None:
        nonlocal most
        most = max(most, consumer.statistics().in_flight)
        if record.offset == 0:
            await leave.wait()
        elif record.offset == 9:
            assert consumer.position(P0) == 10
            leave.set()
        if record.offset == 99:
            consumer.stop()

    await consumer.process(handle, max_in_flight=10)
    assert most == 10


async def test_the_topics_id_outlives_the_topic_for_records_in_hand(cluster: Cluster, consumer: Consumer) -> None:
    topic_id = cluster.topics["orders"].topic_id
    assert consumer.topic_id("orders") == topic_id
    cluster.drop("orders")
    await until(lambda: "orders" not in consumer._session.metadata.catalog.topics)
    assert consumer.topic_id("orders") == topic_id
    with pytest.raises(UnknownTopicError, match="not known to the consumer"):
        consumer.topic_id("missing")


async def test_nobody_else_reads_meanwhile(cluster: Cluster, consumer: Consumer) -> None:
    fill(cluster, [b"a"] * 3)
    async for record in consumer:
        assert record.offset == 0
        break
    entered, leave = asyncio.Event(), asyncio.Event()
    seen: list[int] = []

    async def handle(record: Record) -> None:
        seen.append(record.offset)
        with pytest.raises(InvalidRequestError, match=r"process\(\) is running"):
            await consumer.poll()
        entered.set()
        await leave.wait()
        if record.offset == 2:
            consumer.stop()

    task = asyncio.create_task(consumer.process(handle))
    await entered.wait()
    with pytest.raises(InvalidRequestError, match=r"process\(\) is running"):
        await anext(consumer)
    leave.set()
    await task
    assert seen == [1, 2]
