"""Penstock as a system under test: three nodes with default settings, and the public API of the client alone."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import uvloop

from benchmarks.pace import Pace, Stopwatch, payload
from benchmarks.result import Load
from benchmarks.system import Driver, System, UnavailableError
from benchmarks.workloads import Workload
from penstock.client import (
    Admin,
    BatchDelivery,
    BufferFullError,
    Consumer,
    Delivery,
    PenstockError,
    Producer,
)
from penstock.client.bench.histogram import Histogram
from penstock.client.devcluster import DevCluster, DevClusterError
from penstock.client.devplan import make_plan
from penstock.client.ports import free_ports

NODES = 3
READY_TIMEOUT_S = 60.0
POLL_S = 0.05
RECORD_OVERHEAD = 26
"""About what a record takes in a batch beside its value; only for how often the loop gets a turn."""
POLL_RECORDS = 5_000


def system(_: str) -> System:
    """See registry.MODULES."""
    return PenstockSystem()


def driver(_: str) -> Driver:
    """See registry.MODULES."""
    return PenstockDriver()


class PenstockSystem:
    """Three nodes."""

    name = "penstock"

    def __init__(self) -> None:
        self.bootstrap = ""
        self._cluster: DevCluster | None = None
        self._topics: list[Workload] = []

    def prepare(self) -> None:
        """Nothing is needed that Penstock does not need."""

    def start(self, folder: Path) -> None:
        """Start a new cluster."""
        cluster = self._cluster = DevCluster.create(folder / "penstock", make_plan(free_ports(2 * NODES)))
        self.bootstrap = cluster.bootstrap
        try:
            cluster.start()
            cluster.wait_serving()
        except DevClusterError as error:
            raise UnavailableError(str(error)) from error

    def create(self, workload: Workload) -> None:
        """Create the topic and wait for leaders and replicas."""
        self._topics.append(workload)
        asyncio.run(_create(self.bootstrap, workload))
        asyncio.run(_ready(self.bootstrap, workload))

    def restart(self) -> None:
        """Stop and start."""
        cluster = self._started()
        cluster.stop()
        cluster.start()
        cluster.wait_serving()
        for workload in self._topics:
            asyncio.run(_ready(self.bootstrap, workload))

    def pids(self) -> dict[str, int]:
        """See System."""
        cluster = self._started()
        processes = {node_id: cluster.process(node_id) for node_id in cluster.node_ids}
        return {f"node-{node_id}": process.pid for node_id, process in processes.items() if process is not None}

    def stop(self) -> None:
        """Stop and remove."""
        if self._cluster is not None:
            self._cluster.delete()
            self._cluster = None

    def _started(self) -> DevCluster:
        if self._cluster is None:
            raise RuntimeError("not started")
        return self._cluster


async def _create(bootstrap: str, workload: Workload) -> None:
    async with Admin(bootstrap) as admin:
        await admin.create_topic(workload.name, workload.partitions, workload.replication)


async def _ready(bootstrap: str, workload: Workload) -> None:
    """Wait until each partition has its preferred leader and all replicas in sync, as a cluster at rest has."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    async with Admin(bootstrap) as admin:
        while True:
            topic = await admin.describe_topic(workload.name)
            whole = [p for p in topic.partitions if p.leader == p.replicas[0] and len(p.isr) == len(p.replicas)]
            if len(whole) == workload.partitions:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(whole)} of {workload.partitions} partitions of {workload.name} are ready")
            await asyncio.sleep(POLL_S)


class PenstockDriver:
    """The client."""

    def drive(self, bootstrap: str, workload: Workload) -> Load:
        """See Driver."""
        kinds = {
            "throughput": _throughput,
            "open_loop": _open_loop,
            "series": _series,
            "consume": _consume,
            "tail": _tail,
        }
        load: Load = uvloop.run(kinds[workload.kind](bootstrap, workload))
        return load

    def fill(self, bootstrap: str, workload: Workload) -> None:
        """See Driver."""
        uvloop.run(_fill(bootstrap, workload))


