"""What a world knows of its consumer group: what is committed for it, and what its members have and were given.

Members report to it as they go. It is part of the oracle: `group_invariants` and the members compare with it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from penstock.internal.v1.offsets_pb2 import CommitValue, OffsetsKey
from penstock.raft.image import OFFSETS_TOPIC, GroupInfo, GroupPartition, offsets_index
from penstock.storage import PartitionKey
from tests.simulation.cluster.checks import Checks, Known, Violation, records_of
from tests.simulation.cluster.history import Content, Spot

if TYPE_CHECKING:
    from tests.simulation.cluster.world import World

GROUP = "readers"


class Committed(NamedTuple):
    """A commit, as the log of __offsets has it."""

    offset: int
    member_id: str
    generation: int
    sequence: int


@dataclass(slots=True)
class Tenure:
    """What a member was given of a partition, from its assignment on."""

    member_id: str
    spot: Spot
    topic: str
    start: int
    """Where it was told to begin: what was committed then, or the log start."""
    handed: int
    """Offset after the last record that the application was given."""
    passed: int = 0
    """The position after that, past records that are gone."""
    generation: int = 0
    """That the member knew when it was told."""
    asked: int = 0
    """What a commit may name at most: what was given out before the application asked for more, or committed itself."""
    is_continued: bool = False
    """The member had it before, lost it, and has it again."""


class Believer(Protocol):
    """A member's process."""

    def believes(self, member_id: str, spot: Spot) -> bool:
        """Whether it lives and would give out records of the partition at this moment."""


