"""What clients wrote: one row a value, in columns, because a history has millions of them.

Rows are in the order of invocation. A value has one row. The values of an append follow each other.
"""

import math
from array import array

OPEN, OK, FAIL, INFO = range(4)
"""Outcomes; OPEN: never completed, which is as INFO."""
SURVIVES, ONCE, APPEND = 1, 2, 4
"""Flags: acks=all promises that it stays; idempotent, so it is there once; part of an append."""
NEVER = math.inf
UNKNOWN = -1
"""An offset or leader epoch that was not said."""


class Writes:
    """Columns of sends and of the values of appends."""

    def __init__(self) -> None:
        self.rows: dict[int, int] = {}
        """By value."""
        self.values = array("q")
        self.spots = array("i")
        """Where it was sent to."""
        self.ops = array("q")
        self.processes = array("i")
        self.flags = bytearray()
        self.outcomes = bytearray()
        self.keys = array("i")
        """In Facts.keys; UNKNOWN: none, or none that matters."""
        self.sizes = array("i")
        """Bytes of key and value; UNKNOWN: not said."""
        self.tombstones = bytearray()
        """1: it has no value."""
        self.invoked = array("d")
        self.completed = array("d")
        self.offsets = array("q")
        """As acknowledged."""
        self.epochs = array("i")
        """As acknowledged."""
        self.place_spots = array("i")
        """Where it was read first; UNKNOWN: nobody read it."""
        self.place_offsets = array("q")
        self.acknowledged = array("i")
        """Rows that are promised to stay, in the order of their acknowledgements."""

    def add(self, value: int, spot: int, op: int, process: int, flags: int, at: float) -> int:
        """Add an invoked write; its row."""
        row = len(self.values)
        self.rows[value] = row
        self.values.append(value)
        self.spots.append(spot)
        self.ops.append(op)
        self.processes.append(process)
        self.flags.append(flags)
        self.outcomes.append(OPEN)
        self.keys.append(UNKNOWN)
        self.sizes.append(UNKNOWN)
        self.tombstones.append(0)
        self.invoked.append(at)
        self.completed.append(NEVER)
        self.offsets.append(UNKNOWN)
        self.epochs.append(UNKNOWN)
        self.place_spots.append(UNKNOWN)
        self.place_offsets.append(UNKNOWN)
        return row

    def place(self, row: int) -> int:
        """Give the offset at which a write is known to be in the log it was sent to; UNKNOWN: it is not known."""
        if self.outcomes[row] == OK and self.flags[row] & SURVIVES:
            return self.offsets[row]
        return self.place_offsets[row] if self.place_spots[row] == self.spots[row] else UNKNOWN

    def succeed(self, row: int, offset: int, epoch: int, at: float) -> None:
        """Note an acknowledgement."""
        self.outcomes[row] = OK
        self.completed[row] = at
        self.offsets[row] = offset
        self.epochs[row] = epoch
        if self.flags[row] & SURVIVES:
            self.acknowledged.append(row)

    def end(self, row: int, outcome: int, at: float) -> None:
        """Note a completion without an offset."""
        self.outcomes[row] = outcome
        self.completed[row] = at


class Appends:
    """Columns of appends: their rows in Writes, and where they expected the log to end."""

    def __init__(self) -> None:
        self.first_rows = array("i")
        self.counts = array("i")
        self.expected = array("q")
        """UNKNOWN: an append without condition."""

    def __len__(self) -> int:
        return len(self.counts)

    def add(self, first_row: int, count: int, expected: int) -> int:
        """Add one; its number."""
        self.first_rows.append(first_row)
        self.counts.append(count)
        self.expected.append(expected)
        return len(self.counts) - 1

    def rows(self, number: int) -> range:
        """Rows of an append, in the order of its values."""
        first = self.first_rows[number]
        return range(first, first + self.counts[number])
