"""What clients read, one row for each partition in a poll, and where it was not simply the next records in turn."""

from array import array
from typing import NamedTuple

UNCOMMITTED, COMMITTED = 0, 1
"""Isolations."""
ISOLATIONS = ("read_uncommitted", "read_committed")
NO_OFFSET = -1


class Gap(NamedTuple):
    """Offsets within a poll's positions that it did not give: [first, end)."""

    poll: int
    first: int
    end: int


class Back(NamedTuple):
    """A record in a poll that came after one of a higher or the same offset."""

    poll: int
    former: int
    offset: int


class Outside(NamedTuple):
    """A record that is not between its poll's positions."""

    poll: int
    offset: int


class Jump(NamedTuple):
    """A poll that did not begin where its process stood."""

    poll: int
    expected: int
    lowest: int
    """The lowest offset that it gave; NO_OFFSET: it gave none."""
    assigned: bool
    """`expected` is the position of an `assign`, not the end of the poll before."""


class Polls:
    """Columns, in the order of completion."""

    def __init__(self) -> None:
        self.processes = array("i")
        self.spots = array("i")
        self.isolations = bytearray()
        self.finals = bytearray()
        self.began = array("d")
        self.ended = array("d")
        self.starts = array("q")
        self.ends = array("q")
        self.highest = array("q")
        """The highest offset that was given; NO_OFFSET: none."""
        self.lines = array("I")
        self.gaps: list[Gap] = []
        self.backs: list[Back] = []
        self.outside: list[Outside] = []
        self.jumps: list[Jump] = []
        self.backwards: list[int] = []
        """Polls whose position after is below the one before."""

    def __len__(self) -> int:
        return len(self.lines)
