"""A table of mutants for the runner's own tests. Finding one leaves this module changed."""

import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass

from tests.simulation.runner import toy

WORLDS = "tests.simulation.runner.toy"


@dataclass(frozen=True)
class Mutant:
    """A mutant that is found at a seed, or never."""

    name: str
    at: int | None
    budget: int = 10
    rule: str = "7"
    what: str = "a | b"
    first_seed: int = 0


MUTANTS: tuple[Mutant, ...] = (
    Mutant("found at once", 0),
    Mutant("found later", 5),
    Mutant("found from 100", 103, first_seed=100),
    Mutant("survives", None),
    Mutant("found too late", 10),
    Mutant("raises", 1),
    Mutant("endless", 1),
    Mutant("not the mutant", toy.LOST, first_seed=toy.LOST),
)
ORPHAN = Mutant("orphan", 1)
"""Kills its runner, and does not end."""
if "TOY_FILE" in os.environ:
    MUTANTS = (ORPHAN,)
applied: list[str] = []


def caught(mutant: Mutant, seeds: Iterable[int]) -> int | None:
    """Give the mutant's seed, if it is one of these."""
    applied.append(mutant.name)
    if len(applied) > 1:
        raise RuntimeError(f"left by others: {applied}")
    if mutant.name == "raises":
        raise ValueError("no such rule")
    if mutant == ORPHAN:
        os.kill(os.getppid(), signal.SIGKILL)
    while mutant.name in ("endless", "orphan"):
        time.process_time()
    return next((seed for seed in seeds if seed == mutant.at), None)
