"""Which replica leads: table of situations (DESIGN section 5)."""

from dataclasses import replace

import pytest

from penstock.raft.election import Choice, better_leader, choose, needs_leader
from penstock.raft.image import NO_LEADER, Address, NodeInfo, PartitionInfo
from penstock.v1 import common_pb2 as common
from tests.raft.metadata_world import World


def nodes(fenced: str = "", draining: str = "", full: str = "") -> dict[int, NodeInfo]:
    """Nodes 1 to 3."""
    return {
        node_id: NodeInfo(
            node_id,
            node_id,
            b"s",
            b"t",
            Address("h", 1),
            Address("h", 2),
            fenced=str(node_id) in fenced,
            draining=str(node_id) in draining,
            store_state=common.STORE_STATE_FULL if str(node_id) in full else common.STORE_STATE_OK,
        )
        for node_id in (1, 2, 3)
    }


def partition(isr: tuple[int, ...], elr: tuple[int, ...] = (), leader: int = NO_LEADER) -> PartitionInfo:
    """A partition on 1, 2, 3."""
    return PartitionInfo(0, (1, 2, 3), isr, elr, leader, 5, 7, 1)


@pytest.mark.parametrize(
    ("isr", "elr", "fenced", "draining", "avoid", "chosen"),
    [
        ((1, 2, 3), (), "", "", (), Choice(1, (1, 2, 3))),
        ((2, 3), (), "1", "", (), Choice(2, (2, 3))),
        ((2, 3), (), "1", "2", (), Choice(3, (2, 3))),
        ((2, 3), (), "1", "23", (), Choice(2, (2, 3))),  # better one that stops soon than none
        ((2, 3), (), "1", "", (2,), Choice(3, (2, 3))),
        ((2,), (3,), "1", "", (2,), Choice(2, (2,))),  # who resigned, when there is no other in sync
        ((), (2, 3), "12", "", (), Choice(3, (3,))),
        ((), (2,), "2", "", (), None),
        ((), (), "", "", (), None),
    ],
)
def test_rule_9_choice(
    isr: tuple[int, ...],
    elr: tuple[int, ...],
    fenced: str,
    draining: str,
    avoid: tuple[int, ...],
    chosen: Choice | None,
) -> None:
    assert choose(partition(isr, elr), nodes(fenced, draining), avoid=avoid) == chosen


def test_unclean_only_where_allowed_and_last() -> None:
    live = nodes(fenced="2")
    assert choose(partition((), (2,)), live) is None
    assert choose(partition((), (2,)), live, unclean_allowed=True) == Choice(1, (1,), unclean=True)
    assert choose(partition((), (3,)), live, unclean_allowed=True) == Choice(3, (3,))
    assert choose(partition(()), nodes(fenced="123"), unclean_allowed=True) is None


def test_a_partition_needs_a_leader_that_lives() -> None:
    assert needs_leader(partition((1, 2)), nodes())
    assert needs_leader(partition((2,), leader=1), nodes(fenced="1"))
    assert not needs_leader(partition((1, 2), leader=1), nodes())


def test_leadership_returns_to_the_preferred_replica_once_it_is_in_sync() -> None:
    assert better_leader(partition((2, 3), leader=2), nodes()) is None
    assert better_leader(partition((1, 2, 3), leader=2), nodes()) == 1
    assert better_leader(partition((1, 2, 3), leader=1), nodes()) is None
    assert better_leader(partition((1, 2, 3), leader=2), nodes(draining="1")) is None


def test_leadership_leaves_a_node_that_stops() -> None:
    assert better_leader(partition((1, 2, 3), leader=1), nodes(draining="1")) == 2
    assert better_leader(partition((1, 3), leader=1), nodes(draining="1")) == 3
    assert better_leader(partition((1,), leader=1), nodes(draining="1")) is None
    assert better_leader(replace(partition((1, 2)), leader=NO_LEADER), nodes()) is None


def test_who_is_about_to_be_removed_is_not_chosen_while_another_can_be() -> None:
    world = World.with_nodes(4)
    world.create("t")
    world.reassign([2, 3, 4])
    assert better_leader(world.partition(), world.image.nodes) is None  # it leads on until the reassignment ends
    world.elect(2, [1, 2, 3])
    assert better_leader(world.partition(), world.image.nodes) is None  # nor does it get the leadership back
    assert choose(world.partition(), world.image.nodes, avoid=(2,)) == Choice(3, (1, 2, 3))


def test_an_added_replica_does_not_lead_uncleanly_for_it_may_be_empty() -> None:
    world = World.with_nodes(4)
    world.create("t", unclean=True)
    world.reassign([2, 3, 4])
    for node_id in (1, 2, 3):
        world.register(node_id, store=f"blank-{node_id}")
        world.fence(node_id)
    assert choose(world.partition(), world.image.nodes, unclean_allowed=True) is None
    world.register(3, store="blank-3")
    assert choose(world.partition(), world.image.nodes, unclean_allowed=True) == Choice(3, (3,), unclean=True)


@pytest.mark.parametrize(
    ("isr", "elr", "full", "others", "chosen"),
    [
        ((1, 2, 3), (), "1", {}, Choice(2, (2, 3))),
        ((1, 2, 3), (), "12", {"draining": "3"}, Choice(3, (3,))),  # who stops soon still takes appends till then
        ((1, 2, 3), (), "123", {}, Choice(1, (1, 2, 3))),
        ((1, 2), (3,), "12", {}, Choice(1, (1, 2))),  # who is in sync leads, full or not
        ((), (1, 2), "1", {}, Choice(2, (2,))),
        ((), (1, 2), "12", {}, Choice(1, (1,))),
    ],
)
def test_a_full_store_leads_only_where_no_other_can(
    isr: tuple[int, ...], elr: tuple[int, ...], full: str, others: dict[str, str], chosen: Choice
) -> None:
    assert choose(partition(isr, elr), nodes(full=full, **others)) == chosen


def test_a_full_leader_gives_way_and_gets_nothing_back() -> None:
    assert better_leader(partition((1, 2, 3), leader=1), nodes(full="1")) == 2
    assert better_leader(partition((1, 3), leader=3), nodes(full="3")) == 1
    assert better_leader(partition((1, 2, 3), leader=2), nodes(full="1")) is None
    assert better_leader(partition((1, 2, 3), leader=2), nodes(full="123")) is None
    assert better_leader(partition((1, 2, 3), leader=3), nodes(full="123")) is None
    assert better_leader(partition((1,), leader=1), nodes(full="1")) is None


def test_who_stops_hands_over_to_a_full_store_rather_than_to_none() -> None:
    assert better_leader(partition((1, 2), leader=2), nodes(full="1", draining="2")) == 1
