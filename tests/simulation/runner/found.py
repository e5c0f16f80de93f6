"""Worlds kept in files: what a shrunk failure is written as, and what the regression list consists of.

A file is a JSON object: `name`, `world`, `seed`, `plan` (absent: the seed's own), `violation` (what it showed), and
`shows` (in words, for those who keep it).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.simulation.runner.worlds import Result, Worlds, kind_of

REGRESSIONS = Path(__file__).parents[1] / "regressions"


@dataclass(frozen=True)
class Found:
    """One world that failed once."""

    name: str
    world: str
    seed: int
    plan: tuple[Any, ...] | None
    """Actions as JSON; None for the plan that the seed gives."""
    violation: str
    shows: str = ""

    def run(self, *, record: bool = False) -> Result:
        """Play it."""
        worlds = kind_of(self.world).load()
        return worlds.run(self.seed, self.actions(worlds), record=record)

    def actions(self, worlds: Worlds) -> tuple[Any, ...]:
        """Give its plan."""
        if self.plan is None:
            return worlds.plan_of(self.seed)
        return worlds.from_json(list(self.plan))

    def write(self, path: Path) -> None:
        """Write it, an action a line."""
        head = {"name": self.name, "world": self.world, "seed": self.seed, "violation": self.violation}
        fields = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in (head | {"shows": self.shows}).items()]
        if self.plan is not None:
            fields.append('"plan": [' + _indented(self.plan, 4) + "]")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{" + ",".join(f"\n  {text}" for text in fields) + "\n}\n")


def read(path: Path) -> Found:
    """Read such a file."""
    data = json.loads(path.read_text())
    plan = data.get("plan")
    shows, violation = data.get("shows", ""), data.get("violation", "")
    return Found(data["name"], data["world"], data["seed"], None if plan is None else tuple(plan), violation, shows)


def _indented(actions: Sequence[Any], width: int) -> str:
    if not actions:
        return ""
    return ",".join(f"\n{' ' * width}{json.dumps(action)}" for action in actions) + "\n  "
