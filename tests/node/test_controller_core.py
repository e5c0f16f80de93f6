"""The controller's decisions, in virtual time, on a real state machine."""

from dataclasses import replace

import pytest

from penstock.internal.v1 import controller_pb2 as controller
from penstock.internal.v1 import metadata_pb2 as pb
from penstock.node.controller.admission import AddVoter, NoteVoter, RemoveVoter, next_step
from penstock.node.controller.leaders import ELECTIONS_PER_COMMAND, resignation
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.raft.command import SUPPORTED_LEVEL
from penstock.raft.image import NO_LEADER
from tests.node.rule import HEARTBEAT_MS, PREFERRED_MS, SESSION_MS, WALL_MS, Rule
from tests.raft.metadata_world import World, id16

OK, REGISTER = controller.HEARTBEAT_STATUS_OK, controller.HEARTBEAT_STATUS_REGISTER


def ruled(world: World | None = None) -> Rule:
    """Three live nodes, and a topic of one partition on all of them, led by 1."""
    if world is None:
        world = World.with_nodes(3)
        world.create("t")
    rule = Rule(world)
    rule.alive = {1, 2, 3}
    for node_id in rule.alive:
        rule.heartbeat(node_id)
    rule.settle()
    return rule


def test_a_new_cluster_begins_with_its_genesis() -> None:
    rule = Rule(World())
    assert rule.settle() == ["genesis"]
    assert rule.world.image.feature_level == SUPPORTED_LEVEL


def test_with_everybody_alive_nothing_is_proposed() -> None:
    assert ruled().run(20 * SESSION_MS) == []


def test_a_silent_node_is_fenced_when_its_session_ends_and_not_before() -> None:
    rule = ruled()
    rule.alive = {2, 3}
    assert rule.run(SESSION_MS - 50) == []
    assert rule.run(50) == ["fence_node", "elect_leaders"]
    assert rule.fenced() == {1}
    assert rule.world.partition().leader in {2, 3}


def test_a_silent_node_whose_address_refuses_is_fenced_as_soon_as_a_heartbeat_is_late() -> None:
    rule = ruled()
    rule.run(HEARTBEAT_MS)
    rule.alive, rule.refusing = {2, 3}, {1}
    assert rule.run(2 * HEARTBEAT_MS) == ["fence_node", "elect_leaders"]
    assert rule.fenced() == {1}


def test_a_refusal_does_not_fence_a_node_that_goes_on_sending_heartbeats() -> None:
    rule = ruled()
    rule.refusing = {1}
    assert rule.core.may_probe(1)
    rule.core.on_probed(1, rule.now_ms, refused=True)
    assert rule.run(20 * SESSION_MS) == []


def test_a_new_controller_grants_each_node_one_fresh_session() -> None:
    world = World.with_nodes(3)
    rule = Rule(world, now_ms=1_000_000)
    assert rule.run(SESSION_MS - 50) == []
    assert rule.run(50) == ["fence_node"] * 3


def test_a_new_controller_takes_a_refused_connection_as_death_at_once() -> None:
    world = World.with_nodes(3)
    world.create("t")
    rule = Rule(world)
    rule.refusing = {1}
    assert rule.settle() == ["fence_node", "elect_leaders"]
    assert rule.fenced() == {1}
    assert set(rule.probed) == {1, 2, 3}


def test_a_fenced_node_is_told_to_register_and_lives_again() -> None:
    rule = ruled()
    rule.alive = {2, 3}
    rule.run(SESSION_MS)
    assert rule.heartbeat(1).status == REGISTER
    rule.world.register(1)
    rule.core.on_registered(rule.world.image, 1, rule.now_ms)
    assert rule.heartbeat(1).status == OK
    rule.alive = {1, 2, 3}
    assert rule.run(4 * SESSION_MS) == []
    assert rule.fenced() == set()


