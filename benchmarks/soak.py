"""Does the memory of the nodes stay flat? A real cluster of three under a mixed load, for an hour.

    python -m benchmarks.soak [--minutes 60] [--rate 2000] [--record-bytes 100] [--out FILE] [--folder DIR]
                              [--tail-cache-mb 16]

Every 10 s the memory and CPU of each node and of this process (the client) go to FILE, JSON, with what was
acknowledged, read and failed; at the end, what the last quarter of the time is, compared with the second. The load is
in `benchmarks.soak_load`. Ctrl-C and SIGTERM end it in order, with what there is. The cluster's data (about 1 MB a
second at the default rate, all nodes together) is below DIR, a disk, and removed at the end. Only one setting is not
the default: the nodes' cache of the latest batches is smaller, so that it is full before the second quarter begins; a
cache that is still filling would look like a leak.

Exit code 0: flat. 1: not flat, or a node ended. 2: it could not begin. 3: ended before two quarters could be compared.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.disks import NoDiskError
from benchmarks.machine import describe
from benchmarks.procfs import usages
from benchmarks.soak_load import FLOWS, MixedLoad
from benchmarks.soak_summary import NODE, lines, summarize
from penstock.client.devcluster import DevCluster, DevClusterError
from penstock.client.devplan import make_plan
from penstock.client.ports import free_ports
from penstock.protocol.errors import PenstockError

NODES = 3
SAMPLE_S = 10.0
STOP_S = 30.0
CLIENT = "client"
SCHEMA = 1
LINE_EVERY = 6
"""Samples for each line of progress."""


class Soak:
    """One run: samples, and the file they go to."""

    def __init__(self, arguments: argparse.Namespace, cluster: DevCluster, machine: dict[str, Any]) -> None:
        self._minutes = float(arguments.minutes)
        self._out: Path = arguments.out
        self._load = MixedLoad(cluster.bootstrap, arguments.rate, arguments.record_bytes)
        self._pids = {f"{NODE}{node_id}": _pid(cluster, node_id) for node_id in cluster.node_ids} | {
            CLIENT: os.getpid()
        }
        self._samples: list[dict[str, Any]] = []
        settings = {name: getattr(arguments, name) for name in ("minutes", "rate", "record_bytes", "tail_cache_mb")}
        topics = {flow.topic: [flow.partitions, flow.compression] for flow in FLOWS}
        self._content = {"schema": SCHEMA, "machine": machine, "settings": settings, "topics": topics}

    async def run(self) -> dict[str, Any]:
        """Load and sample until time is up or a signal comes; the summary. Raises ProcessLookupError: a node ended."""
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, ended.set)
        await self._load.create()
        work = asyncio.create_task(self._load.run())
        work.add_done_callback(lambda _: ended.set())  # only a defect ends it before it is cancelled
        try:
            await self._sample_until(ended)
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work
        finally:
            summary = self._save()
        return summary

    async def _sample_until(self, ended: asyncio.Event) -> None:
        began = time.monotonic()
        for number in range(1, int(self._minutes * 60 / SAMPLE_S) + 1):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), began + number * SAMPLE_S - time.monotonic())
            if ended.is_set():
                return
            self._samples.append(self._sample(time.monotonic() - began))
            await asyncio.to_thread(self._save)
            if number % LINE_EVERY == 0:
                _say(_progress(self._samples[-1]))

    def _sample(self, at_s: float) -> dict[str, Any]:
        counts, latency = self._load.counts, self._load.counts.take_latency()
        return {
            "at_s": at_s,
            "acknowledged": counts.acknowledged,
            "consumed": counts.consumed,
            "skipped": self._load.schedule.skipped + counts.refused,
            "visits": counts.visits,
            "visit_reads": counts.visit_reads,
            "errors": dict(counts.errors),
            "p50_ms": latency.percentile(50),
            "p99_ms": latency.percentile(99),
            "max_ms": latency.max_us / 1000,
            "processes": {name: usage._asdict() for name, usage in usages(self._pids).items()},
        }

    def _save(self) -> dict[str, Any]:
        """Write all there is, at once or not at all; the summary."""
        samples = list(self._samples)
        summary = summarize(samples)
        part = self._out.with_suffix(".part")
        part.write_text(json.dumps({**self._content, "summary": summary, "samples": samples}, indent=1))
        part.replace(self._out)
        return summary


def _pid(cluster: DevCluster, node_id: int) -> int:
    process = cluster.process(node_id)
    if process is None:
        raise DevClusterError(f"node {node_id} does not run")
    return process.pid


def _progress(sample: dict[str, Any]) -> str:
    memory = ", ".join(f"{name} {usage['rss_anon'] / 1e6:.1f}" for name, usage in sample["processes"].items())
    trouble = f", errors {sample['errors']}" if sample["errors"] else ""
    return (
        f"{sample['at_s'] / 60:5.1f} min: {sample['acknowledged']:,} acknowledged, {sample['consumed']:,} read, "
        f"p99 {sample['p99_ms']:.1f} ms, RssAnon in MB: {memory}{trouble}"
    )


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=int, default=2_000, help="records a second, over all topics")
    parser.add_argument("--record-bytes", type=int, default=100)
    parser.add_argument("--tail-cache-mb", type=int, default=16, help="of each node, in MiB")
    parser.add_argument("--out", type=Path, default=Path("bench-results/soak.json"))
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the nodes' data goes")
    return parser.parse_args()


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Run it; the exit code."""
    arguments = _parse()
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    signal.signal(signal.SIGTERM, _interrupt)  # until the load runs
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    try:
        machine = describe(arguments.folder)
    except (NoDiskError, OSError) as error:
        _say(str(error))
        return 2
    home = Path(tempfile.mkdtemp(prefix="penstock-soak-", dir=arguments.folder))
    limits = {"tail_cache_bytes": arguments.tail_cache_mb * 1024 * 1024}
    cluster = DevCluster.create(home, make_plan(free_ports(2 * NODES), limits=limits))
    try:
        cluster.start()
        cluster.wait_serving()
        _say(f"three nodes at {cluster.bootstrap}; {arguments.rate} records/s for {arguments.minutes:g} minutes")
        summary = asyncio.run(Soak(arguments, cluster, machine).run())
    except (DevClusterError, PenstockError, ProcessLookupError) as error:
        _say(f"failed: {error}")
        return 1 if isinstance(error, ProcessLookupError) else 2
    except KeyboardInterrupt:
        return 130
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        cluster.stop(timeout_s=STOP_S)
        shutil.rmtree(home)
    sys.stdout.write("\n".join(lines(summary)) + f"\nsamples: {arguments.out}\n")
    if not summary:
        return 3
    return 0 if summary["flat"] else 1


if __name__ == "__main__":
    sys.exit(main())
