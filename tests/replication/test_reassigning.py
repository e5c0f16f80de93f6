"""Random schedules with changing replicas; and why a removed replica keeps its log (ADR 11)."""

import pytest

from tests.replication.reassigning import Deleting, Reassigning, run
from tests.replication.steps import Step, do
from tests.replication.world import Violation

SEEDS = 200
CHUNK = 50
A, B, C = 1, 2, 3


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_invariants_hold_while_replicas_change(first: int) -> None:
    completed = 0
    for seed in range(first, first + CHUNK):
        world = Reassigning()
        run(world, seed)
        completed += world.completed
    assert completed > CHUNK


def removed_and_added_again_unseen_by_the_leader(world: Reassigning) -> None:
    """The leader takes C, of whom it only knows that it had everything, into the ISR."""
    steps = [
        Step("exchange", (A, B, C)),
        Step("produce", (A, 0)),
        Step("exchange", (A, B, C)),
        Step("reassign", (A, B)),
        Step("complete", (0,)),
        Step("learn", (C,)),
        Step("reassign", (A, B, C)),
        Step("learn", (A,)),
        Step("apply", (A,)),
    ]
    assert all(do(world, step) for step in steps)
    assert len(world.committed) == 1
    assert world.info.isr == (A, B, C)


def test_rule_28_who_kept_its_log_may_be_taken_for_one_that_never_left() -> None:
    removed_and_added_again_unseen_by_the_leader(Reassigning())


def test_rule_28_who_deleted_it_would_be_in_the_isr_without_it() -> None:
    with pytest.raises(Violation, match="I3"):
        removed_and_added_again_unseen_by_the_leader(Deleting())
