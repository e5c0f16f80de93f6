"""Rules 5, 7, 9, 24, 26 and 27 as far as the metadata keeps them (DESIGN sections 5 and 6)."""

import pytest

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.raft.image import NO_LEADER
from penstock.raft.records import config_record
from penstock.raft.topic_config import TopicConfig
from penstock.v1 import common_pb2 as common
from tests.raft.metadata_world import World, id16


@pytest.fixture
def world() -> World:
    """Three nodes, topic t with one partition on 1, 2, 3, min_insync_replicas 2."""
    world = World.with_nodes()
    world.create("t")
    return world


def test_rule_5_a_change_decided_on_another_partition_epoch_is_refused(world: World) -> None:
    late = world.isr_change([1, 2, 3])
    world.fence(3)
    before = world.partition()
    result = world.do(alter_isr=pb.AlterIsr(changes=[late])).changes[0]
    assert result.refusal == pb.REFUSAL_STALE
    assert world.partition() == before


def test_rule_5_a_repeated_change_is_refused(world: World) -> None:
    change = world.isr_change([1, 2])
    assert world.do(alter_isr=pb.AlterIsr(changes=[change])).changes[0].refusal == pb.REFUSAL_UNSPECIFIED
    assert world.do(alter_isr=pb.AlterIsr(changes=[change])).changes[0].refusal == pb.REFUSAL_STALE


def test_rule_5_a_change_of_a_former_leadership_is_refused(world: World) -> None:
    change = world.isr_change([1, 2])
    world.elect(2, [1, 2, 3])
    change.partition_epoch = world.partition().partition_epoch
    assert world.do(alter_isr=pb.AlterIsr(changes=[change])).changes[0].refusal == pb.REFUSAL_NOT_LEADER


def test_rule_5_a_change_of_the_same_leaders_former_epoch_is_refused(world: World) -> None:
    change = world.isr_change([1, 2])
    world.elect(1, [1, 2, 3])
    change.partition_epoch = world.partition().partition_epoch
    assert world.do(alter_isr=pb.AlterIsr(changes=[change])).changes[0].refusal == pb.REFUSAL_NOT_LEADER


def test_rule_5_a_fenced_node_comes_back_only_with_a_new_node_epoch(world: World) -> None:
    world.alter_isr([1, 2])
    join = world.isr_change([1, 2, 3])
    world.fence(3)  # node 3 is in no ISR: the partition_epoch stays
    assert world.do(alter_isr=pb.AlterIsr(changes=[join])).changes[0].refusal == pb.REFUSAL_INELIGIBLE_MEMBER
    world.register(3)
    assert world.do(alter_isr=pb.AlterIsr(changes=[join])).changes[0].refusal == pb.REFUSAL_INELIGIBLE_MEMBER
    assert world.alter_isr([1, 2, 3]).refusal == pb.REFUSAL_UNSPECIFIED


def test_rule_7_who_fetched_in_a_former_node_epoch_does_not_join(world: World) -> None:
    world.alter_isr([1, 2])
    counted = world.isr_change([1, 2, 3])
    world.register(3, store="another")
    assert world.do(alter_isr=pb.AlterIsr(changes=[counted])).changes[0].refusal == pb.REFUSAL_INELIGIBLE_MEMBER
    assert world.partition().isr == (1, 2)


def test_rule_7_a_member_added_without_a_node_epoch_does_not_join(world: World) -> None:
    world.alter_isr([1, 2])
    change = world.isr_change([1, 2, 3])
    del change.node_epochs[:]
    assert world.do(alter_isr=pb.AlterIsr(changes=[change])).changes[0].refusal == pb.REFUSAL_INELIGIBLE_MEMBER


def test_rule_9_removed_below_the_minimum_enters_the_elr(world: World) -> None:
    world.alter_isr([1, 2])
    assert (world.partition().isr, world.partition().elr) == ((1, 2), ())
    world.alter_isr([1])  # the step from 2 to 1 leaves the ISR below the minimum
    assert (world.partition().isr, world.partition().elr) == ((1,), (2,))
    world.fence(1)  # the ISR may become empty
    assert (world.partition().isr, world.partition().elr) == ((), (1, 2))


