"""The nodes' logs of a run: counted by level, with their warnings, and what they say around a moment.

Logs are logfmt lines that begin with their time (`time=2026-01-31T12:00:00.000Z level=WARNING node=1 … msg="…"`); a
line without one (a traceback) belongs to the line before it. Read once, line by line; what is kept has a limit.
"""

import re
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

FIRST, LAST = 20, 40
"""Warnings and errors of a node that are kept: so many from its beginning, so many from its end."""
NEAR_S = 1.0
"""What a node logged within this of a moment is near it."""
MAX_NEAR = 40
"""Lines of a node for one moment."""
MAX_LINE = 400
LOUD = frozenset({"WARNING", "ERROR", "CRITICAL"})
_LINE = re.compile(r"time=(\S+) level=(\w+) ")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a log."""

    time: float | None
    """Seconds since the run began, by the wall clock, which faults may have set; None where not known."""
    level: str
    text: str


@dataclass(slots=True)
class NodeLog:
    """What is shown of one log."""

    name: str
    """The file's, below the run's folder."""
    size: int
    levels: Counter[str] = field(default_factory=Counter)
    first: list[Line] = field(default_factory=list)
    last: deque[Line] = field(default_factory=lambda: deque(maxlen=LAST))
    left_out: int = 0
    """Warnings and errors between `first` and `last`."""
    near: list[list[Line]] = field(default_factory=list)
    """For each moment asked for."""


def read_logs(folder: Path, started: str | None, moments: Sequence[float]) -> list[NodeLog]:
    """Read the logs of a run. `started`: the wall time (ISO) of its beginning; `moments`: seconds since then."""
    began = moment_of(started)
    paths = sorted((folder / "logs").glob("*.log"), key=lambda path: [*map(int, re.findall(r"\d+", path.stem)), 0])
    return [_read(folder, path, began, moments) for path in paths]


def moment_of(text: str | None) -> float | None:
    """Read an ISO time, UTC where it does not say; seconds since 1970. None where it is none."""
    try:
        parsed = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def _read(folder: Path, path: Path, began: float | None, moments: Sequence[float]) -> NodeLog:
    log = NodeLog(str(path.relative_to(folder)), path.stat().st_size, near=[[] for _ in moments])
    loud = 0
    for line, continued in _lines(path, began):
        log.levels[line.level] += not continued
        if line.level in LOUD:
            loud += 1
            log.first.append(line) if len(log.first) < FIRST else log.last.append(line)
        for near, moment in zip(log.near, moments, strict=True):
            if line.time is not None and abs(line.time - moment) <= NEAR_S and len(near) < MAX_NEAR:
                near.append(line)
    log.left_out = loud - len(log.first) - len(log.last)
    return log


def _lines(path: Path, began: float | None) -> Iterator[tuple[Line, bool]]:
    """Give the lines, and whether they go on with the one before."""
    time: float | None = None
    level = "-"
    with path.open(encoding="utf-8", errors="replace") as file:
        for raw in file:
            found = _LINE.match(raw)
            if found:
                wall = moment_of(found[1])
                time = None if wall is None or began is None else wall - began
                level = found[2]
            yield Line(time, level, raw.rstrip("\n")[:MAX_LINE]), not found
