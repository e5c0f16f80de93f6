"""The ceiling as a system under test: what this data path could reach at best with the same means.

Three `limit_server` and a `limit_client`, over grpc.aio and LMDB with fsync, and nothing else: see those modules.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import uvloop

from benchmarks.pace import Pace, Stopwatch, payload
from benchmarks.result import Load
from benchmarks.system import Driver, System
from benchmarks.systems.limit_client import RECORD_OVERHEAD, Client, Reader
from benchmarks.systems.limit_wire import CREATE, FRAME, LIVE, method
from benchmarks.workloads import Workload
from penstock.client.bench.histogram import Histogram
from penstock.client.ports import free_ports
from penstock.v1 import record_pb2 as pb

SERVERS = 3
READY = "ready\n"
STOP_TIMEOUT_S = 10.0


def system(_: str) -> System:
    """See registry.MODULES."""
    return LimitSystem()


def driver(_: str) -> Driver:
    """See registry.MODULES."""
    return LimitDriver()


class LimitSystem:
    """Three servers."""

    name = "limit"

    def __init__(self) -> None:
        self.bootstrap = ""
        self._folder = Path()
        self._processes: list[subprocess.Popen[str]] = []

    def prepare(self) -> None:
        """Nothing is needed that Penstock does not need."""

    def start(self, folder: Path) -> None:
        """Start them on new ports."""
        self._folder = folder
        self.bootstrap = ",".join(f"127.0.0.1:{port}" for port in free_ports(SERVERS))
        self._spawn()

    def _spawn(self) -> None:
        for index in range(SERVERS):
            path = self._folder / f"limit-{index}"
            path.mkdir(exist_ok=True)
            command = [sys.executable, "-m", "benchmarks.systems.limit_server", str(index), self.bootstrap, str(path)]
            pipe = subprocess.PIPE
            process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)  # noqa: S603 - our own program
            self._processes.append(process)
        for process in self._processes:
            if process.stdout is None or process.stdout.readline() != READY:
                raise RuntimeError(f"a server of the ceiling ended while starting (code {process.poll()})")

    def create(self, workload: Workload) -> None:
        """Tell every server of the topic."""
        acks, replication = workload.acks, workload.replication
        request = json.dumps({"topic": workload.name, "replication": replication, "acks": acks}).encode()
        for address in self.bootstrap.split(","):
            with grpc.insecure_channel(address) as channel:
                call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method(CREATE))
                call(request, timeout=10, wait_for_ready=True)

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self._spawn()

    def pids(self) -> dict[str, int]:
        """See System."""
        return {f"server-{index}": process.pid for index, process in enumerate(self._processes)}

    def stop(self) -> None:
        """Close their standard input: then they end."""
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.close()
        for process in self._processes:
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        self._processes = []


class LimitDriver:
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


async def _throughput(bootstrap: str, workload: Workload) -> Load:
    if workload.form == "batches":
        return await _opaque(bootstrap, workload)
    async with Client(bootstrap, workload) as client:
        await _records(client, workload, workload.warm_records)
        watch = Stopwatch()
        await _records(client, workload, workload.records)
        watch.stop()
    return watch.load(workload, workload.records)


async def _records(client: Client, workload: Workload, count: int) -> None:
    """Send records and wait for all answers, told by a callback a record."""
    value = payload(workload)
    answered = 0

    def on_record(_partition: int, _offset: int) -> None:
        nonlocal answered
        answered += 1

    send = client.send
    for _ in range(count):
        if send(value, on_record):
            await (asyncio.sleep(0) if client.has_room else client.room())
    await client.flush()
    _check(answered, count)


async def _opaque(bootstrap: str, workload: Workload) -> Load:
    """Batches made before, as many records in each as Penstock's producer would put there."""
    per_batch = max(1, workload.batch_bytes // (workload.record_bytes + RECORD_OVERHEAD))
    content = _record_set(workload, per_batch)
    answered = 0

    def on_batch(_partition: int, _offset: int, count: int) -> None:
        nonlocal answered
        answered += count

    async def run(records: int) -> int:
        nonlocal answered
        answered, batches = 0, -(-records // per_batch)
        for number in range(batches):
            client.send_batch(number % workload.partitions, content, per_batch)
            await (asyncio.sleep(0) if client.has_room else client.room())
        await client.flush()
        _check(answered, batches * per_batch)
        return answered

    async with Client(bootstrap, workload, on_batch) as client:
        await run(workload.warm_records)
        watch = Stopwatch()
        records = await run(workload.records)
        watch.stop()
    return watch.load(workload, records)


def _record_set(workload: Workload, count: int) -> bytes:
    record_set, value = pb.RecordSet(), payload(workload)
    for index in range(count):
        record_set.records.add(offset_delta=index, value=value)
    return record_set.SerializeToString()


async def _open_loop(bootstrap: str, workload: Workload) -> Load:
    pace = Pace(workload)

    def on_record(partition: int, offset: int) -> None:
        pace.settle(offset * workload.partitions + partition)

    async with Client(bootstrap, workload) as client:
        await _paced(client, pace, on_record)
        await pace.finished()
    return pace.load()


async def _paced(client: Client, pace: Pace, on_record: Callable[[int, int], None]) -> None:
    value, partitions = payload(pace.workload), pace.workload.partitions
    async for numbers in pace.turns():
        for number in numbers:
            client.send_to(number % partitions, value, on_record)
        if not client.has_room:
            await client.room()


async def _series(bootstrap: str, workload: Workload) -> Load:
    loop, value, histogram = asyncio.get_running_loop(), payload(workload), Histogram()
    done: asyncio.Future[None] = loop.create_future()
    async with Client(bootstrap, workload) as client:
        watch = Stopwatch()
        for number in range(workload.warm_records + workload.records):
            if number == workload.warm_records:
                watch.start()
            done = loop.create_future()
            began = time.perf_counter()
            client.send_to(0, value, lambda *_, done=done: done.set_result(None))
            await done
            if number >= workload.warm_records:
                histogram.record(int((time.perf_counter() - began) * 1e6))
        watch.stop()
    return watch.load(workload, workload.records, histogram)


async def _fill(bootstrap: str, workload: Workload) -> None:
    async with Client(bootstrap, workload) as client:
        await _records(client, workload, workload.records)


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

    def on_batches(message: bytes) -> None:
        nonlocal read
        for _, record_set in _batches(message):
            read += len(record_set.records)

    def on_records(message: bytes) -> None:
        nonlocal read
        for _, record_set in _batches(message):
            for record in record_set.records:
                if record.value:
                    read += 1

    on_message = on_batches if workload.form == "batches" else on_records
    reader = Reader(bootstrap, workload.name.encode(), on_message)
    await reader.start()
    try:
        await reader.ended()
    finally:
        await reader.close()
    return read


def _batches(message: bytes) -> list[tuple[int, pb.RecordSet]]:
    """Give partition and records of each frame."""
    at, found = 0, []
    while at < len(message):
        _, partition, _, size = FRAME.unpack_from(message, at)
        at += FRAME.size
        found.append((partition, pb.RecordSet.FromString(message[at : at + size])))
        at += size
    return found


async def _tail(bootstrap: str, workload: Workload) -> Load:
    pace = Pace(workload)
    ends = [0] * workload.partitions

    def on_message(message: bytes) -> None:
        for partition, record_set in _batches(message):
            for _ in record_set.records:
                pace.settle(ends[partition] * workload.partitions + partition)
                ends[partition] += 1

    reader = Reader(bootstrap, LIVE, on_message)
    await reader.start()
    async with Client(bootstrap, workload) as client:
        await _paced(client, pace, lambda *_: None)
        await pace.finished()
        await client.flush()
    await reader.close()
    return pace.load()


def _check(done: int, wanted: int) -> None:
    if done != wanted:
        raise RuntimeError(f"{done} records of {wanted}")