def test_rule_9_an_isr_at_the_minimum_empties_the_elr(world: World) -> None:
    world.fence(2)
    world.fence(3)
    assert (world.partition().isr, world.partition().elr) == ((1,), (3,))
    world.register(2)
    world.alter_isr([1, 2])
    assert (world.partition().isr, world.partition().elr) == ((1, 2), ())


def test_rule_9_a_lower_minimum_empties_the_elr_in_the_same_command(world: World) -> None:
    world.fence(2)
    world.fence(3)
    assert world.partition().elr == (3,)
    topic = world.topic()
    config = config_record(TopicConfig(min_insync_replicas=1))
    command = pb.AlterTopicConfig(topic_id=topic.topic_id, config=config, config_epoch=topic.config_epoch)
    world.do(alter_topic_config=command)
    assert (world.partition().isr, world.partition().elr) == ((1,), ())


def test_rule_9_elected_from_the_elr_becomes_the_isr(world: World) -> None:
    for node_id in (1, 2, 3):
        world.fence(node_id)
    assert (world.partition().isr, world.partition().elr) == ((), (2, 3))
    world.register(2)
    assert world.elect(2, [2]).refusal == pb.REFUSAL_UNSPECIFIED
    info = world.partition()
    assert (info.leader, info.isr, info.elr) == (2, (2,), (3,))


def test_rule_9_who_is_in_neither_isr_nor_elr_is_not_elected(world: World) -> None:
    for node_id in (1, 2, 3):
        world.fence(node_id)
    world.register(1)
    assert world.elect(1, [1]).refusal == pb.REFUSAL_INVALID
    assert world.elect(1, [1], unclean=True).refusal == pb.REFUSAL_INVALID
    assert world.partition().leader == NO_LEADER


def test_rule_9_at_commit_a_kill_of_all_keeps_every_place(world: World) -> None:
    for node_id in (1, 2, 3):
        assert world.restart(node_id, f"again-{node_id}").kept_places
    assert world.partition().isr == (1, 2, 3)
    assert world.partition().leader == 1


@pytest.mark.parametrize("durability", [common.DURABILITY_INTERVAL, common.DURABILITY_OS])
def test_rule_9_below_commit_an_unclean_restart_loses_its_places(durability: int) -> None:
    world = World.with_nodes(durability=durability)
    world.create("t")
    assert not world.restart(3, "again").kept_places
    assert (world.partition().isr, world.partition().elr) == ((1, 2), ())
    assert not world.restart(1, "again").kept_places
    info = world.partition()
    assert (info.isr, info.elr, info.leader) == ((2,), (), NO_LEADER)
    assert world.restart(2, "again", clean=True).kept_places
    assert world.partition().isr == (2,)


def test_rule_9_the_level_that_counts_is_that_of_the_run_that_ended() -> None:
    world = World.with_nodes(durability=common.DURABILITY_OS)
    world.create("t")
    starts = ["start-3", "again"]
    assert not world.register(3, starts=starts, durability=common.DURABILITY_COMMIT).kept_places
    assert world.restart(3, "third").kept_places


def test_rule_9_a_live_process_that_registers_again_keeps_its_places_at_any_level() -> None:
    world = World.with_nodes(durability=common.DURABILITY_OS)
    world.create("t")
    assert world.register(2, durability=common.DURABILITY_OS).kept_places
    assert world.partition().isr == (1, 2, 3)


def test_rule_24_a_topic_made_again_is_another_topic(world: World) -> None:
    stale = world.isr_change([1, 2])
    old = world.topic().topic_id
    world.do(delete_topic=pb.DeleteTopic(topic_id=old))
    world.create("t", topic_id="second")
    assert world.do(alter_isr=pb.AlterIsr(changes=[stale])).changes[0].refusal == pb.REFUSAL_UNKNOWN_TOPIC
    assert world.do(delete_topic=pb.DeleteTopic(topic_id=old)).refusal == pb.REFUSAL_UNKNOWN_TOPIC
    assert world.topic().topic_id == id16("second")


