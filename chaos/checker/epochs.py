"""Anomalies of leader epochs of records."""

from collections.abc import Iterator
from typing import ClassVar

from penstock.chaos.checker.anomaly import at
from penstock.chaos.checker.facts import Facts
from penstock.chaos.checker.logs import FINAL
from penstock.chaos.checker.verdict import Anomaly
from penstock.chaos.checker.writes import ONCE, UNKNOWN


class EpochMismatch:
    """One record, at one offset, has two leader epochs, over all reads and acknowledgements that name one.

    A batch carries the epoch in which it was appended (DESIGN §4). An acknowledgement names the epoch of the leader
    that gives it, which is that one; only where an idempotent write was repeated, and a later leader has it already, it
    is a higher one (rule 14). So it is an anomaly where two reads differ, where an acknowledgement names a lower epoch
    than a read, and where it names a higher one and the write was not idempotent.
    """

    kind: ClassVar[str] = "epoch-mismatch"

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """See Check."""
        yield from self._reads(facts)
        writes = facts.writes
        for row in writes.acknowledged:
            spot, offset, named = writes.spots[row], writes.offsets[row], writes.epochs[row]
            log = facts.logs[spot]
            if named == UNKNOWN or offset >= len(log) or log.values[offset] != writes.values[row]:
                continue
            read = log.epochs[offset]
            if read != UNKNOWN and (named < read or (named > read and not writes.flags[row] & ONCE)):
                message = (
                    f"{writes.values[row]} at {facts.spots[spot]}@{offset} was acknowledged in leader epoch {named}, "
                    f"and is of epoch {read} as it was read"
                )
                poll = facts.poll_operation(log.polls[offset])
                yield at(facts, self.kind, message, spot, facts.write_operation(row), poll)

    def _reads(self, facts: Facts) -> Iterator[Anomaly]:
        known = set()
        for claim in facts.contradicted:
            log, key = facts.logs[claim.spot], (claim.spot, claim.offset, claim.epoch)
            if log.values[claim.offset] != claim.value or key in known:
                continue
            known.add(key)
            first = log.polls[claim.offset]
            message = (
                f"{claim.value} at {facts.spots[claim.spot]}@{claim.offset} is of leader epoch "
                f"{log.epochs[claim.offset]} as {facts.reader(first)} read it, and of {claim.epoch} as "
                f"{facts.reader(claim.poll)} read it"
            )
            operations = facts.poll_operation(first), facts.poll_operation(claim.poll)
            yield at(facts, self.kind, message, claim.spot, *operations)


class EpochBack:
    """Along the offsets of a final reading the leader epoch goes down.

    A leader appends in its own epoch, behind all that its log holds of former ones (Raft's Log Matching; KIP-101).
    """

    kind: ClassVar[str] = "epoch-back"

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """See Check."""
        for spot in facts.final_spots():
            log = facts.logs[spot]
            highest, where = UNKNOWN, 0
            for offset, epoch in enumerate(log.epochs):
                if epoch >= highest or epoch == UNKNOWN or not log.seen[offset] & FINAL:
                    if epoch > highest and log.seen[offset] & FINAL:
                        highest, where = epoch, offset
                    continue
                message = (
                    f"{facts.spots[spot]}@{offset} is of leader epoch {epoch}, @{where} before it of epoch {highest}"
                )
                operation = facts.poll_operation(log.polls[offset])
                yield at(facts, self.kind, message, spot, operation)
