"""Random schedules with changing replicas; and that they miss what ADR 11 says must be."""

from collections.abc import Callable

import pytest

from tests.replication.reassigning import Deleting, Reassigning, run, silent
from tests.replication.world import Violation

SEEDS = 200
CHUNK = 50
BUDGET = 1_000


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_invariants_hold_while_replicas_change(first: int) -> None:
    completed = 0
    for seed in range(first, first + CHUNK):
        world = Reassigning()
        run(world, seed)
        completed += world.completed
    assert completed > CHUNK


@pytest.mark.parametrize(("broken", "first", "number"), [(Deleting, 140, "I3"), (silent, 11, "I10")])
def test_what_keeps_it_safe_is_missed_when_it_is_taken_away(
    broken: Callable[[], Reassigning], first: int, number: str
) -> None:
    """From a seed on that shows it; where the schedules are drawn otherwise, a later one does."""
    for seed in range(first, first + BUDGET):
        try:
            run(broken(), seed)
        except Violation as violation:
            assert violation.number == number, violation  # noqa: PT017  the first that is found, of any seed
            return
    pytest.fail("nothing misses it")
