"""Reassignments as the controller drives them: when they end, who leads then, and that they outlive a controller."""

import pytest

from penstock.internal.v1 import controller_pb2 as controller
from penstock.internal.v1 import metadata_pb2 as pb
from penstock.node.controller import reassignments
from penstock.node.controller.reassignments import reassignment
from penstock.raft.image import PartitionInfo
from tests.node.rule import PREFERRED_MS, SESSION_MS, Rule
from tests.raft.metadata_world import World, id16

COMPLETE, ELECT, FENCE = "complete_reassignments", "elect_leaders", "fence_node"


def ruled(*partitions: tuple[int, ...]) -> Rule:
    """Four live nodes; topic t on 1, 2, 3 unless said otherwise, led by the first."""
    world = World.with_nodes(4)
    world.create("t", *partitions)
    return alive(Rule(world))


def alive(rule: Rule) -> Rule:
    rule.alive = {1, 2, 3, 4}
    for node_id in rule.alive:
        rule.heartbeat(node_id)
    assert rule.settle() == []
    return rule


def info(rule: Rule) -> PartitionInfo:
    return rule.world.partition()


def test_it_ends_when_every_replica_of_the_target_is_in_sync_and_not_before() -> None:
    rule = ruled()
    rule.world.reassign([2, 3, 4])
    assert rule.run(2 * SESSION_MS) == []
    rule.world.alter_isr([1, 2, 3, 4])
    assert rule.settle() == [COMPLETE]
    assert (info(rule).replicas, info(rule).isr, info(rule).leader) == ((2, 3, 4), (2, 3, 4), 2)
    assert rule.run(2 * PREFERRED_MS) == []  # the leader is the preferred one at once


def test_a_member_of_the_target_that_is_out_of_sync_is_waited_for() -> None:
    rule = ruled()
    rule.world.reassign([2, 3, 4])
    rule.world.alter_isr([1, 2, 4])
    assert rule.settle() == []  # else two copies would be left of three
    rule.world.alter_isr([1, 2, 3, 4])
    assert rule.settle() == [COMPLETE]


def test_a_leader_that_stays_leads_on() -> None:
    rule = ruled()
    rule.world.reassign([4, 1, 2])
    rule.world.alter_isr([1, 2, 3, 4])
    assert rule.settle() == [COMPLETE]
    assert (info(rule).leader, info(rule).leader_epoch) == (1, 0)
    assert rule.run(PREFERRED_MS) == [ELECT]
    assert info(rule).leader == 4


def test_more_replicas_are_a_reassignment_too() -> None:
    rule = ruled((1, 2))
    rule.world.reassign([1, 2, 3])
    assert rule.settle() == []
    rule.world.alter_isr([1, 2, 3])
    assert rule.settle() == [COMPLETE]
    assert (info(rule).replicas, info(rule).target) == ((1, 2, 3), ())


def test_the_next_controller_goes_on_with_it() -> None:
    rule = ruled()
    rule.world.reassign([2, 3, 4])
    later = alive(Rule(rule.world, now_ms=1_000_000))
    rule.world.alter_isr([1, 2, 3, 4])
    assert later.settle() == [COMPLETE]
    assert info(later).target == ()


def test_what_could_have_ended_under_the_last_controller_ends_under_the_next() -> None:
    rule = ruled()
    rule.world.reassign([2, 3, 4])
    rule.world.alter_isr([1, 2, 3, 4])
    assert Rule(rule.world).settle() == [COMPLETE]


def test_a_deposed_controllers_end_changes_nothing() -> None:
    rule = ruled()
    rule.world.reassign([2, 3, 4])
    rule.world.alter_isr([1, 2, 3, 4])
    late = rule.core.decide(rule.world.image, rule.now_ms).commands[0]
    assert Rule(rule.world).settle() == [COMPLETE]
    before = info(rule)
    result = rule.world.apply(late.SerializeToString())
    assert result.changes[0].refusal == pb.REFUSAL_STALE
    assert info(rule) == before


def test_a_dead_leader_is_replaced_before_it_ends() -> None:
    rule = ruled()
    rule.world.reassign([2, 3, 4])
    rule.alive = {2, 3, 4}
    assert rule.run(SESSION_MS) == [FENCE, ELECT]
    assert (info(rule).leader, info(rule).isr) == (2, (2, 3))
    rule.world.alter_isr([2, 3, 4])
    assert rule.settle() == [COMPLETE]
    assert (info(rule).replicas, info(rule).leader, info(rule).leader_epoch) == ((2, 3, 4), 2, 2)


