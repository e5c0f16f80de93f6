"""The invariants of groups on what images, logs and members may show: what keeps them, and what breaks each."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from penstock.internal.v1.offsets_pb2 import CommitKey, CommitValue, OffsetsKey
from penstock.protocol.batch import NewRecord, build, header_of
from penstock.raft.image import (
    EMPTY_IMAGE,
    OFFSETS_TOPIC,
    GroupInfo,
    GroupPartition,
    MemberInfo,
    PartitionInfo,
    TopicConfig,
    TopicInfo,
)
from penstock.storage import LogBatch, PartitionKey
from tests.simulation.cluster.checks import Violation
from tests.simulation.cluster.group import GROUP, Group, Tenure, group_of
from tests.simulation.cluster.group_invariants import GROUP_INVARIANTS
from tests.simulation.cluster.history import Content, Row, Spot
from tests.simulation.cluster.plan import Options
from tests.simulation.cluster.world import World

TOPIC, OFFSETS = b"t" * 16, b"o" * 16
SPOT = Spot(TOPIC, 0)


class Believing:
    """A member that believes to own something."""

    def __init__(self, member_id: str) -> None:
        self.member_id = member_id

    def believes(self, member_id: str, spot: Spot) -> bool:
        return member_id == self.member_id and spot == SPOT


class Shown:
    """A world that does not run; the test shows it images, commits and what members did."""

    def __init__(self) -> None:
        self.world = World(0, (), options=Options(members=2))
        self.group: Group = group_of(self.world.checks)
        self.group.members = []
        self._invariants = [kind(self.world.checks) for kind in GROUP_INVARIANTS]
        self._image = replace(
            EMPTY_IMAGE, topics={TOPIC: topic(TOPIC, "orders"), OFFSETS: topic(OFFSETS, OFFSETS_TOPIC)}
        )
        self.world.checks.image = self._image
        self._end = 0

    def owned(self, generation: int, members: Mapping[str, int | None]) -> None:
        """An image in which members own SPOT since a generation, or do not."""
        infos = {
            member_id: MemberInfo(member_id, owned={} if granted is None else {GroupPartition(*SPOT): granted})
            for member_id, granted in members.items()
        }
        version = self._image.version + 1
        info = GroupInfo(GROUP, version, generation, members=infos)
        self._image = replace(self._image, version=version, groups={GROUP: info})
        former, self.world.checks.image = self.world.checks.image, self._image
        for invariant in self._invariants:
            invariant.on_image(former, self._image)

    def committed(self, offset: int, member_id: str, generation: int, sequence: int = 1) -> None:
        """A commit of SPOT is below the high watermark now."""
        key = OffsetsKey(commit=CommitKey(group_id=GROUP, topic_id=TOPIC, partition=0))
        value = CommitValue(offset=offset, member_id=member_id, generation=generation, sequence=sequence)
        message = build([NewRecord(key.SerializeToString(), value.SerializeToString(), 1)])
        batch = LogBatch(self._end, self._end, 0, 1, header_of(message), message.SerializeToString())
        self._end += 1
        truth = self.world.checks.truth(PartitionKey(OFFSETS, 0))
        for invariant in self._invariants:
            invariant.on_extended(self.world.machines[1], truth, batch)

    def given(self, member_id: str, offset: int) -> Tenure:
        """A member is assigned SPOT, is given a record, and asks for more."""
        tenure = self.group.assigned(member_id, SPOT, "orders", self.group.begin(SPOT))
        self.group.given(tenure, offset)
        tenure.asked = tenure.handed
        return tenure

    def breach(self) -> str:
        """The invariant that failed first."""
        return str(self.world.scheduler.failure or "").partition(":")[0]


def topic(topic_id: bytes, name: str) -> TopicInfo:
    return TopicInfo(
        topic_id, name, TopicConfig(), (PartitionInfo(0, (1,), (1,), (), 1, 0, 0, 0),), name == OFFSETS_TOPIC
    )


@pytest.fixture
def shown() -> Shown:
    return Shown()


def test_a_partition_that_moves_in_order(shown: Shown) -> None:
    shown.owned(1, {"a": 1})
    shown.given("a", 0)
    shown.committed(1, "a", 1)
    shown.owned(2, {"a": None, "b": None})
    shown.owned(2, {"a": None, "b": 2})
    shown.given("b", 1)
    shown.committed(2, "b", 2)
    assert shown.breach() == ""
    assert shown.group.commits[SPOT].offset == 2


def test_two_owners(shown: Shown) -> None:
    shown.owned(1, {"a": 1, "b": 1})
    assert shown.breach() == "OneOwnerAPartition"


def test_a_former_owner_that_does_not_know_it(shown: Shown) -> None:
    shown.owned(1, {"a": 1})
    shown.group.members.append(Believing("a"))
    shown.owned(2, {"b": None, "a": None})
    assert shown.breach() == "OneOwnerAPartition"


def test_a_former_owner_that_is_gone(shown: Shown) -> None:
    shown.owned(1, {"a": 1})
    shown.group.members.append(Believing("b"))
    shown.owned(2, {"b": 2})
    assert shown.breach() == ""


@pytest.mark.parametrize("granted", [1, 2])
def test_a_second_grant_in_a_generation(shown: Shown, granted: int) -> None:
    shown.owned(2, {"a": 2, "b": None})
    shown.owned(2, {"a": None, "b": granted})
    assert shown.breach() == "GrantsAreOnce"


def test_a_grant_of_a_generation_to_come(shown: Shown) -> None:
    shown.owned(1, {"a": 2})
    assert shown.breach() == "GrantsAreOnce"


def test_a_static_member_has_what_it_had(shown: Shown) -> None:
    shown.owned(1, {"a": 1})
    shown.owned(2, {"again": 1})
    shown.given("again", 0)
    shown.committed(1, "again", 2)
    assert shown.breach() == ""


def test_a_generation_that_goes_back(shown: Shown) -> None:
    shown.owned(2, {"a": 2})
    shown.owned(1, {"a": 2})
    assert shown.breach() == "GrantsAreOnce"


def test_a_record_for_a_former_owner(shown: Shown) -> None:
    shown.owned(1, {"a": 1})
    shown.owned(2, {"b": 2})
    shown.given("a", 0)
    assert shown.breach() == "OnlyOwnersRead"


@pytest.mark.parametrize(("member_id", "generation"), [("a", 2), ("b", 1)])
def test_a_commit_from_before_the_grant(shown: Shown, member_id: str, generation: int) -> None:
    shown.owned(1, {"a": 1})
    shown.given("a", 0)
    shown.owned(2, {"b": 2})
    shown.given("b", 0)
    shown.committed(1, member_id, generation)
    assert shown.breach() == "CommitsAreOfOwners"


def test_a_commit_of_who_left_without_a_successor(shown: Shown) -> None:
    shown.owned(1, {"a": 1})
    shown.given("a", 0)
    shown.owned(2, {"b": None})
    shown.committed(1, "a", 1)
    assert shown.breach() == ""


@pytest.mark.parametrize(("offset", "sequence"), [(1, 3), (3, 1)])
def test_a_commit_that_goes_back(shown: Shown, offset: int, sequence: int) -> None:
    shown.owned(1, {"a": 1})
    shown.given("a", 5)
    shown.committed(2, "a", 1, sequence=2)
    shown.committed(offset, "a", 1, sequence)
    assert shown.breach() == "CommitsNeverGoBack"


def test_a_commit_of_what_was_not_asked_past(shown: Shown) -> None:
    shown.owned(1, {"a": 1})
    tenure = shown.given("a", 0)
    shown.group.given(tenure, 1)
    shown.committed(2, "a", 1)
    assert shown.breach() == "NothingIsSkipped"


def test_a_commit_that_is_acknowledged_too_early(shown: Shown) -> None:
    shown.owned(1, {"a": 1})
    tenure = shown.given("a", 4)
    shown.committed(4, "a", 1)
    shown.group.acknowledged(tenure, 5)
    assert shown.breach() == "CommitsAreDurable"


def test_a_commit_of_a_topic_that_was_deleted_since(shown: Shown) -> None:
    shown.owned(1, {"a": 1})
    tenure = shown.given("a", 4)
    shown.world.checks.image = replace(shown.world.checks.image, topics={})
    shown.group.acknowledged(tenure, 5)
    shown.group.shown(SPOT, 5)
    assert shown.breach() == ""


def test_a_commit_that_is_shown_too_early(shown: Shown) -> None:
    shown.owned(1, {"a": 1})
    shown.given("a", 4)
    shown.committed(4, "a", 1)
    shown.group.shown(SPOT, 4)
    assert shown.breach() == ""
    shown.group.shown(SPOT, 5)
    assert shown.breach() == "OnlyCommittedIsShown"


def test_an_owner_begins_where_the_former_one_committed(shown: Shown) -> None:
    shown.owned(1, {"a": 1})
    shown.given("a", 6)
    shown.committed(5, "a", 1)
    shown.owned(2, {"b": 2})
    shown.group.assigned("b", SPOT, "orders", 5)
    assert shown.breach() == ""
    shown.group.assigned("b", SPOT, "orders", 0)
    assert shown.breach() == "BeginsAtTheCommit"


def test_after_a_break_an_owner_may_begin_below_a_late_commit_of_its_own(shown: Shown) -> None:
    shown.owned(1, {"a": 1})
    shown.given("a", 6)
    shown.committed(5, "a", 1)
    shown.group.assigned("a", SPOT, "orders", 0)
    shown.committed(3, "a", 1, sequence=2)
    assert shown.breach() == ""
    shown.group.assigned("a", SPOT, "orders", 3)
    shown.committed(2, "a", 1, sequence=3)
    assert shown.breach() == "CommitsNeverGoBack"


@pytest.mark.parametrize(("given", "committed", "error"), [(1, 2, "GroupIsGivenAll"), (2, 1, "AllIsCommitted")])
def test_the_end(shown: Shown, given: int, committed: int, error: str) -> None:
    content = Content({"orders": TOPIC}, {SPOT: [Row(0, 0, b"x"), Row(1, 0, b"y")]})
    shown.owned(1, {"a": 1})
    for offset in range(2):
        shown.given("a", offset)
    shown.committed(2, "a", 1)
    shown.group.check(content)
    shown.group.handed[SPOT] = set(range(given))
    shown.group.commits[SPOT] = shown.group.commits[SPOT]._replace(offset=committed)
    with pytest.raises(Violation, match=error):
        shown.group.check(content)
