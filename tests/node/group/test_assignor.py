"""The assignors: every partition has one member that subscribes to it; balance; and how little sticky moves."""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product

import pytest

from penstock.node.group.assignor import Shares, assign, chosen_assignor
from penstock.raft.image import GroupPartition
from penstock.v1 import group_service_pb2 as pb
from tests.raft.metadata_world import id16

ALL = (pb.ASSIGNOR_STICKY, pb.ASSIGNOR_RANGE, pb.ASSIGNOR_ROUND_ROBIN)
TOPICS = tuple(id16(f"topic-{number}") for number in range(4))

SEEDS = range(150)


@dataclass
class Case:
    """Members, what they subscribe to, and partitions, by chance."""

    seed: int

    def __post_init__(self) -> None:
        chance = self.chance = random.Random(self.seed)
        self.members = chance.sample("abcdefgh", chance.randint(1, 8))
        self.partitions = {topic_id: chance.randrange(10) for topic_id in TOPICS}
        self.subscribed = {member: frozenset(chance.sample(TOPICS, chance.randint(1, 4))) for member in self.members}


def everything(members: Iterable[str]) -> dict[str, frozenset[bytes]]:
    return dict.fromkeys(members, frozenset(TOPICS))


def partitions_of(partitions: Mapping[bytes, int], topics: Iterable[bytes] = TOPICS) -> set[GroupPartition]:
    return {GroupPartition(topic_id, index) for topic_id in topics for index in range(partitions[topic_id])}


def check(case: Case, shares: Shares) -> None:
    """Each partition that somebody subscribes to has one member, and that one subscribes to it."""
    assert shares.keys() == case.subscribed.keys(), case
    shared_out = [partition for share in shares.values() for partition in share]
    assert len(shared_out) == len(set(shared_out)), case
    assert set(shared_out) == partitions_of(case.partitions, frozenset().union(*case.subscribed.values())), case
    for member, share in shares.items():
        assert {partition.topic_id for partition in share} <= case.subscribed[member], case


def sizes(shares: Shares) -> list[int]:
    return sorted(map(len, shares.values()))


def moved(before: Shares, after: Shares) -> int:
    """Partitions that have another member than before."""
    owner = {partition: member for member, share in before.items() for partition in share}
    return sum(owner.get(partition, member) != member for member, share in after.items() for partition in share)


def test_every_partition_has_one_member_that_subscribes_to_it() -> None:
    for case, assignor in product(map(Case, SEEDS), ALL):
        former = everything([*case.members, "gone"])
        before = assign(pb.ASSIGNOR_STICKY, former, {topic_id: case.chance.randrange(9) for topic_id in TOPICS}, {})
        shares = assign(assignor, case.subscribed, case.partitions, before)
        check(case, shares)
        shuffled = list(case.subscribed.items())
        case.chance.shuffle(shuffled)
        assert assign(assignor, dict(shuffled), case.partitions, before) == shares, case


def test_sticky_and_round_robin_differ_by_one_at_most_where_all_subscribe_to_the_same() -> None:
    for case, assignor in product(map(Case, SEEDS), (pb.ASSIGNOR_STICKY, pb.ASSIGNOR_ROUND_ROBIN)):
        size = sizes(assign(assignor, everything(case.members), case.partitions, {}))
        assert size[-1] - size[0] <= 1, case


def test_sticky_with_one_member_more_moves_its_fair_share_at_most() -> None:
    for case in map(Case, SEEDS):
        before = assign(pb.ASSIGNOR_STICKY, everything(case.members), case.partitions, {})
        after = assign(pb.ASSIGNOR_STICKY, everything([*case.members, "new"]), case.partitions, before)
        assert moved(before, after) == len(after["new"]), case  # nothing goes anywhere else
        assert len(after["new"]) <= sum(case.partitions.values()) / (len(case.members) + 1), case


def test_sticky_with_one_member_fewer_moves_only_its_partitions() -> None:
    for case in map(Case, SEEDS):
        before = assign(pb.ASSIGNOR_STICKY, everything([*case.members, "gone"]), case.partitions, {})
        after = assign(pb.ASSIGNOR_STICKY, everything(case.members), case.partitions, before)
        assert all(before[member] <= after[member] for member in case.members), case
        assert sizes(after)[-1] - sizes(after)[0] <= 1, case


