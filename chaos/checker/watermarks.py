"""Anomalies of the high watermark and the last stable offset, as leaders name them as the end of a partition.

What is provable. A watermark never goes back within a leader epoch; a new leader holds all that is committed and names
an end only once its watermark is at its epoch's start (DESIGN rule 12), so none goes back from an epoch to a later one
either. A deposed leader may answer a moment longer, with an older end: its answer has a lower epoch, which a client
that has seen a higher one drops (rule 12 again). So an answer is held against what was known when it was asked for:

- to its own process, whatever the epochs, since a process is one client;
- to anybody by an answer of the same or a lower leader epoch, where both are named.

"Known when it was asked for" is: completed, strictly before the asking began.
"""

from collections.abc import Iterator
from typing import ClassVar

from penstock.chaos.checker.anomaly import at
from penstock.chaos.checker.ends import End
from penstock.chaos.checker.facts import Facts
from penstock.chaos.checker.polls import COMMITTED, ISOLATIONS, UNCOMMITTED
from penstock.chaos.checker.stairs import Stairs
from penstock.chaos.checker.verdict import Anomaly
from penstock.chaos.checker.writes import UNKNOWN

_NAMES = ("high watermark", "last stable offset")
"""By isolation."""
_ANYBODY = -1
"""Instead of a process."""
_NO_READ = (-1, -1)
"""Offset and poll."""


class HighWatermarkBack:
    """A leader named a high watermark below one that was known, or above the end that the log has in the end."""

    kind: ClassVar[str] = "high-watermark-back"

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """See Check."""
        yield from _falls(facts, self.kind, UNCOMMITTED, UNCOMMITTED)
        yield from _above_final(facts, self.kind, UNCOMMITTED)


class StableOffsetBack:
    """A leader named a last stable offset below one that was known, or above the end that the log has in the end."""

    kind: ClassVar[str] = "stable-offset-back"

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """See Check."""
        yield from _falls(facts, self.kind, COMMITTED, COMMITTED)
        yield from _above_final(facts, self.kind, COMMITTED)


class StableAboveHighWatermark:
    """A leader named a high watermark below a last stable offset that was known: the latter is at most the former."""

    kind: ClassVar[str] = "stable-above-high-watermark"

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """See Check."""
        return _falls(facts, self.kind, COMMITTED, UNCOMMITTED)


class ReadPastEnd:
    """A record had been read at or past an end that was told later.

    Only records below the high watermark are read, with read_committed only those below the last stable offset. So an
    end for read_uncommitted is held against all reads, one for read_committed against those with read_committed:

    - those of the same process;
    - those of anybody, if the end is of the last leader epoch that the history knows of the partition, and the final
      reading is whole. Then the reader was answered in that epoch or a lower one: after everything has healed the
      present leader names an end, and no epoch that ever was is above its own.
    """

    kind: ClassVar[str] = "read-past-end"

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """See Check."""
        polls, latest, final = facts.polls, facts.last_epochs(), set(facts.final_spots())
        highest: dict[tuple[int, int, int], tuple[int, int]] = {}
        done = 0
        for end in sorted(facts.ends, key=lambda end: end.began):
            while done < len(polls) and polls.ended[done] < end.began:
                read = polls.highest[done], done
                for reader in (polls.processes[done], _ANYBODY):
                    key = reader, polls.spots[done], polls.isolations[done]
                    if highest.get(key, _NO_READ) < read:
                        highest[key] = read
                done += 1
            is_last = end.spot in final and end.epoch == latest[end.spot] != UNKNOWN
            reader = _ANYBODY if is_last else end.process
            isolations = (COMMITTED,) if end.isolation == COMMITTED else (UNCOMMITTED, COMMITTED)
            known = [highest.get((reader, end.spot, isolation), _NO_READ) for isolation in isolations]
            if max(known)[0] >= end.offset:
                yield self._anomaly(facts, end, *max(known))

    def _anomaly(self, facts: Facts, end: End, offset: int, poll: int) -> Anomaly:
        message = (
            f"{facts.reader(poll)} had read {facts.spots[end.spot]}@{offset}, and {facts.processes[end.process]} was "
            f"told later that it ends at {end.offset} ({ISOLATIONS[end.isolation]}, leader epoch {end.epoch})"
        )
        return at(facts, self.kind, message, end.spot, facts.poll_operation(poll), facts.end_operation(end))


