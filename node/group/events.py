"""What a group's core tells its shell to do: plain values, performed in their order. Streams go by their numbers."""

from dataclasses import dataclass
from typing import NamedTuple

from penstock.protocol.errors import PenstockError
from penstock.raft.image import GroupPartition, MemberInfo


@dataclass(frozen=True, slots=True)
class Joined:
    """The stream's member is in the group: answer its JoinStart."""

    stream: int
    member: MemberInfo
    generation: int


@dataclass(frozen=True, slots=True)
class Assign:
    """The member's assignment is another: send it as it is when there is room (`GroupCore.assignment`)."""

    stream: int


@dataclass(frozen=True, slots=True)
class End:
    """End the stream, with this error if there is one."""

    stream: int
    error: PenstockError | None = None


Output = Joined | Assign | End
Outputs = list[Output]


class Assigned(NamedTuple):
    """What a member has, at one moment."""

    generation: int
    partitions: list[tuple[GroupPartition, int]]
    """To read, in order, with the generation in which it got each."""
    revoked: list[GroupPartition]
    """To give up, in order."""
    release_within_ms: int
    """What is left of the time for the first of them."""
