"""All that a history says, in the form in which anomalies are looked for. Made by `ingest`, changed by nobody else.

Processes and partitions ("spots", a topic and the number of a partition) are numbers here.
"""

from collections import Counter, defaultdict
from typing import NamedTuple

from penstock.chaos.checker.compacted import CompactedLog
from penstock.chaos.checker.ends import End
from penstock.chaos.checker.logs import FINAL_COMMITTED, FINAL_UNCOMMITTED, Claim, PartitionLog
from penstock.chaos.checker.memberships import Memberships
from penstock.chaos.checker.metadata import Metadata
from penstock.chaos.checker.names import Names
from penstock.chaos.checker.polls import COMMITTED, UNCOMMITTED, Polls
from penstock.chaos.checker.trims import Trim
from penstock.chaos.checker.verdict import Operation
from penstock.chaos.checker.writes import APPEND, FAIL, NEVER, OK, UNKNOWN, Appends, Writes


class Spot(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}"


class BrokenRead(NamedTuple):
    """A poll that ended with an error which says that the log has lost or damaged what was read."""

    process: int
    error: str
    ended: float
    line: int


class Facts:
    """See the module."""

    def __init__(self) -> None:
        self.processes: Names[str] = Names()
        self.spots: Names[Spot] = Names()
        self.keys: Names[str] = Names()
        self.writes = Writes()
        self.appends = Appends()
        self.polls = Polls()
        self.logs: list[PartitionLog] = []
        """By spot."""
        self.contradicted: list[Claim] = []
        """Records that were read at an offset where another value or leader epoch had been read before."""
        self.moved: list[Claim] = []
        """Records that were read at another place than the first at which their value was read."""
        self.misplaced: list[Claim] = []
        """Records that were read in another partition than their value was sent to."""
        self.unsent: list[Claim] = []
        """Records whose value nobody had sent."""
        self.broken_reads: list[BrokenRead] = []
        self.ends: list[End] = []
        """In the order of their completion."""
        self.starts: list[End] = []
        """Where logs begin, as leaders said; in the order of their completion."""
        self.trims: list[Trim] = []
        """In the order of their invocation."""
        self.final_ends: dict[int, int] = {}
        """By spot: where the final reading was to go."""
        self.final_ranges: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
        """By spot and isolation: positions before and after of the final reading's polls."""
        self.metadata = Metadata()
        self.groups = Memberships()
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        self.line = 0
        """Number of the line that is read in."""
        self.is_cut_off = False
        """The last line is not whole."""
        self._deletable: set[str] | None = None
        self._complete: dict[int, bool] = {}
        self._last_epochs: dict[int, int] | None = None
        self._starts: dict[int, int] | None = None
        self._compacted: dict[int, CompactedLog] | None = None

    def is_deletable(self, spot: int) -> bool:
        """Say whether somebody may have deleted the topic: then nothing of it has to stay."""
        if self._deletable is None:
            self._deletable = self.metadata.deletable()
        return self.spots[spot].topic in self._deletable

    def is_complete(self, spot: int) -> bool:
        """Say whether the final reading of a partition is whole: in both isolations, from its start to its end."""
        if spot not in self._complete:
            end = self.final_ends.get(spot)
            ranges = [self.final_ranges.get((spot, isolation), []) for isolation in (UNCOMMITTED, COMMITTED)]
            self._complete[spot] = end is not None and all(_covers(found, self.start(spot), end) for found in ranges)
        return self._complete[spot]

    def start(self, spot: int) -> int:
        """Give the offset below which nothing has to be there: the highest start that was told or may have been made.

        By a leader's answer, or a trim that did not fail. Only when all is read in.
        """
        if self._starts is None:
            self._starts = {}
            told = [(answer.spot, answer.offset) for answer in self.starts]
            told += [(trim.spot, trim.highest) for trim in self.trims if trim.outcome != FAIL]
            for one, offset in told:
                self._starts[one] = max(offset, self._starts.get(one, 0))
        return self._starts.get(spot, 0)

    def compacted(self, spot: int) -> CompactedLog | None:
        """Give what compaction may take away in a partition; None: it is not compacted. Only when all is read in."""
        if self._compacted is None:
            topics = self.metadata.compacted()
            spots = [number for number, one in enumerate(self.spots.names) if one.topic in topics]
            self._compacted = {number: CompactedLog() for number in spots}
            for row, number in enumerate(self.writes.spots):
                if number in self._compacted and self.writes.outcomes[row] != FAIL:
                    self._compacted[number].add(self.writes, row)
            for number, log in self._compacted.items():
                log.finish(self.logs[number].seen)
        return self._compacted.get(spot)

    def last_epochs(self) -> dict[int, int]:
        """Give the highest leader epoch of each partition that the history names anywhere. Only when all is read in."""
        if self._last_epochs is None:
            shown = self.metadata.last_epochs
            last = {spot: shown.get(name, UNKNOWN) for spot, name in enumerate(self.spots.names)}
            for spot, log in enumerate(self.logs):
                last[spot] = max(last[spot], max(log.epochs, default=UNKNOWN))
            for answer in (*self.ends, *self.starts):
                last[answer.spot] = max(last[answer.spot], answer.epoch)
            for spot, epoch in zip(self.writes.spots, self.writes.epochs, strict=True):
                last[spot] = max(last[spot], epoch)
            self._last_epochs = last
        return self._last_epochs

    def may_be_gone(self, spot: int, offset: int) -> bool:
        """Say whether the final reading may lack what was at an offset."""
        log = self.compacted(spot)
        return offset < self.start(spot) or (log is not None and not log.stays(offset))

    def final_spots(self) -> list[int]:
        """Partitions that were read to the end and whose records have to be there."""
        return [
            spot
            for spot in range(len(self.spots))
            if spot in self.final_ends and self.is_complete(spot) and not self.is_deletable(spot)
        ]

    def write_operation(self, row: int) -> Operation:
        """Name the operation of a row in Writes."""
        writes = self.writes
        ended = writes.completed[row]
        name = "append" if writes.flags[row] & APPEND else "send"
        return Operation(f"op {writes.ops[row]}: {name}", writes.invoked[row], None if ended == NEVER else ended)

    def poll_operation(self, row: int) -> Operation:
        """Name the poll of a row in Polls."""
        return Operation(f"line {self.polls.lines[row]}: poll", self.polls.began[row], self.polls.ended[row])

    def end_operation(self, end: End) -> Operation:
        """Name a question for the end."""
        return Operation(f"line {end.line}: end_offset", end.began, end.ended)

    def trim_operation(self, trim: Trim) -> Operation:
        """Name a trim."""
        return Operation(f"op {trim.op}: trim", trim.invoked, trim.completed if trim.outcome == OK else None)

    def start_operation(self, start: End) -> Operation:
        """Name a question for the start."""
        return Operation(f"line {start.line}: start_offset", start.began, start.ended)

    def writer(self, row: int) -> str:
        """Name the process of a row in Writes."""
        return self.processes[self.writes.processes[row]]

    def reader(self, row: int) -> str:
        """Name the process of a row in Polls."""
        return self.processes[self.polls.processes[row]]


def final_flag(isolation: int) -> int:
    """Give the flag of offsets that the final reading of an isolation holds."""
    return FINAL_UNCOMMITTED if isolation == UNCOMMITTED else FINAL_COMMITTED


def _covers(ranges: list[tuple[int, int]], start: int, end: int) -> bool:
    reached = start
    for first, after in sorted(ranges):
        if first > reached:
            return False
        reached = max(reached, after)
    return reached >= end