def test_sticky_keeps_as_much_as_a_balance_allows_whatever_members_had() -> None:
    for case in map(Case, SEEDS):
        had: dict[str, set[GroupPartition]] = {member: set() for member in case.members}
        for partition in sorted(partitions_of(case.partitions)):
            had[case.chance.choice(case.members)].add(partition)
        before = {member: frozenset(share) for member, share in had.items()}
        after = assign(pb.ASSIGNOR_STICKY, everything(case.members), case.partitions, before)
        kept = sum(len(before[member] & after[member]) for member in case.members)
        each, more = divmod(sum(case.partitions.values()), len(case.members))
        held = sorted((len(share) for share in before.values()), reverse=True)
        assert kept == sum(min(size, each + (place < more)) for place, size in enumerate(held)), case


def test_sticky_leaves_no_partition_that_could_go_to_a_member_with_two_fewer() -> None:
    for case in map(Case, SEEDS):
        before = assign(pb.ASSIGNOR_STICKY, everything(case.members), case.partitions, {})
        shares = assign(pb.ASSIGNOR_STICKY, case.subscribed, case.partitions, before)
        for member, share in shares.items():
            for topic_id in {partition.topic_id for partition in share}:
                others = [other for other in case.members if topic_id in case.subscribed[other]]
                assert all(len(share) - len(shares[other]) < 2 for other in others), (case, member)


def test_sticky_is_at_rest() -> None:
    for case in map(Case, SEEDS):
        shares = assign(pb.ASSIGNOR_STICKY, case.subscribed, case.partitions, {})
        assert assign(pb.ASSIGNOR_STICKY, case.subscribed, case.partitions, shares) == shares, case


def test_range_gives_the_same_indexes_of_all_topics_to_one_member() -> None:
    shares = assign(pb.ASSIGNOR_RANGE, everything("abc"), dict.fromkeys(TOPICS, 7), {})
    indexes = {member: {p.partition for p in share} for member, share in shares.items()}
    assert indexes == {"a": {0, 1, 2}, "b": {3, 4}, "c": {5, 6}}


def test_round_robin_passes_over_who_does_not_subscribe() -> None:
    first, second = TOPICS[:2]
    subscribed = {"a": frozenset({first}), "b": frozenset({first, second})}
    shares = assign(pb.ASSIGNOR_ROUND_ROBIN, subscribed, {first: 3, second: 2}, {})
    assert {member: sorted(p.partition for p in share) for member, share in shares.items()} == {
        "a": [0, 2],
        "b": [0, 1, 1],
    }


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ([], pb.ASSIGNOR_STICKY),
        ([0, 0], pb.ASSIGNOR_STICKY),
        ([0, 0, pb.ASSIGNOR_RANGE], pb.ASSIGNOR_RANGE),
        ([pb.ASSIGNOR_ROUND_ROBIN, pb.ASSIGNOR_RANGE], pb.ASSIGNOR_RANGE),
        ([pb.ASSIGNOR_ROUND_ROBIN, pb.ASSIGNOR_RANGE, pb.ASSIGNOR_ROUND_ROBIN], pb.ASSIGNOR_ROUND_ROBIN),
    ],
)
def test_the_assignor_is_the_one_most_members_want(wanted: list[int], chosen: int) -> None:
    assert chosen_assignor(wanted) == chosen


@pytest.mark.parametrize("same", [True, False], ids=["equal", "unequal"])
def test_many_partitions_and_members_are_balanced(same: bool) -> None:
    """1,000 partitions, 100 members in a moment: 20 to 40 ms, by hand."""
    chance = random.Random(1)
    topics = [id16(f"topic-{number}") for number in range(50)]
    partitions = dict.fromkeys(topics, 20)
    members = [f"m{number}" for number in range(100)]
    subscribed = {m: frozenset(topics if same else chance.sample(topics, 25)) for m in members}
    before = assign(pb.ASSIGNOR_STICKY, subscribed, partitions, {})
    after = assign(pb.ASSIGNOR_STICKY, subscribed | {"new": frozenset(topics)}, partitions, before)
    assert sizes(after)[-1] - sizes(after)[0] <= 1
    assert moved(before, after) == len(after["new"]) <= 10