@dataclass
class Group:
    """See the module."""

    world: "World"
    members: list[Believer] = field(default_factory=list)
    commits: dict[Spot, Committed] = field(default_factory=dict)
    """The latest that is below the high watermark of its partition of __offsets."""
    tenures: dict[tuple[str, Spot], Tenure] = field(default_factory=dict)
    """The latest of each member and partition."""
    handed: dict[Spot, set[int]] = field(default_factory=dict)
    """Offsets whose records were given out, to whomever."""
    granted: dict[Spot, tuple[int, str]] = field(default_factory=dict)
    """Generation and member of the latest grant."""
    beginnings: dict[Spot, set[int]] = field(default_factory=dict)
    """What was committed at the latest grant, and since: where its owner may begin. After a break it may be told less
    than what a commit of its own, still under way then, comes to: it reads that again."""

    # ---- the cluster's side

    @property
    def info(self) -> GroupInfo | None:
        """As the newest image has it."""
        return self.world.checks.image.groups.get(GROUP)

    def place(self) -> PartitionKey | None:
        """Give the partition of __offsets whose leader coordinates the group; None before there is one."""
        image = self.world.checks.image
        topic = image.topics.get(image.topic_ids.get(OFFSETS_TOPIC, b""))
        return None if topic is None else PartitionKey(topic.topic_id, offsets_index(GROUP, len(topic.partitions)))

    def owner(self, spot: Spot) -> str | None:
        """Give the member that owns the partition in the newest image."""
        members = () if self.info is None else self.info.members.values()
        return next((member.member_id for member in members if GroupPartition(*spot) in member.owned), None)

    def note_grant(self, spot: Spot, generation: int, member_id: str) -> None:
        """The partition was granted to a member."""
        self.granted[spot] = generation, member_id
        self.beginnings[spot] = {self.begin(spot)}

    def note_commit(self, spot: Spot, commit: Committed | None) -> None:
        """A commit is below the high watermark now; None: it was deleted."""
        if commit is None:
            self.commits.pop(spot, None)
        else:
            self.commits[spot] = commit
        self.beginnings.setdefault(spot, set()).add(self.begin(spot))

    def begin(self, spot: Spot) -> int:
        """Give where an owner begins now."""
        committed = self.commits.get(spot)
        return 0 if committed is None else committed.offset

    # ---- told by members

    def assigned(self, member_id: str, spot: Spot, topic: str, start: int) -> Tenure:
        """A member was told that it has a partition, and to begin there."""
        if spot.topic_id in self.world.checks.image.topics and start not in self.beginnings.get(spot, ()):
            text = f"{member_id} was told to begin in {spot} at {start}, committed is {self.commits.get(spot)}"
            self.world.fail(Violation(f"BeginsAtTheCommit: {text}"))
        former = self.tenures.get((member_id, spot))
        asked = start if former is None else max(start, former.asked)  # what is under way of that one may yet come
        tenure = self.tenures[member_id, spot] = Tenure(member_id, spot, topic, start, start, asked=asked)
        tenure.is_continued = former is not None
        self.handed.setdefault(spot, set())
        self.world.checks.count("group: assigned")
        return tenure

    def given(self, tenure: Tenure, offset: int) -> None:
        """A member was given a record; it must own the partition at that moment, unless that is deleted."""
        owner = self.owner(tenure.spot)
        if owner != tenure.member_id and tenure.spot.topic_id in self.world.checks.image.topics:
            text = f"{tenure.member_id} was given {tenure.spot}@{offset}, which is {owner}'s"
            self.world.fail(Violation(f"OnlyOwnersRead: {text}"))
        self.handed[tenure.spot].add(offset)
        tenure.handed = offset + 1
        self.world.checks.count("group: records")

    def acknowledged(self, tenure: Tenure, offset: int) -> None:
        """A member was told that its commit is durable. With a topic its commits go: then nobody can tell."""
        committed = self.commits.get(tenure.spot)
        is_there = tenure.spot.topic_id in self.world.checks.image.topics
        if is_there and (committed is None or committed.offset < offset):
            text = f"{tenure.member_id} was told that {offset} of {tenure.spot} is committed, there is {committed}"
            self.world.fail(Violation(f"CommitsAreDurable: {text}"))
        self.world.checks.count("group: commits acknowledged")

    def shown(self, spot: Spot, offset: int) -> None:
        """Somebody was told what is committed."""
        committed = self.commits.get(spot)
        if spot.topic_id in self.world.checks.image.topics and (committed is None or committed.offset < offset):
            text = f"{offset} of {spot} is shown as committed, there is {committed}"
            self.world.fail(Violation(f"OnlyCommittedIsShown: {text}"))
        self.world.checks.count("group: commits shown")

    # ---- the end

    def is_drained(self) -> bool:
        """Whether every record that is there was given to the group, and is committed."""
        return next(self._left(), None) is None

    def left(self) -> str:
        """What was not."""
        return ", ".join(f"{spot}@{offset}" for spot, offset in list(self._left())[:5])

    def _left(self) -> Iterator[tuple[Spot, int]]:
        image = self.world.checks.image
        for topic in image.topics.values():
            for info in () if topic.internal else topic.partitions:
                spot = Spot(topic.topic_id, info.partition)
                given, committed = self.handed.get(spot, set()), self.commits.get(spot)
                for offset in self._offsets(spot, info.leader):
                    if offset not in given or committed is None or committed.offset <= offset:
                        yield spot, offset

    def _offsets(self, spot: Spot, leader: int) -> Iterator[int]:
        """Of the records that the leader has."""
        machine = self.world.machines.get(leader)
        held = None if machine is None else machine.durable(PartitionKey(*spot))
        if held is not None:
            offsets = (known.offset for batch in held.batches for known in records_of(batch))
            yield from (offset for offset in offsets if offset >= held.log_start_offset)

    def check(self, content: Content) -> None:
        """In the end: all that is there was given to the group, and committed up to there."""
        for spot, rows in content.rows.items():
            given = self.handed.get(spot, set())
            missing = [row.offset for row in rows if row.offset not in given]
            if missing:
                raise Violation(f"GroupIsGivenAll: of {spot} {missing} were given to no member")
            committed = self.commits.get(spot)
            if rows and (committed is None or committed.offset <= rows[-1].offset):
                raise Violation(f"AllIsCommitted: {spot} was read up to {rows[-1].offset}, committed is {committed}")


def commits_of(known: Known) -> tuple[Spot, Committed | None] | None:
    """Read a record of __offsets; None where it is no commit of the group. A tombstone has no commit."""
    key = OffsetsKey.FromString(known.key or b"")
    if key.WhichOneof("kind") != "commit" or key.commit.group_id != GROUP:
        return None
    spot = Spot(key.commit.topic_id, key.commit.partition)
    if known.value is None:
        return spot, None
    value = CommitValue.FromString(known.value)
    return spot, Committed(value.offset, value.member_id, value.generation, value.sequence)


def group_of(checks: Checks) -> Group:
    """Give the group of a world that has one."""
    assert checks.group is not None
    return checks.group
