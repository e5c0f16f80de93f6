"""What was read of each partition: by offset the first reading of it, and what later ones said otherwise.

An offset far above all others (by more than FARTHEST) is not entered, so that a broken one does not take all memory; it
counts for its value's place and its poll's positions only.
"""

from array import array
from typing import NamedTuple

NOTHING = -(2**63)
"""No value: nobody read this offset."""
READ, FINAL_UNCOMMITTED, FINAL_COMMITTED = 1, 2, 4
"""Flags of an offset: read at all; in the final reading of that isolation."""
FINAL = FINAL_UNCOMMITTED | FINAL_COMMITTED
FARTHEST = 1 << 22
"""Offsets."""


class Claim(NamedTuple):
    """A record that a poll gave."""

    spot: int
    offset: int
    value: int
    epoch: int
    poll: int
    """Its row in Polls."""


class PartitionLog:
    """One partition by offset."""

    __slots__ = ("_known", "epochs", "polls", "seen", "values")

    def __init__(self) -> None:
        self.values = array("q")
        self.epochs = array("i")
        self.seen = bytearray()
        self.polls = array("i")
        """Row in Polls of the first reading."""
        self._known: array[int] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def grow(self, length: int) -> bool:
        """Make room for offsets below `length`; False where that is too far."""
        more = length - len(self.values)
        if more > FARTHEST:
            return False
        if more > 0:
            self.values.extend(array("q", [NOTHING]) * more)
            self.epochs.extend(array("i", [-1]) * more)
            self.seen.extend(bytes(more))
            self.polls.extend(array("i", [-1]) * more)
        return True

    def known_between(self, first: int, end: int) -> int:
        """How many offsets in [first, end) hold a record that somebody read. Only when all is read in."""
        if self._known is None:
            self._known = array("q", [0])
            count = 0
            for flags in self.seen:
                count += flags & READ
                self._known.append(count)
        top = len(self.seen)
        return self._known[min(end, top)] - self._known[min(first, top)] if end > first else 0
