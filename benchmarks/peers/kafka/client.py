"""The client of Kafka's brokers, in Python with confluent-kafka (librdkafka), as benchmarks.system wants it.

The application learns of every record by a delivery callback. librdkafka has no callback for a batch: with form
"batches" the records are handed over by `produce_batch`, many in a call, and still have a callback each.
"""

import struct
import threading
import time
from collections.abc import Callable
from functools import partial

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from benchmarks.pace import SETTLE_TIMEOUT_S, Pace, Stopwatch, payload
from benchmarks.peers.kafka.settings import consumer_settings, producer_settings
from benchmarks.result import Load
from benchmarks.workloads import Workload
from penstock.client.bench.histogram import Histogram

STALL_TIMEOUT_S = 60.0
"""Without a delivery, or a record read, the run has failed."""
POLL_EVERY = 1_000
"""Records between two looks for deliveries, where the queue is not full."""
FULL_WAIT_S = 0.01
WAIT_S = 0.1
SHORTEST_POLL_S = 0.001
"""librdkafka waits in whole milliseconds; shorter waits are slept."""
CONSUME_RECORDS = 10_000
_NUMBER = struct.Struct("<Q")
"""In front of the values of kind tail: the record's number."""
Delivery = Callable[[KafkaError | None, Message], None]


class KafkaDriver:
    """See the module; the contract is benchmarks.system.Driver's."""

    def drive(self, bootstrap: str, workload: Workload) -> Load:
        """Do the work of the workload's kind."""
        if workload.kind == "throughput":
            return _throughput(bootstrap, workload)
        if workload.kind == "open_loop":
            return _open_loop(bootstrap, workload)
        if workload.kind == "series":
            return _series(bootstrap, workload)
        if workload.kind == "consume":
            if not workload.cold:
                self.fill(bootstrap, workload)
            return _consume(bootstrap, workload)
        return _tail(bootstrap, workload)

    def fill(self, bootstrap: str, workload: Workload) -> None:
        """Put the records of kind consume into the topic, durable as the servers' mode has it."""
        sender = _Sender(bootstrap, workload)
        sender.send(workload.records)
        sender.close()


