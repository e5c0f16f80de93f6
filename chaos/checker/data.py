"""Anomalies of what is in a log: changed, doubled, invented, torn records. Those that are missing are in `missing`."""

from collections import defaultdict
from collections.abc import Iterator
from typing import ClassVar

from penstock.chaos.checker.anomaly import at
from penstock.chaos.checker.facts import Facts
from penstock.chaos.checker.logs import NOTHING, Claim
from penstock.chaos.checker.verdict import Anomaly, Operation
from penstock.chaos.checker.writes import FAIL, OK, ONCE, SURVIVES, UNKNOWN


class InconsistentOffsets:
    """One offset of a partition has two values, over all acknowledgements with acks=all and all reads.

    Jepsen's Kafka workload, `inconsistent-offsets`. An acknowledgement of the leader alone is no promise: another
    leader may give the offset to another record.
    """

    kind: ClassVar[str] = "inconsistent-offsets"

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """See Check."""
        yield from self._reads(facts)
        yield from self._acknowledgements(facts)

    def _reads(self, facts: Facts) -> Iterator[Anomaly]:
        known = set()
        for claim in facts.contradicted:
            log = facts.logs[claim.spot]
            former, key = log.values[claim.offset], (claim.spot, claim.offset, claim.value)
            if former == claim.value or key in known:
                continue
            known.add(key)
            first = log.polls[claim.offset]
            message = (
                f"{facts.spots[claim.spot]}@{claim.offset} is {former} as {facts.reader(first)} read it, "
                f"and {claim.value} as {facts.reader(claim.poll)} read it"
            )
            yield at(
                facts, self.kind, message, claim.spot, facts.poll_operation(first), facts.poll_operation(claim.poll)
            )

    def _acknowledgements(self, facts: Facts) -> Iterator[Anomaly]:
        writes = facts.writes
        unread: dict[tuple[int, int], int] = {}
        for row in writes.acknowledged:
            spot, offset, value = writes.spots[row], writes.offsets[row], writes.values[row]
            log = facts.logs[spot]
            where = f"{facts.spots[spot]}@{offset}"
            if offset < len(log) and log.values[offset] != NOTHING:
                if log.values[offset] != value:
                    poll = log.polls[offset]
                    found = f"{facts.reader(poll)} read {log.values[offset]} there"
                    yield self._anomaly(facts, row, f"{value} was acknowledged at {where}, {found}", poll)
                continue
            other = unread.setdefault((spot, offset), row)
            if other != row:
                message = f"{writes.values[other]} and {value} were both acknowledged at {where}"
                yield at(facts, self.kind, message, spot, facts.write_operation(other), facts.write_operation(row))

    def _anomaly(self, facts: Facts, row: int, message: str, poll: int) -> Anomaly:
        operations = facts.write_operation(row), facts.poll_operation(poll)
        return at(facts, self.kind, message, facts.writes.spots[row], *operations)


class Duplicate:
    """One value is at two offsets of the partition it was sent to: of an idempotent send, or of an append.

    Over all reads, and acknowledgements with acks=all. Jepsen's Kafka workload, `duplicate`; DESIGN rule 25.
    """

    kind: ClassVar[str] = "duplicate"

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """See Check."""
        writes = facts.writes
        moved = _moved(facts)
        for row, polls in moved.items():
            if not writes.flags[row] & ONCE:
                continue
            offsets = {writes.place_offsets[row], *polls} if self._is_home(facts, row) else set(polls)
            acknowledged = self._acknowledged_at(facts, row)
            offsets |= acknowledged
            if len(offsets) > 1:
                yield self._anomaly(
                    facts, row, sorted(offsets), [facts.poll_operation(poll) for poll in polls.values()]
                )
        for row in writes.acknowledged:
            if row in moved or not writes.flags[row] & ONCE or writes.place_offsets[row] == writes.offsets[row]:
                continue
            if self._is_home(facts, row):
                yield self._anomaly(facts, row, [writes.offsets[row], writes.place_offsets[row]], [])

    def _is_home(self, facts: Facts, row: int) -> bool:
        return facts.writes.place_spots[row] == facts.writes.spots[row]

    def _acknowledged_at(self, facts: Facts, row: int) -> set[int]:
        writes = facts.writes
        promised = writes.outcomes[row] == OK and writes.flags[row] & SURVIVES
        return {writes.offsets[row]} if promised else set()

    def _anomaly(self, facts: Facts, row: int, offsets: list[int], polls: list[Operation]) -> Anomaly:
        spot = facts.writes.spots[row]
        first, *others = offsets
        message = (
            f"{facts.writes.values[row]}, which {facts.writer(row)} wrote once, is at {facts.spots[spot]}@{first} "
            f"and at {', '.join(f'@{offset}' for offset in others)}"
        )
        return at(facts, self.kind, message, spot, facts.write_operation(row), *polls)


class FailedButPresent:
    """A value was read whose write had failed: `fail` promises that it had no effect and will have none."""

    kind: ClassVar[str] = "failed-but-present"

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """See Check."""
        writes = facts.writes
        row = writes.outcomes.find(FAIL)
        while row >= 0:
            if writes.place_spots[row] != UNKNOWN:
                place = f"{facts.spots[writes.place_spots[row]]}@{writes.place_offsets[row]}"
                message = f"{writes.values[row]} of {facts.writer(row)} failed, and was read at {place}"
                yield at(facts, self.kind, message, writes.spots[row], facts.write_operation(row))
            row = writes.outcomes.find(FAIL, row + 1)


class Invented:
    """A value was read that nobody had sent before, or in another partition than it was sent to.

    Whatever stands for no value (-1: a record that no run has written) is invented too.
    """

    kind: ClassVar[str] = "invented"

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """See Check."""
        known = set()
        for claim in facts.unsent + facts.misplaced:
            key = (claim.spot, claim.offset, claim.value)
            if key not in known:
                known.add(key)
                yield self._anomaly(facts, claim)

    def _anomaly(self, facts: Facts, claim: Claim) -> Anomaly:
        row = facts.writes.rows.get(claim.value)
        poll = facts.poll_operation(claim.poll)
        read = f"{facts.reader(claim.poll)} read {claim.value} at {facts.spots[claim.spot]}@{claim.offset}"
        if row is None or facts.writes.invoked[row] > facts.polls.ended[claim.poll]:
            return at(facts, self.kind, f"{read}, which nobody had sent", claim.spot, poll)
        sent_to = facts.spots[facts.writes.spots[row]]
        message = f"{read}, {facts.writer(row)} wrote it to {sent_to}"
        return at(facts, self.kind, message, claim.spot, facts.write_operation(row), poll)


class RepeatedSend:
    """A send that is not idempotent is in its partition more than once: its client may have sent it again."""

    kind: ClassVar[str] = "repeated-send"

    def count(self, facts: Facts) -> int:
        """See Allowance."""
        return sum(1 for row in _moved(facts) if not facts.writes.flags[row] & ONCE)


def _moved(facts: Facts) -> dict[int, dict[int, int]]:
    """By row: the further offsets at which its value was read in the partition it was sent to, with the polls."""
    moved: dict[int, dict[int, int]] = defaultdict(dict)
    for claim in facts.moved:
        row = facts.writes.rows[claim.value]
        if facts.writes.spots[row] == claim.spot:
            moved[row].setdefault(claim.offset, claim.poll)
    return moved
