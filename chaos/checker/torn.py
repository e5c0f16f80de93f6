"""Anomalies of appends, which are there whole and in a row, where they were to be, or not at all."""

from collections.abc import Iterator
from typing import ClassVar

from penstock.chaos.checker.anomaly import at
from penstock.chaos.checker.facts import Facts
from penstock.chaos.checker.verdict import Anomaly
from penstock.chaos.checker.writes import OK, UNKNOWN


class TornAppend:
    """The values of an append are not there all, in their order, in a row, and at the offset that it expected.

    An append is one batch: one unit of everything (DESIGN §4), and `expected_offset` makes it conditional (§7). So an
    anomaly is an append, acknowledged or not, of which in the partition it was sent to
    - some values were read, and in a whole final reading others are missing;
    - two values were read whose distance is not that of their places in the append;
    - with `expected`: the acknowledgement names, or a read shows, another offset than the expected one.
    """

    kind: ClassVar[str] = "torn-append"

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """See Check."""
        final = set(facts.final_spots())
        for number in range(len(facts.appends)):
            message = self._what(facts, number, final)
            if message is not None:
                row = facts.appends.first_rows[number]
                prefix = f"the append of {facts.appends.counts[number]} values from {facts.writes.values[row]} on"
                text = f"{prefix} by {facts.writer(row)} {message}"
                yield at(facts, self.kind, text, facts.writes.spots[row], facts.write_operation(row))

    def _what(self, facts: Facts, number: int, final: set[int]) -> str | None:
        writes, rows, expected = facts.writes, facts.appends.rows(number), facts.appends.expected[number]
        spot = writes.spots[rows[0]]
        if expected != UNKNOWN and writes.outcomes[rows[0]] == OK and writes.offsets[rows[0]] != expected:
            return f"expected {expected}, and was acknowledged at {writes.offsets[rows[0]]}"
        found = [row for row in rows if writes.place_spots[row] == spot]
        if not found:
            return None
        offsets = [writes.place_offsets[row] for row in found]
        bases = {writes.place_offsets[row] - (row - rows[0]) for row in found}
        if len(bases) > 1:
            return f"is not in a row: {facts.spots[spot]}@{offsets}"
        base = bases.pop()
        unread = [row for row in rows if writes.place_spots[row] != spot]
        missing = [writes.values[row] for row in unread if not facts.may_be_gone(spot, base + row - rows[0])]
        if missing and spot in final:
            return f"is there in part: {facts.spots[spot]}@{offsets}, without {missing}"
        if expected not in (UNKNOWN, base):
            return f"expected {expected}, and is at {facts.spots[spot]}@{base}"
        return None
