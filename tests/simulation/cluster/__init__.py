"""Whole-system worlds: real nodes and real clients, each on an event loop in virtual time, over simulated machines."""

from tests.simulation.cluster.plan import Action, from_json, plan_of, to_json
from tests.simulation.cluster.world import Result, World, run

__all__ = ["Action", "Result", "World", "from_json", "plan_of", "run", "to_json"]
