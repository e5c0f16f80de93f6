"""Wrong clocks: a real process whose wall clock is steered while it runs, and the faults that do it to nodes."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from penstock.chaos.cluster import Cluster
from penstock.chaos.disks import Disks
from penstock.chaos.faults.base import Site
from penstock.chaos.faults.clock import ClockJump, ClockStrobe
from penstock.chaos.roles import Roles
from penstock.chaos.shims import preload
from penstock.chaos.shims.clock import FakeClock
from penstock.chaos.shims.preload import Preload, Preloads

CHILD = """
import datetime, sys, time
for line in sys.stdin:
    print(time.time(), datetime.datetime.now().timestamp(), time.monotonic(), flush=True)
"""
SLACK_S = 300.0
"""Between a question and its answer a busy machine may stand still."""
Ask = Callable[[], tuple[float, float, float]]


@pytest.fixture
def preloads(tmp_path: Path) -> Preloads:
    found = preload.find(tmp_path / "shims")
    if found.missing_clock:
        pytest.skip(found.missing_clock)
    return Preloads(clock_library=found.clock_library, missing_clock=None)


@pytest.fixture
def disks(preloads: Preloads, tmp_path: Path) -> Iterator[Disks]:
    with Disks(tmp_path / "disks", preloads=preloads) as disks:
        disks.prepare([1])
        yield disks


@pytest.fixture
def loaded(disks: Disks) -> Preload:
    return disks.preload(1)


@pytest.fixture
def clock(loaded: Preload) -> FakeClock:
    assert loaded.clock is not None
    return loaded.clock


@pytest.fixture
def ask(loaded: Preload) -> Iterator[Ask]:
    pipe = subprocess.PIPE
    command = [*loaded.wrapper, sys.executable, "-c", CHILD]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as child:

        def one() -> tuple[float, float, float]:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write("\n")
            child.stdin.flush()
            wall, date, monotonic = map(float, child.stdout.readline().split())
            return wall, date, monotonic

        yield one


@pytest.mark.parametrize("skew", [3600.0, -3600.0, 86_400.75, -86_400.75])
def test_the_wall_clock_alone_is_wrong_as_long_as_it_should(ask: Ask, clock: FakeClock, skew: float) -> None:
    for wanted in (0.0, skew, 0.0):
        clock.skew(wanted)
        wall, date, monotonic = ask()
        assert wall == pytest.approx(time.time() + wanted, abs=SLACK_S)
        assert date == pytest.approx(wall, abs=SLACK_S)
        assert monotonic == pytest.approx(time.monotonic(), abs=SLACK_S)


def test_questions_are_counted_while_it_is_wrong(ask: Ask, clock: FakeClock) -> None:
    ask()
    assert clock.asked() == 0
    clock.skew(-1.5)
    ask()
    asked = clock.asked()
    assert asked >= 2  # time.time and datetime.now
    clock.skew(0.0)
    ask()
    assert clock.asked() == asked


class _OneNode:
    """As much of a cluster as these faults ask for."""

    node_ids = voters = (1,)

    async def is_running(self, node_id: int) -> bool:
        return True


@pytest.fixture
def site(disks: Disks) -> Site:
    cluster = cast(Cluster, _OneNode())
    return Site(cluster, Roles(cluster), None, disks)


PARAMS: dict[str, Any] = {"order": [1], "who": "drawn"}


async def test_a_jump_hits_whom_asks_for_the_time(site: Site, ask: Ask) -> None:
    fault = ClockJump()
    assert fault.missing(site) is None
    unasked = await fault.inject(site, {**PARAMS, "all": True, "skews_s": {"1": 7200.0}})
    assert not (await unasked.heal()).hit
    injected = await fault.inject(site, {**PARAMS, "all": False, "skews_s": {"1": -2000.0}})
    assert ask()[0] == pytest.approx(time.time() - 2000.0, abs=SLACK_S)
    assert (await injected.heal()).hit
    assert ask()[0] == pytest.approx(time.time(), abs=SLACK_S)
    assert injected.effect.nodes == (1,)


async def test_a_strobe_goes_back_and_forth_until_it_is_healed(site: Site, ask: Ask) -> None:
    injected = await ClockStrobe().inject(site, {**PARAMS, "skew_s": 100_000.0})
    seen: set[bool] = set()
    async with asyncio.timeout(60):
        while seen != {True, False}:
            ahead = (await asyncio.to_thread(ask))[0] - time.time()
            if abs(ahead) > 50_000.0:  # not before the first jump
                seen.add(ahead > 0)
    assert (await injected.heal()).hit
    assert ask()[0] == pytest.approx(time.time(), abs=SLACK_S)


async def test_nodes_that_were_started_without_it_have_no_wrong_clocks(tmp_path: Path) -> None:
    cluster = cast(Cluster, _OneNode())
    with Disks(tmp_path / "disks") as disks:
        assert "without it" in str(ClockJump().missing(Site(cluster, Roles(cluster), None, disks)))
    assert "not this program's" in str(ClockJump().missing(Site(cluster, Roles(cluster))))
