"""What dropping old data costs, on a real cluster: retention while writing, compaction beside writing.

    python -m benchmarks.dropping retention [--gigabytes 20] [--keep-gigabytes 1] [--partitions 4] [--nodes 1]
    python -m benchmarks.dropping compaction [--records 10000000] [--keys 1000000] [--nodes 1] [--rate 500]

`retention`: the throughput of each quarter, and the most that the store's file took of the disk over the live data.
`compaction`: how long it takes, the memory of node and compacting process together (their own, without the pages of the
mapped file that the system may take back), and the latency of an open loop of small batches to another topic, without
and during the compaction, in turn. Data is below --folder, a disk, and removed at the end.
"""

import argparse
import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from benchmarks.procfs import PROC, usage
from penstock.client import Admin, BufferFullError, Producer
from penstock.client.bench.histogram import Histogram
from penstock.client.devcluster import DevCluster
from penstock.client.devplan import make_plan
from penstock.client.ports import free_ports

GIGABYTE = 1_000_000_000
RECORD_BYTES = 1_000
KEY_BYTES = 16
VALUE_BYTES = 100
TURN_RECORDS = 1_000
SAMPLE_S = 0.25
MEBIBYTE = 1 << 20
COMPACTOR = "penstock.storage.compactor"


@dataclass(slots=True)
class Samples:
    """Of the stores' files and of memory, while something goes on."""

    cluster: DevCluster
    disk_bytes: list[int] = field(default_factory=list)
    own_bytes: list[int] = field(default_factory=list)
    compacting: bool = False

    async def take(self) -> None:
        """Take samples until cancelled."""
        while True:
            self.take_one()
            await asyncio.sleep(SAMPLE_S)

    def take_one(self) -> None:
        """The most of all nodes."""
        nodes = self.cluster.node_ids
        files = [self.cluster.data_dir(node) / "store" / "data.mdb" for node in nodes]
        self.disk_bytes.append(max(file.stat().st_blocks * 512 for file in files))
        children = {_pid(self.cluster, node): compactors(_pid(self.cluster, node)) for node in nodes}
        self.compacting = any(children.values())
        self.own_bytes.append(max(own_bytes([node, *found]) for node, found in children.items()))


def _pid(cluster: DevCluster, node_id: int) -> int:
    process = cluster.process(node_id)
    if process is None:
        raise RuntimeError(f"node {node_id} has ended:\n{cluster.log_tail(node_id)}")
    return process.pid


