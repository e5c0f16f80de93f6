"""Reassignments in the metadata: what is refused, who may leave, and that nothing acknowledged leaves with them."""

import pytest

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.raft.image import NO_LEADER
from penstock.raft.records import SnapshotError, config_record, decode_image, encode_image
from penstock.raft.topic_config import TopicConfig
from tests.raft.metadata_world import World, id16, placement

APPLIED = pb.REFUSAL_UNSPECIFIED


@pytest.fixture
def world() -> World:
    """Four nodes, topic t with one partition on 1, 2, 3, min_insync_replicas 2."""
    world = World.with_nodes(4)
    world.create("t")
    return world


def moving(world: World) -> World:
    """To 2, 3, 4, and 4 has caught up."""
    assert world.reassign([2, 3, 4]).refusal == APPLIED
    assert world.alter_isr([1, 2, 3, 4]).refusal == APPLIED
    return world


# ---- begin


def test_a_reassignment_adds_replicas_and_changes_neither_isr_nor_leader(world: World) -> None:
    before = world.partition()
    assert world.reassign([4, 3, 2]).refusal == APPLIED
    info = world.partition()
    assert info.replicas == (1, 2, 3, 4)  # the original ones first: none that is empty leads before them
    assert (info.adding, info.target, info.removing, info.original) == ((4,), (4, 3, 2), (1,), (1, 2, 3))
    assert (info.isr, info.elr, info.leader, info.leader_epoch) == (before.isr, before.elr, 1, before.leader_epoch)
    assert info.partition_epoch == before.partition_epoch + 1


@pytest.mark.parametrize(
    ("target", "refusal"),
    [
        ([1, 2, 9], pb.REFUSAL_UNKNOWN_NODE),
        ([2, 2, 3], pb.REFUSAL_MALFORMED),
        ([0, 2], pb.REFUSAL_UNKNOWN_NODE),
        ([4], pb.REFUSAL_INVALID),  # below min_insync_replicas
        ([], pb.REFUSAL_INVALID),  # nothing to turn back
    ],
)
def test_a_bad_target_is_refused(world: World, target: list[int], refusal: int) -> None:
    before = world.partition()
    assert world.reassign(target).refusal == refusal
    assert world.partition() == before


def test_each_reassignment_of_a_command_has_its_own_result(world: World) -> None:
    gone = world.reassignment([2, 3, 4])
    gone.topic_id = id16("gone")
    beyond = world.reassignment([2, 3, 4])
    beyond.partition = 7
    stale = world.reassignment([2, 3, 4])
    stale.partition_epoch += 1
    good = world.reassignment([2, 3, 4])
    command = pb.ReassignPartitions(reassignments=[gone, beyond, stale, good])
    refusals = [change.refusal for change in world.do(reassign_partitions=command).changes]
    assert refusals == [pb.REFUSAL_UNKNOWN_TOPIC, pb.REFUSAL_UNKNOWN_PARTITION, pb.REFUSAL_STALE, APPLIED]


def test_rule_5_an_isr_change_from_before_the_reassignment_is_refused_and_not_repeated(world: World) -> None:
    change = world.isr_change([1, 2])
    world.reassign([2, 3, 4])
    assert world.do(alter_isr=pb.AlterIsr(changes=[change])).changes[0].refusal == pb.REFUSAL_STALE


def test_the_same_target_again_changes_nothing(world: World) -> None:
    assert world.reassign([1, 2, 3]).refusal == APPLIED
    assert world.partition().partition_epoch == 0
    world.reassign([2, 3, 4])
    before = world.partition()
    assert world.reassign([2, 3, 4]).refusal == APPLIED
    assert world.partition() == before


def test_another_order_is_there_at_once(world: World) -> None:
    assert world.reassign([3, 1, 2]).refusal == APPLIED
    info = world.partition()
    assert (info.replicas, info.target, info.leader, info.isr) == ((3, 1, 2), (), 1, (1, 2, 3))


