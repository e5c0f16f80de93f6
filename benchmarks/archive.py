"""The file of results: every single run, as it was measured; written whole after each, at once or not at all.

Summaries are made of it (`summary`), never stored. Several files can be read as one (`merge`).
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.result import Load
from benchmarks.workloads import Workload

SCHEMA = 1


class ArchiveError(Exception):
    """A file that is not of results, or not of this schema."""


@dataclass(slots=True)
class ProcessCost:
    """What a server process took."""

    cpu_s: float
    """User and system time during the client's whole call: its start, warm-up (and the filling of a consume topic that
    is not cold) included."""
    rss: int
    """Bytes resident at the end of the call, mapped files included."""
    rss_anon: int
    """Bytes of its own at the end of the call."""


@dataclass(slots=True)
class Run:
    """One workload on one system in one repeat."""

    system: str
    workload: str
    repeat: int
    """From 1; runs of one repeat were made one after the other, and are compared with each other."""
    load: Load | None
    """None where it failed."""
    error: str = ""
    """Why it failed."""
    at: str = ""
    """When it began, UTC, ISO 8601."""
    call_s: float = 0.0
    """How long the client's call took in all."""
    quiet: bool = True
    """The servers had come to rest before it began."""
    servers: dict[str, ProcessCost] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Run":
        """From `to_json`."""
        load = None if content["load"] is None else Load.from_json(content["load"])
        servers = {name: ProcessCost(**cost) for name, cost in content["servers"].items()}
        return cls(**{**content, "load": load, "servers": servers})


@dataclass(slots=True)
class Results:
    """All that a file holds."""

    machine: dict[str, Any]
    workloads: list[Workload]
    short: bool
    began: str
    """UTC, ISO 8601."""
    runs: list[Run] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    """Systems that are not available here, and why."""
    left_out: list[str] = field(default_factory=list)
    """Runs for which there was no time, in words."""

    def done(self, system: str, workload: str, repeat: int) -> bool:
        """Whether this run is there and did not fail."""
        return any(
            run.load is not None and (run.system, run.workload, run.repeat) == (system, workload, repeat)
            for run in self.runs
        )

    def add(self, run: Run) -> None:
        """Add a run, in place of an earlier one of the same name."""
        key = (run.system, run.workload, run.repeat)
        self.runs = [old for old in self.runs if (old.system, old.workload, old.repeat) != key]
        self.runs.append(run)

    @property
    def failed(self) -> list[Run]:
        """The runs that failed."""
        return [run for run in self.runs if run.load is None]

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        content = {
            "schema": SCHEMA,
            "began": self.began,
            "short": self.short,
            "machine": self.machine,
            "workloads": [workload.to_json() for workload in self.workloads],
            "skipped": self.skipped,
            "left_out": self.left_out,
            "runs": [run.to_json() for run in self.runs],
        }
        part = path.with_suffix(".part")
        part.write_text(json.dumps(content, indent=1) + "\n")
        part.replace(path)


def load(path: Path) -> Results:
    """Read a file. Raises ArchiveError for anything else, OSError where it cannot be read."""
    try:
        content = json.loads(path.read_text())
        if content["schema"] != SCHEMA:
            raise ArchiveError(f"{path} has schema {content['schema']}; this program reads {SCHEMA}")
        return Results(
            content["machine"],
            [Workload.from_json(workload) for workload in content["workloads"]],
            content["short"],
            content["began"],
            [Run.from_json(run) for run in content["runs"]],
            content["skipped"],
            content["left_out"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ArchiveError(f"{path} is not a file of results: {error!r}") from error


def merge(parts: Sequence[Results]) -> Results:
    """Read several as one: repeats are numbered on, since only what ran in one repeat of one file is a pair.

    The machine is the first one's. Raises ArchiveError where parts differ in machine or in what a workload is.
    """
    if not parts:
        raise ArchiveError("no results")
    first = parts[0]
    for part in parts[1:]:
        if any(part.machine.get(key) != first.machine.get(key) for key in ("cpu", "cores")):
            raise ArchiveError("the results are of different machines")
    workloads = {workload.name: workload for workload in _all_workloads(parts)}
    for workload in _all_workloads(parts):
        if workloads[workload.name] != workload:
            raise ArchiveError(f"the results differ in what {workload.name} is (short and full form do not mix)")
    whole = Results(first.machine, list(workloads.values()), first.short, first.began)
    offset = 0
    for part in parts:
        whole.runs += [Run(**{**_fields(run), "repeat": run.repeat + offset}) for run in part.runs]
        offset += max((run.repeat for run in part.runs), default=0)
    whole.left_out = [text for part in parts for text in part.left_out]
    ran = {run.system for run in whole.runs}
    whole.skipped = {name: why for part in parts for name, why in part.skipped.items() if name not in ran}
    return whole


def _all_workloads(parts: Iterable[Results]) -> list[Workload]:
    return [workload for part in parts for workload in part.workloads]


def _fields(run: Run) -> dict[str, Any]:
    return {name: getattr(run, name) for name in Run.__slots__}
