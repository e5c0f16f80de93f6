"""Anomalies of order in what one producer has in a partition.

A process is one client: it has one producer for each kind of acks, which hands its records over in the order of their
invocations. After an outcome that is not known it goes on under a new name.
"""

from collections.abc import Iterator
from typing import ClassVar, NamedTuple

from penstock.chaos.checker.anomaly import at
from penstock.chaos.checker.facts import Facts
from penstock.chaos.checker.verdict import Anomaly
from penstock.chaos.checker.writes import APPEND, OK, ONCE, SURVIVES, UNKNOWN


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