def test_below_feature_level_2_nothing_is_reassigned() -> None:
    world = World.with_nodes(4, level=1)
    world.create("t")
    change = pb.ReassignPartitions(reassignments=[world.reassignment([2, 3, 4])])
    assert world.do(reassign_partitions=change).refusal == pb.REFUSAL_UNSUPPORTED
    complete = pb.CompleteReassignments(completions=[world.completion()])
    assert world.do(complete_reassignments=complete).refusal == pb.REFUSAL_UNSUPPORTED
    raised = pb.RaiseFeatureLevel(feature_level=2)
    assert world.do(raise_feature_level=raised).refusal == pb.REFUSAL_UNSUPPORTED  # the nodes do not know it
    world.supported_level = 2
    for node_id in range(1, 5):
        world.register(node_id)
    assert world.do(raise_feature_level=raised).refusal == APPLIED
    assert world.reassign([2, 3, 4]).refusal == APPLIED


def test_a_snapshot_of_a_higher_feature_level_is_not_read_by_halves(world: World) -> None:
    snapshot = pb.MetadataSnapshot.FromString(encode_image(world.image))
    snapshot.feature_level = 99
    with pytest.raises(SnapshotError, match="upgrade this node"):
        decode_image(snapshot.SerializeToString())


# ---- another target, and back


def test_another_target_keeps_who_is_in_sync_and_drops_who_never_was(world: World) -> None:
    world.do(alter_topic_config=_minimum(world, 1))
    world.reassign([2, 3, 4])
    world.reassign([1, 2])  # 4 never joined
    assert world.partition().replicas == (1, 2, 3)
    assert world.partition().removing == (3,)
    world.reassign([4, 1])
    world.alter_isr([1, 2, 3, 4])
    world.reassign([1, 2])  # 4 is in sync: it leaves when enough others are sure to be
    info = world.partition()
    assert (info.replicas, info.adding, info.removing, info.isr) == ((1, 2, 3, 4), (4,), (3, 4), (1, 2, 3, 4))


def test_turned_back_before_anybody_joined_it_is_as_if_it_had_not_been(world: World) -> None:
    before = world.partition()
    world.reassign([4, 3, 2])
    assert world.reassign([]).refusal == APPLIED
    info = world.partition()
    assert (info.replicas, info.isr, info.leader) == (before.replicas, before.isr, before.leader)
    assert (info.adding, info.target) == ((), ())


def test_turned_back_late_it_ends_when_the_original_replicas_suffice(world: World) -> None:
    moving(world)
    world.elect(4, [1, 2, 3, 4])
    world.alter_isr([4])  # the original ones have fallen behind
    world.reassign([])
    info = world.partition()
    assert (info.target, info.removing, info.isr) == ((1, 2, 3), (4,), (4,))
    assert world.complete().refusal == pb.REFUSAL_INVALID  # nobody could lead
    world.alter_isr([1, 4])
    assert world.complete(leader=1).refusal == pb.REFUSAL_INVALID  # 1 alone is below the minimum
    world.alter_isr([1, 2, 4])
    assert world.complete(leader=1).refusal == APPLIED
    info = world.partition()
    assert (info.replicas, info.isr, info.leader, info.target) == ((1, 2, 3), (1, 2), 1, ())


# ---- complete


def test_a_completed_reassignment_leaves_the_target_and_a_leader_in_a_new_epoch(world: World) -> None:
    before = moving(world).partition()
    assert world.complete(leader=3).refusal == APPLIED
    info = world.partition()
    assert (info.replicas, info.isr, info.elr, info.adding, info.target) == ((2, 3, 4), (2, 3, 4), (), (), ())
    assert (info.leader, info.leader_epoch) == (3, before.leader_epoch + 1)
    assert info.leader_node_epoch == world.image.nodes[3].node_epoch
    assert info.partition_epoch == before.partition_epoch + 1


def test_a_leader_that_stays_leads_on_in_its_epoch(world: World) -> None:
    moving(world)
    world.elect(2, [1, 2, 3, 4])
    before = world.partition()
    assert world.complete().refusal == APPLIED
    info = world.partition()
    assert (info.leader, info.leader_epoch) == (2, before.leader_epoch)
    assert (info.isr, info.partition_epoch) == ((2, 3, 4), before.partition_epoch + 1)


def test_what_is_not_being_reassigned_is_not_completed(world: World) -> None:
    assert world.complete().refusal == pb.REFUSAL_INVALID


