"""Reads trims into Facts."""

from penstock.chaos.checker.facts import Facts
from penstock.chaos.checker.ingest_writes import spot_of
from penstock.chaos.checker.malformed import Malformed, natural
from penstock.chaos.checker.trims import Trim
from penstock.chaos.checker.writes import FAIL, INFO, OK
from penstock.chaos.history import Entry

_ENDS = {"ok": OK, "fail": FAIL, "info": INFO}


class TrimsReader:
    """Function `trim`."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._under_way: dict[int, Trim] = {}

    def trim(self, entry: Entry) -> None:
        """Take a line of a trim."""
        kind, op = entry["type"], entry["op"]
        self._facts.counts["trim"][kind] += 1
        if kind == "invoke":
            if op in self._under_way:
                raise Malformed(f"op {op} is invoked twice")
            process = self._facts.processes.number(entry["process"])
            trim = Trim(spot_of(self._facts, entry), op, process, natural(entry, "before"), entry["time"])
            self._under_way[op] = trim
            self._facts.trims.append(trim)
            return
        ended = self._under_way.pop(op, None)
        if ended is None:
            raise Malformed(f"op {op} is not a trim under way")
        ended.outcome, ended.completed = _ENDS[kind], entry["time"]
        if kind == "ok":
            ended.log_start = natural(entry, "log_start")
