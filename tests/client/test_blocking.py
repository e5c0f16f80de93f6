"""The blocking face: same names, from plain threads, interrupted waits."""

import inspect
import threading
from typing import Any

import pytest

import penstock.client
from penstock.client import (
    BatchDelivery,
    BufferFullError,
    ClientClosedError,
    Delivery,
    NewRecord,
    OutcomeUnknownError,
    PenstockError,
    TopicPartition,
    UnknownTopicError,
    blocking,
)
from penstock.client.blocking.producer import HANDOVER_RECORDS
from penstock.client.loop_thread import LoopThread
from tests.client.conftest import ServedCluster

P0 = TopicPartition("orders", 0)


@pytest.mark.parametrize("name", ["Producer", "Consumer", "Admin"])
def test_the_names_and_arguments_are_the_same(name: str) -> None:
    there, here = getattr(penstock.client, name), getattr(blocking, name)
    internal = {"abandon", "refuse"}
    for member, value in vars(there).items():
        if member.startswith("_") or member in internal or not inspect.isfunction(value):
            continue
        assert list(inspect.signature(value).parameters) == list(inspect.signature(getattr(here, member)).parameters)


def test_from_creation_to_reading(served: ServedCluster) -> None:
    bootstrap = served.cluster.bootstrap()
    with blocking.Admin(bootstrap) as admin:
        assert len(admin.create_topic("orders", 2).partitions) == 2
        assert admin.health().healthy
        assert [used.node_id for used in admin.broker_usage()] == [1, 2, 3]
    with blocking.Producer(bootstrap) as producer:
        futures = [producer.send("orders", b"%d" % number, partition=0) for number in range(3000)]
        assert futures[2999].result(60) == futures[0].result()._replace(
            offset=2999, timestamp_ms=futures[2999].result().timestamp_ms
        )
        assert producer.append("orders", 0, [NewRecord(b"end")], expected_offset=3000)[0].offset == 3000
    with blocking.Consumer(bootstrap) as consumer:
        consumer.assign_topics("orders", start="earliest")
        for number, record in enumerate(consumer):
            assert record.offset == number
            if number == 1234:
                break
        assert consumer.position(P0) == 1235
        offsets: list[int] = []
        while len(offsets) < 3:  # batches may come one by one
            offsets += [record.offset for record in consumer.poll(3 - len(offsets), timeout=60)]
        assert offsets == [1235, 1236, 1237]
        assert consumer.lag()[P0] == 3001 - 1238
        consumer.pause(P0)
        assert consumer.paused() == (P0,)
        consumer.resume(P0)
        batch = consumer.poll_batches(1, timeout=60)[0]
        assert batch.base_offset + batch.records[0].offset_delta == 1238
        consumer.seek(P0, "latest")
        assert consumer.poll(timeout=0.01) == []
        assert consumer.end_offsets([P0]) == {P0: 3001}


def test_callbacks_and_errors(served: ServedCluster) -> None:
    served.cluster.create("orders")
    got: list[tuple[Delivery | None, PenstockError | None]] = []
    with blocking.Producer(served.cluster.bootstrap()) as producer:
        producer.send_nowait("orders", b"x", on_delivery=lambda *told: got.append(told))
        producer.flush()
        assert got[0][0] is not None
        with pytest.raises(UnknownTopicError):
            producer.send("nope", b"x").result(60)
        producer.send_nowait("nope", b"x")
        with pytest.raises(UnknownTopicError):
            producer.flush()
        wrong: Any = 1.5
        assert isinstance(producer.send("orders", b"", partition=7).exception(60), PenstockError)
        assert producer.send("orders", b"", timestamp_ms=wrong).exception(60)
    with pytest.raises(ClientClosedError):
        producer.send("orders", b"x")


def test_many_values_at_once(served: ServedCluster) -> None:
    served.cluster.create("orders")
    got: list[BatchDelivery] = []
    with blocking.Producer(served.cluster.bootstrap(), on_batch=got.append) as producer:
        values = [b"%d" % number for number in range(2 * HANDOVER_RECORDS)]
        sent, rounds = 0, 0
        while sent < len(values):
            sent += producer.send_many_nowait("orders", values[sent:])
            rounds += 1
            producer.wait_for_room()
        producer.flush()
    assert rounds > 1
    assert sum(batch.record_count for batch in got) == len(values)
    assert [batch.error for batch in got if batch.error is not None] == []


def test_many_threads_share_a_producer(served: ServedCluster) -> None:
    served.cluster.create("orders")
    with blocking.Producer(served.cluster.bootstrap(), buffer_bytes=50_000, batch_bytes=2000) as producer:

        def work(who: int) -> None:
            for number in range(500):
                producer.send("orders", b"%d-%d" % (who, number))

        threads = [threading.Thread(target=work, args=(who,)) for who in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        producer.flush()
    found = [record.value for record in served.cluster.records("orders")]
    assert len(found) == 2000
    for who in range(4):
        mine = [value for value in found if value.startswith(b"%d-" % who)]
        assert mine == [b"%d-%d" % (who, number) for number in range(500)]


def test_the_hand_over_is_bounded(served: ServedCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.client.blocking.producer.HANDOVER_RECORDS", 10)
    served.cluster.create("orders")
    with blocking.Producer(served.cluster.bootstrap()) as producer:
        full = False
        while not full:
            try:
                producer.send_nowait("orders", b"x")
            except BufferFullError:
                full = True
        producer.wait_for_room()
        producer.send_nowait("orders", b"x")


def test_an_interrupted_wait_loses_no_record(served: ServedCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    served.cluster.create("orders")
    with blocking.Producer(served.cluster.bootstrap()) as producer:
        for number in range(10):
            producer.send("orders", b"%d" % number)
    with blocking.Consumer(served.cluster.bootstrap()) as consumer:
        consumer.assign([P0], "earliest")
        real = LoopThread.run

        def interrupted(self: LoopThread, coroutine: Any) -> Any:
            real(self, coroutine)
            raise KeyboardInterrupt

        monkeypatch.setattr(LoopThread, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            consumer.poll(timeout=60)
        monkeypatch.undo()
        offsets: list[int] = []
        while len(offsets) < 10:
            offsets += [record.offset for record in consumer.poll()]
        assert offsets == list(range(10))


def test_an_exception_inside_reports_what_was_not_sent(served: ServedCluster) -> None:
    served.cluster.create("orders")
    futures = []

    def fail() -> None:
        with blocking.Producer(served.cluster.bootstrap(), linger_ms=60_000) as producer:
            futures.append(producer.send("orders", b"x"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert isinstance(futures[0].exception(60), ClientClosedError | OutcomeUnknownError)


def test_the_background_thread_ends_with_the_last_client(served: ServedCluster) -> None:
    with blocking.Admin(served.cluster.bootstrap()), blocking.Admin(served.cluster.bootstrap()) as admin:
        admin.list_topics()
        assert any(thread.name == "penstock-client" for thread in threading.enumerate())
    assert not any(thread.name == "penstock-client" for thread in threading.enumerate())
    with pytest.raises(ClientClosedError):
        admin.list_topics()


def test_waiting_inside_a_callback_is_refused(served: ServedCluster) -> None:
    served.cluster.create("orders")
    caught: list[BaseException] = []
    with blocking.Producer(served.cluster.bootstrap()) as producer:

        def callback(*_: object) -> None:
            try:
                producer.flush()
            except RuntimeError as error:
                caught.append(error)

        producer.send_nowait("orders", b"x", on_delivery=callback)
    assert len(caught) == 1