class _Sender:
    """Produces as fast as the client takes it, and counts what is delivered."""

    def __init__(self, bootstrap: str, workload: Workload) -> None:
        self._workload = workload
        self._value = payload(workload)
        self._delivered = 0
        self._error: KafkaError | None = None
        self._producer = Producer(producer_settings(bootstrap, workload))

    def send(self, count: int) -> None:
        """Send so many records and return when all are acknowledged. Raises KafkaException, TimeoutError."""
        self._delivered = 0
        if self._workload.form == "batches":
            self._hand_over_batches(count)
        else:
            self._hand_over_records(count)
        seen, deadline = -1, 0.0
        while self._delivered < count:
            if self._delivered != seen:
                seen, deadline = self._delivered, time.monotonic() + STALL_TIMEOUT_S
            elif time.monotonic() > deadline:
                raise TimeoutError(f"{count - seen} records were not delivered")
            self._poll(WAIT_S)

    def close(self) -> None:
        """End the client's threads."""
        self._producer.close()

    def _hand_over_records(self, count: int) -> None:
        produce, topic, value, delivered = self._producer.produce, self._workload.name, self._value, self._on_delivery
        for number in range(count):
            while True:
                try:
                    produce(topic, value, on_delivery=delivered)
                    break
                except BufferError:
                    self._poll(FULL_WAIT_S)
            if number % POLL_EVERY == 0:
                self._poll(0)

    def _hand_over_batches(self, count: int) -> None:
        """In calls of POLL_EVERY records. Those that the queue has no room for come again."""
        topic, delivered, left = self._workload.name, self._on_delivery, count
        while left:
            messages: list[dict[str, object]] = [{"value": self._value} for _ in range(min(POLL_EVERY, left))]
            taken = self._producer.produce_batch(topic, messages, on_delivery=delivered)
            for message in messages if taken < len(messages) else ():
                error = message.get("_error")
                if isinstance(error, KafkaError) and error.code() != KafkaError._QUEUE_FULL:  # noqa: SLF001  public
                    raise KafkaException(error)
            left -= taken
            self._poll(0 if taken else FULL_WAIT_S)

    def _poll(self, timeout_s: float) -> None:
        self._producer.poll(timeout_s)
        if self._error is not None:
            raise KafkaException(self._error)

    def _on_delivery(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._error = error
        self._delivered += 1


def _throughput(bootstrap: str, workload: Workload) -> Load:
    """No key: librdkafka's sticky partitioner stays with a partition for a while, and goes to another."""
    sender = _Sender(bootstrap, workload)
    sender.send(workload.warm_records)
    watch = Stopwatch()
    sender.send(workload.records)
    watch.stop()
    sender.close()
    return watch.load(workload, workload.records)


def _series(bootstrap: str, workload: Workload) -> Load:
    """One record in flight: produce, then wait in poll, which returns as soon as there is a delivery."""
    sender = _Sender(bootstrap, workload)
    for _ in range(workload.warm_records):
        sender.send(1)
    histogram = Histogram()
    watch = Stopwatch()
    for _ in range(workload.records):
        began = time.perf_counter()
        sender.send(1)
        histogram.record(int((time.perf_counter() - began) * 1e6))
    watch.stop()
    sender.close()
    return watch.load(workload, workload.records, histogram)


def _open_loop(bootstrap: str, workload: Workload) -> Load:
    pace, value = Pace(workload), payload(workload)

    def delivered(number: int, error: KafkaError | None, _message: Message) -> None:
        if error is None:
            pace.settle(number)
        else:
            pace.fail(KafkaException(error))

    producer = Producer(producer_settings(bootstrap, workload))
    producer.list_topics(workload.name, timeout=STALL_TIMEOUT_S)
    _produce_on_time(producer, pace, lambda _number: value, lambda number: partial(delivered, number))
    producer.close()
    return pace.load()


def _produce_on_time(
    producer: Producer, pace: Pace, value_of: Callable[[int], bytes], delivery_of: Callable[[int], Delivery]
) -> None:
    """Send each record when it is due, and serve deliveries until all is settled.

    A wait of a millisecond or more is spent in poll, which a delivery ends; a shorter one is slept.
    """
    topic, partitions = pace.workload.name, pace.workload.partitions
    pace.begin()
    while not pace.all_taken and not pace.is_finished:
        for number in pace.take():
            while True:
                try:
                    producer.produce(
                        topic, value_of(number), partition=number % partitions, on_delivery=delivery_of(number)
                    )
                    break
                except BufferError:
                    producer.poll(FULL_WAIT_S)
        wait_s = pace.wait_s()
        if wait_s < SHORTEST_POLL_S:
            time.sleep(wait_s)
            wait_s = 0.0
        producer.poll(wait_s)
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    while not pace.is_finished:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{pace.total - pace.settled} records were not settled")
        producer.poll(WAIT_S)
    pace.check()


def _tail(bootstrap: str, workload: Workload) -> Load:
    """Produce in this thread, consume in another: a record is settled when the consumer's poll returns it."""
    pace = Pace(workload)
    filling = payload(workload)[_NUMBER.size :]

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            pace.fail(KafkaException(error))

    def consume() -> None:
        try:
            while not pace.is_finished:
                message = consumer.poll(WAIT_S)
                if message is not None:
                    pace.settle(_NUMBER.unpack_from(_value_of(message))[0])
        except Exception as error:  # noqa: BLE001  it ends the run, in the thread that waits for it
            pace.fail(error)

    producer = Producer(producer_settings(bootstrap, workload))
    producer.list_topics(workload.name, timeout=STALL_TIMEOUT_S)
    consumer = _connected(bootstrap, workload)
    _assign(consumer, workload)
    thread = threading.Thread(target=consume)
    thread.start()
    try:
        _produce_on_time(producer, pace, lambda number: _NUMBER.pack(number) + filling, lambda _number: delivered)
    except BaseException as error:
        pace.fail(error)
        raise
    finally:
        thread.join()
        producer.close()
        consumer.close()
    return pace.load()


def _consume(bootstrap: str, workload: Workload) -> Load:
    """Both forms take lists of records from librdkafka; form "records" then looks at each."""
    if workload.warm_records:
        consumer = _connected(bootstrap, workload)
        _assign(consumer, workload)
        _read(consumer, workload, workload.warm_records)
        consumer.close()
    consumer = _connected(bootstrap, workload)
    watch = Stopwatch()
    _assign(consumer, workload)
    _read(consumer, workload, workload.records)
    watch.stop()
    consumer.close()
    return watch.load(workload, workload.records)


def _connected(bootstrap: str, workload: Workload) -> Consumer:
    """Give a consumer that knows the topic's leaders: librdkafka takes half a second over it, which is not reading."""
    consumer = Consumer(consumer_settings(bootstrap))
    consumer.list_topics(workload.name, timeout=STALL_TIMEOUT_S)
    return consumer


def _assign(consumer: Consumer, workload: Workload) -> None:
    """Read all partitions from their first record, without the delays of joining a group."""
    consumer.assign([TopicPartition(workload.name, partition, 0) for partition in range(workload.partitions)])


def _read(consumer: Consumer, workload: Workload, count: int) -> None:
    """Take `count` records. Raises KafkaException (an error in place of a record), TimeoutError, ValueError (sizes)."""
    records = size = 0
    deadline = time.monotonic() + STALL_TIMEOUT_S
    while records < count:
        messages = consumer.consume(min(CONSUME_RECORDS, count - records), WAIT_S)
        if workload.form == "records":
            for message in messages:
                size += len(_value_of(message))
        else:
            size += sum(map(len, messages))
        records += len(messages)
        if messages:
            deadline = time.monotonic() + STALL_TIMEOUT_S
        elif time.monotonic() > deadline:
            raise TimeoutError(f"{count - records} records were not read")
    if size != count * workload.record_bytes:  # an error in place of a record has another length
        raise ValueError(f"{count} records of {workload.record_bytes} bytes were wanted; {size} bytes came")


def _value_of(message: Message) -> bytes:
    """Give a record's value. Raises KafkaException where an error came in its place."""
    value, error = message.value(), message.error()
    if error is not None or value is None:
        raise KafkaException(error)
    return value
