"""What `Admin` answers with about consumer groups: frozen, made from messages by `group_messages`."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from penstock.client.records import CommittedOffset, Timestamp
from penstock.protocol.errors import PenstockError

GroupState: TypeAlias = Literal["empty", "rebalancing", "stable"]
"""Without members; some member has yet to give up or to get partitions; all as it is to be."""
AssignorName: TypeAlias = Literal["sticky", "range", "roundrobin"]


class Shift(NamedTuple):
    """A position by distance: so many offsets from the committed one, forward or, below 0, back; within the log."""

    offsets: int


ResetPoint: TypeAlias = int | Literal["earliest", "latest"] | Timestamp | Shift
"""Where a group is to go on: an offset, an end of the log, the first record at or after a time, or a distance."""


@dataclass(frozen=True, slots=True)
class GroupSummary:
    """A group in a list."""

    group_id: str
    state: GroupState | str
    generation: int
    assignor: AssignorName | str | None
    """None: no member has said one."""
    members: int
    coordinator: int | None
    """The node that coordinates it; None: none does now."""


@dataclass(frozen=True, slots=True)
class MemberPartitionDescription:
    """A partition that a member has, or is to have."""

    topic_id: bytes
    topic: str
    partition: int
    owned: bool
    """Else: it waits for its former owner."""
    revoked: bool
    """Owned, and to be given up."""


@dataclass(frozen=True, slots=True)
class MemberDescription:
    """A member of a group."""

    member_id: str
    instance_id: str | None
    """Of a static member."""
    client_id: str
    host: str
    topics: tuple[str, ...]
    """Subscribed by name."""
    pattern: str | None
    """Subscribed by pattern."""
    joined_ms: int
    partitions: tuple[MemberPartitionDescription, ...]
    """By topic and partition."""
    session_timeout_ms: int
    rebalance_timeout_ms: int
    max_poll_interval_ms: int | None
    """None: not watched."""
    assignor: AssignorName | str | None
    """That it wants; None: any."""


@dataclass(frozen=True, slots=True)
class GroupPartitionDescription:
    """A partition that a group has assigned, or has a committed offset in."""

    topic_id: bytes
    topic: str
    partition: int
    member_id: str | None
    """Who has it; None: nobody now."""
    committed: CommittedOffset | None
    log_start_offset: int | None
    log_end_offset: int | None
    """Its high watermark. None, as the next two: not asked for, or see `error`."""
    lag: int | None
    """Offsets from the committed one, or the log start if that is higher, to the end. None: none is committed, too."""
    lag_time_ms: int | None
    """How long ago the next record to read was written; 0 where the lag is 0."""
    error: PenstockError | None = None
    """Why the ends are not known."""


@dataclass(frozen=True, slots=True)
class GroupLag:
    """How far a group is behind, over some of its partitions."""

    offsets: int | None
    """Sum over those of which it is known; None: of none."""
    time_ms: int | None
    """Of the partition that is furthest behind in time."""
    partitions: int
    unknown: int
    """Partitions of which the lag is not known: nothing is committed, or their leader did not answer."""

    @classmethod
    def of(cls, partitions: Iterable[GroupPartitionDescription]) -> "GroupLag":
        """Sum up."""
        found = list(partitions)
        lags = [one.lag for one in found if one.lag is not None]
        times = [one.lag_time_ms for one in found if one.lag_time_ms is not None]
        return cls(sum(lags) if lags else None, max(times, default=None), len(found), len(found) - len(lags))


@dataclass(frozen=True, slots=True)
class GroupDescription:
    """A group with its members and partitions."""

    group_id: str
    state: GroupState | str
    generation: int
    assignor: AssignorName | str | None
    coordinator: int | None
    members: tuple[MemberDescription, ...]
    """By member_id."""
    partitions: tuple[GroupPartitionDescription, ...]
    """By topic and partition: those assigned, and those with a committed offset."""
    last_rebalance_cause: str
    last_rebalance_ms: int | None
    """None: there was none."""

    @property
    def lag(self) -> GroupLag:
        """Of all its partitions."""
        return GroupLag.of(self.partitions)


@dataclass(frozen=True, slots=True)
class OffsetsCommitted:
    """A commit in a group's history: one partition."""

    time_ms: int
    topic_id: bytes
    topic: str | None
    """None: deleted since."""
    partition: int
    offset: int
    metadata: str
    member_id: str | None
    """None: by no member."""
    client_id: str
    generation: int
    removed: bool
    """The offset was deleted: it expired, or went with its group or topic."""


@dataclass(frozen=True, slots=True)
class MemberShare:
    """How many partitions a member was to have in a generation."""

    member_id: str
    client_id: str
    partitions: int


@dataclass(frozen=True, slots=True)
class GroupRebalanced:
    """A rebalance in a group's history."""

    time_ms: int
    generation: int
    cause: str
    members: tuple[MemberShare, ...]


GroupEvent: TypeAlias = OffsetsCommitted | GroupRebalanced


@dataclass(frozen=True, slots=True)
class OffsetReset:
    """What became of a partition whose committed offset was moved, or would become."""

    topic_id: bytes
    topic: str
    partition: int
    previous_offset: int | None
    """None: nothing was committed."""
    offset: int | None
    """Where the group goes on; None: see `error`, nothing was changed here."""
    error: PenstockError | None = None


@dataclass(frozen=True, slots=True)
class AlteredOffset:
    """What became of a partition's offset that was committed for a group."""

    topic: str
    partition: int
    offset: int
    error: PenstockError | None = None
    """Set: nothing was changed here; of unknown outcome where its reason says so."""
