"""The producer against real gRPC: deliveries, order under faults, leaders that move, limits, closing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from penstock.client import (
    BatchDelivery,
    BufferFullError,
    ClientClosedError,
    Delivery,
    ExpectedOffsetMismatchError,
    InvalidRequestError,
    NewRecord,
    OutcomeUnknownError,
    PenstockError,
    Producer,
    ProducerFencedError,
    RecordTooLargeError,
    RequestTimeoutError,
    UnknownPartitionError,
    UnknownTopicError,
)
from penstock.protocol.keys import partition_of
from penstock.protocol.reasons import Reason
from penstock.v1 import common_pb2, topic_service_pb2
from tests.client.conftest import SkippingClock, until
from tests.client.reference_server import Cluster

HOUR_MS = 3_600_000


@asynccontextmanager
async def with_clock(producer: Producer) -> AsyncIterator[tuple[Producer, SkippingClock]]:
    """The producer, open, and the clock that it is given."""
    clock = SkippingClock()
    producer._seams = replace(producer._seams, clock=clock)
    async with producer:
        yield producer, clock


def values(cluster: Cluster, topic: str = "orders", partition: int = 0) -> list[bytes]:
    return [record.value for record in cluster.records(topic, partition)]


async def test_a_delivery_says_where_the_record_stands(cluster: Cluster) -> None:
    cluster.create("orders", 3)
    async with Producer(cluster.bootstrap()) as producer:
        future = await producer.send(
            "orders", b"v", key=b"k", headers=[("a", b"1"), ("a", None)], timestamp_ms=77, partition=2
        )
        assert await future == Delivery("orders", 2, 0, 77, leader_epoch=cluster.log("orders", 2).leader_epoch)
    (record,) = cluster.records("orders", 2)
    assert (record.key, record.value) == (b"k", b"v")
    assert [(header.key, header.HasField("value")) for header in record.headers] == [("a", True), ("a", False)]


async def test_absent_and_empty_stay_different(cluster: Cluster) -> None:
    cluster.create("orders")
    async with Producer(cluster.bootstrap(), compression="zstd") as producer:
        for key, value in [(None, None), (b"", b""), (None, b"")]:
            await producer.send("orders", value, key=key)
        await producer.flush()
    found = [(record.HasField("key"), record.HasField("value")) for record in cluster.records("orders")]
    assert found == [(False, False), (True, True), (False, True)]


async def test_keys_choose_the_partition(cluster: Cluster) -> None:
    cluster.create("orders", 3)
    async with Producer(cluster.bootstrap()) as producer:
        keys = [b"key-%d" % n for n in range(20)]
        for key in keys:
            await producer.send("orders", key, key=key)
        await producer.flush()
    for partition in range(3):
        assert values(cluster, "orders", partition) == [key for key in keys if partition_of(key, 3) == partition]


async def test_keyless_records_fill_batches_and_spread(cluster: Cluster) -> None:
    cluster.create("orders", 3)
    async with Producer(cluster.bootstrap(), batch_bytes=1000) as producer:
        for _ in range(2000):
            await producer.send("orders", b"x" * 50)
        await producer.flush()
    sizes = [len(values(cluster, "orders", partition)) for partition in range(3)]
    assert sum(sizes) == 2000
    assert min(sizes) > 200
    batches = sum(len(cluster.log("orders", partition).batches) for partition in range(3))
    assert batches <= 2000 // 13 + 20


async def test_what_gathered_goes_in_few_requests(cluster: Cluster) -> None:
    cluster.create("orders", 3)
    async with Producer(cluster.bootstrap(), batch_bytes=500, linger_ms=1) as producer:
        for number in range(3000):
            producer.send_nowait("orders", b"x" * 50, partition=number % 3)
        await producer.flush()
    assert cluster.produce_batches >= 3000 // 6
    assert cluster.produce_requests < cluster.produce_batches / 3


FAULTS = [
    ["NOT_LEADER"], ["NOT_ENOUGH_REPLICAS", "", "NOT_ENOUGH_REPLICAS"], ["cut-before"], ["cut-after"],
    ["", "cut-after", "", "cut-before", "OUTCOME_UNKNOWN"], ["INTERNAL", "", "STORE_FULL", "cut-after", "cut-after"],
]  # fmt: skip


@pytest.mark.parametrize("faults", FAULTS, ids="+".join)
async def test_faults_neither_lose_nor_repeat_nor_reorder(cluster: Cluster, faults: list[str]) -> None:
    cluster.create("orders")
    async with Producer(cluster.bootstrap(), batch_bytes=300, linger_ms=0) as producer:
        await (await producer.send("orders", b"first"))
        cluster.faults.extend(faults)
        futures = [await producer.send("orders", b"%d" % number) for number in range(200)]
        await producer.flush()
        offsets = [future.result().offset for future in futures]
    assert values(cluster) == [b"first", *(b"%d" % number for number in range(200))]
    assert offsets == list(range(1, 201))


async def test_leaders_that_move_neither_lose_nor_repeat_nor_reorder(cluster: Cluster) -> None:
    cluster.create("orders", 2)
    async with Producer(cluster.bootstrap(), batch_bytes=200, linger_ms=0) as producer:
        futures = []
        for number in range(400):
            futures.append(await producer.send("orders", b"%d" % number, partition=number % 2))
            if number % 50 == 20:
                cluster.lead("orders", number // 50 % 2, 1 + number % 3, tell=number % 100 == 20)
            if number % 50 == 45:
                cluster.brokers[1 + number % 3].cut_streams()
            if number % 10 == 0:
                await asyncio.gather(*futures[-3:])
        await producer.flush()
        assert all(future.result() for future in futures)
    for partition in range(2):
        assert values(cluster, "orders", partition) == [b"%d" % n for n in range(400) if n % 2 == partition]


async def test_a_broker_that_stops_is_survived(cluster: Cluster) -> None:
    cluster.create("orders", 3)
    async with Producer(cluster.bootstrap()) as producer:
        await (await producer.send("orders", b"before", partition=0))
        await cluster.brokers[1].stop()
        future = await producer.send("orders", b"after", partition=0)
        cluster.lead("orders", 0, 2)
        assert (await future).offset == 1


async def test_a_leader_that_does_not_answer_is_left_when_another_leads(cluster: Cluster) -> None:
    cluster.create("orders")
    async with Producer(cluster.bootstrap()) as producer:
        await (await producer.send("orders", b"0"))
        cluster.hold_answers = True
        future = await producer.send("orders", b"1")
        await until(lambda: len(cluster.log("orders").batches) == 2)
        cluster.hold_answers = False
        cluster.lead("orders", 0, 2)
        assert (await future).offset == 1
    assert values(cluster) == [b"0", b"1"]


async def test_a_stream_that_never_answers_is_taken_for_dead(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.client.dispatch.UNANSWERED_GRACE_MS", 50)
    cluster.create("orders")
    async with Producer(cluster.bootstrap(), request_timeout_ms=100) as producer:
        await (await producer.send("orders", b"0"))
        cluster.hold_answers = True
        future = await producer.send("orders", b"1")
        await until(lambda: len(cluster.log("orders").batches) == 2)
        cluster.hold_answers = False
        assert (await future).offset == 1


async def test_what_may_have_been_sent_is_unknown_after_the_delivery_timeout(cluster: Cluster) -> None:
    cluster.create("orders")
    async with with_clock(Producer(cluster.bootstrap(), request_timeout_ms=10 * HOUR_MS)) as (producer, clock):
        await (await producer.send("orders", b"0"))
        cluster.hold_answers = True
        future = await producer.send("orders", b"lost")
        await until(lambda: len(cluster.log("orders").batches) == 2)
        clock.skip(HOUR_MS)
        with pytest.raises(OutcomeUnknownError):
            await future
        cluster.hold_answers = False
        cluster.answer_gate.set()
        assert (await (await producer.send("orders", b"2"))).offset == 2
    assert values(cluster) == [b"0", b"lost", b"2"]


async def test_what_was_never_sent_failed_for_certain(cluster: Cluster) -> None:
    cluster.create("orders")
    async with with_clock(Producer(cluster.bootstrap())) as (producer, clock):
        await (await producer.send("orders", b"0"))
        for broker in cluster.brokers.values():
            await broker.stop()
        error: BaseException = OutcomeUnknownError(Reason.OUTCOME_UNKNOWN, "")
        while isinstance(error, OutcomeUnknownError):  # until the broken stream has been noticed, it may be sent
            future = await producer.send("orders", b"1")
            clock.skip(HOUR_MS)
            with pytest.raises(PenstockError) as caught:
                await future
            error = caught.value
        assert isinstance(error, RequestTimeoutError)


async def test_a_definite_refusal_is_reported_and_the_next_go_on(cluster: Cluster) -> None:
    cluster.create("orders")
    async with Producer(cluster.bootstrap(), linger_ms=0) as producer:
        await (await producer.send("orders", b"0"))
        cluster.faults.append("INVALID_TIMESTAMP")
        bad = await producer.send("orders", b"bad")
        with pytest.raises(InvalidRequestError):
            await bad
        assert (await (await producer.send("orders", b"1"))).offset == 1
    epochs = [stored.batch.producer_epoch for stored in cluster.log("orders").batches]
    assert epochs == [0, 1]


async def test_a_fenced_producer_is_of_no_more_use(cluster: Cluster) -> None:
    cluster.create("orders")
    async with Producer(cluster.bootstrap()) as producer:
        cluster.faults.append("PRODUCER_FENCED")
        with pytest.raises(ProducerFencedError):
            await (await producer.send("orders", b"0"))
        with pytest.raises(ProducerFencedError):
            await producer.send("orders", b"1")


async def test_a_batch_callback_is_called_once_a_batch(cluster: Cluster) -> None:
    cluster.create("orders")
    got: list[BatchDelivery] = []
    async with Producer(cluster.bootstrap(), on_batch=got.append) as producer:
        for _ in range(100):
            producer.send_nowait("orders", b"x")
        await producer.flush()
    assert [(one.base_offset, one.record_count, one.durability, one.error) for one in got] == [(0, 100, "commit", None)]


async def test_many_values_at_once_are_all_there_in_order(cluster: Cluster) -> None:
    cluster.create("orders", 3)
    got: list[BatchDelivery] = []
    wanted = [b"%d" % number for number in range(1_000)]
    async with Producer(cluster.bootstrap(), on_batch=got.append, batch_bytes=2_000, buffer_bytes=20_000) as producer:
        sent = rounds = 0
        while sent < len(wanted):
            sent += producer.send_many_nowait("orders", wanted[sent:], partition=1)
            rounds += 1
            await producer.wait_for_room()
        await producer.flush()
        assert producer.send_many_nowait("orders", [b"a", b"b"]) == 2
    assert rounds > 1  # the memory was full in between
    assert values(cluster, partition=1)[:1_000] == wanted
    assert sum(one.record_count for one in got) == 1_002
    assert [one.error for one in got] == [None] * len(got)


async def test_many_values_of_which_one_cannot_be_sent(cluster: Cluster) -> None:
    cluster.create("orders")
    got: list[BatchDelivery] = []
    async with Producer(cluster.bootstrap(), on_batch=got.append, batch_bytes=500, buffer_bytes=1_500) as producer:
        producer.send_many_nowait("orders", [b"x"], partition=9)  # the topic is not known yet
        with pytest.raises(UnknownPartitionError):
            await producer.flush()
        with pytest.raises(UnknownPartitionError):
            producer.send_many_nowait("orders", [b"x"], partition=9)
        with pytest.raises(RecordTooLargeError):
            producer.send_many_nowait("orders", [b"1", b"2", b"x" * 2_000, b"3"], partition=0)
        await producer.flush()
        assert sum(one.record_count for one in got if one.error is None) == 2
    with pytest.raises(ClientClosedError):
        producer.send_many_nowait("orders", [b"x"])


async def test_callbacks_come_in_order_and_one_that_raises_does_no_harm(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.create("orders")
    got: list[int] = []

    def note(delivery: Delivery | None, error: PenstockError | None) -> None:
        assert error is None
        assert delivery is not None
        got.append(delivery.offset)
        if delivery.offset == 3:
            raise ValueError("mine")

    async with Producer(cluster.bootstrap()) as producer:
        for _ in range(10):
            producer.send_nowait("orders", b"x", on_delivery=note)
    assert got == list(range(10))
    assert "a delivery callback raised" in caplog.text


async def test_a_failure_nobody_was_told_of_is_raised_by_the_flush(cluster: Cluster) -> None:
    cluster.create("orders")
    async with Producer(cluster.bootstrap()) as producer:
        cluster.faults.append("INVALID_TIMESTAMP")
        producer.send_nowait("orders", b"x")
        producer.send_nowait("orders", b"y")
        with pytest.raises(InvalidRequestError) as caught:
            await producer.flush()
        assert caught.value.__notes__ == ["2 records failed since the last flush, this is the first error"]
        await producer.flush()


async def test_memory_is_bounded_and_waited_for(cluster: Cluster) -> None:
    cluster.create("orders")
    async with Producer(cluster.bootstrap(), buffer_bytes=10_000, batch_bytes=1000) as producer:
        await (await producer.send("orders", b"first"))
        for _ in range(8):
            producer.send_nowait("orders", b"x" * 1000)
        with pytest.raises(BufferFullError):
            producer.send_nowait("orders", b"x" * 1000)
        await producer.wait_for_room()
        for _ in range(200):
            await producer.send("orders", b"x" * 1000)
        with pytest.raises(RecordTooLargeError):
            await producer.send("orders", b"x" * 10_000)


async def test_wrong_topics_partitions_and_values_are_refused(cluster: Cluster) -> None:
    cluster.create("orders", 2, topic_service_pb2.TopicConfig(max_batch_bytes=1000))
    async with Producer(cluster.bootstrap()) as producer:
        with pytest.raises(UnknownTopicError):
            await (await producer.send("nope", b"x"))
        with pytest.raises(UnknownPartitionError):
            await (await producer.send("orders", b"x", partition=2))
        for partition in (2, -1):
            with pytest.raises(UnknownPartitionError):
                await producer.send("orders", b"x", partition=partition)
        with pytest.raises(RecordTooLargeError):
            await producer.send("orders", b"x" * 1000)
        wrong: Any = "text"
        with pytest.raises(InvalidRequestError):
            await producer.send("orders", wrong)
    assert values(cluster) == values(cluster, "orders", 1) == []


async def test_a_deleted_topic_fails_what_waits_and_a_new_one_of_its_name_is_found(cluster: Cluster) -> None:
    cluster.create("orders")
    async with Producer(cluster.bootstrap(), linger_ms=50) as producer:
        await (await producer.send("orders", b"0"))
        waiting = await producer.send("orders", b"1")
        cluster.drop("orders")
        with pytest.raises(UnknownTopicError):
            await waiting
        cluster.create("orders")
        assert (await (await producer.send("orders", b"2"))).offset == 0
    assert values(cluster) == [b"2"]


async def test_added_partitions_are_used(cluster: Cluster) -> None:
    cluster.create("orders", 1)
    async with Producer(cluster.bootstrap()) as producer:
        await (await producer.send("orders", b"0"))
        cluster.grow("orders", 3)
        while True:
            try:
                assert (await (await producer.send("orders", b"1", partition=2))).partition == 2
                break
            except UnknownPartitionError:
                await asyncio.sleep(0)


@pytest.mark.parametrize("acks", ["none", "leader"])
async def test_weaker_acks(cluster: Cluster, acks: Any) -> None:
    cluster.create("orders")
    async with Producer(cluster.bootstrap(), acks=acks) as producer:
        futures = [await producer.send("orders", b"%d" % number) for number in range(10)]
        await producer.flush()
        assert [future.result().offset for future in futures] == ([-1] * 10 if acks == "none" else list(range(10)))
    assert len(values(cluster)) == 10
    assert all(not stored.batch.HasField("producer_id") for stored in cluster.log("orders").batches)


async def test_the_wait_for_an_unknown_topic_counts_in_the_delivery_timeout(cluster: Cluster) -> None:
    cluster.create("orders")
    waiting = Producer(cluster.bootstrap(), linger_ms=60_000, delivery_timeout_ms=600_000)
    async with with_clock(waiting) as (producer, clock):
        latest_ms = clock.monotonic_ms() + 600_000
        producer.send_nowait("orders", b"1")
        earliest_ms = clock.monotonic_ms()
        clock.skip(400_000)
        await until(lambda: bool(producer._accumulator.live))
        (batch,) = producer._accumulator.live
        assert latest_ms <= batch.deadline_ms <= earliest_ms + 600_000


async def test_without_idempotence_a_lost_answer_is_unknown_at_once(cluster: Cluster) -> None:
    cluster.create("orders")
    async with Producer(cluster.bootstrap(), idempotence=False) as producer:
        await (await producer.send("orders", b"0"))
        cluster.faults.append("cut-after")
        with pytest.raises(OutcomeUnknownError):
            await (await producer.send("orders", b"1"))
        assert (await (await producer.send("orders", b"2"))).offset == 2


async def test_append_with_an_expected_offset(cluster: Cluster) -> None:
    cluster.create("orders")
    async with Producer(cluster.bootstrap()) as producer:
        first = await producer.append("orders", 0, [NewRecord(b"a"), NewRecord(b"b", b"k")], expected_offset=0)
        assert [delivery.offset for delivery in first] == [0, 1]
        with pytest.raises(ExpectedOffsetMismatchError):
            await producer.append("orders", 0, [NewRecord(b"c")], expected_offset=1)
        cluster.unary_faults.append(Reason.OUTCOME_UNKNOWN)
        (again,) = await producer.append("orders", 0, [NewRecord(b"d")], expected_offset=2)
        assert again.offset == 2
    assert values(cluster) == [b"a", b"b", b"d"]


async def test_flush_says_when_it_could_not(cluster: Cluster) -> None:
    cluster.create("orders")
    async with Producer(cluster.bootstrap()) as producer:
        await (await producer.send("orders", b"0"))
        cluster.hold_answers = True
        future = await producer.send("orders", b"1")
        with pytest.raises(RequestTimeoutError, match="1 records are not acknowledged"):
            await producer.flush(0.05)
        assert not future.done()
        cluster.hold_answers = False
        cluster.answer_gate.set()
        await producer.flush(60)
        assert future.result().offset == 1


async def test_closing_reports_what_is_not_acknowledged(cluster: Cluster) -> None:
    cluster.create("orders")
    producer = Producer(cluster.bootstrap())
    await producer.open()
    await (await producer.send("orders", b"0"))
    cluster.hold_answers = True
    sent = await producer.send("orders", b"1")
    await until(lambda: len(cluster.log("orders").batches) == 2)
    await producer.close(0.02)
    with pytest.raises(OutcomeUnknownError):
        await sent
    with pytest.raises(ClientClosedError):
        await producer.send("orders", b"2")
    await producer.close()


async def test_an_exception_inside_ends_at_once_and_leaves_no_task(cluster: Cluster) -> None:
    cluster.create("orders")
    before = asyncio.all_tasks()
    futures = []

    async def fail() -> None:
        async with Producer(cluster.bootstrap(), linger_ms=60_000) as producer:
            futures.append(await producer.send("orders", b"0"))
            await producer.send("other", b"0")
            raise KeyError("mine")

    with pytest.raises(KeyError):
        await fail()
    with pytest.raises(ClientClosedError):
        await futures[0]
    assert {task for task in asyncio.all_tasks() - before if "penstock/client" in str(task.get_coro())} == set()


async def test_a_cluster_that_comes_up_later_is_waited_for(cluster: Cluster) -> None:
    cluster.create("orders")
    await cluster.brokers[1].stop()
    async with Producer(cluster.brokers[1].address) as producer:
        future = await producer.send("orders", b"0", partition=0)
        await cluster.brokers[1].start()
        assert (await future).offset == 0


async def test_addresses_are_dialled_as_the_map_says(cluster: Cluster) -> None:
    """The bootstrap address and the advertised ones alike: here a name that only the map knows."""
    cluster.create("orders", 3)
    for broker in cluster.brokers.values():
        broker.advertised_host = f"node-{broker.node_id}.invalid"
    address_map = {f"{b.advertised_host}:{b.port}": b.address for b in cluster.brokers.values()}
    async with Producer(next(iter(address_map)), address_map=address_map) as producer:
        deliveries = [await (await producer.send("orders", b"v", partition=partition)) for partition in range(3)]
    assert [delivery.offset for delivery in deliveries] == [0, 0, 0]


async def test_a_record_without_a_key_does_not_leave_for_a_compacted_topic(cluster: Cluster) -> None:
    compacted = topic_service_pb2.TopicConfig(cleanup_policy=common_pb2.CLEANUP_POLICY_COMPACT)
    cluster.create("state", 2, compacted)
    async with Producer(cluster.bootstrap(), linger_ms=0) as producer:
        first = await producer.send("state", b"0")  # the topic is not known yet
        with pytest.raises(InvalidRequestError) as caught:
            await first
        assert caught.value.reason is Reason.KEY_REQUIRED
        await (await producer.send("state", None, key=b""))
        for partition in (None, 1):
            with pytest.raises(InvalidRequestError, match="'state' is compacted"):
                producer.send_nowait("state", b"1", partition=partition)
            with pytest.raises(InvalidRequestError):
                producer.send_many_nowait("state", [b"1", b"2"], partition=partition)
        await (await producer.send("state", b"1", key=b"k", partition=1))
        await producer.flush()
    assert sum(stored.batch.record_count for log in range(2) for stored in cluster.log("state", log).batches) == 2


async def test_the_policy_of_a_topic_may_change_under_a_producer(cluster: Cluster) -> None:
    topic = cluster.create("state")
    async with Producer(cluster.bootstrap(), linger_ms=0) as producer:
        await (await producer.send("state", b"0"))
        topic.config.cleanup_policy = common_pb2.CLEANUP_POLICY_COMPACT_AND_DELETE
        cluster.touch()

        def is_refused() -> bool:
            try:
                producer.send_nowait("state", b"keyless")
            except InvalidRequestError as error:
                return error.reason is Reason.KEY_REQUIRED
            return False

        await until(is_refused)
        topic.config.cleanup_policy = common_pb2.CLEANUP_POLICY_DELETE
        cluster.touch()
        await until(lambda: not is_refused())
        await (await producer.send("state", b"1"))


async def test_an_append_refused_for_its_key_is_definite(cluster: Cluster) -> None:
    cluster.create("state")
    async with Producer(cluster.bootstrap()) as producer:
        cluster.faults.append("KEY_REQUIRED")
        with pytest.raises(InvalidRequestError) as caught:
            await (await producer.send("state", b"0"))
        assert caught.value.reason is Reason.KEY_REQUIRED