class Sender:
    """Sends records as fast as they are taken, counting what is acknowledged, by record or by batch."""

    def __init__(self, bootstrap: str, workload: Workload) -> None:
        self._workload = workload
        self._value = payload(workload)
        self._turn = max(1, workload.batch_bytes // (workload.record_bytes + RECORD_OVERHEAD))
        self._acknowledged = 0
        self._error: PenstockError | None = None
        batches = workload.form == "batches"
        self._on_delivery = None if batches else self._delivered
        self.producer = Producer(
            bootstrap,
            acks=workload.acks,
            linger_ms=workload.linger_ms,
            batch_bytes=workload.batch_bytes,
            on_batch=self._batch_delivered if batches else None,
        )

    def _delivered(self, _: Delivery | None, error: PenstockError | None) -> None:
        self._acknowledged += 1
        if error is not None:
            self._error = error

    def _batch_delivered(self, batch: BatchDelivery) -> None:
        self._acknowledged += batch.record_count
        if batch.error is not None:
            self._error = batch.error

    async def send(self, count: int) -> None:
        """Send, and wait until all is acknowledged. Raises what a record failed with."""
        self._acknowledged = 0
        await (self._send_each(count) if self._on_delivery is not None else self._send_many(count))
        await self.producer.flush()
        if self._error is not None:
            raise self._error
        _check(self._acknowledged, count)

    async def _send_each(self, count: int) -> None:
        producer, topic, value, on_delivery = self.producer, self._workload.name, self._value, self._on_delivery
        send, turn = producer.send_nowait, self._turn
        for number in range(count):
            try:
                send(topic, value, on_delivery=on_delivery)
            except BufferFullError:
                await producer.wait_for_room()
                send(topic, value, on_delivery=on_delivery)
            if number % turn == 0:
                await asyncio.sleep(0)  # what is full goes out

    async def _send_many(self, count: int) -> None:
        producer, topic, values = self.producer, self._workload.name, [self._value] * self._turn
        sent = 0
        while sent < count:
            wanted = values if count - sent >= self._turn else values[: count - sent]
            taken = producer.send_many_nowait(topic, wanted)
            sent += taken
            if taken < len(wanted):
                await producer.wait_for_room()
            else:
                await asyncio.sleep(0)  # what is full goes out


async def _throughput(bootstrap: str, workload: Workload) -> Load:
    sender = Sender(bootstrap, workload)
    async with sender.producer:
        await sender.send(workload.warm_records)
        watch = Stopwatch()
        await sender.send(workload.records)
        watch.stop()
    return watch.load(workload, workload.records)


async def _fill(bootstrap: str, workload: Workload) -> None:
    sender = Sender(bootstrap, workload)
    async with sender.producer:
        await sender.send(workload.records)


async def _open_loop(bootstrap: str, workload: Workload) -> Load:
    pace = Pace(workload)

    def on_delivery(delivery: Delivery | None, error: PenstockError | None) -> None:
        if delivery is None:
            pace.fail(error or RuntimeError("no delivery"))
        else:
            pace.settle(delivery.offset * workload.partitions + delivery.partition)

    async with _paced_producer(bootstrap, workload) as producer:
        await _paced(producer, pace, on_delivery)
        await pace.finished()
    return pace.load()


def _paced_producer(bootstrap: str, workload: Workload) -> Producer:
    return Producer(bootstrap, acks=workload.acks, linger_ms=workload.linger_ms, batch_bytes=workload.batch_bytes)


async def _paced(
    producer: Producer, pace: Pace, on_delivery: Callable[[Delivery | None, PenstockError | None], None]
) -> None:
    topic, value, partitions = pace.workload.name, payload(pace.workload), pace.workload.partitions
    async for numbers in pace.turns():
        for number in numbers:
            while True:
                try:
                    producer.send_nowait(topic, value, partition=number % partitions, on_delivery=on_delivery)
                    break
                except BufferFullError:
                    await producer.wait_for_room()


async def _series(bootstrap: str, workload: Workload) -> Load:
    value, histogram = payload(workload), Histogram()
    async with _paced_producer(bootstrap, workload) as producer:
        watch = Stopwatch()
        for number in range(workload.warm_records + workload.records):
            if number == workload.warm_records:
                watch.start()
            began = time.perf_counter()
            await (await producer.send(workload.name, value))
            if number >= workload.warm_records:
                histogram.record(int((time.perf_counter() - began) * 1e6))
        watch.stop()
    return watch.load(workload, workload.records, histogram)


async def _consume(bootstrap: str, workload: Workload) -> Load:
    if not workload.cold:
        await _fill(bootstrap, workload)
        await _read_all(bootstrap, workload)  # a warm-up, of everything
    watch = Stopwatch()
    read = await _read_all(bootstrap, workload)
    watch.stop()
    _check(read, workload.records)
    return watch.load(workload, read)


async def _read_all(bootstrap: str, workload: Workload) -> int:
    read = 0
    async with Consumer(bootstrap) as consumer:
        await consumer.assign_topics(workload.name, "earliest")
        while read < workload.records:
            if workload.form == "batches":
                for batch in await consumer.poll_batches():
                    read += len(batch.records)
            else:
                for record in await consumer.poll(POLL_RECORDS):
                    if record.value:
                        read += 1
    return read


async def _tail(bootstrap: str, workload: Workload) -> Load:
    pace = Pace(workload)

    def on_delivery(_: Delivery | None, error: PenstockError | None) -> None:
        if error is not None:
            pace.fail(error)

    async def follow(consumer: Consumer) -> None:
        while not pace.is_finished:
            for record in await consumer.poll():
                pace.settle(record.offset * workload.partitions + record.partition)

    async with Consumer(bootstrap) as consumer, _paced_producer(bootstrap, workload) as producer:
        await consumer.assign_topics(workload.name, "earliest")
        async with asyncio.TaskGroup() as group:
            group.create_task(follow(consumer))
            await _paced(producer, pace, on_delivery)
            await pace.finished()
    return pace.load()


def _check(done: int, wanted: int) -> None:
    if done != wanted:
        raise RuntimeError(f"{done} records of {wanted}")
