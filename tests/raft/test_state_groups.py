"""Consumer groups in the metadata: rules 21 and 31 as far as `apply` keeps them, and each of its refusals."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.protocol import limits
from penstock.raft import apply_groups, group_rules
from penstock.raft.command import GROUP_LEVEL
from penstock.raft.core import MAX_COMMAND_BYTES
from penstock.raft.draft import Draft
from penstock.raft.image import OFFSETS_TOPIC, GroupInfo, MemberInfo, offsets_index
from penstock.raft.records import decode_image, encode_image
from tests.raft.group_world import GROUP, alter, change, elect_coordinator, make_offsets, member, part
from tests.raft.metadata_world import World

APPLIED = pb.REFUSAL_UNSPECIFIED


@pytest.fixture
def world() -> World:
    """Three nodes, topic t, __offsets with one partition that node 1 leads."""
    world = World.with_nodes()
    world.create("t")
    make_offsets(world)
    return world


@pytest.fixture
def settled(world: World) -> World:
    """Member a has partitions 0 and 1, b has 2, granted in generation 1."""
    apply(world, change(world, [member("a", {0: 1, 1: 1}, [0, 1]), member("b", {2: 1}, [2])], rebalance=True))
    return world


def group(world: World, group_id: str = GROUP) -> GroupInfo:
    return world.image.groups[group_id]


def apply(world: World, asked: pb.GroupChange) -> GroupInfo:
    result = alter(world, asked)
    assert result.refusal == APPLIED, result.detail
    return group(world, asked.group_id)


def refused(world: World, asked: pb.GroupChange, refusal: int) -> str:
    """The detail of a refusal, which changes nothing."""
    before = world.image.groups
    result = alter(world, asked)
    assert result.refusal == refusal, result.detail
    assert world.image.groups is before
    return result.detail


# ---- what a change does


def test_the_first_change_makes_the_group(world: World) -> None:
    asked = change(world, [member("b"), member("a", target=[1], instance_id="i")], rebalance=True, assignor=2)
    made = apply(world, asked)
    assert (made.group_epoch, made.generation, made.assignor) == (world.index, 1, 2)
    assert (made.cause, made.rebalanced_ms, made.emptied_ms) == (asked.cause, asked.time_ms, 0)
    assert list(made.members) == ["a", "b"]
    assert made.members["a"] == member("a", target=[1], instance_id="i")


def test_a_member_is_kept_whole(world: World) -> None:
    """Every field has another value than its default."""
    info = member(
        "a",
        {0: 1, 3: 1},
        [0, 3],
        instance_id="i",
        client_id="c",
        host="10.0.0.1",
        topics=("t", "u"),
        pattern="v.*",
        assignor=3,
        session_timeout_ms=1,
        rebalance_timeout_ms=2,
        max_poll_interval_ms=3,
        joined_ms=-4,
    )
    assert apply(world, change(world, [info], rebalance=True)).members["a"] == info
    assert decode_image(encode_image(world.image)).groups == world.image.groups


def test_only_a_new_generation_has_a_cause_and_a_beginning(settled: World) -> None:
    before = group(settled)
    after = apply(settled, change(settled, [member("c")], cause="none", assignor=3))
    assert (after.cause, after.rebalanced_ms, after.assignor) == (before.cause, before.rebalanced_ms, before.assignor)
    assert after.group_epoch > before.group_epoch
    assert after.generation == before.generation


def test_who_is_not_named_stays_as_it_is(settled: World) -> None:
    before = group(settled).members
    after = apply(settled, change(settled, [member("a2")], ["b"])).members
    assert list(after) == ["a", "a2"]
    assert after["a"] is before["a"]


def test_a_group_is_empty_since_its_last_member_went(settled: World) -> None:
    apply(settled, change(settled, removed=["a"]))
    assert group(settled).emptied_ms == 0
    gone = change(settled, removed=["b"])
    assert apply(settled, gone).emptied_ms == gone.time_ms
    later = change(settled, rebalance=True)
    assert later.time_ms > gone.time_ms
    assert apply(settled, later).emptied_ms == gone.time_ms
    assert apply(settled, change(settled, [member("c")])).emptied_ms == 0


def test_a_group_may_be_made_empty(world: World) -> None:
    asked = change(world)
    made = apply(world, asked)
    assert (made.members, made.generation, made.emptied_ms) == ({}, 0, asked.time_ms)


def test_an_empty_group_is_deleted_and_made_anew(settled: World) -> None:
    refused(settled, change(settled, delete=True), pb.REFUSAL_INVALID)
    apply(settled, change(settled, removed=["a", "b"]))
    assert alter(settled, change(settled, delete=True)).refusal == APPLIED
    assert GROUP not in settled.image.groups
    refused(settled, change(settled, delete=True), pb.REFUSAL_INVALID)
    assert apply(settled, change(settled, rebalance=True)).generation == 1


def test_each_change_of_a_command_has_its_own_result(settled: World) -> None:
    other = change(settled, [member("x")], group_id="other")
    stale = change(settled, [member("c")], group_epoch=1)
    good = change(settled, [member("c")])
    nameless = change(settled, group_id="")
    command = pb.AlterGroups(changes=[stale, nameless, other, good, good])
    refusals = [result.refusal for result in settled.do(alter_groups=command).changes]
    assert refusals == [pb.REFUSAL_STALE, pb.REFUSAL_MALFORMED, APPLIED, APPLIED, pb.REFUSAL_STALE]
    assert list(group(settled).members) == ["a", "b", "c"]
    assert list(group(settled, "other").members) == ["x"]


def test_the_groups_are_copied_once_a_command_and_others_stay_the_same(settled: World) -> None:
    apply(settled, change(settled, group_id="other"))
    image = settled.image
    draft = Draft(image)
    assert draft.groups is image.groups
    draft.put_group(replace(group(settled), cause="x"))
    copied = draft.groups
    draft.put_group(GroupInfo("new", 9))
    assert draft.groups is copied
    assert copied["other"] is image.groups["other"]
    assert (image.groups[GROUP].cause, "new" in image.groups) != ("x", True)
    assert "new" not in image.groups


def test_below_its_feature_level_there_are_no_groups() -> None:
    world = World.with_nodes(level=GROUP_LEVEL - 1)
    make_offsets(world)
    result = world.do(alter_groups=pb.AlterGroups(changes=[change(world)]))
    assert result.refusal == pb.REFUSAL_UNSUPPORTED
    assert not world.image.groups


# ---- rule 31: who decides, and on what


def test_rule_31_a_former_coordinator_is_refused(settled: World) -> None:
    late = change(settled, [member("c")])
    elect_coordinator(settled, 2)
    assert "node 2" in refused(settled, late, pb.REFUSAL_NOT_COORDINATOR)
    apply(settled, change(settled, [member("c")]))


def test_rule_31_the_same_node_in_a_former_leader_epoch_is_refused(settled: World) -> None:
    late = change(settled, [member("c")])
    elect_coordinator(settled, 1)
    refused(settled, late, pb.REFUSAL_NOT_COORDINATOR)


def test_rule_31_another_node_in_the_same_leader_epoch_is_refused(settled: World) -> None:
    refused(settled, change(settled, [member("c")], coordinator=2), pb.REFUSAL_NOT_COORDINATOR)


def test_rule_31_nobody_decides_while_the_partition_has_no_leader(settled: World) -> None:
    late = change(settled, [member("c")])
    for node_id in (1, 2, 3):
        settled.fence(node_id)
    refused(settled, late, pb.REFUSAL_NOT_COORDINATOR)
    now = settled.image.offsets_partition(GROUP)
    assert now is not None
    late.leader_epoch = now.leader_epoch
    refused(settled, late, pb.REFUSAL_NOT_COORDINATOR)


def test_rule_31_the_coordinator_is_that_of_the_groups_own_partition() -> None:
    world = World.with_nodes()
    refused(world, change(world), pb.REFUSAL_NOT_COORDINATOR)
    make_offsets(world, (1, 2, 3), (2, 3, 1))
    ids = {offsets_index(f"g{number}", 2): f"g{number}" for number in range(10)}
    for index, leader in ((0, 1), (1, 2)):
        refused(world, change(world, group_id=ids[index], coordinator=3 - leader), pb.REFUSAL_NOT_COORDINATOR)
        apply(world, change(world, group_id=ids[index], coordinator=leader))


def test_rule_31_a_repeat_is_refused(settled: World) -> None:
    asked = change(settled, [member("c")])
    apply(settled, asked)
    refused(settled, asked, pb.REFUSAL_STALE)
    made = change(settled, group_id="new")
    apply(settled, made)
    refused(settled, made, pb.REFUSAL_STALE)


def test_rule_31_what_was_decided_on_another_group_is_refused(settled: World) -> None:
    ahead = change(settled, [member("c")])
    ahead.group_epoch += 1
    refused(settled, ahead, pb.REFUSAL_STALE)
    refused(settled, change(settled, group_id="new", group_epoch=1), pb.REFUSAL_STALE)


# ---- rule 21: one owner


def test_rule_21_a_partition_that_is_owned_is_not_given_to_another(settled: World) -> None:
    """Not even in a new generation, by the target: first its owner gives it up."""
    a, b = group(settled).members["a"], group(settled).members["b"]
    moved = [replace(a, target=frozenset([part(0)])), member("b", {1: 2, 2: 1}, [1, 2])]
    assert "'a' and 'b'" in refused(settled, change(settled, moved, rebalance=True), pb.REFUSAL_INVALID)
    apply(settled, change(settled, [moved[0], replace(b, target=moved[1].target)], rebalance=True))
    refused(settled, change(settled, [moved[1]]), pb.REFUSAL_INVALID)
    handed_over = [replace(moved[0], owned={part(0): 1}), moved[1]]
    assert apply(settled, change(settled, handed_over)).members["b"].owned == {part(1): 2, part(2): 1}


def test_rule_21_of_two_new_members_one_gets_a_partition(world: World) -> None:
    both = [member("a", {0: 1}, [0]), member("b", {0: 1})]
    refused(world, change(world, both, rebalance=True), pb.REFUSAL_INVALID)


def test_rule_21_a_partition_is_the_target_of_one_member(settled: World) -> None:
    b = group(settled).members["b"]
    both = [replace(b, target=frozenset([part(1), part(2)]))]
    assert "target" in refused(settled, change(settled, both, rebalance=True), pb.REFUSAL_INVALID)


def test_rule_21_what_a_removed_member_had_is_free_at_once(settled: World) -> None:
    a = group(settled).members["a"]
    heir = replace(a, owned={**a.owned, part(2): 2}, target=a.target | {part(2)})
    assert part(2) in apply(settled, change(settled, [heir], ["b"], rebalance=True)).members["a"].owned


# ---- generations and grants


@pytest.mark.parametrize("generation", [0, 3, 2**64 - 1])
def test_a_generation_stays_or_rises_by_one(settled: World, generation: int) -> None:
    refused(settled, change(settled, generation=generation), pb.REFUSAL_INVALID)


def test_a_first_generation_is_1(world: World) -> None:
    refused(world, change(world, generation=2), pb.REFUSAL_INVALID)


def test_a_target_gains_partitions_in_a_new_generation_only(settled: World) -> None:
    b = group(settled).members["b"]
    more = replace(b, target=b.target | {part(3)})
    refused(settled, change(settled, [more]), pb.REFUSAL_INVALID)
    refused(settled, change(settled, [member("c", target=[3])]), pb.REFUSAL_INVALID)
    apply(settled, change(settled, [replace(b, target=frozenset())]))  # of a deleted topic, say
    apply(settled, change(settled, [more], rebalance=True))


@pytest.mark.parametrize("granted", [0, 1, 3])
def test_a_grant_is_of_the_present_generation(settled: World, granted: int) -> None:
    b = group(settled).members["b"]
    wanted = replace(b, target=b.target | {part(3)})
    apply(settled, change(settled, [wanted], rebalance=True))
    refused(settled, change(settled, [replace(wanted, owned={**b.owned, part(3): granted})]), pb.REFUSAL_INVALID)
    apply(settled, change(settled, [replace(wanted, owned={**b.owned, part(3): 2})]))


def test_nothing_is_granted_before_the_first_generation(world: World) -> None:
    refused(world, change(world, [member("a", {0: 0})]), pb.REFUSAL_INVALID)


def test_what_is_granted_is_in_the_target(settled: World) -> None:
    refused(settled, change(settled, [member("b", {2: 1, 3: 1}, [2])]), pb.REFUSAL_INVALID)


def test_a_grant_is_not_renamed(settled: World) -> None:
    """A later grant of what the member has is a new one: it must give it up first, or be wanted still."""
    apply(settled, change(settled, [member("a", {0: 1, 1: 1}, [0])], rebalance=True))
    refused(settled, change(settled, [member("a", {0: 1, 1: 2}, [0])]), pb.REFUSAL_INVALID)


@pytest.mark.parametrize("granted", [1, 2])
def test_a_static_member_takes_over_what_the_former_one_had(settled: World, granted: int) -> None:
    """Also what that one was giving up."""
    apply(settled, change(settled, [replace(group(settled).members["a"], target=frozenset([part(0)]))]))
    heir = member("a2", {0: granted, 1: granted}, [0], instance_id="i")
    took = apply(settled, change(settled, [heir], ["a"], rebalance=True)).members
    assert took["a2"] == heir
    refused(settled, change(settled, [member("b2", {2: 0}, [2])], ["b"], rebalance=True), pb.REFUSAL_INVALID)


def test_two_members_have_not_the_same_instance(settled: World) -> None:
    apply(settled, change(settled, [member("c", instance_id="i")]))
    again = member("d", instance_id="i")
    refused(settled, change(settled, [again]), pb.REFUSAL_INVALID)
    apply(settled, change(settled, [again], ["c"]))


def test_who_is_no_member_is_not_removed(settled: World) -> None:
    refused(settled, change(settled, removed=["c"]), pb.REFUSAL_INVALID)


# ---- form and limits


def record(**fields: object) -> pb.GroupMemberRecord:
    return pb.GroupMemberRecord(**({"member_id": "c"} | fields))  # type: ignore[arg-type]


def share(*partitions: int, topic_id: bytes = part(7).topic_id, granted: Iterable[int] = ()) -> pb.GroupShareRecord:
    return pb.GroupShareRecord(topic_id=topic_id, partitions=partitions, granted_generations=granted)


MALFORMED: dict[str, dict[str, object]] = {
    "no group id": {"group_id": ""},
    "long group id": {"group_id": "g" * 250},
    "no time": {"time_ms": 0},
    "negative time": {"time_ms": -1},
    "long cause": {"cause": "x" * 1001},
    "put twice": {"put": [record(), record()]},
    "removed twice": {"removed": ["a", "a"]},
    "put and removed": {"put": [record(member_id="a")], "removed": ["a"]},
    "put and deleted": {"put": [record()], "delete": True},
    "removed and deleted": {"removed": ["a"], "delete": True},
    "no member id": {"put": [record(member_id="")]},
    "long member id": {"put": [record(member_id="m" * 250)]},
    "long instance id": {"put": [record(instance_id="i" * 250)]},
    "long client id": {"put": [record(client_id="c" * 250)]},
    "long host": {"put": [record(host="h" * 256)]},
    "long pattern": {"put": [record(pattern="p" * 1001)]},
    "many topics": {"put": [record(topics=["t"] * 1001)]},
    "long topic": {"put": [record(topics=["t" * 250])]},
    "target twice": {"put": [record(target=[share(7, 7)])]},
    "topic twice": {"put": [record(target=[share(7), share(8)])]},
    "no topic id": {"put": [record(target=[share(7, topic_id=b"short")])]},
    "no partition": {"put": [record(target=[share(10_000)])]},
    "no partitions": {"put": [record(target=[share()])]},
    "granted target": {"put": [record(target=[share(7, granted=[2])])]},
    "owned twice": {"put": [record(owned=[share(7, 7, granted=[2, 2])], target=[share(7)])]},
    "not granted": {"put": [record(owned=[share(7)], target=[share(7)])]},
    "granted too much": {"put": [record(owned=[share(7, granted=[2, 2])], target=[share(7)])]},
}


@pytest.mark.parametrize("case", MALFORMED)
def test_what_no_coordinator_should_send_is_malformed(settled: World, case: str) -> None:
    fields = MALFORMED[case]
    asked = change(settled, rebalance=True, **fields)  # type: ignore[arg-type]  # fields of any kind
    refused(settled, asked, pb.REFUSAL_MALFORMED)


Limited = Callable[[World], pb.GroupChange]


@pytest.mark.parametrize(
    ("module", "limit", "asked"),
    [
        (apply_groups, "MAX_GROUPS", lambda world: change(world, group_id="second")),
        (group_rules, "MAX_GROUP_MEMBERS", lambda world: change(world, [member("c")])),
        (group_rules, "MAX_GROUP_PARTITIONS", lambda world: change(world, [member("c", target=[7])], rebalance=True)),
    ],
    ids=["groups", "members", "partitions"],
)
def test_limits_are_refused_as_such(
    settled: World, monkeypatch: pytest.MonkeyPatch, module: object, limit: str, asked: Limited
) -> None:
    present = {"MAX_GROUPS": 1, "MAX_GROUP_MEMBERS": 2, "MAX_GROUP_PARTITIONS": 3}[limit]
    monkeypatch.setattr(module, limit, present)
    apply(settled, change(settled))  # at the limit
    assert str(present) in refused(settled, asked(settled), pb.REFUSAL_LIMIT)
    monkeypatch.setattr(module, limit, present + 1)
    apply(settled, asked(settled))


def test_all_partitions_of_a_full_group_move_in_one_command() -> None:
    """So that its size never keeps a group from a rebalance."""
    half = limits.MAX_GROUP_PARTITIONS // 2
    world = World.with_nodes()
    make_offsets(world)
    shares = [range(half), range(half, 2 * half)]
    info = world.image.offsets_partition(GROUP)
    assert info is not None
    asked = change(world, _having(shares, 2**63), generation=2**63)
    assert asked.ByteSize() < MAX_COMMAND_BYTES // 2


def _having(shares: Iterable[range], granted: int) -> list[MemberInfo]:
    return [member(f"m{place}", dict.fromkeys(share, granted), share) for place, share in enumerate(shares)]


def test_groups_live_in_the_topic_of_offsets(world: World) -> None:
    assert world.image.offsets_partition("any") == world.partition(OFFSETS_TOPIC)
    assert World().image.offsets_partition("any") is None
