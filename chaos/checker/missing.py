"""Anomalies of what is not there in the end. Only of partitions whose final reading is whole.

A record has to be there where it was acknowledged with acks=all, or where anybody read it: only what is committed is
read. The three kinds say where it is missing, so that a missing record is of one kind only.

What may be gone: what is below the log's start (Facts.start; that it is not too high is of `starts`), and in a
compacted topic what is not the latest of its key, or a tombstone (CompactedLog.stays).
"""

from collections.abc import Iterator
from typing import ClassVar, NamedTuple

from penstock.chaos.checker.anomaly import at
from penstock.chaos.checker.facts import Facts
from penstock.chaos.checker.logs import FINAL, FINAL_COMMITTED, NOTHING, READ, PartitionLog
from penstock.chaos.checker.polls import ISOLATIONS
from penstock.chaos.checker.verdict import Anomaly, Operation
from penstock.chaos.checker.writes import OK, ONCE, SURVIVES


class _Due(NamedTuple):
    """A record that should be at an offset of the final reading, and that no final reading has there."""

    spot: int
    offset: int
    value: int
    why: str
    operation: Operation


class LostWrite:
    """A record that was acknowledged, or read, is missing from the final reading, which has one at a higher offset.

    Jepsen's Kafka workload, `lost-write`: at or below the highest read offset.
    """

    kind: ClassVar[str] = "lost-write"

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """See Check."""
        return _find(facts, self.kind, 0)


class Unseen:
    """A record that was acknowledged, or read, is missing from the final reading, which has none from there on.

    Its offset is below the end that the final reading went to. Jepsen's Kafka workload, `unseen`.
    """

    kind: ClassVar[str] = "unseen"

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """See Check."""
        return _find(facts, self.kind, 1)


class AckedPastFinalLog:
    """A record was acknowledged, or read, at an offset at or past the end that the log has in the end."""

    kind: ClassVar[str] = "acked-past-final-log"

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """See Check."""
        return _find(facts, self.kind, 2)


class FinalReadingsDiffer:
    """A record is in the final reading of one isolation and not in that of the other.

    Below the end that both went to. Without transactions nothing is undecided or aborted: read_committed hides nothing.
    (With transactions: what read_uncommitted has beyond it must be of aborted ones.)
    """

    kind: ClassVar[str] = "final-readings-differ"

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """See Check."""
        for spot in facts.final_spots():
            log, end = facts.logs[spot], facts.final_ends[spot]
            for offset, flags in enumerate(log.seen[:end]):
                if flags & FINAL not in (0, FINAL) and not facts.may_be_gone(spot, offset):
                    name = ISOLATIONS[int(flags & FINAL == FINAL_COMMITTED)]
                    message = f"{log.values[offset]} at {facts.spots[spot]}@{offset} is in the final reading of {name}"
                    operation = facts.poll_operation(log.polls[offset])
                    yield at(facts, self.kind, f"{message} alone", spot, operation)


class UnexplainedGap:
    """An offset in a log that is not compacted, that nobody read and nothing was acknowledged at.

    Control records of transactions will be such; until then there should be none.
    """

    kind: ClassVar[str] = "unexplained-gap"

    def count(self, facts: Facts) -> int:
        """See Allowance."""
        writes = facts.writes
        known = {(writes.spots[row], writes.offsets[row]) for row in writes.acknowledged if not _is_read(facts, row)}
        gaps = 0
        for spot in facts.final_spots():
            log, start, end = facts.logs[spot], facts.start(spot), facts.final_ends[spot]
            if facts.compacted(spot) is not None or (len(log) >= end and not log.seen.count(0, start, end)):
                continue
            unseen = (offset for offset, flags in enumerate(log.seen[start:end], start) if not flags)
            gaps += sum(1 for offset in unseen if (spot, offset) not in known)
            gaps += sum(1 for offset in range(max(start, len(log)), end) if (spot, offset) not in known)
        return gaps


