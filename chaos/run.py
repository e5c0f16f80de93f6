"""One run: a cluster, clients, faults, healing, a last reading, a verdict; all of it in a folder.

Owns the order of things and the folder: `run.json` (what was to be done: enough to do it again), `history.jsonl`,
`verdict.json`, `report.html`, `logs/`, and `cluster/` with the nodes' data while it runs, and afterwards if it is not
valid.
"""

import asyncio
import contextlib
import json
import platform
import secrets
import shutil
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from penstock import __version__
from penstock.chaos import ground as grounds
from penstock.chaos import plan as plans
from penstock.chaos.checker import Verdict, check
from penstock.chaos.cluster import ClusterError
from penstock.chaos.disks import DiskError
from penstock.chaos.faults import registry
from penstock.chaos.faults.base import Group
from penstock.chaos.ground import Ground
from penstock.chaos.history import HistoryError, Recorder, entries
from penstock.chaos.local import LocalOptions
from penstock.chaos.measure import measure
from penstock.chaos.mounts import MountError
from penstock.chaos.nemesis import Nemesis
from penstock.chaos.scenario import Scenario
from penstock.chaos.toxiproxy_api import ToxiproxyError
from penstock.chaos.workload import FinalReadError, Workload, WorkloadError, WorkloadOptions
from penstock.client import Admin, PenstockError
from penstock.client.devcluster import PENSTOCKD

HISTORY, RUN, VERDICT, REPORT, LOGS = "history.jsonl", "run.json", "verdict.json", "report.html", "logs"
WORKING = ("cluster", "disks", "shims")
"""What only a run that is under way needs, and whoever looks for what went wrong."""
HEALTH_PATIENCE_S = 180.0
"""How long the cluster may take to be whole again when everything is healed."""
STOP_PATIENCE_S = 60.0
"""How long operations under way may take to come to their end."""
FINAL_PATIENCE_S = 300.0
PROGRESS_INTERVAL_S = 5.0
_HEALTH_TIMEOUT_MS = 2_000
_POLL_S = 0.2

_TROUBLE = (ClusterError, ToxiproxyError, MountError, DiskError, plans.PlanError, WorkloadError, FinalReadError)

VALID, INVALID, UNKNOWN = "valid", "invalid", "unknown"
Document = dict[str, Any]


class RunError(Exception):
    """The run could not be begun; the message says why. Nothing was done to any cluster."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What is to be run."""

    scenario: Scenario
    seed: int
    folder: Path
    duration_s: float | None = None
    """None: the scenario's own. Until the last fault is healed."""
    cluster_file: Path | None = None
    """Somebody else's cluster."""
    schedule: plans.Plan | None = None
    """Instead of one drawn from the seed."""
    program: Sequence[str] = PENSTOCKD
    say: Callable[[str], None] = field(default=lambda _: None)
    """Is told how it goes on."""