def test_a_leader_outside_the_target_does_not_stay(world: World) -> None:
    moving(world)
    assert world.complete().refusal == pb.REFUSAL_INVALID
    assert world.complete(leader=1).refusal == pb.REFUSAL_INVALID
    assert world.partition().leader == 1


def test_without_a_leader_it_completes_only_with_one(world: World) -> None:
    moving(world)
    world.elect(None, [2, 3, 4])
    assert world.partition().leader == NO_LEADER
    assert world.complete().refusal == pb.REFUSAL_INVALID
    assert world.complete(leader=2).refusal == APPLIED


def test_rule_26_the_leader_is_elected_in_its_present_node_epoch_only(world: World) -> None:
    completion = moving(world).completion(leader=2)
    world.register(2)  # keeps its places: the partition_epoch stays
    command = pb.CompleteReassignments(completions=[completion])
    assert world.do(complete_reassignments=command).changes[0].refusal == pb.REFUSAL_STALE


def test_rule_5_a_completion_decided_on_another_isr_is_refused(world: World) -> None:
    completion = moving(world).completion(leader=2)
    world.fence(3)
    command = pb.CompleteReassignments(completions=[completion])
    assert world.do(complete_reassignments=command).changes[0].refusal == pb.REFUSAL_STALE


def test_rule_9_nobody_leaves_while_too_few_of_the_target_are_in_sync(world: World) -> None:
    moving(world)
    world.alter_isr([1, 2])
    assert world.complete(leader=2).refusal == pb.REFUSAL_INVALID
    world.alter_isr([1])  # 2 enters the ELR
    assert world.complete(leader=2).refusal == pb.REFUSAL_INVALID
    assert world.partition().elr == (2,)


def test_a_minimum_raised_meanwhile_is_the_one_that_counts(world: World) -> None:
    world.reassign([2, 4])
    world.alter_isr([1, 2, 3, 4])
    world.do(alter_topic_config=_minimum(world, 3))
    assert world.complete(leader=2).refusal == pb.REFUSAL_INVALID


def test_a_member_that_lost_its_disk_meanwhile_has_left_the_isr(world: World) -> None:
    moving(world)
    world.register(4, store="blank")
    info = world.partition()
    assert (info.isr, info.replicas, info.target) == ((1, 2, 3), (1, 2, 3, 4), (2, 3, 4))


def test_who_was_removed_does_not_join_the_isr(world: World) -> None:
    join = moving(world).isr_change([1, 2, 3, 4])
    world.elect(2, [1, 2, 3, 4])
    world.complete()
    info = world.partition()
    join.leader, join.leader_epoch, join.partition_epoch = 2, info.leader_epoch, info.partition_epoch
    assert world.do(alter_isr=pb.AlterIsr(changes=[join])).changes[0].refusal == pb.REFUSAL_INVALID


def test_who_was_removed_is_not_elected_not_even_uncleanly() -> None:
    world = World.with_nodes(4)
    world.create("t", unclean=True)
    moving(world)
    world.complete(leader=2)
    assert world.elect(1, [1], unclean=True).refusal == pb.REFUSAL_INVALID


def test_replicas_are_not_changed_beside_a_reassignment(world: World) -> None:
    world.reassign([2, 3, 4])
    info = world.partition()
    change = pb.ReplicasChange(
        topic_id=world.topic().topic_id, partition_epoch=info.partition_epoch, replicas=[1, 2, 3]
    )
    command = pb.AlterReplicas(changes=[change])
    assert world.do(alter_replicas=command).changes[0].refusal == pb.REFUSAL_INVALID


def test_partitions_are_added_beside_a_reassignment(world: World) -> None:
    before = moving(world).partition()
    topic_id = world.topic().topic_id
    more = pb.AddPartitions(topic_id=topic_id, present_partitions=1, partitions=[placement((4, 1, 2))])
    assert world.do(add_partitions=more).refusal == APPLIED
    assert world.partition() == before


def _minimum(world: World, minimum: int) -> pb.AlterTopicConfig:
    topic = world.topic()
    config = config_record(TopicConfig(min_insync_replicas=minimum))
    return pb.AlterTopicConfig(topic_id=topic.topic_id, config=config, config_epoch=topic.config_epoch)
