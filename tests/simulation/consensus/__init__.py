"""Seeded, deterministic simulation of consensus: the real RaftMachine and RaftJournal in a virtual world.

`python -m tests.simulation.consensus --seeds 0:1000` runs worlds in this process; `--trace` prints one. `make simulate`
runs many, and shrinks the plan of one that fails.
"""

from tests.simulation.consensus.plan import from_json, to_json
from tests.simulation.consensus.worlds import Result, plan_of, run

__all__ = ["Result", "from_json", "plan_of", "run", "to_json"]
