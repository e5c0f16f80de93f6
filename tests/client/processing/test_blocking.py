"""process() in the blocking face: handlers in threads, dead letters through a blocking producer, interrupts."""

import inspect
import signal
import sys
import threading

import pytest

from penstock.client import DeadLetter, Deduplicator, HandlerError, InvalidRequestError, Record, Skip, TopicPartition
from penstock.client.blocking import Consumer, Producer
from penstock.client.processing.face import ProcessingFace
from tests.client.conftest import ServedCluster

P0 = TopicPartition("orders", 0)


def publish(served: ServedCluster, count: int) -> None:
    served.cluster.create("orders")
    with Producer(served.cluster.bootstrap()) as producer:
        for number in range(count):
            producer.send("orders", b"%d" % number, key=b"%d" % (number % 3))


def test_the_names_and_arguments_are_the_same() -> None:
    for name, method in vars(ProcessingFace).items():
        if inspect.isfunction(method):
            there, here = inspect.signature(method), inspect.signature(getattr(Consumer, name))
            assert list(there.parameters) == list(here.parameters)


def test_plain_handlers_run_side_by_side_and_the_caller_waits(served: ServedCluster) -> None:
    publish(served, 60)
    together = threading.Barrier(3, timeout=60)
    seen: list[int] = []
    with Consumer(served.cluster.bootstrap()) as consumer:
        consumer.assign_topics("orders", start="earliest")
        assert consumer.poll(1)[0].offset == 0  # what the face has read ahead comes again

        def handle(record: Record) -> None:
            if record.offset < 4:
                together.wait()
            seen.append(record.offset)
            if len(seen) == 59:
                consumer.stop()

        statistics = consumer.process(handle, concurrency=3)
        assert statistics.processed == 59
        assert sorted(seen) == list(range(1, 60))
        assert [offset for offset in seen if offset % 3 == 1] == list(range(1, 60, 3))
        assert consumer.statistics() == statistics
        assert consumer.position(P0) == 60


def test_dead_letters_through_a_blocking_producer(served: ServedCluster) -> None:
    publish(served, 3)
    served.cluster.create("dead")
    bootstrap = served.cluster.bootstrap()
    with Consumer(bootstrap) as consumer, Producer(bootstrap) as producer:
        consumer.assign_topics("orders", start="earliest")

        def handle(record: Record) -> None:
            if record.offset == 1:
                raise ValueError("never")
            if record.offset == 2:
                consumer.stop()

        statistics = consumer.process(handle, concurrency=1, on_failure=DeadLetter("dead", producer))
        assert (statistics.processed, statistics.dead_lettered) == (2, 1)
    assert [letter.value for letter in served.cluster.records("dead")] == [b"1"]


def test_closing_inside_a_handler_is_refused(served: ServedCluster) -> None:
    publish(served, 1)
    with Consumer(served.cluster.bootstrap()) as consumer:
        consumer.assign_topics("orders", start="earliest")
        with pytest.raises(HandlerError, match="call stop"):
            consumer.process(lambda record: consumer.close())
        with pytest.raises(InvalidRequestError, match="not between"):
            consumer.process(print, concurrency=0)


def test_a_handler_that_exits_stops_process_and_leaves_the_client_alive(served: ServedCluster) -> None:
    publish(served, 2)
    with Consumer(served.cluster.bootstrap()) as consumer:
        consumer.assign_topics("orders", start="earliest")
        with pytest.raises(HandlerError, match="SystemExit: 3"):
            consumer.process(lambda record: sys.exit(3), on_failure=Skip())
        assert consumer.position(P0) == 0


def test_ctrl_c_ends_process_and_what_was_done_stays_done(served: ServedCluster) -> None:
    publish(served, 2)
    consumer = Consumer(served.cluster.bootstrap())
    consumer.open()
    consumer.assign_topics("orders", start="earliest")

    def handle(record: Record) -> None:
        if record.offset == 1:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        consumer.process(handle, concurrency=1)
    consumer.close()


def test_a_deduplicated_handler_meets_each_record_once(served: ServedCluster, tmp_path: object) -> None:
    publish(served, 30)
    seen: list[int] = []
    with Deduplicator(f"{tmp_path}/done.db") as done:
        for limit in (20, 30):
            with Consumer(served.cluster.bootstrap()) as consumer:
                consumer.assign_topics("orders", start="earliest")

                def handle(record: Record, consumer: Consumer = consumer, limit: int = limit) -> None:
                    seen.append(record.offset)
                    if len(seen) >= limit:
                        consumer.stop()

                consumer.process(done.wrap(handle), concurrency=2)
        assert done.duplicates >= 20
    assert sorted(seen) == list(range(30))
