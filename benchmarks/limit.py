"""The ceiling: what this data path reaches at best on this machine with the same means, in the same run.

    python -m benchmarks.limit [--short] [--path DIR] [--system NAME] [WORKLOAD ...]

Three servers and one client, four processes: client -> leader -> two sinks over bare grpc.aio with coalescing, three
bare durable LMDB commits, acknowledgements back (benchmarks/systems/limit*.py). Prints one line of JSON a workload.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.registry import MODULES, system
from benchmarks.result import Load
from benchmarks.system import System
from benchmarks.workloads import Workload, workloads
from penstock.client.bench.histogram import Histogram


def run(name: str, workload: Workload, path: Path | None = None) -> Load:
    """Run one workload on a system of its own, in a temporary folder below `path`."""
    with tempfile.TemporaryDirectory(prefix="penstock-bench-", dir=path) as folder:
        servers = system(name)
        servers.prepare()
        try:
            servers.start(Path(folder))
            servers.create(workload)
            if workload.cold:
                client(servers, workload, "--fill")
                servers.restart()
            return Load.from_json(json.loads(client(servers, workload)))
        finally:
            servers.stop()


def client(servers: System, workload: Workload, *options: str) -> str:
    """Run the client process; what it printed."""
    command = [sys.executable, "-m", "benchmarks.drive", servers.name, servers.bootstrap, *options]
    text = json.dumps(workload.to_json())
    ran = subprocess.run(command, input=text, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own
    return ran.stdout


def summary(name: str, workload: Workload, load: Load) -> dict[str, str | float]:
    """Give the figures that tell most."""
    histogram = Histogram(load.latency)
    figures: dict[str, str | float] = {
        "system": name,
        "workload": workload.name,
        "records_s": round(load.records / load.seconds),
        "mb_s": round(load.bytes / load.seconds / 1e6, 1),
        "client_cpu": round(load.client_cpu_s / load.seconds, 2),
    }
    if histogram.count:
        for percent in (50, 99, 99.9):
            figures[f"p{percent}_ms"] = round(histogram.percentile(percent), 2)
        figures["max_ms"] = round(histogram.max_us / 1000, 2)
    return figures


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", nargs="*", help="names; default: all")
    parser.add_argument("--short", action="store_true", help="fewer records and seconds")
    parser.add_argument("--path", type=Path, default=None, help="directory on the disk to measure")
    parser.add_argument("--system", default="limit", choices=list(MODULES), help="another system, the same way")
    arguments = parser.parse_args()
    for workload in workloads(short=arguments.short):
        if not arguments.workload or workload.name in arguments.workload:
            load = run(arguments.system, workload, arguments.path)
            sys.stdout.write(json.dumps(summary(arguments.system, workload, load)) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
