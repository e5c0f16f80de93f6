"""Anomalies of the starts of logs, as leaders name them: what was deleted stays so, and nothing else goes."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from itertools import accumulate
from typing import ClassVar, TypeVar

from penstock.chaos.checker.anomaly import at
from penstock.chaos.checker.ends import End
from penstock.chaos.checker.facts import Facts
from penstock.chaos.checker.trims import Trim
from penstock.chaos.checker.verdict import Anomaly, Operation
from penstock.chaos.checker.writes import FAIL, NEVER, OK, ONCE, UNKNOWN

K = TypeVar("K")

RECORD_BYTES = 512
"""A record takes at most so much in a log, beside its key and value: also one that is alone in its batch."""


class LogStartBack:
    """A leader named a start of a log below one that was known when it was asked.

    Known are, completed before the asking began:

    - a trim that was acknowledged, to its own process; and to anybody, if the answer is of the last leader epoch that
      the history knows of the partition (a deposed leader may answer a moment longer): every member of the ISR has it;
    - another answer of the same leader epoch. A later leader may not have what retention did last.
    """

    kind: ClassVar[str] = "log-start-back"

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """See Check."""
        last = facts.last_epochs()
        trims = sorted((trim for trim in facts.trims if trim.outcome == OK), key=lambda trim: trim.completed)
        by_process: dict[tuple[str, int], Trim] = {}
        by_anybody: dict[int, Trim] = {}
        by_epoch: dict[tuple[int, int], End] = {}
        done = told = 0
        for answer in sorted(facts.starts, key=lambda start: start.began):
            while done < len(trims) and trims[done].completed < answer.began:
                trim = trims[done]
                _keep_highest(by_process, (_client(facts, trim.process), trim.spot), trim)
                _keep_highest(by_anybody, trim.spot, trim)
                done += 1
            while told < len(facts.starts) and facts.starts[told].ended < answer.began:
                former = facts.starts[told]
                known = by_epoch.setdefault((former.spot, former.epoch), former)
                if known.offset < former.offset:
                    by_epoch[former.spot, former.epoch] = former
                told += 1
            own = by_process.get((_client(facts, answer.process), answer.spot))
            other = by_anybody.get(answer.spot) if answer.epoch == last[answer.spot] != UNKNOWN else None
            for trimmed in (own, other):
                if trimmed is not None and trimmed.log_start > answer.offset:
                    what = f"{facts.processes[trimmed.process]} had trimmed it to {trimmed.log_start}"
                    yield self._anomaly(facts, answer, what, facts.trim_operation(trimmed))
                    break
            else:
                before = by_epoch.get((answer.spot, answer.epoch)) if answer.epoch != UNKNOWN else None
                if before is not None and before.offset > answer.offset:
                    what = f"{facts.processes[before.process]} had been told {before.offset} in the same epoch"
                    yield self._anomaly(facts, answer, what, facts.start_operation(before))

    def _anomaly(self, facts: Facts, answer: End, what: str, operation: Operation) -> Anomaly:
        message = (
            f"{facts.processes[answer.process]} was told that {facts.spots[answer.spot]} begins at {answer.offset} "
            f"(leader epoch {answer.epoch}), though {what}"
        )
        return at(facts, self.kind, message, answer.spot, operation, facts.start_operation(answer))


class DroppedUnasked:
    """A leader named a start of a log that is above what trims and retention explain.

    Every trim that did not fail, invoked before the answer came, may have moved it to where it said. Beyond that only
    retention moves it: by time, which is not judged; and by size, which leaves at least `retention_bytes`, the least
    that the topic may have had by then. So the records at or above the start that were invoked by then come to as
    much, each with RECORD_BYTES. Those of unknown place are counted as if they were there. Only where all writes are
    idempotent and their sizes known.
    """

    kind: ClassVar[str] = "dropped-unasked"

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """See Check."""
        answers: dict[int, list[End]] = defaultdict(list)
        for answer in facts.starts:
            if answer.offset:
                answers[answer.spot].append(answer)
        if not answers:
            return
        rows: dict[int, list[int]] = defaultdict(list)
        for row, spot in enumerate(facts.writes.spots):
            if spot in answers and facts.writes.outcomes[row] != FAIL:
                rows[spot].append(row)
        for spot, told in answers.items():
            if not facts.is_deletable(spot):
                yield from self._of(facts, spot, told, rows[spot])

    def _of(self, facts: Facts, spot: int, told: list[End], rows: list[int]) -> Iterator[Anomaly]:
        topic = facts.spots[spot].topic
        if any(value is not None for _, value in facts.metadata.settings(topic, "retention_ms")):
            return
        sizes = facts.metadata.settings(topic, "retention_bytes")
        trims = [trim for trim in facts.trims if trim.spot == spot and trim.outcome != FAIL]
        trimmed = list(accumulate((trim.highest for trim in trims), max))
        invoked = [trim.invoked for trim in trims]
        held = _Held(facts, rows)
        for answer in told:  # in the order of their completion
            count = bisect_right(invoked, answer.ended)
            if count and answer.offset <= trimmed[count - 1]:
                continue
            retained = min((int(value) for at_s, value in sizes if at_s <= answer.ended and value), default=NEVER)
            most = held.above(answer.offset, answer.ended)
            if most is not None and most < retained:
                kept = "never by itself" if retained == NEVER else f"so that {retained} bytes stay"
                message = (
                    f"{facts.processes[answer.process]} was told that {facts.spots[spot]} begins at {answer.offset}; "
                    f"nobody had trimmed it so far, and the topic drops records {kept}: there were {most} at most"
                )
                yield at(facts, self.kind, message, spot, facts.start_operation(answer))


class _Held:
    """How many bytes a log may hold from an offset on. Ask in the order of time."""

    def __init__(self, facts: Facts, rows: list[int]) -> None:
        writes = facts.writes
        self._writes, self._rows, self._taken = writes, rows, 0
        self._is_known = all(writes.flags[row] & ONCE and writes.sizes[row] != UNKNOWN for row in rows)
        self._sums = [0] * (max((writes.place(row) for row in rows), default=0) + 2)
        """A Fenwick tree over offsets, from the highest down."""
        self._unplaced = 0

    def above(self, offset: int, when: float) -> int | None:
        """Give the most that records invoked by then come to; None: it is not known."""
        if not self._is_known:
            return None
        writes = self._writes
        while self._taken < len(self._rows) and writes.invoked[self._rows[self._taken]] <= when:
            row = self._rows[self._taken]
            self._add(writes.place(row), writes.sizes[row] + RECORD_BYTES)
            self._taken += 1
        total, index = self._unplaced, len(self._sums) - 1 - offset
        while index > 0:
            total += self._sums[index]
            index -= index & -index
        return total

    def _add(self, place: int, size: int) -> None:
        if place == UNKNOWN:
            self._unplaced += size
            return
        index = len(self._sums) - 1 - place
        while index < len(self._sums):
            self._sums[index] += size
            index += index & -index


def _client(facts: Facts, process: int) -> str:
    """A process and its next incarnations are one client."""
    return facts.processes[process].rpartition(".")[0]


def _keep_highest(known: dict[K, Trim], key: K, trim: Trim) -> None:
    former = known.get(key)
    if former is None or former.log_start < trim.log_start:
        known[key] = trim
