"""A system of one process that waits, and a client that answers at once."""

import subprocess
import sys
from pathlib import Path

from benchmarks.archive import ProcessCost, Results, Run
from benchmarks.result import Load
from benchmarks.system import UnavailableError
from benchmarks.workloads import Workload

WAITS = [sys.executable, "-c", "import sys; sys.stdin.read()"]
CLIENT = """
import json, sys
workload = json.load(sys.stdin)
if workload["name"] == "broken":
    sys.exit("it broke")
if workload["name"] == "stuck":
    sys.stdin.close()
    import threading
    threading.Event().wait()
fields = {"records": workload["records"], "bytes": workload["records"] * workload["record_bytes"], "seconds": 2.0}
print(json.dumps({} if "--fill" in sys.argv else {**fields, "latency": [[1000, 3], [4000, 1]], "client_cpu_s": 0.5}))
"""
DRIVE = [sys.executable, "-c", CLIENT]
MACHINE = {
    "cpu": "an abacus",
    "cores": 2,
    "memory_bytes": 8_000_000_000,
    "kernel": "Linux 1",
    "python": "3.11",
    "packages": {"grpcio": "1"},
    "commit": "abc",
    "disk": {"filesystem": "ext4", "fsync_4k_ms": {"p50": 0.2, "p99": 1.0, "max": 2.0}},
}


def workload(name: str, kind: str = "throughput", **fields: object) -> Workload:
    given = {"partitions": 1, "replication": 3, "acks": "all", "record_bytes": 100, "records": 1000, **fields}
    return Workload.from_json({"name": name, "kind": kind, **given})


class FakeSystem:
    """Writes down what is asked of it. `absent`, `ill` and `lame` are names of systems that are."""

    def __init__(self, name: str, asked: list[str]) -> None:
        self.name = name
        self.bootstrap = "nowhere:1"
        self.asked = asked
        self.folder = Path()
        self.process: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        self._ask("prepare")
        if self.name == "absent":
            raise UnavailableError("it cannot be had")

    def start(self, folder: Path) -> None:
        self._ask("start")
        (folder / "data").write_text("x")
        self.folder = folder
        if self.name == "ill":
            raise UnavailableError("it does not start here")
        if self.name == "lame":
            raise TimeoutError("it did not serve")
        self.process = subprocess.Popen(WAITS, stdin=subprocess.PIPE)

    def create(self, workload: Workload) -> None:
        self._ask(f"create {workload.name}")

    def restart(self) -> None:
        self._ask("restart")

    def pids(self) -> dict[str, int]:
        assert self.process is not None
        return {"only": self.process.pid}

    def stop(self) -> None:
        self._ask("stop")
        if self.process is not None:
            self.process.communicate()
            self.process = None

    def _ask(self, what: str) -> None:
        self.asked.append(f"{self.name} {what}")


def run(system: str, name: str, repeat: int, *, rate: float = 1000.0, us: int = 1000, cpu_s: float = 1.0) -> Run:
    """A run of 1,000 records of 1,024 B: `rate` records a second, each after `us`."""
    load = Load(1000, 1000 * 1024, 1000 / rate, [(us, 1000)], 0.5)
    return Run(system, name, repeat, load, servers={"a": ProcessCost(cpu_s, 30_000_000, 20_000_000)})


def results(workloads: list[Workload], runs: list[Run]) -> Results:
    return Results(MACHINE, workloads, short=True, began="2026-01-01T00:00:00+00:00", runs=runs)
