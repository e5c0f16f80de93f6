"""One call of the client's process, `python -m benchmarks.drive`, with what the servers took meanwhile.

The process is in a session of its own, so that Ctrl-C reaches the runner alone, which then ends it.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.archive import ProcessCost
from benchmarks.procfs import usages
from benchmarks.result import Load
from benchmarks.system import System
from benchmarks.workloads import Workload

CALL_TIMEOUT_S = 600.0
"""No workload takes as long on a machine on which figures mean something."""
ERROR_LINES = 12
DRIVE = (sys.executable, "-m", "benchmarks.drive")


class CallError(Exception):
    """The client failed; the message has the end of what it said."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A load and its cost."""

    load: Load
    call_s: float
    servers: dict[str, ProcessCost]


def measured(servers: System, workload: Workload, drive: Sequence[str] = DRIVE) -> Measured:
    """Do the workload. Raises CallError, also where a server is gone."""
    pids = servers.pids()
    try:
        before = usages(pids)
        began = time.perf_counter()
        answer = call([*drive, servers.name, servers.bootstrap], workload)
        call_s = time.perf_counter() - began
        after = usages(pids)
    except ProcessLookupError as error:
        raise CallError(str(error)) from None
    costs = {
        name: ProcessCost(after[name].cpu_s - before[name].cpu_s, after[name].rss, after[name].rss_anon)
        for name in pids
    }
    return Measured(Load.from_json(json.loads(answer)), call_s, costs)


def fill(servers: System, workload: Workload, drive: Sequence[str] = DRIVE) -> None:
    """Put the records of a consume workload into its topic. Raises CallError."""
    call([*drive, servers.name, servers.bootstrap, "--fill"], workload)


def call(command: Sequence[str], workload: Workload, timeout_s: float = CALL_TIMEOUT_S) -> str:
    """Run a client; its standard output. Raises CallError. Leaves no process, whatever happens."""
    environment = {"GRPC_VERBOSITY": "ERROR", **os.environ}
    pipe = subprocess.PIPE
    process = subprocess.Popen(  # noqa: S603 - the benchmark's own programs
        command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment, start_new_session=True
    )
    try:
        output, said = process.communicate(json.dumps(workload.to_json()), timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise CallError(f"the client did not end within {timeout_s:.0f} s") from None
    finally:
        _end(process)
    if process.returncode != 0:
        tail = "\n".join(said.strip().splitlines()[-ERROR_LINES:])
        raise CallError(f"the client ended with {process.returncode}: {tail}")
    return output


def _end(process: "subprocess.Popen[str]") -> None:
    """Kill it and what it started, where it still runs."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
