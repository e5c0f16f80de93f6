"""Tables of deliberate bugs, and the process that looks for one of them: `python -m …tables MODULE NAME LIMIT_S`.

A process knows one mutant and then ends, so that nothing of it can be left in another run. It also ends when its
standard input does: with the runner, however that ended.
"""

import gc
import importlib
import importlib.util
import json
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from tests.simulation.runner.worker import Stuck, cpu_limit, own_output
from tests.simulation.runner.worlds import KINDS, Kind, kind_of


class Mutant(Protocol):
    """A deliberate bug."""

    @property
    def name(self) -> str:
        """Its name, unlike any other in its table."""

    @property
    def rule(self) -> str:
        """The rule that it takes away."""

    @property
    def what(self) -> str:
        """What is wrong, in words."""

    @property
    def budget(self) -> int:
        """It must be found within so many seeds. 0: too rare for chance, its golden traces show it."""


class Table(Protocol):
    """A module with mutants. Its seeds begin at 0, or at a mutant's `first_seed`.

    It may say in `WORLDS` which worlds its seeds are of (see `worlds.kind_of`): without the mutant the world of the
    seed that shows it must not fail. The tables named `consensus` and `cluster` are of those worlds.
    """

    @property
    def MUTANTS(self) -> Iterable[Mutant]:  # noqa: N802  a module's constant
        """All of them."""

    def caught(self, mutant: Mutant, seeds: Iterable[int]) -> int | None:
        """Give the first of these seeds that shows the bug."""


TABLES = {
    "consensus": "tests.simulation.consensus.mutants",
    "replication": "tests.replication.mutants",
    "cluster": "tests.simulation.cluster.mutants",
    "groups": "tests.simulation.cluster.group_mutants",
}


TRACES = {"tests.replication.mutants": "tests.traces.player"}
"""Modules that play golden traces with the mutants of a table."""


class Player(Protocol):
    """A module that plays golden traces."""

    def all_traces(self) -> Mapping[str, Any]:
        """By name; `mutants` of each are the names of those that it shows."""

    def play_mutant(self, trace: Any, mutant: Mutant) -> object | None:
        """Give what a trace shows with a mutant in place."""


@dataclass(frozen=True)
class Outcome:
    """What one process found."""

    seed: int | None = None
    """The first seed that shows the bug."""
    tried: int = 0
    """How many seeds were asked for up to then."""
    cpu_s: float = 0.0
    traces: Sequence[str] = ()
    """Golden traces that show it."""
    error: str = ""
    """Why there is no answer."""


def is_there(module: str) -> bool:
    """Tell whether there is such a table."""
    try:
        found = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # nor is its package
        return False
    return found and hasattr(load(module), "caught")


def load(module: str) -> Table:
    """Import a table."""
    return cast("Table", importlib.import_module(module))


def worlds_of(table: str, module: str) -> Kind | None:
    """The worlds of which a table's seeds are."""
    name = getattr(load(module), "WORLDS", table if table in KINDS else None)
    return None if name is None else kind_of(name)


def seeds_of(mutant: Mutant) -> range:
    """The seeds within which a mutant must be found."""
    first: int = getattr(mutant, "first_seed", 0)
    return range(first, first + mutant.budget)


def traces_of(module: str, mutant: Mutant) -> tuple[str, ...]:
    """Play the golden traces that name a mutant; give those that show it."""
    if module not in TRACES:
        return ()
    player = cast("Player", importlib.import_module(TRACES[module]))
    named = {name: trace for name, trace in player.all_traces().items() if mutant.name in trace.mutants}
    shown = tuple(name for name, trace in named.items() if player.play_mutant(trace, mutant) is not None)
    if len(shown) < len(named):
        raise LookupError(f"not shown by the golden traces {sorted(set(named) - set(shown))}")
    return shown


def look(module: str, mutant: Mutant, limit_s: float) -> Outcome:
    """Look for one mutant, in this process."""
    seeds = seeds_of(mutant)
    started = time.process_time()
    seed, error = None, ""
    traces: Sequence[str] = ()
    try:
        with cpu_limit(limit_s):
            seed = load(module).caught(mutant, seeds) if seeds else None
            traces = traces_of(module, mutant)
    except Stuck:
        error = f"no answer after {limit_s:g} s of CPU"
    except Exception:  # noqa: BLE001  a table that fails is told with its mutant
        error = traceback.format_exc()
    tried = len(seeds) if seed is None else seeds.index(seed) + 1
    return Outcome(seed, tried, round(time.process_time() - started, 3), traces, error)


def _end_with_input() -> None:
    os.read(0, 1)
    os._exit(1)


def main(arguments: Sequence[str]) -> int:
    """Look for the mutant that is named."""
    output = own_output()
    threading.Thread(target=_end_with_input, daemon=True).start()
    module, name, limit_s = arguments
    table = load(module)
    logging.getLogger().addHandler(logging.NullHandler())
    gc.collect()
    gc.freeze()
    (mutant,) = [mutant for mutant in table.MUTANTS if mutant.name == name]
    print(json.dumps(vars(look(module, mutant, float(limit_s)))), file=output, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
