"""The lines of a history that an anomaly concerns, with those around them.

The checker names operations as a person finds them: "op 17: send" or "line 240: poll". One pass over the file; lines
are not parsed, only looked for, and most are looked at only once for all anomalies.
"""

import re
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from penstock.chaos.words import Json

AROUND = 2
"""Lines before and after each line that is concerned."""
MAX_OPERATIONS = 20
"""Of an anomaly; the others are named, without their lines."""
MAX_LINE = 600
_NAME = re.compile(r"(op|line) (\d+)\b")
_OP = re.compile(r'"op":(\d+)')


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the history."""

    number: int
    """From 1 on."""
    text: str
    concerned: bool


class _Wanted:
    """What is looked for, on behalf of one anomaly."""

    def __init__(self, anomaly: Json) -> None:
        names = [str(operation[0]) for operation in anomaly.get("operations", ())[:MAX_OPERATIONS]]
        found = [match for match in map(_NAME.match, names) if match]
        self.ops = {match[2] for match in found if match[1] == "op"}
        self.lines = {int(match[2]) for match in found if match[1] == "line"}
        self.kept: dict[int, Line] = {}
        self.following = 0

    def see(self, number: int, op: str | None, text: str, before: Iterable[tuple[int, str]]) -> None:
        if op in self.ops or number in self.lines:
            for earlier, raw in before:
                self.kept.setdefault(earlier, Line(earlier, _short(raw), concerned=False))
            self.kept[number] = Line(number, text, concerned=True)
            self.following = AROUND
        elif self.following:
            self.kept[number] = Line(number, text, concerned=False)
            self.following -= 1


def excerpts(history: Path, anomalies: Sequence[Json]) -> list[list[Line]]:
    """Give, for each anomaly, lines in their order; none where there is no such file. Raises OSError."""
    wanted = [_Wanted(anomaly) for anomaly in anomalies]
    if wanted and history.exists():
        _look(history, wanted)
    return [[found.kept[number] for number in sorted(found.kept)] for found in wanted]


def moment_of(anomaly: Json) -> float | None:
    """Give when an anomaly showed: the end of its last operation, in seconds since the run began."""
    times = [time for _, began, ended in anomaly.get("operations", ()) for time in (began, ended) if time is not None]
    return max(times, default=None)


def _look(history: Path, wanted: Sequence[_Wanted]) -> None:
    ops = set().union(*(found.ops for found in wanted))
    lines = {number + more for found in wanted for number in found.lines for more in range(AROUND + 1)}
    before: deque[tuple[int, str]] = deque(maxlen=AROUND)
    following = 0
    with history.open(encoding="utf-8", errors="replace") as file:
        for number, raw in enumerate(file, 1):
            match = _OP.search(raw, 0, MAX_LINE)
            op = match[1] if match else None
            following = AROUND + 1 if op in ops else following - 1
            if following > 0 or number in lines:
                for found in wanted:
                    found.see(number, op, _short(raw), before)
            before.append((number, raw))


def _short(raw: str) -> str:
    text = raw.rstrip("\n")
    return text if len(text) <= MAX_LINE else f"{text[:MAX_LINE]} … ({len(text)} characters)"
