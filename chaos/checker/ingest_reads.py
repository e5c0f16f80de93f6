"""Reads polls, assignments, ends and starts, and the end of the final reading into Facts. The inner loop of a check."""

from typing import Any

from penstock.chaos.checker.ends import End
from penstock.chaos.checker.facts import BrokenRead, Facts, final_flag
from penstock.chaos.checker.ingest_writes import spot_of
from penstock.chaos.checker.logs import NOTHING, READ, Claim, PartitionLog
from penstock.chaos.checker.malformed import Malformed, moment, natural
from penstock.chaos.checker.polls import COMMITTED, NO_OFFSET, UNCOMMITTED, Back, Gap, Jump, Outside
from penstock.chaos.checker.writes import UNKNOWN
from penstock.chaos.history import Entry

_ISOLATIONS = {"read_uncommitted": UNCOMMITTED, "read_committed": COMMITTED}
Record = list[int]
"""Offset, value, leader epoch."""


class ReadsReader:
    """Functions `assign`, `poll`, `end_offset`, `start_offset` and `end_of_log`."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._polls = facts.polls
        self._positions: dict[tuple[int, int], tuple[int, bool]] = {}
        """By process and spot: where it reads next, and whether an assignment says so."""
        self.handlers = {
            "assign": self.assign,
            "poll": self.poll,
            "end_offset": self.end_offset,
            "start_offset": self.start_offset,
            "end_of_log": self.end_of_log,
        }

    def assign(self, entry: Entry) -> None:
        """Take a line of an assignment."""
        self._facts.counts["assign"]["ok"] += 1
        process = self._facts.processes.number(entry["process"])
        self._positions[process, spot_of(self._facts, entry)] = natural(entry, "position"), True

    def reposition(self, process: int, spot: int, position: int | None) -> None:
        """A group's coordinator has given a partition: reading goes on there, or where it does if nobody says."""
        if position is None:
            self._positions.pop((process, spot), None)
        else:
            self._positions[process, spot] = position, True

    def poll(self, entry: Entry) -> None:
        """Take a line of a poll."""
        kind = entry["type"]
        self._facts.counts["poll"][kind] += 1
        process = self._facts.processes.number(entry["process"])
        if kind == "fail":
            error = f"{entry['error']}: {entry['message']}"
            self._facts.broken_reads.append(BrokenRead(process, error, entry["time"], self._facts.line))
            return
        isolation = _ISOLATIONS[entry["isolation"]]
        is_final = bool(entry.get("final"))
        began = moment(entry, "began")
        for read in entry["reads"]:
            spot = spot_of(self._facts, read)
            row = self._row(process, spot, isolation, began, entry["time"])
            self._polls.finals.append(is_final)
            self._positioned(row, process, spot, read)
            self._records(row, spot, READ | (final_flag(isolation) if is_final else 0), read)
            if is_final:
                self._facts.final_ranges[spot, isolation].append((read["from"], read["to"]))

    def end_offset(self, entry: Entry) -> None:
        """Take a line of a question for the end."""
        self._facts.counts["end_offset"]["ok"] += 1
        self._facts.ends.append(self._answer(entry, _ISOLATIONS[entry["isolation"]]))

    def start_offset(self, entry: Entry) -> None:
        """Take a line of a question for the start."""
        self._facts.counts["start_offset"]["ok"] += 1
        self._facts.starts.append(self._answer(entry, UNCOMMITTED))

    def _answer(self, entry: Entry, isolation: int) -> End:
        process = self._facts.processes.number(entry["process"])
        spot = spot_of(self._facts, entry)
        epoch = entry["leader_epoch"]
        if type(epoch) is not int:
            raise Malformed(f"leader_epoch is {epoch!r}, not a whole number")
        offset, began = natural(entry, "offset"), moment(entry, "began")
        return End(process, spot, isolation, offset, epoch, began, entry["time"], self._facts.line)

    def end_of_log(self, entry: Entry) -> None:
        """Take a line that names the end of a final reading."""
        spot = spot_of(self._facts, entry)
        self._facts.final_ends[spot] = max(natural(entry, "offset"), self._facts.final_ends.get(spot, 0))

    def _row(self, process: int, spot: int, isolation: int, began: float, ended: float) -> int:
        polls = self._polls
        polls.processes.append(process)
        polls.spots.append(spot)
        polls.isolations.append(isolation)
        polls.began.append(began)
        polls.ended.append(ended)
        polls.lines.append(self._facts.line)
        return len(polls) - 1

    def _positioned(self, row: int, process: int, spot: int, read: dict[str, Any]) -> None:
        start, end = natural(read, "from"), natural(read, "to")
        self._polls.starts.append(start)
        self._polls.ends.append(end)
        expected, assigned = self._positions.get((process, spot), (start, False))
        if expected != start:
            lowest = min((offset for offset, _, _ in read["records"]), default=NO_OFFSET)
            self._polls.jumps.append(Jump(row, expected, lowest, assigned))
        self._positions[process, spot] = end, False

    def _records(self, row: int, spot: int, flags: int, read: dict[str, Any]) -> None:
        log = self._facts.logs[spot]
        values, epochs, seen, length = log.values, log.epochs, log.seen, len(log.values)
        records: list[Record] = read["records"]
        expected: int = read["from"]
        in_turn = True
        for offset, value, epoch in records:
            if offset != expected:
                in_turn = False
                if offset < 0:
                    raise Malformed(f"a record at offset {offset}")
            expected = offset + 1
            if offset < length and values[offset] == value and epochs[offset] == epoch:
                seen[offset] |= flags
            else:
                self._news(log, Claim(spot, offset, value, epoch, row), flags)
                length = len(values)
        if in_turn and expected == read["to"]:
            self._polls.highest.append(expected - 1 if records else NO_OFFSET)
        else:
            self._out_of_turn(row, read)

    def _news(self, log: PartitionLog, claim: Claim, flags: int) -> None:
        """A record that is not as it was read before."""
        offset = claim.offset
        if type(claim.value) is not int or type(claim.epoch) is not int:
            raise Malformed(f"a record of value {claim.value!r} and leader epoch {claim.epoch!r}: not whole numbers")
        if log.grow(offset + 1):
            if log.values[offset] == NOTHING:
                log.values[offset], log.epochs[offset], log.polls[offset] = claim.value, claim.epoch, claim.poll
            elif log.values[offset] != claim.value or not self._same_epoch(log, claim):
                self._facts.contradicted.append(claim)
            log.seen[offset] |= flags
        writes = self._facts.writes
        found = writes.rows.get(claim.value)
        if found is None:
            self._facts.unsent.append(claim)
            return
        if writes.spots[found] != claim.spot:
            self._facts.misplaced.append(claim)
        if writes.place_spots[found] == UNKNOWN:
            writes.place_spots[found], writes.place_offsets[found] = claim.spot, offset
        elif (writes.place_spots[found], writes.place_offsets[found]) != (claim.spot, offset):
            self._facts.moved.append(claim)

    def _same_epoch(self, log: PartitionLog, claim: Claim) -> bool:
        """An epoch that was not said agrees with each."""
        if log.epochs[claim.offset] == UNKNOWN:
            log.epochs[claim.offset] = claim.epoch
        return claim.epoch in (UNKNOWN, log.epochs[claim.offset])

    def _out_of_turn(self, row: int, read: dict[str, Any]) -> None:
        """Say what is odd in a poll whose records do not go from its first position to its last in turn."""
        polls, start, end = self._polls, read["from"], read["to"]
        offsets = [offset for offset, _, _ in read["records"]]
        polls.highest.append(max(offsets, default=NO_OFFSET))
        if end < start:
            polls.backwards.append(row)
        polls.outside += [Outside(row, offset) for offset in offsets if not start <= offset < end]
        inside = [offset for offset in offsets if start <= offset < end]
        former = NO_OFFSET
        for offset in inside:
            if offset <= former:
                polls.backs.append(Back(row, former, offset))
            former = max(former, offset)
        after = start
        for offset in sorted(set(inside)):
            if offset > after:
                polls.gaps.append(Gap(row, after, offset))
            after = offset + 1
        if after < end:
            polls.gaps.append(Gap(row, after, end))
