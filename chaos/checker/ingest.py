"""Reads a history once, line by line, into Facts.

Owns what a well-formed history is; judges nothing. Whatever is wrong with a line is a HistoryError that names it.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from penstock.chaos.checker.facts import Facts
from penstock.chaos.checker.ingest_groups import GroupsReader
from penstock.chaos.checker.ingest_metadata import MetadataReader
from penstock.chaos.checker.ingest_reads import ReadsReader
from penstock.chaos.checker.ingest_trims import TrimsReader
from penstock.chaos.checker.ingest_writes import WritesReader
from penstock.chaos.checker.malformed import Malformed
from penstock.chaos.history import Entry, HistoryError

Handler = Callable[[Entry], None]


def ingest(path: Path) -> Facts:
    """Read a whole history. Raises HistoryError, OSError."""
    facts = Facts()
    reads = ReadsReader(facts)
    groups = GroupsReader(facts, reads.reposition)
    handlers = _handlers(facts, reads, groups)
    try:
        with path.open(encoding="utf-8") as file:
            _read(file, facts, handlers)
    except Malformed as error:
        raise HistoryError(f"{path}:{facts.line}: {error}") from error
    except KeyError as error:
        raise HistoryError(f"{path}:{facts.line}: {_what_is_missing(error, handlers)}") from error
    except UnicodeDecodeError as error:
        raise HistoryError(f"{path}:{facts.line + 1}: no text: {error}") from error
    except (TypeError, ValueError, OverflowError, AttributeError) as error:
        raise HistoryError(f"{path}:{facts.line}: a field is not of its kind: {error}") from error
    groups.finish()
    _count_unfinished(facts)
    return facts


def _read(lines: Iterable[str], facts: Facts, handlers: dict[str, Handler]) -> None:
    last = 0.0
    for number, line in enumerate(lines, 1):
        facts.line = number
        entry = _parse(line)
        if entry is None:
            facts.is_cut_off = True
            return
        time = entry["time"]
        if not time >= last:
            raise Malformed(f"its time is {time!r}, the line before is of {last}")
        last = time
        handlers[entry["f"]](entry)


def _handlers(facts: Facts, reads: ReadsReader, groups: GroupsReader) -> dict[str, Handler]:
    """All functions of a history. A new function joins with its reader."""

    def poll(entry: Entry) -> None:
        reads.poll(entry)
        groups.polled(entry)

    writes, metadata = WritesReader(facts), MetadataReader(facts)
    own = {"trim": TrimsReader(facts).trim, "poll": poll}
    return {**writes.handlers, **reads.handlers, **metadata.handlers, **groups.handlers, **own}


def _parse(line: str) -> Entry | None:
    """Give the entry; None for a line that was cut off."""
    try:
        entry: Any = json.loads(line)
    except ValueError as error:
        if not line.endswith("\n"):
            return None
        raise Malformed(f"no JSON: {error}") from error
    if not isinstance(entry, dict) or "f" not in entry:
        raise Malformed("no entry of a history")
    return entry


def _what_is_missing(error: KeyError, handlers: dict[str, Handler]) -> str:
    """A function that is not known, or a field."""
    missing = error.args[0]
    known = ", ".join(sorted(handlers))
    return f"there is no {missing!r}: neither a field of this line, nor one of the functions {known}"


def _count_unfinished(facts: Facts) -> None:
    """What never completed counts as info."""
    for function, kinds in facts.counts.items():
        unfinished = kinds.pop("invoke", 0) - sum(kinds.values())
        if unfinished > 0:
            kinds["info"] += unfinished
        facts.counts[function] = kinds