class Run:
    """Performs one run. Use once."""

    def __init__(self, options: RunOptions) -> None:
        self._options = options
        self._scenario = options.scenario
        self._folder = options.folder.absolute()
        self._duration_s = options.duration_s or options.scenario.duration_s
        self._document: Document = {}
        self._trouble: list[str] = []
        """Why nothing can be said for certain."""

    def perform(self) -> Document:
        """Do it all; the verdict, as it stands in `verdict.json`. Raises RunError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if (self._folder / HISTORY).exists():
            raise RunError(f"there is a run in {self._folder} already")
        try:
            asyncio.run(self._on_the_ground())
        except _TROUBLE as error:
            if not (self._folder / HISTORY).exists():
                raise RunError(str(error)) from error
            self._trouble.append(f"the run broke off: {error}")
        return self._judge()

    # ---- the course

    async def _on_the_ground(self) -> None:
        async with self._ground() as ground:
            plan = self._plan(ground)
            self._write_run(ground, plan)
            try:
                with Recorder(self._folder / HISTORY) as recorder:
                    await self._with_load(ground, plan, recorder)
            finally:
                await asyncio.to_thread(_copy_logs, ground, self._folder / LOGS)

    @asynccontextmanager
    async def _ground(self) -> AsyncIterator[Ground]:
        context: AbstractAsyncContextManager[Ground]
        if self._options.cluster_file is not None:
            context = grounds.external(self._options.cluster_file)
        else:
            scenario = self._scenario
            options = LocalOptions(
                scenario.nodes, scenario.spare, scenario.hosts, scenario.limits, program=self._options.program
            )
            context = grounds.local(self._folder, options, scenario.disk, scenario.disk_bytes)
        async with context as ground:
            for note in ground.notes:
                self._options.say(note)
            yield ground

    def _plan(self, ground: Ground) -> plans.Plan:
        if self._options.schedule is not None:
            return self._options.schedule
        duration_s = self._options.duration_s or self._scenario.duration_s
        return plans.make_plan(self._options.seed, duration_s, self._scenario.profile, ground.shape, registry.GROUPS)

    async def _with_load(self, ground: Ground, plan: plans.Plan, recorder: Recorder) -> None:
        options = self._scenario.workload
        if self._options.cluster_file is not None:  # a run was there before, perhaps
            options = replace(options, prefix=f"chaos-{secrets.token_hex(4)}-")
        workload = Workload(recorder, ground.access, options, self._options.seed, _observed(ground))
        site = replace(ground.site, groups=_groups(options))
        nemesis = Nemesis(site, plan, recorder, registry.FAULTS)
        await _until_healthy(ground, HEALTH_PATIENCE_S)
        is_healed = False
        try:
            await workload.prepare()
            recorder.note("runner", "phase", name="warm-up")
            workload.start()
            async with _told(self._progress(recorder, workload)):
                await nemesis.run()
                if not plan:
                    await asyncio.sleep(self._duration_s)
                await self._heal(ground, recorder)
            is_healed = not self._trouble
        finally:
            await nemesis.heal_all()
            recorder.note("runner", "phase", name="stopping")
            await workload.stop(STOP_PATIENCE_S, is_sound=is_healed)
        await self._read_all(ground, recorder, workload)

    async def _heal(self, ground: Ground, recorder: Recorder) -> None:
        """Wait until the cluster is whole, and give it time to show its former throughput."""
        recorder.note("runner", "phase", name="healing")
        since = recorder.now()
        problem = await _until_healthy(ground, HEALTH_PATIENCE_S)
        if problem is not None:
            self._trouble.append(f"the cluster is not whole {HEALTH_PATIENCE_S:.0f} s after the last heal: {problem}")
        await asyncio.sleep(max(0.0, self._scenario.tail_s - (recorder.now() - since)))

    async def _read_all(self, ground: Ground, recorder: Recorder, workload: Workload) -> None:
        healthy = not self._trouble
        recorder.note("runner", "phase", name="final", healthy=healthy)
        self._options.say("reading everything")
        try:
            await workload.final(ground.cluster.bootstrap, FINAL_PATIENCE_S)
        except FinalReadError as error:
            self._trouble.append(f"not everything could be read in the end: {error}")
        recorder.note("runner", "phase", name="end", healthy=healthy)

    async def _progress(self, recorder: Recorder, workload: Workload) -> None:
        while True:
            await asyncio.sleep(PROGRESS_INTERVAL_S)
            self._options.say(f"{recorder.now():6.0f} s  {workload.progress}")

    # ---- the folder

    def _write_run(self, ground: Ground, plan: plans.Plan) -> None:
        options = self._options
        self._document = {
            "scenario": self._scenario.name,
            "seed": options.seed,
            "duration_s": self._duration_s,
            "started": datetime.now(UTC).isoformat(),
            "argv": sys.argv,
            "cluster": str(options.cluster_file) if options.cluster_file else "local",
            "nodes": list(ground.cluster.node_ids),
            "voters": list(ground.cluster.voters),
            "hosts": list(ground.access),
            "notes": list(ground.notes),
            "versions": {
                "penstock": __version__,
                "python": platform.python_version(),
                "system": platform.platform(),
            },
            "workload": asdict(self._scenario.workload),
            "schedule": plans.to_json(plan),
        }
        _write(self._folder / RUN, self._document)

    def _judge(self) -> Document:
        self._options.say("checking")
        document = judge(self._folder, self._trouble)
        if document["verdict"] == VALID:
            for name in WORKING:
                shutil.rmtree(self._folder / name, ignore_errors=True)
        return document


def judge(folder: Path, trouble: Sequence[str] = ()) -> Document:
    """Check and measure the history of a run's folder; `verdict.json` anew. Raises HistoryError, OSError."""
    history = folder / HISTORY
    began = time.monotonic()
    verdict = check(history)
    measures = measure(entries(history))
    document = {
        **verdict.to_json(),
        "verdict": _word(verdict, trouble),
        "reasons": [*trouble, *verdict.reasons],
        "aims": [aim.to_json() for aim in measures.aims],
        "measures": measures.to_json(),
        "checked_in_s": round(time.monotonic() - began, 1),
    }
    _write(folder / VERDICT, document)
    return document


def _word(verdict: Verdict, trouble: Sequence[str]) -> str:
    """An anomaly is one, whatever else went wrong."""
    if verdict.anomalies:
        return INVALID
    return VALID if verdict.valid and not trouble else UNKNOWN


def _write(path: Path, document: Mapping[str, Any]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(document, indent=1, ensure_ascii=False))
    part.replace(path)


def _groups(options: WorkloadOptions) -> tuple[Group, ...]:
    return tuple(
        Group(members.group, tuple(options.prefix + topic for topic in members.topics)) for members in options.members
    )


def _observed(ground: Ground) -> dict[int, str]:
    return {node_id: ground.cluster.client_address(node_id) for node_id in ground.cluster.node_ids}


def _copy_logs(ground: Ground, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for node_id in ground.cluster.node_ids:
        path = ground.cluster.log_path(node_id)
        if path is not None and path.exists():
            shutil.copyfile(path, folder / f"node-{node_id}.log")


async def _until_healthy(ground: Ground, patience_s: float) -> str | None:
    """Wait until every running node says that all is well; what is wrong, if that takes too long."""
    problem: str | None = "nobody was asked"
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(patience_s):
            while (problem := await _problem(ground)) is not None:  # noqa: ASYNC110  the cluster is asked, it does not tell
                await asyncio.sleep(_POLL_S)
    return problem


async def _problem(ground: Ground) -> str | None:
    """Give one thing that is wrong."""
    for node_id in ground.cluster.node_ids:
        if node_id not in ground.cluster.voters and not await ground.cluster.is_running(node_id):
            continue  # planned, and not started yet
        try:
            async with Admin(ground.cluster.client_address(node_id), timeout_ms=_HEALTH_TIMEOUT_MS) as admin:
                report = await admin.health()
        except PenstockError as error:
            return f"node {node_id}: {error}"
        if not report.healthy:
            return f"node {node_id}: {report.problems[0].message}"
    return None


@asynccontextmanager
async def _told(progress: Awaitable[None]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(progress)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


__all__ = ["INVALID", "UNKNOWN", "VALID", "HistoryError", "Run", "RunError", "RunOptions", "judge"]