class LeaderIncomplete:
    """A leader names an end that is at or below an offset whose record was acknowledged in its epoch or a lower one.

    With acks=all, before the leader was asked; both epochs named. An acknowledgement names the epoch of the leader that
    gave it. So the leader was elected without the record, or lost it. Raft's Leader Completeness; DESIGN rule 12.
    """

    kind: ClassVar[str] = "leader-incomplete"

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """See Check."""
        writes = facts.writes
        acknowledged = writes.acknowledged
        known: dict[int, Stairs[int]] = {}
        done = 0
        for end in sorted(facts.ends, key=lambda end: end.began):
            while done < len(acknowledged) and writes.completed[acknowledged[done]] < end.began:
                row = acknowledged[done]
                if writes.epochs[row] != UNKNOWN:
                    known.setdefault(writes.spots[row], Stairs()).add(writes.epochs[row], writes.offsets[row], row)
                done += 1
            if end.isolation == UNCOMMITTED and end.epoch != UNKNOWN and end.spot in known:
                found = known[end.spot].highest(end.epoch)
                if found is not None and found[0] >= end.offset:
                    yield self._anomaly(facts, end, found[1])

    def _anomaly(self, facts: Facts, end: End, row: int) -> Anomaly:
        writes = facts.writes
        message = (
            f"{writes.values[row]} was acknowledged at {facts.spots[end.spot]}@{writes.offsets[row]} in leader epoch "
            f"{writes.epochs[row]}; later the leader of epoch {end.epoch} named {end.offset} as the end"
        )
        return at(facts, self.kind, message, end.spot, facts.write_operation(row), facts.end_operation(end))


def _falls(facts: Facts, kind: str, known: int, told: int) -> Iterator[Anomaly]:
    """Ends of isolation `told` below what was known of isolation `known`."""
    own: dict[tuple[int, int], End] = {}
    anybody: dict[int, Stairs[End]] = {}
    former = iter([end for end in facts.ends if end.isolation == known])
    one = next(former, None)
    for end in sorted((end for end in facts.ends if end.isolation == told), key=lambda end: end.began):
        while one is not None and one.ended < end.began:
            key = one.process, one.spot
            if key not in own or own[key].offset < one.offset:
                own[key] = one
            if one.epoch != UNKNOWN:
                anybody.setdefault(one.spot, Stairs()).add(one.epoch, one.offset, one)
            one = next(former, None)
        higher = _higher(end, own.get((end.process, end.spot)), anybody.get(end.spot))
        if higher is not None:
            yield _fall(facts, kind, higher, end)


def _higher(end: End, own: End | None, anybody: Stairs[End] | None) -> End | None:
    if own is not None and own.offset > end.offset:
        return own
    found = None if anybody is None else anybody.highest(end.epoch)  # nothing is known of an epoch that was not said
    return found[1] if found is not None and found[0] > end.offset else None


def _fall(facts: Facts, kind: str, former: End, end: End) -> Anomaly:
    message = (
        f"{facts.processes[former.process]} was told that the {_NAMES[former.isolation]} of {facts.spots[end.spot]} is "
        f"{former.offset} (leader epoch {former.epoch}); {facts.processes[end.process]} was told later that the "
        f"{_NAMES[end.isolation]} is {end.offset} (leader epoch {end.epoch})"
    )
    return at(facts, kind, message, end.spot, facts.end_operation(former), facts.end_operation(end))


def _above_final(facts: Facts, kind: str, isolation: int) -> Iterator[Anomaly]:
    final = set(facts.final_spots())
    for end in facts.ends:
        if end.isolation == isolation and end.spot in final and end.offset > facts.final_ends[end.spot]:
            message = (
                f"{facts.processes[end.process]} was told that the {_NAMES[isolation]} of {facts.spots[end.spot]} is "
                f"{end.offset}, in the end it is {facts.final_ends[end.spot]}"
            )
            yield at(facts, kind, message, end.spot, facts.end_operation(end))
