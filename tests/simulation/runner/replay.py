"""`make replay`, `make shrink`: one world again, with its trace; and a smaller plan that fails alike."""

import asyncio
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.simulation.runner.found import Found
from tests.simulation.runner.pool import CPU_S, ROOT, Worker, environment
from tests.simulation.runner.shrink import Shrinker
from tests.simulation.runner.worker import quiet_process
from tests.simulation.runner.worlds import events_of, facts_of, kind_of, violation_of

SHOWN_ACTIONS = 40


def replay(found: Found, trace: Path | None = None) -> int:
    """Run a world again and print what happens in it; 1 if it fails."""
    worlds = kind_of(found.world).load()
    quiet_process()
    actions = found.actions(worlds)
    result = worlds.run(found.seed, actions, record=True)
    lines = result.lines or ()
    if trace is not None:
        trace.parent.mkdir(parents=True, exist_ok=True)
        trace.write_text("".join(f"{line}\n" for line in lines))
    else:
        print(*lines, sep="\n")
    print(f"{found.world} seed {found.seed}: a plan of {len(actions)} actions, {events_of(result)} events")
    print_actions(actions)
    for name, number in sorted(facts_of(result).items()):
        print(f"    {name} {number}")
    print(f"hash {result.hash:016x}")
    print(result.failure or "no failure")
    if trace is not None:
        print(f"{len(lines)} lines of trace in {trace}")
    return 0 if result.failure is None else 1


async def shrink(found: Found, path: Path, seconds: float, limit_s: float = CPU_S) -> int:
    """Look for a smaller plan that fails with the same violation, write it, and print it; 0 if the world fails at all.

    The plans run in another process, so that one which does not end, or ends the process, does no harm.
    """
    worlds = kind_of(found.world).load()
    actions = found.actions(worlds)
    async with Worker(kind_of(found.world), limit_s) as worker:

        async def failure_of(plan: tuple[Any, ...]) -> str | None:
            return (await worker.run_plan(found.seed, worlds.to_json(plan))).failure

        started = time.monotonic()
        failure = await failure_of(actions)
        if failure is None:
            print(f"{found.world} seed {found.seed}: no failure")
            return 1
        failures = {actions: failure}

        async def fails(plan: tuple[Any, ...]) -> bool:
            again = await failure_of(plan)
            if again is None or violation_of(again) != violation_of(failure):
                return False
            failures[plan] = again
            return True

        shrinker = Shrinker(fails, _expiry(started + seconds))
        plan, minimal = await shrinker.shrink(actions)
    took = f"{shrinker.tried} worlds, {time.monotonic() - started:.0f} s{'' if minimal else ', out of time'}"
    data = tuple(worlds.to_json(plan))
    Found(path.stem, found.world, found.seed, data, failures[plan], found.shows).write(path)
    print(f"  shrunk from {len(actions)} actions to {len(plan)} ({took}):")
    print_actions(plan)
    print(f"  {short(failures[plan])}")
    print(f"  replay: make replay PLAN={path}")
    return 0


async def compare(found: Found) -> int:
    """Run a world in two processes with different hash seeds and print where their traces part; 1 if they do."""
    with tempfile.TemporaryDirectory() as folder:
        plan = Path(folder) / "plan.json"
        found.write(plan)
        traces = [Path(folder) / name for name in ("one", "other")]
        await asyncio.gather(*(_traced(plan, trace, seed) for seed, trace in enumerate(traces, 1)))
        one, other = (trace.read_text().splitlines() for trace in traces)
    same = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    if same == len(one) == len(other):
        print(f"{found.world} seed {found.seed}: the traces of two processes are alike ({same} lines)")
        return 0
    print(f"{found.world} seed {found.seed}: the traces of two processes part after {same} lines:")
    for mark, lines in (("   ", one[max(0, same - 3) : same]), ("1: ", one[same:][:3]), ("2: ", other[same:][:3])):
        for line in lines:
            print(f"    {mark}{short(line)}")
    return 1


async def _traced(plan: Path, trace: Path, hash_seed: int) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.simulation.runner", "replay", "--plan", str(plan), "--trace", str(trace)),
        cwd=ROOT,
        env=environment() | {"PYTHONHASHSEED": str(hash_seed)},
        stdout=subprocess.DEVNULL,
    )
    try:
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def print_actions(actions: tuple[Any, ...]) -> None:
    """Print a plan, or how it begins."""
    for action in actions[:SHOWN_ACTIONS]:
        print(f"    {action}")
    if len(actions) > SHOWN_ACTIONS:
        print(f"    … and {len(actions) - SHOWN_ACTIONS} more")


def short(failure: str) -> str:
    """A failure in one line."""
    lines = failure.strip().splitlines()
    line = lines[-1] if lines[0].startswith("Traceback") else lines[0]
    return line if len(line) <= 500 else line[:500] + " …"


def name_of(world: str, seed: int, failure: str = "") -> str:
    """A name for a failure, good for a file."""
    return "-".join(filter(None, (*re.findall(r"[a-z0-9]+", violation_of(failure).lower()), world, str(seed))))


def _expiry(at: float) -> Callable[[], bool]:
    return lambda: time.monotonic() > at