def compactors(parent: int) -> list[int]:
    """The processes that compact for a node."""
    found = []
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                is_child = int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent
                if is_child and COMPACTOR in (entry / "cmdline").read_bytes().decode(errors="replace"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def own_bytes(pids: Sequence[int]) -> int:
    """Memory of processes, without mapped files."""
    total = 0
    for pid in pids:
        try:
            total += usage(pid).rss_anon
        except ProcessLookupError:
            continue
    return total


# ---- retention


async def retention(arguments: argparse.Namespace, cluster: DevCluster) -> None:
    """Write much through a small retention."""
    keep = int(arguments.keep_gigabytes * GIGABYTE) // arguments.partitions
    total = int(arguments.gigabytes * GIGABYTE)
    samples = Samples(cluster)
    async with Admin(cluster.bootstrap) as admin:
        await admin.create_topic("churn", arguments.partitions, arguments.nodes, {"retention_bytes": keep})
        values = [os.urandom(RECORD_BYTES) for _ in range(TURN_RECORDS)]
        marks = [(0, time.perf_counter())]
        async with Producer(cluster.bootstrap, linger_ms=5, batch_bytes=arguments.batch_kib * 1024) as producer:
            written = 0
            while written < total:
                taken = producer.send_many_nowait("churn", values)
                written += taken * RECORD_BYTES
                await producer.wait_for_room()
                if written >= total * len(marks) / 4:
                    await producer.flush()
                    marks.append((written, time.perf_counter()))
                samples.take_one()
        rates = [(b[0] - a[0]) / (b[1] - a[1]) / 1e6 for a, b in pairwise(marks)]
        settled = samples.disk_bytes[len(samples.disk_bytes) // 4 :]
    live = keep * arguments.partitions
    print("MB/s of each quarter:", "  ".join(f"{rate:.0f}" for rate in rates))
    print(f"last over first quarter: {rates[-1] / rates[0]:.2f}")
    print(f"file at most {max(settled) / 1e9:.2f} GB for {live / 1e9:.2f} GB kept: {max(settled) / live:.2f}")
    print(f"own memory of a node at most {max(samples.own_bytes) // MEBIBYTE} MiB")


# ---- compaction


async def compaction(arguments: argparse.Namespace, cluster: DevCluster) -> None:
    """Compact a large topic while another one is written to."""
    samples = Samples(cluster)
    async with Admin(cluster.bootstrap) as admin:
        await admin.create_topic("table", 1, arguments.nodes)
        await admin.create_topic("beside", 1, arguments.nodes)
        await _fill(cluster.bootstrap, arguments.records, arguments.keys)
        before, _ = await _open_loop(cluster.bootstrap, arguments.rate, arguments.seconds, None)
        began = time.perf_counter()
        await admin.alter_topic("table", {"cleanup_policy": "compact"})
        watcher = asyncio.create_task(samples.take())
        during, took = await _open_loop(cluster.bootstrap, arguments.rate, 3600, samples)
        watcher.cancel()
        after, _ = await _open_loop(cluster.bootstrap, arguments.rate, arguments.seconds, None)
    print(f"compaction took {took - began:.1f} s; own memory at most {max(samples.own_bytes) // MEBIBYTE} MiB")
    for name, histogram in (("before", before), ("during", during), ("after", after)):
        print(f"{name:7} p50 {histogram.percentile(50):.2f} ms  p99 {histogram.percentile(99):.2f} ms")
    for node in cluster.node_ids:
        for line in cluster.log_path(node).read_text().splitlines():
            if "compacted" in line:
                print(line[:300])


async def _fill(bootstrap: str, records: int, keys: int) -> None:
    """Each key in turn, so that every one has many records, spread over the whole log."""
    value = os.urandom(VALUE_BYTES)
    async with Producer(bootstrap, linger_ms=20, batch_bytes=256 * 1024) as producer:
        for number in range(records):
            try:
                producer.send_nowait("table", value, key=b"%016d" % (number * 7919 % keys))
            except BufferFullError:
                await producer.wait_for_room()
                producer.send_nowait("table", value, key=b"%016d" % (number * 7919 % keys))
            if number % TURN_RECORDS == 0:
                await producer.wait_for_room()


async def _open_loop(bootstrap: str, rate: int, seconds: float, samples: Samples | None) -> tuple[Histogram, float]:
    """Latencies of single records at a steady rate; with `samples`: until the compaction has come and gone."""
    histogram = Histogram()
    loop = asyncio.get_running_loop()
    waiting: set[asyncio.Task[None]] = set()
    seen, ended = False, 0.0

    async def one(due: float) -> None:
        await (await producer.send("beside", b"x" * VALUE_BYTES))
        histogram.record(int((time.perf_counter() - due) * 1e6))

    async with Producer(bootstrap, linger_ms=0) as producer:
        began = time.perf_counter()
        number = 0
        while time.perf_counter() - began < seconds:
            due = began + number / rate
            number += 1
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            task = loop.create_task(one(due))
            waiting.add(task)
            task.add_done_callback(waiting.discard)
            if samples is not None:
                seen = seen or samples.compacting
                if seen and not samples.compacting:
                    ended = ended or time.perf_counter()
                    if time.perf_counter() - ended > 2:
                        break
                else:
                    ended = 0.0
        await asyncio.gather(*waiting)
    return histogram, ended


def main(arguments: argparse.Namespace) -> None:
    """Run one of them."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-dropping-", dir=arguments.folder))
    limits = {"compaction_interval_ms": 1_000}
    cluster = DevCluster.create(folder, make_plan(free_ports(2 * arguments.nodes), limits=limits))
    try:
        cluster.start()
        cluster.wait_serving()
        asyncio.run({"retention": retention, "compaction": compaction}[arguments.what](arguments, cluster))
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("retention", "compaction"))
    parser.add_argument("--folder", default=tempfile.gettempdir())
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--gigabytes", type=float, default=20)
    parser.add_argument("--keep-gigabytes", type=float, default=1)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--batch-kib", type=int, default=1024)
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--rate", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=20)
    main(parser.parse_args())