def test_a_heartbeat_of_an_earlier_registration_prolongs_nothing() -> None:
    rule = ruled()
    former = rule.world.image.nodes[1].node_epoch
    rule.world.register(1)
    rule.core.on_registered(rule.world.image, 1, rule.now_ms)
    rule.alive = {2, 3}
    for _ in range(SESSION_MS // HEARTBEAT_MS):
        assert rule.heartbeat(1, node_epoch=former).status == REGISTER
        rule.run(HEARTBEAT_MS)
    assert rule.fenced() == {1}


def test_a_controller_behind_the_node_says_so_instead_of_having_it_register() -> None:
    rule = ruled()
    with pytest.raises(PenstockError) as raised:
        rule.heartbeat(1, node_epoch=10_000)
    assert raised.value.reason is Reason.NO_CONTROLLER


def test_the_silence_before_a_registration_is_not_held_against_it() -> None:
    rule = ruled()
    rule.alive = {2, 3}
    rule.run(SESSION_MS - 50)
    rule.now_ms += 50
    rule.world.register(1)  # applied and in the image before the controller hears that its command is through
    assert rule.settle() == []


def test_an_unknown_node_is_told_to_register() -> None:
    rule = ruled()
    request = controller.HeartbeatRequest(node_id=9, node_epoch=0)
    assert rule.core.on_heartbeat(rule.world.image, request, 0, WALL_MS).status == REGISTER


def test_a_node_registered_by_another_controller_has_a_session_here() -> None:
    rule = ruled()
    rule.world.register(4)
    assert rule.run(SESSION_MS) == []
    assert rule.run(50) == ["fence_node"]
    assert rule.fenced() == {4}


def test_the_last_in_sync_member_dead_its_heir_in_the_elr_leads() -> None:
    rule = ruled()
    rule.alive = {1}
    rule.run(SESSION_MS)
    assert rule.world.partition().isr == (1,)
    rule.alive = set()
    rule.run(SESSION_MS)
    info = rule.world.partition()
    assert (info.leader, info.isr) == (NO_LEADER, ())
    heir = info.elr[0]
    rule.world.register(heir)
    rule.core.on_registered(rule.world.image, heir, rule.now_ms)
    assert rule.settle() == ["elect_leaders"]
    assert rule.world.partition().leader == heir


def test_no_unclean_leader_unless_the_topic_allows_it() -> None:
    for unclean, leader in ((False, NO_LEADER), (True, 2)):
        world = World.with_nodes(3)
        world.create("t", minimum=1, unclean=unclean)
        world.alter_isr([1])
        world.fence(1)
        world.register(1, store="blank")
        world.fence(1)
        rule = Rule(world)
        rule.alive = {2, 3}
        rule.heartbeat(2)
        rule.heartbeat(3)
        rule.settle()
        assert rule.world.partition().leader == leader


def test_leadership_returns_to_the_preferred_replica_after_its_time_in_sync() -> None:
    rule = ruled()
    rule.world.elect(2, [1, 2, 3])
    rule.settle()
    assert rule.run(PREFERRED_MS - 50) == []
    assert rule.run(50) == ["elect_leaders"]
    assert rule.world.partition().leader == 1


def test_the_preferred_replica_waits_anew_when_it_left_the_isr_in_between() -> None:
    rule = ruled()
    rule.world.elect(2, [1, 2, 3])
    rule.run(PREFERRED_MS - 100)
    rule.world.alter_isr([2, 3])
    rule.settle()
    rule.world.alter_isr([1, 2, 3])
    assert rule.run(PREFERRED_MS - 50) == []
    assert rule.run(100) == ["elect_leaders"]


def test_a_draining_node_hands_its_leaderships_over_and_hears_when_none_is_left() -> None:
    rule = ruled()
    assert rule.heartbeat(1, draining=True).leaderships > 0
    assert rule.settle() == ["drain_node", "elect_leaders"]
    assert rule.world.partition().leader in {2, 3}
    assert rule.world.partition().isr == (1, 2, 3)
    assert rule.heartbeat(1, draining=True).leaderships == 0
    assert rule.run(PREFERRED_MS + 100) == []


def test_what_other_replicas_do_meanwhile_does_not_delay_the_preferred_one() -> None:
    rule = ruled()
    rule.world.elect(2, [1, 2, 3])
    rule.run(PREFERRED_MS - 500)
    rule.world.alter_isr([1, 2])
    assert rule.run(450) == []
    assert rule.run(100) == ["elect_leaders"]


def test_the_wish_to_stop_ends_with_the_registration_that_had_it() -> None:
    rule = ruled()
    rule.heartbeat(1, draining=True)
    rule.world.register(1)  # a restart, by way of another controller
    assert rule.settle() == []
    assert not rule.world.image.nodes[1].draining


def test_a_draining_node_without_an_heir_is_not_kept_waiting() -> None:
    world = World.with_nodes(1)
    world.create("t", [1], minimum=1)
    rule = Rule(world)
    rule.heartbeat(1, draining=True)
    assert rule.settle() == ["drain_node"]
    assert rule.heartbeat(1, draining=True).leaderships == 0
    assert world.partition().leader == 1


def test_a_second_node_of_the_same_id_is_refused_while_the_first_lives() -> None:
    rule = ruled()
    stranger = pb.Registration(node_id=1, store_id=id16("elsewhere"))
    with pytest.raises(PenstockError, match="another node 1") as raised:
        rule.core.check_registration(rule.world.image, stranger, rule.now_ms)
    assert raised.value.reason is Reason.NOT_SERVING
    rule.core.check_registration(rule.world.image, stranger, rule.now_ms + SESSION_MS)
    same = pb.Registration(node_id=1, store_id=rule.world.image.nodes[1].store_id)
    rule.core.check_registration(rule.world.image, same, rule.now_ms)


def test_elections_of_many_partitions_travel_in_commands_of_bounded_size() -> None:
    world = World.with_nodes(2)
    world.create("t", *[[1, 2]] * (ELECTIONS_PER_COMMAND + 1), minimum=1)
    rule = Rule(world)
    rule.heartbeat(2)
    rule.refusing = {1}
    assert rule.settle() == ["fence_node", "elect_leaders", "elect_leaders"]
    assert {info.leader for info in world.topic().partitions} == {2}


def test_a_deleted_topic_is_forgotten() -> None:
    rule = ruled()
    rule.world.elect(2, [1, 2, 3])
    rule.settle()
    rule.world.do(delete_topic=pb.DeleteTopic(topic_id=rule.world.topic().topic_id))
    assert rule.run(2 * PREFERRED_MS) == []


def asked(world: World, **fields: object) -> controller.Resignation:
    info = world.partition()
    topic_id = world.topic().topic_id
    return controller.Resignation(topic_id=topic_id, leader=info.leader, leader_epoch=info.leader_epoch, **fields)  # type: ignore[arg-type]


def elect(world: World, election: object) -> pb.ChangeResult:
    assert isinstance(election, pb.Election)
    return world.do(elect_leaders=pb.ElectLeaders(elections=[election])).changes[0]


def test_rule_26_who_resigns_is_followed_by_another_in_sync_replica() -> None:
    world = World.with_nodes(3)
    world.create("t")
    assert elect(world, resignation(world.image, asked(world))).refusal == 0
    info = world.partition()
    assert info.leader != 1
    assert info.leader_epoch == 1
    assert info.isr == (1, 2, 3)


def test_rule_26_who_resigns_alone_leads_on_in_a_new_epoch() -> None:
    world = World.with_nodes(1)
    world.create("t", [1], minimum=1)
    assert elect(world, resignation(world.image, asked(world))).refusal == 0
    info = world.partition()
    assert (info.leader, info.leader_epoch) == (1, 1)


def test_who_gives_up_its_place_too_leaves_the_isr_for_the_elr_where_due() -> None:
    world = World.with_nodes(3)
    world.create("t")
    elect(world, resignation(world.image, asked(world, leave_isr=True)))
    info = world.partition()
    assert (info.isr, info.elr, info.leader in {2, 3}) == ((2, 3), (), True)
    world.alter_isr([info.leader])
    elect(world, resignation(world.image, asked(world, leave_isr=True)))
    assert world.partition().isr == ()
    assert info.leader in world.partition().elr


def test_a_resignation_of_a_former_leadership_changes_nothing() -> None:
    world = World.with_nodes(3)
    world.create("t")
    late = asked(world)
    world.elect(2, [1, 2, 3])
    answer = resignation(world.image, late)
    assert isinstance(answer, pb.ChangeResult)
    assert answer.refusal == pb.REFUSAL_NOT_LEADER
    unknown = resignation(world.image, controller.Resignation(topic_id=b"?"))
    assert isinstance(unknown, pb.ChangeResult)
    assert unknown.refusal == pb.REFUSAL_UNKNOWN_PARTITION


def voters(*node_ids: int) -> dict[int, bytes]:
    """A configuration of founding voters."""
    return dict.fromkeys(node_ids, b"")


def test_rule_27_a_voter_that_the_configuration_has_is_not_removed_because_the_note_was_lost() -> None:
    world = World.with_nodes(3)
    node = replace(world.image.nodes[3], may_vote=False, journal_id=b"new")
    world.image = replace(world.image, nodes={**world.image.nodes, 3: node})
    assert next_step(world.image, voters(1, 2) | {3: b"new"}) == NoteVoter(3, b"new")
    assert next_step(world.image, voters(1, 2) | {3: b"former"}) == RemoveVoter(3)


def test_rule_27_a_voter_is_not_removed_while_another_voter_is_down() -> None:
    world = World.with_nodes(3)
    node = world.image.nodes[3]
    world.image = replace(world.image, nodes={**world.image.nodes, 3: replace(node, may_vote=False)})
    assert next_step(world.image, voters(1, 2, 3)) == RemoveVoter(3)
    assert next_step(world.image, voters(1, 2)) == AddVoter(3, "node3:9092", node.journal_id)
    world.fence(2)
    assert next_step(world.image, voters(1, 2, 3)) is None
    world.register(2)
    world.fence(3)
    assert next_step(world.image, voters(1, 2, 3)) is None


def test_rule_27_who_may_vote_or_is_no_voter_is_left_alone() -> None:
    world = World.with_nodes(3)
    assert next_step(world.image, voters(1, 2, 3)) is None
    node = replace(world.image.nodes[3], may_vote=False, voter=False)
    world.image = replace(world.image, nodes={**world.image.nodes, 3: node})
    assert next_step(world.image, voters(1, 2)) is None
