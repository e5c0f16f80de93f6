"""Tables of deliberate bugs, and the process that looks for one of them: `python -m …tables MODULE NAME LIMIT_S`.

A process knows one mutant and then ends, so that nothing of it can be left in another run.
"""

import gc
import importlib
import importlib.util
import json
import logging
import sys
import time
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from tests.simulation.runner.worker import Stuck, cpu_limit, own_output


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
        """It must be found within so many seeds."""


class Table(Protocol):
    """A module with mutants. Its seeds begin at 0, or at a mutant's `first_seed`."""

    @property
    def MUTANTS(self) -> Iterable[Mutant]:  # noqa: N802  a module's constant
        """All of them."""

    def caught(self, mutant: Mutant, seeds: Iterable[int]) -> int | None:
        """Give the first of these seeds that shows the bug."""


TABLES = {
    "consensus": "tests.simulation.consensus.mutants",
    "replication": "tests.replication.mutants",
    "cluster": "tests.simulation.cluster.mutants",
}


@dataclass(frozen=True)
class Outcome:
    """What one process found."""

    seed: int | None = None
    """The first seed that shows the bug."""
    tried: int = 0
    """How many seeds were asked for up to then."""
    cpu_s: float = 0.0
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


def seeds_of(mutant: Mutant) -> range:
    """The seeds within which a mutant must be found."""
    first: int = getattr(mutant, "first_seed", 0)
    return range(first, first + mutant.budget)


def look(table: Table, mutant: Mutant, limit_s: float) -> Outcome:
    """Look for one mutant, in this process."""
    seeds = seeds_of(mutant)
    started = time.process_time()
    seed, error = None, ""
    try:
        with cpu_limit(limit_s):
            seed = table.caught(mutant, seeds)
    except Stuck:
        error = f"no answer after {limit_s:g} s of CPU"
    except Exception:  # noqa: BLE001  a table that fails is told with its mutant
        error = traceback.format_exc()
    tried = len(seeds) if seed is None else seeds.index(seed) + 1
    return Outcome(seed, tried, round(time.process_time() - started, 3), error)


def main(arguments: Sequence[str]) -> int:
    """Look for the mutant that is named."""
    output = own_output()
    table = load(arguments[0])
    logging.getLogger().addHandler(logging.NullHandler())
    gc.collect()
    gc.freeze()
    (mutant,) = [mutant for mutant in table.MUTANTS if mutant.name == arguments[1]]
    print(json.dumps(vars(look(table, mutant, float(arguments[2])))), file=output, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
