"""The table of all faults: names that a plan and a history can rely on, and draws that JSON can hold."""

import json
import random

import pytest

from penstock.chaos.faults.base import Fault, Shape
from penstock.chaos.faults.registry import FAULTS, GROUPS
from penstock.chaos.plan import LENGTHS_S, STEPWISE

SHAPES = (
    Shape(nodes=(1,), voters=(1,), hosts=("c1",)),
    Shape(nodes=(1, 2, 3), voters=(1, 2, 3), hosts=("c1", "c2")),
    Shape(nodes=(1, 2, 3, 4), voters=(1, 2, 3), hosts=("c1", "c2")),
    Shape(nodes=(1, 2, 3, 4, 5), voters=(1, 2, 3, 4, 5), hosts=("c1",)),
)


def test_no_name_is_given_twice() -> None:
    assert len(FAULTS) == sum(len(faults) for faults in GROUPS.values())


def test_special_lengths_and_steps_are_those_of_faults_that_exist() -> None:
    assert LENGTHS_S.keys() <= FAULTS.keys()
    assert {fault.name for fault in GROUPS["process"]} >= STEPWISE


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{len(shape.nodes)} nodes")
@pytest.mark.parametrize("fault", FAULTS.values(), ids=lambda fault: fault.name)
def test_what_is_drawn_depends_on_the_seed_alone_and_is_json(fault: Fault, shape: Shape) -> None:
    for seed in range(20):
        drawn = fault.draw(random.Random(seed), shape)
        assert json.loads(json.dumps(drawn)).keys() == drawn.keys()
        assert fault.draw(random.Random(seed), shape) == drawn


@pytest.mark.parametrize("fault", FAULTS.values(), ids=lambda fault: fault.name)
def test_each_fault_says_in_a_line_what_it_does(fault: Fault) -> None:
    assert fault.summary
    assert "\n" not in fault.summary
