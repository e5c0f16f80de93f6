"""Random schedules of a group, its coordinators and its members; and that rules taken away are missed by them."""

import pytest

from tests.node.group.mutants import MUTANTS, Mutant, caught
from tests.node.group.schedule import run
from tests.node.group.world import GroupWorld

SEEDS = 24
BUDGET = 150
"""Seeds from a mutant's first one on that may be needed: then the schedules have changed, and so should its first."""


def test_invariants_hold_and_the_group_recovers_under_random_schedules() -> None:
    commits = 0
    for seed in range(SEEDS):
        world = GroupWorld()
        run(world, seed)
        commits += world.commits_done
    assert commits > 10 * SEEDS  # it was no idle time


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_rule_taken_away_is_missed(mutant: Mutant) -> None:
    assert caught(mutant, range(mutant.first_seed, mutant.first_seed + BUDGET)) is not None


def test_the_same_seed_is_the_same_run() -> None:
    worlds = [GroupWorld(), GroupWorld()]
    for world in worlds:
        run(world, 5)
    assert worlds[0].trace == worlds[1].trace
    assert worlds[0].group == worlds[1].group
