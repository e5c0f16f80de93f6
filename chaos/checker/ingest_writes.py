"""Reads sends and appends into Facts."""

from penstock.chaos.checker.facts import Facts, Spot
from penstock.chaos.checker.logs import PartitionLog
from penstock.chaos.checker.malformed import Malformed, natural, text
from penstock.chaos.checker.writes import APPEND, FAIL, INFO, ONCE, SURVIVES, UNKNOWN
from penstock.chaos.history import Entry

_ACKS = {"all": SURVIVES, "leader": 0, "none": 0}
_ENDS = {"fail": FAIL, "info": INFO}


class WritesReader:
    """Functions `send` and `append`."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._writes = facts.writes
        self._sends: dict[int, int] = {}
        """Rows of those under way, by op."""
        self._appends: dict[int, int] = {}
        """Numbers of those under way, by op."""
        self._send_counts = facts.counts["send"]
        self._append_counts = facts.counts["append"]
        self.handlers = {"send": self.send, "append": self.append}

    def send(self, entry: Entry) -> None:
        """Take a line of a send."""
        kind, op = entry["type"], entry["op"]
        self._send_counts[kind] += 1
        if kind == "invoke":
            if op in self._sends:
                raise Malformed(f"op {op} is invoked twice")
            flags = _ACKS[entry["acks"]] | (ONCE if entry["idempotent"] else 0)
            added = self._sends[op] = self._add(entry, entry["value"], flags)
            if "size" in entry:
                self._describe(added, entry)
            return
        row = self._sends.pop(op, None)
        if row is None:
            raise Malformed(f"op {op} is not a send under way")
        if kind == "ok":
            epoch = entry["leader_epoch"]
            self._writes.succeed(row, self._offset(entry, self._writes.flags[row]), epoch, entry["time"])
        else:
            self._writes.end(row, _ENDS[kind], entry["time"])

    def _describe(self, row: int, entry: Entry) -> None:
        """Take what is said of a record that may be dropped."""
        self._writes.sizes[row] = natural(entry, "size")
        self._writes.tombstones[row] = bool(entry.get("tombstone"))
        if "key" in entry:
            self._writes.keys[row] = self._facts.keys.number(text(entry, "key"))

    def append(self, entry: Entry) -> None:
        """Take a line of an append."""
        kind, op = entry["type"], entry["op"]
        self._append_counts[kind] += 1
        if kind == "invoke":
            if op in self._appends:
                raise Malformed(f"op {op} is invoked twice")
            self._appends[op] = self._invoke_append(entry)
            return
        number = self._appends.pop(op, None)
        if number is None:
            raise Malformed(f"op {op} is not an append under way")
        rows = self._facts.appends.rows(number)
        if kind != "ok":
            for row in rows:
                self._writes.end(row, _ENDS[kind], entry["time"])
            return
        epoch = entry.get("leader_epoch", UNKNOWN)
        for offset, row in enumerate(rows, natural(entry, "offset")):
            self._writes.succeed(row, offset, epoch, entry["time"])

    def _invoke_append(self, entry: Entry) -> int:
        values = entry["values"]
        if not values:
            raise Malformed("an append of nothing")
        expected = UNKNOWN if entry["expected"] is None else natural(entry, "expected")
        first = len(self._writes.values)
        for value in values:
            self._add(entry, value, SURVIVES | ONCE | APPEND)
        return self._facts.appends.add(first, len(values), expected)

    def _add(self, entry: Entry, value: int, flags: int) -> int:
        if value in self._writes.rows:
            raise Malformed(f"value {value} is written twice: values are unique in a run")
        spot = spot_of(self._facts, entry)
        process = self._facts.processes.number(entry["process"])
        return self._writes.add(value, spot, entry["op"], process, flags, entry["time"])

    def _offset(self, entry: Entry, flags: int) -> int:
        offset: int = entry["offset"]
        if offset < 0 and (flags & SURVIVES or offset != UNKNOWN):
            raise Malformed(f"acknowledged at offset {offset}")
        return offset


def spot_of(facts: Facts, fields: Entry) -> int:
    """Give the number of the partition that fields name. Raises Malformed, KeyError."""
    spot = facts.spots.find(Spot(fields["topic"], fields["partition"]))
    if spot is None:
        spot = facts.spots.number(Spot(text(fields, "topic"), natural(fields, "partition")))
        facts.logs.append(PartitionLog())
    return spot
