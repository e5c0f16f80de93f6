"""Anomalies of order: of what one process reads of a partition, and of what one producer has in it.

A process is one client: it has one position in a partition, which goes on with each poll and is set by `assign`, and
one producer for each kind of acks, which hands its records over in the order of their invocations.
"""

from collections.abc import Iterator
from typing import ClassVar, NamedTuple

from penstock.chaos.checker.anomaly import at
from penstock.chaos.checker.facts import Facts
from penstock.chaos.checker.polls import NO_OFFSET
from penstock.chaos.checker.verdict import Anomaly, Operation
from penstock.chaos.checker.writes import APPEND, OK, ONCE, SURVIVES, UNKNOWN


class PollSkip:
    """A poll, or two polls of a process in turn, went past an offset whose record somebody has read.

    Jepsen's Kafka workload, `poll-skip` and `int-poll-skip`. An `assign` between them allows it; under a group's
    assignment rebalances will. What the final reading lacks is of `missing`.
    """

    kind: ClassVar[str] = "poll-skip"

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """See Check."""
        for gap in facts.polls.gaps:
            log = facts.logs[facts.polls.spots[gap.poll]]
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


class NonmonotonicSend:
    """Of two writes of a process to a partition, the one invoked later has the lower offset, the other's was told.

    Of idempotent sends with one kind of acks, and of appends: of each the offset acknowledged (acks=all), else the one
    it was read at. Jepsen's Kafka workload, `nonmonotonic-send`; DESIGN rule 25.
    """

    kind: ClassVar[str] = "nonmonotonic-send"

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """See Check."""
        return (_send(facts, self.kind, pair) for pair in _disordered(facts) if _is_told(facts, pair.earlier))


class SendSkip:
    """As nonmonotonic-send, of an earlier write that was never acknowledged: the log skipped it, and took it later.

    A producer that gave a record up sends what is behind it in a new producer epoch, which fences the former one
    (KIP-360): what was given up may be missing, but comes behind later ones never.
    """

    kind: ClassVar[str] = "send-skip"

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """See Check."""
        return (_send(facts, self.kind, pair) for pair in _disordered(facts) if not _is_told(facts, pair.earlier))


class IntSendSkip:
    """Between two writes of a process that follow each other in a partition there are records of others.

    Jepsen's Kafka workload, `int-send-skip`: producers do not exclude each other.
    """

    kind: ClassVar[str] = "int-send-skip"

    def count(self, facts: Facts) -> int:
        """See Allowance."""
        writes = facts.writes
        after: dict[tuple[int, int, int], int] = {}
        skips = 0
        for row, place in _placed(facts):
            key = writes.processes[row], writes.spots[row], writes.flags[row]
            skips += place > after.get(key, place)
            after[key] = place + (_size(facts, row) if writes.flags[row] & APPEND else 1)
        return skips


class _Pair(NamedTuple):
    """Rows of two writes of a process, in the order of invocation, whose offsets are in the other order."""

    earlier: int
    earlier_offset: int
    later: int
    later_offset: int


def _disordered(facts: Facts) -> Iterator[_Pair]:
    """Each write that is below an earlier one of its producer, with the highest earlier one."""
    writes = facts.writes
    highest: dict[tuple[int, int, int], tuple[int, int]] = {}
    for row, place in _placed(facts):
        key = writes.processes[row], writes.spots[row], writes.flags[row]
        top, earlier = highest.get(key, (-1, -1))
        if place < top:
            yield _Pair(earlier, top, row, place)
        else:
            highest[key] = place, row


def _placed(facts: Facts) -> Iterator[tuple[int, int]]:
    """Rows of writes that are there once, with their offsets; of an append the first row only."""
    writes = facts.writes
    former_op = -1
    for row, flags in enumerate(writes.flags):
        if not flags & ONCE:
            continue
        if flags & APPEND:
            op = writes.ops[row]
            if op == former_op:
                continue
            former_op = op
        if _is_told(facts, row):
            yield row, writes.offsets[row]
        elif writes.place_spots[row] == writes.spots[row]:
            yield row, writes.place_offsets[row]


def _size(facts: Facts, row: int) -> int:
    """How many values the append has whose first row this is."""
    ops = facts.writes.ops
    end = row
    while end < len(ops) and ops[end] == ops[row]:
        end += 1
    return end - row


def _is_told(facts: Facts, row: int) -> bool:
    writes = facts.writes
    return writes.outcomes[row] == OK and bool(writes.flags[row] & SURVIVES) and writes.offsets[row] != UNKNOWN


def _send(facts: Facts, kind: str, pair: _Pair) -> Anomaly:
    values, spot = facts.writes.values, facts.writes.spots[pair.later]
    message = (
        f"{facts.writer(pair.later)} wrote {values[pair.earlier]} before {values[pair.later]}, they are at "
        f"{facts.spots[spot]}@{pair.earlier_offset} and @{pair.later_offset}"
    )
    return at(facts, kind, message, spot, facts.write_operation(pair.earlier), facts.write_operation(pair.later))


def _poll(facts: Facts, kind: str, poll: int, what: str) -> Anomaly:
    spot = facts.polls.spots[poll]
    message = f"{facts.reader(poll)} {what}, in {facts.spots[spot]}"
    return at(facts, kind, message, spot, facts.poll_operation(poll))