class Dropped:
    """A record was acknowledged, or read, and the log begins behind it in the end: trimmed, or dropped for its age."""

    kind: ClassVar[str] = "dropped"

    def count(self, facts: Facts) -> int:
        """See Allowance."""
        return sum(1 for due in _missing(facts, set(facts.final_spots())) if due.offset < facts.start(due.spot))


class Compacted:
    """A record was acknowledged, or read, and is not there in the end: there is a later one of its key."""

    kind: ClassVar[str] = "compacted"

    def count(self, facts: Facts) -> int:
        """See Allowance."""
        final = {spot for spot in facts.final_spots() if facts.compacted(spot) is not None}
        return sum(1 for due in _missing(facts, final) if facts.may_be_gone(due.spot, due.offset))


def _is_read(facts: Facts, row: int) -> bool:
    log, offset = facts.logs[facts.writes.spots[row]], facts.writes.offsets[row]
    return offset < len(log) and bool(log.seen[offset])


def _find(facts: Facts, kind: str, place: int) -> Iterator[Anomaly]:
    final = facts.final_spots()
    tops = {spot: _top(facts.logs[spot]) for spot in final}
    for due in _missing(facts, set(final)):
        if facts.may_be_gone(due.spot, due.offset):
            continue
        end = facts.final_ends[due.spot]
        found = 2 if due.offset >= end else int(due.offset >= tops[due.spot])
        if found == place:
            where = f"{facts.spots[due.spot]}@{due.offset}"
            seen = f"{end}, and has records up to {tops[due.spot] - 1}" if tops[due.spot] else f"{end}, and has none"
            message = f"{due.value} was {due.why} at {where}; the final reading, which went to {seen}, lacks it"
            yield at(facts, kind, message, due.spot, due.operation)


def _top(log: PartitionLog) -> int:
    """The offset after the last record of the final reading."""
    for offset in range(len(log) - 1, -1, -1):
        if log.seen[offset] & FINAL:
            return offset + 1
    return 0


def _missing(facts: Facts, final: set[int]) -> Iterator[_Due]:
    writes = facts.writes
    for row in writes.acknowledged:
        spot, offset = writes.spots[row], writes.offsets[row]
        log = facts.logs[spot]
        if spot not in final or (offset < len(log) and log.seen[offset] & FINAL) or _is_elsewhere(facts, row):
            continue
        if offset >= len(log) or log.values[offset] in (NOTHING, writes.values[row]):
            why = f"acknowledged to {facts.writer(row)}"
            yield _Due(spot, offset, writes.values[row], why, facts.write_operation(row))
    for spot in final:
        yield from _read_and_missing(facts, spot)


def _read_and_missing(facts: Facts, spot: int) -> Iterator[_Due]:
    log = facts.logs[spot]
    for offset, flags in enumerate(log.seen):
        if flags == READ and not _is_acknowledged(facts, spot, offset):
            poll = log.polls[offset]
            why = f"read by {facts.reader(poll)}"
            yield _Due(spot, offset, log.values[offset], why, facts.poll_operation(poll))


def _is_elsewhere(facts: Facts, row: int) -> bool:
    """It is in the final reading, but not at its offset: a duplicate, not a loss."""
    writes = facts.writes
    if not writes.flags[row] & ONCE or writes.place_spots[row] != writes.spots[row]:
        return False
    log, place = facts.logs[writes.spots[row]], writes.place_offsets[row]
    return place != writes.offsets[row] and place < len(log) and bool(log.seen[place] & FINAL)


def _is_acknowledged(facts: Facts, spot: int, offset: int) -> bool:
    """The record that was read here was acknowledged here too: it is reported as such."""
    writes = facts.writes
    row = writes.rows.get(facts.logs[spot].values[offset])
    return (
        row is not None
        and writes.outcomes[row] == OK
        and bool(writes.flags[row] & SURVIVES)
        and (writes.spots[row], writes.offsets[row]) == (spot, offset)
    )
