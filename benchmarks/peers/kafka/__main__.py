"""Try one workload, by hand.

    python -m benchmarks.peers.kafka WORKLOAD [--name kafka-synced] [--records N] [--rate N] [--seconds S]

The client is a process of its own, as in a run of all. What it measured goes to standard output.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.peers.kafka import SYNCED, system
from benchmarks.result import Load
from benchmarks.system import System
from benchmarks.workloads import Workload, workloads
from penstock.client.bench.histogram import Histogram

TIMEOUT_S = 300.0


def _drive(servers: System, workload: Workload, *options: str) -> str:
    command = [sys.executable, "-m", "benchmarks.drive", servers.name, servers.bootstrap, *options]
    content = json.dumps(workload.to_json())
    done = subprocess.run(  # noqa: S603  this very program
        command, input=content, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT_S, check=True
    )
    return done.stdout


def _shrunk(workload: Workload, arguments: argparse.Namespace) -> Workload:
    changes = {key: value for key in ("records", "rate", "seconds") if (value := getattr(arguments, key)) is not None}
    if arguments.records is not None:
        changes["warm_records"] = arguments.records // 5
    return replace(workload, **changes)


def _line(workload: Workload, load: Load) -> str:
    histogram = Histogram(load.latency)
    percentiles = ", ".join(f"p{percent:g} {histogram.percentile(percent):.2f}" for percent in (50, 99, 99.9, 100))
    latency = f"; ms: {percentiles}" if histogram.count else ""
    rates = f"{load.records / load.seconds:,.0f} records/s, {load.bytes / load.seconds / 1e6:.1f} MB/s"
    return f"{workload.name}: {rates} in {load.seconds:.2f} s, client CPU {load.client_cpu_s:.2f} s{latency}\n"


def main() -> None:
    """Entry point."""
    known = {workload.name: workload for workload in workloads(short=True)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", nargs="+", choices=list(known), metavar="WORKLOAD", help=", ".join(known))
    parser.add_argument("--name", choices=list(SYNCED), default="kafka")
    parser.add_argument("--records", type=int)
    parser.add_argument("--rate", type=int)
    parser.add_argument("--seconds", type=float)
    arguments = parser.parse_args()
    servers = system(arguments.name)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        try:
            servers.prepare()
            servers.start(Path(folder))
            sys.stdout.write(f"started in {time.perf_counter() - began:.1f} s: {servers.pids()}\n")
            for name in arguments.workload:
                workload = _shrunk(known[name], arguments)
                servers.create(workload)
                if workload.cold:
                    _drive(servers, workload, "--fill")
                    servers.restart()
                load = Load.from_json(json.loads(_drive(servers, workload)))
                sys.stdout.write(_line(workload, load))
                sys.stdout.flush()
        finally:
            servers.stop()


if __name__ == "__main__":
    main()
