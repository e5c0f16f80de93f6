"""What consumer groups did: who had which partition when, what was handed to whom, what was committed.

A partition's time with one member is a Holding. The member surely believed to have it from `began` to `proved`: `began`
is when it had been told, `proved` the latest beginning of something that it then did as the owner. Where it stood still
afterwards, frozen or dead, it proves nothing, so nothing is held against it.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from penstock.chaos.checker.names import Names
from penstock.chaos.checker.writes import NEVER, OPEN

UNKNOWN_POSITION = -1
NEVER_GRANTED = -1
"""Instead of a generation."""
AUTO, MANUAL, PROCESS = "auto", "manual", "process"
"""Ways to commit: by itself what was asked past; by calls; by itself what was processed."""
MODES = (AUTO, MANUAL, PROCESS)


class Share(NamedTuple):
    """A partition as one group reads it."""

    group: int
    spot: int


@dataclass(slots=True)
class Holding:
    """See the module."""

    share: Share
    process: int
    member: str
    generation: int
    """Of the assignment that told of it."""
    granted: int
    """Generation in which the coordinator granted it."""
    position: int
    """Where the member began to read, that is what was committed; UNKNOWN_POSITION: not said."""
    began: float
    line: int
    read_to: int = UNKNOWN_POSITION
    """After the highest record that it was handed."""
    committed_to: int = UNKNOWN_POSITION
    """The highest offset that it asked to be committed."""
    proved: float = -1.0
    """Before `began`: there is no proof."""


class Passed(NamedTuple):
    """Records of a share, [first, end), that a member had done with, so that an offset up to `end` may be committed."""

    at: float
    first: int
    end: int


@dataclass(slots=True)
class Commit:
    """An offset that a member asked to be committed, by a call."""

    share: Share
    process: int
    op: int
    offset: int
    granted: int
    """Of the member's holding, the latest one; NEVER_GRANTED: it had none."""
    is_held: bool
    """The member had not released or lost it before."""
    most: int
    """Up to where it may commit, by what it was handed; UNKNOWN_POSITION: not known."""
    at: float
    """When it began, by the member's own clock."""
    completed: float = NEVER
    outcome: int = OPEN


class Committed(NamedTuple):
    """An offset that was committed, as it was told in the end."""

    share: Share
    offset: int
    line: int
    at: float


class RanOn(NamedTuple):
    """A record whose handler ended after its member had given the partition up, which says that all of them have."""

    share: Share
    process: int
    offset: int
    line: int
    began: float
    """The handler did."""
    at: float
    """It ended."""


@dataclass(slots=True)
class Drain:
    """Whether a group had read everything in the end."""

    group: int
    drained: bool
    waited_s: float
    unread: list[str]
    line: int
    at: float


@dataclass(slots=True)
class Backward:
    """An assignment whose generations are out of order."""

    process: int
    group: int
    message: str
    line: int
    at: float


@dataclass(slots=True)
class Memberships:
    """All groups of a history."""

    groups: Names[str] = field(default_factory=Names)
    topics: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    """By group: what its members subscribe to."""
    holdings: dict[Share, list[Holding]] = field(default_factory=lambda: defaultdict(list))
    """In the order of `began`."""
    passed: dict[Share, list[Passed]] = field(default_factory=lambda: defaultdict(list))
    handed: dict[Share, bytearray] = field(default_factory=lambda: defaultdict(bytearray))
    """By offset: 1 where a member was handed the record."""
    commits: list[Commit] = field(default_factory=list)
    committed: dict[Share, Committed] = field(default_factory=dict)
    """In the end."""
    ran_on: list[RanOn] = field(default_factory=list)
    drains: list[Drain] = field(default_factory=list)
    backward: list[Backward] = field(default_factory=list)

    def hand(self, share: Share, first: int, end: int) -> None:
        """Note that records were handed out."""
        marks = self.handed[share]
        if len(marks) < end:
            marks.extend(bytes(end - len(marks)))
        marks[first:end] = b"\1" * (end - first)
