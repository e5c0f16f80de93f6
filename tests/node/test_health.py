"""What is reported as unhealthy while a partition is reassigned."""

from penstock.node.api.health import problems
from penstock.v1 import common_pb2 as common
from tests.raft.metadata_world import World


def test_a_replica_on_its_way_is_no_problem_and_one_that_was_lost_is() -> None:
    world = World.with_nodes(4)
    world.create("t")
    world.reassign([2, 3, 4])
    assert problems(world.image, 1) == []
    world.alter_isr([1, 2])
    assert [problem.reason for problem in problems(world.image, 1)] == ["UNDER_REPLICATED"]


def test_stores_that_are_full_or_nearly_are_problems_while_the_node_lives() -> None:
    world = World.with_nodes(3)
    for node_id, state in (
        (1, common.STORE_STATE_OK),
        (2, common.STORE_STATE_NEARLY_FULL),
        (3, common.STORE_STATE_FULL),
    ):
        world.note_store(node_id, state)
    found = {problem.reason: problem for problem in problems(world.image, 1)}
    assert {reason: problem.metadata["node_id"] for reason, problem in found.items()} == {
        "STORE_NEARLY_FULL": "2",
        "STORE_FULL": "3",
    }
    world.fence(3)
    assert [problem.reason for problem in problems(world.image, 1)] == ["STORE_NEARLY_FULL", "BROKER_FENCED"]