def test_rule_26_registering_bumps_the_epoch_of_what_the_node_led(world: World) -> None:
    before = world.partition()
    world.restart(1, "again")
    after = world.partition()
    assert (after.leader, after.leader_epoch) == (1, before.leader_epoch + 1)
    assert after.leader_node_epoch == world.image.nodes[1].node_epoch == world.index
    assert after.partition_epoch == before.partition_epoch + 1


def test_rule_26_registering_leaves_what_others_lead_alone(world: World) -> None:
    before = world.partition()
    world.restart(2, "again")
    assert world.partition() == before


def test_rule_26_a_leader_is_elected_in_its_present_node_epoch_only(world: World) -> None:
    election = world.election(2, [1, 2, 3])
    world.restart(2, "again")
    result = world.do(elect_leaders=pb.ElectLeaders(elections=[election])).changes[0]
    assert result.refusal == pb.REFUSAL_STALE


def test_rule_27_a_new_store_leaves_isr_and_bypasses_the_elr(world: World) -> None:
    world.alter_isr([1, 2])
    assert not world.register(2, store="blank").kept_places
    assert (world.partition().isr, world.partition().elr) == ((1,), ())


def test_rule_27_a_new_store_leaves_the_elr(world: World) -> None:
    world.fence(2)
    world.fence(3)
    assert world.partition().elr == (3,)
    world.register(3, store="blank")
    assert world.partition().elr == ()


def test_rule_27_a_new_store_of_the_leader_leaves_no_leader(world: World) -> None:
    before = world.partition()
    world.register(1, store="blank")
    info = world.partition()
    assert (info.leader, info.leader_epoch, info.isr) == (NO_LEADER, before.leader_epoch + 1, (2, 3))


def test_rule_27_a_registration_without_the_recorded_start_is_a_new_store(world: World) -> None:
    assert world.restart(3, "second").kept_places
    # A copy from before the second start: it cannot name that start.
    assert not world.register(3, starts=["start-3", "third"]).kept_places
    assert world.partition().isr == (1, 2)


def test_rule_27_starts_that_never_registered_do_not_cost_the_places(world: World) -> None:
    assert world.register(3, starts=["start-3", "second", "third"]).kept_places
    assert world.partition().isr == (1, 2, 3)


def test_rule_27_controller_pause_all_register_again_and_keep_places(world: World) -> None:
    for node_id in (1, 2, 3):
        assert world.register(node_id).kept_places
    assert world.partition().isr == (1, 2, 3)


def test_rule_27_lost_members_bypass_the_elr(world: World) -> None:
    world.alter_isr([1, 2])
    world.alter_isr([1], lost=[2])
    assert (world.partition().isr, world.partition().elr) == ((1,), ())


def test_rule_27_only_removed_members_can_be_lost(world: World) -> None:
    assert world.alter_isr([1, 2], lost=[2]).refusal == pb.REFUSAL_INVALID
    assert world.alter_isr([1, 2], lost=[3]).refusal == pb.REFUSAL_UNSPECIFIED


def test_a_repeated_registration_is_refused(world: World) -> None:
    world.register(3)
    command = pb.MetadataCommand.FromString(world.journal[-1])
    node_epoch = world.image.nodes[3].node_epoch
    assert world.apply(command.SerializeToString()).refusal == pb.REFUSAL_STALE
    assert world.image.nodes[3].node_epoch == node_epoch


def test_fencing_takes_the_leaderships(world: World) -> None:
    world.fence(1)
    info = world.partition()
    assert (info.leader, info.isr) == (NO_LEADER, (2, 3))
    assert world.elect(2, [2, 3]).refusal == pb.REFUSAL_UNSPECIFIED
    assert world.partition().leader_epoch == 2


def test_fencing_a_former_registration_is_refused(world: World) -> None:
    fence = pb.FenceNode(node_id=3, node_epoch=world.image.nodes[3].node_epoch)
    world.register(3)
    assert world.do(fence_node=fence).refusal == pb.REFUSAL_STALE
    assert not world.image.nodes[3].fenced


def test_unclean_election_where_the_topic_allows_it() -> None:
    world = World.with_nodes()
    world.create("t", unclean=True)
    for node_id in (1, 2, 3):
        world.fence(node_id)
    world.register(1)
    assert world.elect(1, [1]).refusal == pb.REFUSAL_INVALID
    assert world.elect(1, [1], unclean=True).refusal == pb.REFUSAL_UNSPECIFIED
    info = world.partition()
    assert (info.leader, info.isr, info.elr) == (1, (1,), ())


