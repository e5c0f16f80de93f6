"""What is reported as unhealthy while a partition is reassigned."""

from penstock.node.api.health import problems
from tests.raft.metadata_world import World


def test_a_replica_on_its_way_is_no_problem_and_one_that_was_lost_is() -> None:
    world = World.with_nodes(4)
    world.create("t")
    world.reassign([2, 3, 4])
    assert problems(world.image, 1) == []
    world.alter_isr([1, 2])
    assert [problem.reason for problem in problems(world.image, 1)] == ["UNDER_REPLICATED"]
