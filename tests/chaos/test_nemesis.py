"""The nemesis: what it records, that it heals whatever happens, and what overlapping faults mean together."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from penstock.chaos import nemesis as nemesis_module
from penstock.chaos.faults.base import Effect, FaultError, Hit, Injected, Params, Shape, Site
from penstock.chaos.faults.process import FAULTS
from penstock.chaos.faults.targets import until_healthy
from penstock.chaos.history import Recorder, entries
from penstock.chaos.nemesis import Nemesis
from penstock.chaos.plan import Plan, Planned
from penstock.client.devcluster import DevCluster
from penstock.client.devplan import make_plan
from penstock.client.ports import free_ports
from tests.chaos.processes import running_cluster, site_of, until


@dataclass
class Noted:
    """A fault that does nothing but note what is asked of it."""

    effect: Effect = field(default_factory=lambda: Effect("noted"))
    reason: str | None = None
    inject_error: Exception | None = None
    heal_error: Exception | None = None
    injecting: asyncio.Event = field(default_factory=asyncio.Event)
    may_inject: asyncio.Event = field(default_factory=asyncio.Event)
    there: asyncio.Event = field(default_factory=asyncio.Event)
    may_heal: asyncio.Event = field(default_factory=asyncio.Event)
    healing: asyncio.Event = field(default_factory=asyncio.Event)
    healed: int = 0

    name: ClassVar[str] = "noted"
    summary: ClassVar[str] = "none"

    def __post_init__(self) -> None:
        self.may_inject.set()
        self.may_heal.set()

    def missing(self, site: Site) -> str | None:
        return self.reason

    def draw(self, rng: random.Random, shape: Shape) -> Params:
        return {}

    async def inject(self, site: Site, params: Params) -> Injected:
        self.injecting.set()
        await self.may_inject.wait()
        if self.inject_error is not None:
            raise self.inject_error
        self.there.set()
        return self

    async def heal(self) -> Hit:
        self.healing.set()
        await self.may_heal.wait()
        self.healed += 1
        if self.heal_error is not None:
            raise self.heal_error
        return Hit(hit=True, evidence="noted")


FOR_EVER_S = 1_000.0


@dataclass
class Clock:
    """Goes on by itself, and jumps where a test wants."""

    ahead_s: float = field(default_factory=lambda: -time.monotonic())

    def __call__(self) -> float:
        return time.monotonic() + self.ahead_s


@dataclass
class Stage:
    """A nemesis with faults that note, and its history."""

    site: Site
    recorder: Recorder
    path: Path
    clock: Clock

    def later(self, by_s: float) -> None:
        self.clock.ahead_s += by_s

    def nemesis(self, plan: Plan, **faults: Noted) -> Nemesis:
        return Nemesis(self.site, plan, self.recorder, faults)

    def said(self) -> list[dict[str, Any]]:
        self.recorder.flush()
        found = list(entries(self.path))
        assert all((entry["process"], entry["type"], entry["f"]) == ("nemesis", "info", "fault") for entry in found)
        return found

    def phases(self) -> list[tuple[int, str]]:
        return [(entry["id"], entry["phase"]) for entry in self.said()]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """Three voters and an observer, none of which is asked anything."""
    site = site_of(DevCluster.create(tmp_path / "cluster", make_plan(free_ports(8))))
    path, clock = tmp_path / "history.jsonl", Clock()
    with Recorder(path, clock) as recorder:
        yield Stage(site, recorder, path, clock)


@pytest.fixture
async def started() -> AsyncIterator[Callable[[Nemesis], "asyncio.Task[None]"]]:
    """Run nemeses beside the test; none is left behind."""
    tasks: list[asyncio.Task[None]] = []

    def start(nemesis: Nemesis) -> "asyncio.Task[None]":
        tasks.append(asyncio.create_task(nemesis.run()))
        return tasks[-1]

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


Started = Callable[[Nemesis], "asyncio.Task[None]"]


def planned(number: int, fault: str, at_s: float = 0.0, duration_s: float = 0.0) -> Planned:
    return Planned(number, at_s, fault, duration_s, {"strength": number})


async def test_a_fault_is_recorded_from_its_injection_to_its_healing(stage: Stage) -> None:
    fault = Noted(Effect("node 2", (2,), majority=True, cut_hosts=("c1",)))
    await stage.nemesis((planned(1, "a"),), a=fault).run()
    common = {"process": "nemesis", "type": "info", "f": "fault", "id": 1, "fault": "a"}
    said = stage.said()
    assert [entry.pop("time") >= 0 for entry in said] == [True] * 4
    assert said == [
        {**common, "phase": "inject", "params": {"strength": 1}},
        {**common, "phase": "injected", "detail": "node 2", "nodes": [2], "majority": True, "cut_hosts": ["c1"]},
        {**common, "phase": "heal"},
        {**common, "phase": "healed", "hit": True, "evidence": "noted"},
    ]


async def test_faults_come_and_go_at_their_times_and_keep_the_quiet_between(stage: Stage) -> None:
    plan = (planned(1, "a", at_s=0.1, duration_s=0.2), planned(2, "b", at_s=0.5, duration_s=0.1))
    late = Noted()
    late.may_heal.clear()
    nemesis = asyncio.create_task(stage.nemesis(plan, a=late, b=Noted()).run())
    await late.healing.wait()
    stage.later(100.0)
    late.may_heal.set()
    await nemesis
    at = {(entry["id"], entry["phase"]): entry["time"] for entry in stage.said()}
    assert at[1, "inject"] >= 0.1
    assert at[1, "heal"] >= at[1, "injected"] + 0.2
    assert at[1, "healed"] > 100.0
    assert at[2, "inject"] >= at[1, "healed"] + 0.2 - 0.001  # as planned, though the first one was healed late


async def test_a_fault_that_cannot_be_done_or_fails_is_recorded_and_the_others_go_on(stage: Stage) -> None:
    plan = tuple(planned(number, fault, at_s=number / 100) for number, fault in enumerate("abcde", 1))
    faults = {
        "a": Noted(reason="no root"),
        "b": Noted(inject_error=FaultError("no such link")),
        "c": Noted(heal_error=OSError("gone")),
        "e": Noted(),
    }
    await stage.nemesis(plan, **faults).run()
    assert [(entry["id"], entry["phase"], entry.get("detail")) for entry in stage.said() if entry["id"] != 5] == [
        (1, "skipped", "no root"),
        (2, "inject", None),
        (2, "failed", "not injected: FaultError: no such link"),
        (3, "inject", None),
        (3, "injected", "noted"),
        (3, "heal", None),
        (3, "failed", "not healed: OSError: gone"),
        (4, "failed", "not injected: KeyError: 'd'"),
    ]
    assert stage.phases()[-1] == (5, "healed")


async def test_an_injection_and_a_healing_without_end_have_failed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nemesis_module, "INJECT_TIMEOUT_S", 0.01)
    monkeypatch.setattr(nemesis_module, "HEAL_TIMEOUT_S", 0.01)
    endless, unhealed = Noted(), Noted()
    endless.may_inject.clear()
    unhealed.may_heal.clear()
    await stage.nemesis((planned(1, "a"), planned(2, "b", 0.01)), a=endless, b=unhealed).run()
    failed = [(entry["id"], entry["detail"]) for entry in stage.said() if entry["phase"] == "failed"]
    assert failed == [(1, "not injected: TimeoutError: "), (2, "not healed: TimeoutError: ")]


async def test_a_fault_that_fails_beside_another_leaves_it_alone(stage: Stage, started: Started) -> None:
    good, bad = Noted(), Noted(inject_error=FaultError("no"))
    run = started(stage.nemesis((planned(1, "a", 0, FOR_EVER_S), planned(2, "b", 0, 1)), a=good, b=bad))
    await until(lambda: (2, "failed") in stage.phases())
    assert (good.healed, run.done()) == (0, False)


async def test_a_cancelled_run_has_healed_when_it_ends(stage: Stage, started: Started) -> None:
    faults = {"a": Noted(), "b": Noted()}
    run = started(stage.nemesis((planned(1, "a", 0, FOR_EVER_S), planned(2, "b", 0, FOR_EVER_S)), **faults))
    for fault in faults.values():
        await fault.there.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert sorted(stage.phases()[-4:]) == [(1, "heal"), (1, "healed"), (2, "heal"), (2, "healed")]


async def test_a_run_cancelled_during_an_injection_heals_what_it_did(stage: Stage, started: Started) -> None:
    fault = Noted()
    fault.may_inject.clear()
    run = started(stage.nemesis((planned(1, "a", 0, FOR_EVER_S),), a=fault))
    await fault.injecting.wait()
    run.cancel()
    await asyncio.sleep(0)
    fault.may_inject.set()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert [phase for _, phase in stage.phases()] == ["inject", "injected", "heal", "healed"]


async def test_a_run_cancelled_again_during_its_healing_heals_to_the_end(stage: Stage, started: Started) -> None:
    fault = Noted()
    fault.may_heal.clear()
    run = started(stage.nemesis((planned(1, "a", 0, FOR_EVER_S),), a=fault))
    await fault.there.wait()
    run.cancel()
    await fault.healing.wait()
    for _ in range(3):
        run.cancel()
        await asyncio.sleep(0)
    fault.may_heal.set()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert (fault.healed, stage.phases()[-1]) == (1, (1, "healed"))


async def test_a_run_cancelled_while_a_fault_is_healed_at_its_time_heals_it_to_the_end(
    stage: Stage, started: Started
) -> None:
    fault = Noted()
    fault.may_heal.clear()
    run = started(stage.nemesis((planned(1, "a"),), a=fault))
    await fault.healing.wait()
    run.cancel()
    await asyncio.sleep(0)
    fault.may_heal.set()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert (fault.healed, stage.phases()[-1]) == (1, (1, "healed"))


async def overlap(stage: Stage, started: Started, *effects: Effect) -> list[tuple[int, bool]]:
    """What is said of the majority, when one fault after the other is there."""
    faults = {f"f{number}": Noted(effect) for number, effect in enumerate(effects, 1)}
    for fault in faults.values():
        fault.may_inject.clear()
    plan = tuple(planned(number, f"f{number}", 0, FOR_EVER_S) for number in range(1, len(effects) + 1))
    started(stage.nemesis(plan, **faults))
    for fault in faults.values():
        fault.may_inject.set()
        await fault.there.wait()
        await asyncio.sleep(0)
    await until(lambda: {number for number, phase in stage.phases() if phase == "injected"} == {p.id for p in plan})
    return [(entry["id"], entry["majority"]) for entry in stage.said() if entry["phase"] == "injected"]


async def test_two_faults_that_together_break_the_majority_both_say_so(stage: Stage, started: Started) -> None:
    one, two = Effect("one", (1,)), Effect("two", (2,))
    assert await overlap(stage, started, one, two) == [(1, True), (2, False), (1, False)]


async def test_a_fault_of_the_same_node_breaks_nothing_more(stage: Stage, started: Started) -> None:
    assert await overlap(stage, started, Effect("", (1,)), Effect("", (1,))) == [(1, True), (2, True)]


async def test_a_fault_of_an_observer_takes_the_second_replica(stage: Stage, started: Started) -> None:
    assert await overlap(stage, started, Effect("", (1,)), Effect("", (4,))) == [(1, True), (2, False), (1, False)]


async def test_what_is_said_already_is_not_said_again(stage: Stage, started: Started) -> None:
    all_three = Effect("", (1, 2, 3), majority=False)
    assert await overlap(stage, started, all_three, Effect("", (1,))) == [(1, False), (2, False)]


async def test_the_other_fields_of_a_second_entry_are_those_of_the_first(stage: Stage, started: Started) -> None:
    await overlap(stage, started, Effect("one", (1,), cut_hosts=("c1",)), Effect("two", (2,)))
    first, again = (entry for entry in stage.said() if (entry["id"], entry["phase"]) == (1, "injected"))
    assert {**first, "majority": False, "time": again["time"]} == again


async def test_real_nodes_run_when_a_cancelled_run_has_ended(tmp_path: Path) -> None:
    with running_cluster(tmp_path / "cluster") as cluster, Recorder(tmp_path / "history") as recorder:
        site = site_of(cluster)
        plan = (
            Planned(1, 0.0, "kill-all", FOR_EVER_S, {"order": [1, 2, 3]}),
            Planned(2, 0.0, "kill-node", FOR_EVER_S, {"order": [1, 2, 3]}),
        )
        run = asyncio.create_task(Nemesis(site, plan, recorder, {fault.name: fault for fault in FAULTS}).run())
        while any([await site.cluster.is_running(node_id) for node_id in site.cluster.node_ids]):
            pass
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        await until_healthy(site.cluster, site.cluster.node_ids)
