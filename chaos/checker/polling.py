"""Anomalies of order in what one process reads of a partition.

A process is one client: it has one position in a partition, which goes on with each poll and is set by `assign`.
"""

from collections.abc import Iterator
from typing import ClassVar

from penstock.chaos.checker.anomaly import at
from penstock.chaos.checker.facts import Facts
from penstock.chaos.checker.polls import NO_OFFSET
from penstock.chaos.checker.verdict import Anomaly, Operation


class PollSkip:
    """A poll, or two polls of a process in turn, went past an offset whose record somebody has read.

    Jepsen's Kafka workload, `poll-skip` and `int-poll-skip`. An `assign` between them allows it; under a group's
    assignment rebalances will. What the final reading lacks is of `missing`, what compacted logs lack of `keys`.
    """

    kind: ClassVar[str] = "poll-skip"

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """See Check."""
        for gap in facts.polls.gaps:
            spot = facts.polls.spots[gap.poll]
            log = facts.logs[spot]
            if facts.compacted(spot) is not None:
                continue
            if not facts.polls.finals[gap.poll] and log.known_between(gap.first, gap.end):
                yield _poll(facts, self.kind, gap.poll, f"was not given the records from {gap.first} to {gap.end - 1}")
        for jump in facts.polls.jumps:
            start = facts.polls.starts[jump.poll]
            log = facts.logs[facts.polls.spots[jump.poll]]
            if not jump.assigned and log.known_between(jump.expected, start):
                yield _poll(facts, self.kind, jump.poll, f"stood at {jump.expected}, and went on at {start}")


class NonmonotonicPoll:
    """A poll gave an offset that is not above the one before it, in that poll or an earlier one of its process.

    Jepsen's Kafka workload, `nonmonotonic-poll` and `int-nonmonotonic-poll`. An `assign` between them allows it.
    """

    kind: ClassVar[str] = "nonmonotonic-poll"

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """See Check."""
        for back in facts.polls.backs:
            yield _poll(facts, self.kind, back.poll, f"was given {back.offset} after {back.former}")
        for jump in facts.polls.jumps:
            if not jump.assigned and NO_OFFSET < jump.lowest < jump.expected > facts.polls.starts[jump.poll]:
                text = f"had read up to {jump.expected}, and was given {jump.lowest} again"
                yield _poll(facts, self.kind, jump.poll, text)


class PositionError:
    """A position is not what the records say.

    A poll gave a record that is not in [from, to); its `to` is below its `from`; or its `from` is not the `to` of the
    process's poll before it, where that has neither skipped records (poll-skip) nor repeated them (nonmonotonic-poll).
    """

    kind: ClassVar[str] = "position-error"

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """See Check."""
        polls = facts.polls
        for poll, offset in polls.outside:
            text = f"read from {polls.starts[poll]} to {polls.ends[poll]}, and was given {offset}"
            yield _poll(facts, self.kind, poll, text)
        for poll in polls.backwards:
            yield _poll(facts, self.kind, poll, f"went from {polls.starts[poll]} back to {polls.ends[poll]}")
        for jump in polls.jumps:
            start = polls.starts[jump.poll]
            log = facts.logs[polls.spots[jump.poll]]
            repeated = NO_OFFSET < jump.lowest < jump.expected > start
            if not (jump.assigned or repeated or log.known_between(jump.expected, start)):
                yield _poll(facts, self.kind, jump.poll, f"stood at {jump.expected}, and went on at {start}")


class ResetOnAssignment:
    """The first poll after an `assign` does not begin at the position assigned: it was reset without being asked."""

    kind: ClassVar[str] = "reset-on-assignment"

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """See Check."""
        for jump in facts.polls.jumps:
            if jump.assigned:
                text = f"was to read from {jump.expected} on, and read from {facts.polls.starts[jump.poll]} on"
                yield _poll(facts, self.kind, jump.poll, text)


class BrokenRead:
    """A poll ended with an error that a sound cluster never causes, whatever the faults.

    The log ends before what was read or acknowledged, has another record there (KIP-320), or its batches do not pass
    the client's checks. The history has such a poll as `fail`.
    """

    kind: ClassVar[str] = "broken-read"

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """See Check."""
        for read in facts.broken_reads:
            operation = Operation(f"line {read.line}: poll", read.ended, read.ended)
            message = f"{facts.processes[read.process]} was told: {read.error}"
            yield Anomaly(self.kind, message, operations=(operation,))


def _poll(facts: Facts, kind: str, poll: int, what: str) -> Anomaly:
    spot = facts.polls.spots[poll]
    message = f"{facts.reader(poll)} {what}, in {facts.spots[spot]}"
    return at(facts, kind, message, spot, facts.poll_operation(poll))
