"""What a system under test must be able to do: three server processes on loopback, one client process.

A system is a module of `benchmarks.systems` or `benchmarks.peers` with a class for the servers (below) and a driver for
the client: `python -m benchmarks.drive SYSTEM BOOTSTRAP`, workload as JSON on standard input, Load as JSON on standard
output. The driver is a process of its own, so that every system has the same number of them.
"""

from pathlib import Path
from typing import Protocol

from benchmarks.result import Load
from benchmarks.workloads import Workload


class UnavailableError(Exception):
    """The system cannot be run here; the message says what is missing and how to get it."""


class System(Protocol):
    """Three servers. Methods block. Everything they write is below the folder given to `start`."""

    name: str
    """As in tables: penstock, limit, kafka, kafka-synced, jetstream, jetstream-synced."""
    bootstrap: str
    """For clients, once started."""

    def prepare(self) -> None:
        """Get what is needed (jars, binaries), once; kept in benchmarks/.cache. Raises UnavailableError."""
        ...

    def start(self, folder: Path) -> None:
        """Start three servers and wait until they serve."""
        ...

    def create(self, workload: Workload) -> None:
        """Make the workload's topic, named `workload.name`, and wait until it has its leaders."""
        ...

    def restart(self) -> None:
        """Stop and start the servers, keeping the data (Workload.cold)."""
        ...

    def pids(self) -> dict[str, int]:
        """Process ids of the servers, by a short name."""
        ...

    def stop(self) -> None:
        """End the servers; leave no process. Also after a failure, and twice."""
        ...


class Driver(Protocol):
    """The client's side, called in a process of its own."""

    def drive(self, bootstrap: str, workload: Workload) -> Load:
        """Do the work. For `consume`: fill the topic first, outside of the measured time. Raises on any failure.

        With `cold` set the work is called twice, in two processes: fill() before the servers' restart, then drive().
        """
        ...

    def fill(self, bootstrap: str, workload: Workload) -> None:
        """Put `records` records into the topic (kind consume)."""
        ...