def test_a_dead_new_replica_is_waited_for_or_another_takes_its_place() -> None:
    world = World.with_nodes(5)
    world.create("t")
    rule = Rule(world)
    rule.alive = {1, 2, 3, 5}
    world.reassign([2, 3, 4])
    assert rule.run(2 * SESSION_MS) == [FENCE]
    world.reassign([2, 3, 5])
    assert info(rule).replicas == (1, 2, 3, 5)
    world.alter_isr([1, 2, 3, 5])
    assert rule.settle() == [COMPLETE]


def test_one_that_is_turned_back_ends_when_those_that_are_left_are_enough() -> None:
    rule = ruled()
    rule.world.reassign([2, 3, 4])
    rule.world.alter_isr([1, 4])
    rule.world.reassign([])
    assert rule.settle() == []  # 1 alone is below min_insync_replicas
    rule.world.alter_isr([1, 2, 4])
    assert rule.settle() == [COMPLETE]  # without waiting for 3
    assert (info(rule).replicas, info(rule).isr, info(rule).leader) == ((1, 2, 3), (1, 2), 1)


def test_a_leader_that_stops_is_not_elected_where_another_can_be() -> None:
    rule = ruled()
    rule.world.reassign([2, 3, 4])
    rule.world.do(drain_node=pb.DrainNode(node_id=2, node_epoch=rule.world.image.nodes[2].node_epoch))
    rule.world.alter_isr([1, 2, 3, 4])
    assert rule.settle()[0] == COMPLETE
    assert info(rule).leader == 3


def test_an_election_and_the_end_of_one_partition_are_not_proposed_together() -> None:
    rule = ruled()
    rule.world.elect(2, [1, 2, 3])
    rule.world.reassign([4, 1, 2])
    assert rule.settle() == []  # node 1 is in sync and preferred: from now on it could lead again
    rule.world.alter_isr([1, 2, 3, 4])
    rule.now_ms += PREFERRED_MS
    for node_id in rule.alive:
        rule.heartbeat(node_id)
    decision = rule.core.decide(rule.world.image, rule.now_ms)
    assert [command.WhichOneof("kind") for command in decision.commands] == [ELECT]
    assert rule.settle() == [ELECT, COMPLETE]


def test_many_are_ended_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.node.controller.core.COMPLETIONS_PER_COMMAND", 2)
    rule = ruled((1, 2), (1, 2), (1, 2))
    for index in range(3):
        change = rule.world.reassignment([1, 3], index)
        rule.world.do(reassign_partitions=pb.ReassignPartitions(reassignments=[change]))
        rule.world.do(alter_isr=pb.AlterIsr(changes=[rule.world.isr_change([1, 2, 3], index=index)]))
    assert rule.settle() == [COMPLETE, COMPLETE]
    assert [one.replicas for one in rule.world.topic().partitions] == [(1, 3)] * 3


def test_a_deleted_topic_is_forgotten() -> None:
    rule = ruled()
    rule.world.reassign([2, 3, 4])
    rule.world.alter_isr([1, 2, 3, 4])
    rule.core.decide(rule.world.image, rule.now_ms)
    rule.world.do(delete_topic=pb.DeleteTopic(topic_id=rule.world.topic().topic_id))
    assert rule.settle() == []


def test_what_is_asked_for_is_bound_to_the_present_partition_epoch() -> None:
    rule = ruled()
    rule.world.alter_isr([1, 2])
    asked = controller.PartitionTarget(topic_id=rule.world.topic().topic_id, partition=0, replicas=[2, 3, 4])
    planned = reassignment(rule.world.image, asked)
    assert (planned.partition_epoch, list(planned.target)) == (1, [2, 3, 4])
    gone = controller.PartitionTarget(topic_id=id16("gone"), partition=0, replicas=[2])
    result = rule.world.do(
        reassign_partitions=pb.ReassignPartitions(reassignments=[reassignment(rule.world.image, gone)])
    )
    assert result.changes[0].refusal == pb.REFUSAL_UNKNOWN_TOPIC


def test_without_a_leader_there_is_no_end() -> None:
    rule = ruled()
    rule.world.reassign([2, 3, 4])
    rule.world.alter_isr([1, 2, 3, 4])
    rule.world.elect(None, [2, 3, 4])
    assert not reassignments.is_complete(rule.world.topic(), info(rule))
    assert rule.settle() == [ELECT, COMPLETE]
