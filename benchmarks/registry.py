"""The systems under test by name. Modules are imported when they are asked for: each needs packages of its own."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from benchmarks.system import Driver, System

MODULES = {
    "limit": "benchmarks.systems.limit",
    "penstock": "benchmarks.systems.penstock",
    "kafka": "benchmarks.peers.kafka",
    "kafka-synced": "benchmarks.peers.kafka",
    "jetstream": "benchmarks.peers.jetstream",
    "jetstream-synced": "benchmarks.peers.jetstream",
}
"""Each module has two functions, `system(name) -> System` and `driver(name) -> Driver`: one module may serve more than
one name. Importing a module needs nothing that is not installed with Penstock itself; `System.prepare` raises
UnavailableError, and `driver` may import the rest."""


def system(name: str) -> System:
    """Give the servers' side of a system, not started. Raises KeyError for an unknown name."""
    made: System = _function(name, "system")(name)
    return made


def driver(name: str) -> Driver:
    """Give the client's side of a system. Raises KeyError for an unknown name."""
    made: Driver = _function(name, "driver")(name)
    return made


def _function(name: str, function: str) -> Callable[[str], Any]:
    found: Callable[[str], Any] = getattr(import_module(MODULES[name]), function)
    return found
