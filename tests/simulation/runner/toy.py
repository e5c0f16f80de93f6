"""Worlds of nothing, for the runner's own tests: a plan is numbers, and certain seeds do what worlds should not.

Seeds below 1000 and above 2000 are well. What the others do is told in `_behave`; `TOY_FILE` names a file that makes
some of them do it once.
"""

import os
import random
import signal
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

LOST, SLOW, TRACEBACK, STUCK, DEAD, KILLS, INTERRUPTS, CHANGING = (1000 + 50 * number for number in range(1, 9))
NEEDED = frozenset({("cut", 3), ("crash", 7)})
"""With these two actions together in its plan the world LOST fails; with more than 20 actions it fails in another way
if one of them is missing."""


@dataclass(frozen=True)
class Action:
    """One number."""

    time: float
    kind: str
    node: int


@dataclass(frozen=True)
class Result:
    """How it ended."""

    seed: int
    hash: int
    failure: str | None
    lines: list[str] | None
    events: int
    facts: dict[str, int]


def plan_of(seed: int) -> tuple[Action, ...]:
    rng = random.Random(seed)
    plan = [Action(time / 2, rng.choice(("cut", "crash", "write")), rng.randrange(9)) for time in range(30)]
    if seed == LOST:
        plan[11], plan[17] = Action(5.5, "cut", 3), Action(8.5, "crash", 7)
    return tuple(plan)


def to_json(plan: tuple[Action, ...]) -> list[dict[str, Any]]:
    return [asdict(action) for action in plan]


def from_json(data: list[dict[str, Any]]) -> tuple[Action, ...]:
    return tuple(Action(**item) for item in data)


def run(seed: int, plan: tuple[Action, ...] | None = None, *, record: bool = False) -> Result:
    plan = plan_of(seed) if plan is None else plan
    lines = [f"{action.time:.3f} {action.kind} {action.node}" for action in plan]
    failure = _behave(seed, plan)
    if seed == CHANGING:
        lines.append(f"the process is {os.getpid()}")
    code = zlib.crc32("\n".join(lines).encode(), seed)
    return Result(seed, code, failure, lines if record else None, len(lines), {"actions": len(plan)})


def _behave(seed: int, plan: tuple[Action, ...]) -> str | None:
    if seed == LOST:
        if {(action.kind, action.node) for action in plan} >= NEEDED:
            return f"lost: a record, with {len(plan)} actions"
        return "slow: nothing happened" if len(plan) > 20 else None
    if seed == SLOW:
        return "slow: nothing happened"
    if seed == TRACEBACK:
        raise ZeroDivisionError("division: by zero")
    while seed == STUCK:
        pass
    if seed == DEAD:
        os.abort()
    if seed in (KILLS, INTERRUPTS) and (once := Path(os.environ.get("TOY_FILE", ""))).is_file():
        once.unlink()
        os.kill(os.getppid(), signal.SIGKILL if seed == KILLS else signal.SIGINT)
    return None
