"""The interface to the runner: a seed's plan, and a world run to its end."""

import traceback
from dataclasses import dataclass

from tests.simulation.consensus.invariants import Violation
from tests.simulation.consensus.options import Options
from tests.simulation.consensus.plan import Plan, draw_plan
from tests.simulation.consensus.world import World


@dataclass(frozen=True)
class Result:
    """How one world ended."""

    seed: int
    hash: int
    failure: str | None
    lines: list[str] | None
    steps: int


def plan_of(seed: int) -> Plan:
    """The plan of a seed."""
    return draw_plan(seed, Options.of(seed))


def run(seed: int, plan: Plan | None = None, *, record: bool = False, options: Options | None = None) -> Result:
    """Run one world to its end; whatever it runs into is its failure."""
    world = World(seed, options, plan=plan, record=record)
    failure = None
    try:
        world.run()
    except Violation as violation:
        failure = str(violation)
    except Exception:  # noqa: BLE001  whatever a world runs into is that seed's result
        failure = traceback.format_exc()
    return Result(seed, world.hash, failure, world.lines, world.steps)
