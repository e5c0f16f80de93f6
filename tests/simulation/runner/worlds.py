"""What the runner knows of worlds: the interface of the packages that provide them, and their names."""

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast


class Result(Protocol):
    """How one world ended.

    It may have `events` (or `steps`), how much happened, and `facts`, what happened, counted by name: their sums over
    many worlds tell whether these show anything.
    """

    @property
    def seed(self) -> int:
        """Its seed."""

    @property
    def hash(self) -> int:
        """Over the whole trace: alike whenever and wherever the same seed and plan run on the same code."""

    @property
    def failure(self) -> str | None:
        """None, or `kind: what happened`; an unexpected exception as its traceback."""

    @property
    def lines(self) -> Sequence[str] | None:
        """The trace, where it was recorded."""


class Worlds(Protocol):
    """A package whose worlds can be run. A plan is what is done *to* a world: a tuple of frozen dataclasses.

    The plan of a seed is a function of the seed alone, and `run(seed)` is `run(seed, plan_of(seed))`. With actions
    left out of the plan a world still runs to its end.
    """

    def plan_of(self, seed: int) -> tuple[Any, ...]:
        """Give the seed's plan."""

    def run(self, seed: int, plan: tuple[Any, ...] | None = None, *, record: bool = False) -> Result:
        """Run one world to its end."""

    def to_json(self, plan: tuple[Any, ...]) -> list[Any]:
        """Give a plan as JSON can say it, a value for each action."""

    def from_json(self, data: list[Any]) -> tuple[Any, ...]:
        """Give the plan of such data."""


@dataclass(frozen=True)
class Kind:
    """One sort of world: where it is, how many seeds a run takes by default, and how many are noted at a time."""

    name: str
    module: str
    seeds: int
    chunk: int

    @property
    def is_there(self) -> bool:
        """There is such a package."""
        return importlib.util.find_spec(self.module) is not None

    def load(self) -> Worlds:
        """Import the package."""
        return cast("Worlds", importlib.import_module(self.module))


KINDS = {
    kind.name: kind
    for kind in (
        Kind("cluster", "tests.simulation.cluster", seeds=600, chunk=20),
        Kind("consensus", "tests.simulation.consensus", seeds=6000, chunk=100),
    )
}
ALL = "all"


def kind_of(name: str) -> Kind:
    """Find worlds by name, or by the dotted name of a module that provides them."""
    if "." in name:
        return Kind(name, name, seeds=200, chunk=10)
    if name not in KINDS:
        raise SystemExit(f"no worlds named {name!r}; there are: {', '.join(KINDS)}, {ALL}")
    return KINDS[name]


def kinds_of(name: str) -> list[Kind]:
    """As `kind_of`; `all` are those that are there."""
    return [kind for kind in KINDS.values() if kind.is_there] if name == ALL else [kind_of(name)]


def events_of(result: Result) -> int:
    """How much happened in a world."""
    events: int = result.events if hasattr(result, "events") else getattr(result, "steps", 0)
    return events


def facts_of(result: Result) -> dict[str, int]:
    """What happened in a world, counted."""
    return dict(getattr(result, "facts", {}))


def sort_of(action: Any) -> str:
    """What an action does: its `kind`, where it has one, or the name of its type."""
    kind = getattr(action, "kind", None)
    return kind if isinstance(kind, str) else type(action).__name__


def violation_of(failure: str) -> str:
    """The name of what was violated: what comes before the first colon, of a traceback in its last line."""
    lines = failure.strip().splitlines() or [""]
    line = lines[-1] if lines[0].startswith("Traceback") else lines[0]
    return line.partition(":")[0].strip()


def processors() -> int:
    """How many processes can run at once here."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
