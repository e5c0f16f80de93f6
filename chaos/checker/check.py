"""Checks a history: reads it in, asks every check, says what cannot be known."""

from itertools import islice
from pathlib import Path

from penstock.chaos.checker.facts import Facts
from penstock.chaos.checker.ingest import ingest
from penstock.chaos.checker.registry import ALLOWANCES, CHECKS
from penstock.chaos.checker.verdict import Anomaly, Verdict
from penstock.chaos.checker.writes import FAIL

EXAMPLES = 10
"""Anomalies of a kind that are shown; the others are only counted."""
NAMED = 5
"""Partitions that a reason names."""


def check(history: Path) -> Verdict:
    """Judge a run by its history. Raises HistoryError for what is no history, OSError."""
    return judge(ingest(history))


def judge(facts: Facts) -> Verdict:
    """Judge what a history says."""
    shown: list[Anomaly] = []
    found: dict[str, int] = {}
    for one in CHECKS:
        anomalies = one().find(facts)
        examples = list(islice(anomalies, EXAMPLES))
        if examples:
            shown += examples
            found[one.kind] = len(examples) + sum(1 for _ in anomalies)
    allowed = {one.kind: one().count(facts) for one in ALLOWANCES}
    reasons = tuple(_reasons(facts))
    valid = False if shown else None if reasons else True
    counts = {
        function: {kind: kinds[kind] for kind in ("ok", "fail", "info")}
        for function, kinds in facts.counts.items()
        if any(kinds.values())
    }
    return Verdict(valid, tuple(shown), found, {name: n for name, n in allowed.items() if n}, counts, reasons)


def _reasons(facts: Facts) -> list[str]:
    reasons = []
    if facts.is_cut_off:
        reasons.append("the history is cut off: its last line is not whole")
    if not facts.writes.acknowledged:
        reasons.append("nothing was acknowledged by all in-sync replicas")
    unread = [str(facts.spots[spot]) for spot in _due_spots(facts) if not facts.is_complete(spot)]
    if unread:
        more = f" and {len(unread) - NAMED} more" if len(unread) > NAMED else ""
        where = ", ".join(unread[:NAMED]) + more
        reasons.append(f"the final reading, in both isolations and to a stated end, is not whole of {where}")
    return reasons


def _due_spots(facts: Facts) -> list[int]:
    """Partitions in which something may have been written, and that nobody may have deleted."""
    writes = facts.writes
    written = {spot for spot, outcome in zip(writes.spots, writes.outcomes, strict=True) if outcome != FAIL}
    return [spot for spot in sorted(written) if not facts.is_deletable(spot)]
