"""Runs the plan: starts systems, has the client do the workloads, keeps each result at once.

Leaves no process and no file of a system behind, whatever happens. A system that is not available is passed over, a
workload that fails is recorded; neither ends the run.
"""

import contextlib
import math
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.archive import Results, Run
from benchmarks.client_call import DRIVE, CallError, fill, measured
from benchmarks.plan import Estimate, Turn
from benchmarks.quiet import wait_quiet
from benchmarks.summary import figures
from benchmarks.system import System, UnavailableError
from benchmarks.workloads import Workload


@dataclass(frozen=True, slots=True)
class Ground:
    """Where and with what the suite works."""

    folder: Path
    """On a disk; each cluster gets a folder of its own below it."""
    file: Path
    """Of the results."""
    make: Callable[[str], System]
    drive: Sequence[str] = DRIVE
    say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True)


class Suite:
    """One run of a plan."""

    def __init__(self, ground: Ground, results: Results, plan: Sequence[Turn], limit_s: float = math.inf) -> None:
        """`limit_s`: what would not be done in this time, from `run` on, is left out."""
        self._ground = ground
        self._limit_s = limit_s
        self._until = math.inf
        self._results = results
        self._plan = plan
        self._estimate = Estimate(plan, short=results.short)

    def run(self) -> None:
        """Do it all. KeyboardInterrupt passes through, when everything is stopped and what was measured is written."""
        self._save()
        self._until = time.monotonic() + self._limit_s
        for turn in self._plan:
            if turn.system not in self._results.skipped:
                self._turn(turn)

    def prepare(self, systems: Sequence[str]) -> None:
        """Get what the systems need; those that cannot be had are skipped from here on."""
        for name in systems:
            try:
                self._ground.make(name).prepare()
            except UnavailableError as error:
                self._skip(name, error)

    def _skip(self, name: str, error: UnavailableError) -> None:
        self._results.skipped[name] = str(error)
        self._estimate.dropped(name)
        self._ground.say(f"{name} is skipped: {error}")

    def _turn(self, turn: Turn) -> None:
        left = [w for w in turn.workloads if not self._results.done(turn.system, w.name, turn.repeat)]
        for workload in turn.workloads:
            if workload not in left:
                self._estimate.done(turn.system, workload, None)
        left = [workload for workload in left if self._has_time(turn, workload)]
        if not left:
            self._estimate.started(turn.system, 0.0)
            return
        began = time.monotonic()
        self._ground.say(f"repeat {turn.repeat}: {turn.system}")
        try:
            with self._cluster(turn.system) as servers:
                self._estimate.started(turn.system, time.monotonic() - began)
                for workload in left:
                    if self._has_time(turn, workload):
                        self._one(servers, workload, turn.repeat)
        except UnavailableError as error:
            self._skip(turn.system, error)
            self._save()
        except Exception as error:  # noqa: BLE001 - it did not start, or did not stop: the others go on
            self._fail(turn, left, f"the servers: {error!r}")

    def _has_time(self, turn: Turn, workload: Workload) -> bool:
        """Say so, where a run is left out."""
        if time.monotonic() + self._estimate.of(workload) <= self._until:
            return True
        self._results.left_out.append(f"{turn.system}: {workload.name}, repeat {turn.repeat}")
        self._estimate.done(turn.system, workload, None)
        self._save()
        self._ground.say(f"  {turn.system}, {workload.name}: left out, there is no time left")
        return False

    def _fail(self, turn: Turn, left: Sequence[Workload], reason: str) -> None:
        """What has no result of this turn failed."""
        self._ground.say(f"  {turn.system} FAILED: {reason}")
        ran = {run.workload for run in self._results.runs if (run.system, run.repeat) == (turn.system, turn.repeat)}
        for workload in left:
            if workload.name not in ran:
                self._results.add(Run(turn.system, workload.name, turn.repeat, None, reason))
        self._save()

    @contextlib.contextmanager
    def _cluster(self, name: str) -> Iterator[System]:
        """Start servers; stop them and remove their files at the end."""
        servers = self._ground.make(name)
        folder = Path(tempfile.mkdtemp(prefix=f"penstock-bench-{name}-", dir=self._ground.folder))
        try:
            servers.start(folder)
            yield servers
        finally:
            with uninterrupted():
                servers.stop()
                shutil.rmtree(folder, ignore_errors=True)

    def _one(self, servers: System, workload: Workload, repeat: int) -> None:
        run = Run(servers.name, workload.name, repeat, None, at=datetime.now(UTC).isoformat(timespec="seconds"))
        began = time.monotonic()
        try:
            self._measure(servers, workload, run)
        except Exception as error:  # noqa: BLE001 - whatever a system raises is its result, and the others go on
            run.error = str(error) or repr(error) if isinstance(error, CallError) else f"{error!r}"
        self._results.add(run)
        self._save()
        self._estimate.done(servers.name, workload, time.monotonic() - began)
        self._ground.say(f"  {_line(run)}; about {self._estimate.left_s / 60:.1f} minutes are left")

    def _measure(self, servers: System, workload: Workload, run: Run) -> None:
        servers.create(workload)
        if workload.cold:
            fill(servers, workload, self._ground.drive)
            servers.restart()
        run.quiet = wait_quiet(servers.pids())
        found = measured(servers, workload, self._ground.drive)
        run.load, run.call_s, run.servers = found.load, found.call_s, found.servers

    def _save(self) -> None:
        with uninterrupted():
            self._results.save(self._ground.file)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait: what is stopped or written now is stopped or written whole."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def _line(run: Run) -> str:
    """Say in a line what a run gave."""
    if run.load is None:
        return f"{run.workload}: FAILED: {run.error}"
    found = figures(run)
    texts = [f"{found['records_s']:,.0f} records/s", f"{found['mb_s']:.1f} MB/s"]
    if "p50_ms" in found:
        texts.append(
            "p50/p99/p99.9 " + "/".join(f"{found[name]:.1f}" for name in ("p50_ms", "p99_ms", "p99.9_ms")) + " ms"
        )
    texts.append(f"CPU of servers {found['server_cpu_s']:.1f} s, of the client {found['client_cpu_s']:.1f} s")
    if not run.quiet:
        texts.append("the servers had not come to rest before")
    return f"{run.workload}: " + ", ".join(texts)
