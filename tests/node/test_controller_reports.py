"""What the controller makes of heartbeats: the state of stores noted, the clocks compared."""

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.raft.image import NO_LEADER
from penstock.v1 import common_pb2 as common
from tests.node.rule import HEARTBEAT_MS, PREFERRED_MS, WALL_MS, Rule
from tests.raft.metadata_world import World

OK, NEARLY, FULL = common.STORE_STATE_OK, common.STORE_STATE_NEARLY_FULL, common.STORE_STATE_FULL


def ruled(level: int = 3) -> Rule:
    """Three live nodes with room, and a topic of one partition on all of them, led by 1."""
    world = World.with_nodes(3, level=level)
    world.create("t")
    rule = Rule(world)
    rule.alive = {1, 2, 3}
    rule.stores = dict.fromkeys(rule.alive, OK)
    rule.run(HEARTBEAT_MS)
    return rule


def test_each_change_is_noted_once_and_room_from_the_start_not_at_all() -> None:
    rule = ruled()
    assert rule.commands == []
    for state in (NEARLY, FULL, NEARLY, OK):
        rule.stores[3] = state
        assert rule.run(5 * HEARTBEAT_MS).count("note_store_state") == 1
        assert rule.world.image.nodes[3].store_state == state


def test_a_full_leader_is_followed_by_one_with_room_at_once() -> None:
    rule = ruled()
    rule.stores[1] = FULL
    assert rule.run(HEARTBEAT_MS) == ["note_store_state", "elect_leaders"]
    info = rule.world.partition()
    assert (info.leader, info.isr) == (2, (2, 3))
    assert rule.run(2 * PREFERRED_MS) == []


def test_leadership_returns_when_there_is_room_again_and_it_is_in_sync() -> None:
    rule = ruled()
    rule.stores[1] = FULL
    rule.run(HEARTBEAT_MS)
    rule.stores[1] = OK
    assert rule.run(HEARTBEAT_MS) == ["note_store_state"]
    rule.world.alter_isr([1, 2, 3])
    assert rule.run(PREFERRED_MS + 100) == ["elect_leaders"]
    assert rule.world.partition().leader == 1


def test_the_last_full_one_leads_until_another_with_room_is_in_sync() -> None:
    rule = ruled()
    rule.stores = dict.fromkeys((1, 2, 3), FULL)
    rule.run(4 * HEARTBEAT_MS)
    info = rule.world.partition()
    assert len(info.isr) == 1
    assert info.leader in info.isr
    full_leader = info.leader
    other = min({1, 2, 3} - {full_leader})
    rule.stores[other] = OK
    rule.run(HEARTBEAT_MS)
    rule.world.alter_isr([full_leader, other])
    assert rule.run(100) == ["elect_leaders"]  # not after the delay of preferred leaders
    info = rule.world.partition()
    assert (info.leader, info.isr) == (other, (other,))
    assert info.elr == (full_leader,)


def test_a_fenced_node_and_a_former_registration_are_not_noted() -> None:
    rule = ruled()
    rule.heartbeat(3, store_state=FULL)
    rule.world.restart(3, "again")
    assert "note_store_state" not in rule.settle()
    rule.heartbeat(3, store_state=FULL)
    rule.world.fence(3)
    assert "note_store_state" not in rule.settle()


def test_an_unknown_state_of_a_newer_node_is_taken_for_none() -> None:
    rule = ruled()
    rule.heartbeat(3, store_state=77)
    assert rule.settle() == []


def test_the_feature_level_is_raised_when_it_is_first_needed_and_all_nodes_know_it() -> None:
    rule = ruled(level=2)
    rule.stores[3] = FULL
    assert rule.run(4 * HEARTBEAT_MS) == []
    rule.world.supported_level = 3
    for node_id in (1, 2, 3):
        rule.world.register(node_id)
    kinds = rule.run(2 * HEARTBEAT_MS)
    assert kinds[:2] == ["raise_feature_level", "note_store_state"]
    assert rule.world.image.nodes[3].store_state == FULL
    assert 3 not in rule.world.partition().isr
    assert rule.world.partition().leader != NO_LEADER


def test_the_answer_has_the_median_of_the_live_nodes_clocks() -> None:
    rule = ruled()
    here = WALL_MS + rule.now_ms
    assert rule.heartbeat(1, wall_ms=here + 1_000).wall_time_ms == 0  # one of three is no majority
    assert rule.heartbeat(2, wall_ms=here - 7_000_000).wall_time_ms == here - 3_499_500
    assert rule.heartbeat(3, wall_ms=here + 500).wall_time_ms == here + 500
    rule.now_ms += 10_000  # differences do not age
    assert rule.heartbeat(1, wall_ms=here + 11_000).wall_time_ms == here + 10_500
    rule.world.fence(2)
    assert rule.heartbeat(1, wall_ms=here + 11_000).wall_time_ms == here + 10_750


def test_nodes_that_do_not_tell_their_clock_do_not_count() -> None:
    rule = ruled()
    here = WALL_MS + rule.now_ms
    rule.heartbeat(1, wall_ms=here + 40)
    rule.heartbeat(2)
    assert rule.heartbeat(3, wall_ms=here + 60).wall_time_ms == here + 50


def test_a_heartbeat_that_tells_news_is_acted_on_at_once() -> None:
    rule = ruled()
    assert not rule.core.has_notes(rule.world.image)
    rule.heartbeat(2, store_state=FULL)
    assert rule.core.has_notes(rule.world.image)
    rule.world.do(note_store_state=pb.NoteStoreState(node_id=2, node_epoch=_epoch(rule, 2), state=FULL))
    assert not rule.core.has_notes(rule.world.image)


def _epoch(rule: Rule, node_id: int) -> int:
    return rule.world.image.nodes[node_id].node_epoch