def test_an_election_adds_nobody_but_the_leader(world: World) -> None:
    world.fence(3)
    world.register(3)
    assert world.elect(2, [1, 2, 3]).refusal == pb.REFUSAL_INVALID
    assert world.elect(None, [1, 2, 0]).refusal == pb.REFUSAL_INVALID


def test_a_leader_that_leaves_the_isr_leaves_no_leader(world: World) -> None:
    world.alter_isr([1])
    assert world.elect(None, []).refusal == pb.REFUSAL_UNSPECIFIED
    info = world.partition()
    assert (info.leader, info.isr, info.elr) == (NO_LEADER, (), (1, 2, 3))


# ---- full stores (ADR 18)

FULL, OK = common.STORE_STATE_FULL, common.STORE_STATE_OK


def test_a_full_store_leaves_every_isr_and_its_leaderships(world: World) -> None:
    before = world.partition()
    assert world.note_store(1).refusal == pb.REFUSAL_UNSPECIFIED
    info = world.partition()
    assert (info.isr, info.leader) == ((2, 3), NO_LEADER)
    assert info.leader_epoch == before.leader_epoch + 1
    assert world.image.nodes[1].store_state == FULL


def test_a_full_store_enters_the_elr_below_the_minimum(world: World) -> None:
    world.alter_isr([1, 2])
    world.note_store(2)
    info = world.partition()
    assert (info.isr, info.elr, info.leader) == ((1,), (2,), 1)


def test_the_last_full_member_stays_and_leads_on(world: World) -> None:
    world.alter_isr([1, 2])
    world.note_store(2)
    before = world.partition()
    world.note_store(1)
    assert world.partition() == before
    world.note_store(3)
    assert world.partition() == before


def test_among_full_members_nobody_leaves(world: World) -> None:
    for node in (1, 2):
        world.note_store(node)
    world.elect(3, [3])
    world.note_store(3)
    assert world.partition().isr == (3,)
    world.note_store(3)  # twice is once
    assert (world.partition().isr, world.partition().leader) == ((3,), 3)


def test_rule_5_a_full_store_does_not_join_and_the_refused_change_stays_refused(world: World) -> None:
    """Else a leader that stopped counting the member, as it was told no for good, would have it in the ISR."""
    world.note_store(3)
    change = pb.AlterIsr(changes=[world.isr_change([1, 2, 3])])
    assert world.do(alter_isr=change).changes[0].refusal == pb.REFUSAL_INELIGIBLE_MEMBER
    world.note_store(3, OK)
    assert world.do(alter_isr=change).changes[0].refusal == pb.REFUSAL_STALE
    assert world.alter_isr([1, 2, 3]).refusal == pb.REFUSAL_UNSPECIFIED


def test_room_again_changes_nothing_where_the_node_is_a_member(world: World) -> None:
    world.alter_isr([1])
    world.note_store(1)
    before = world.partition()
    world.note_store(1, common.STORE_STATE_NEARLY_FULL)
    assert world.partition() == before


def test_a_registration_forgets_the_state(world: World) -> None:
    world.note_store(3)
    world.register(3)
    assert world.image.nodes[3].store_state == common.STORE_STATE_UNSPECIFIED


def test_a_state_of_a_former_registration_or_of_no_name_is_refused(world: World) -> None:
    former = world.image.nodes[3].node_epoch
    world.restart(3, "again")
    command = pb.NoteStoreState(node_id=3, node_epoch=former, state=FULL)
    assert world.do(note_store_state=command).refusal == pb.REFUSAL_STALE
    for state in (0, 4):
        assert world.note_store(3, state).refusal == pb.REFUSAL_MALFORMED
    assert world.partition().isr == (1, 2, 3)


def test_a_full_store_is_not_noted_below_its_feature_level() -> None:
    world = World.with_nodes(3, level=2)
    world.create("t")
    assert world.note_store(1).refusal == pb.REFUSAL_UNSUPPORTED
    assert world.partition().isr == (1, 2, 3)
