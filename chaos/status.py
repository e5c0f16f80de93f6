"""What `penstock-chaos` prints at the end of a run: plain text, at most WIDTH columns. Pure."""

import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

from penstock.chaos import words
from penstock.chaos.words import Json

WIDTH = 100
MAX_KINDS = 20
"""Kinds of anomalies that are told; the report has them all."""


def summary(verdict: Json, run: Json, folder: Path | None = None) -> str:
    """Tell a run by its parsed verdict.json and run.json: verdict, share acknowledged, aims, faults, anomalies."""
    lines = [
        *_verdict(verdict, run),
        *_shares(verdict),
        *_aims(verdict),
        *_faults(verdict),
        *_anomalies(verdict),
        *([] if folder is None else [f"Folder: {folder}"]),
    ]
    return "\n".join(lines)


def _verdict(verdict: Json, run: Json) -> Iterator[str]:
    facts = [f"scenario {run['scenario']}" if "scenario" in run else "", f"seed {run['seed']}" if "seed" in run else ""]
    told = ", ".join(fact for fact in facts if fact)
    yield from _wrapped(f"{words.verdict_of(verdict).upper()}{': ' + told if told else ''}", 0)
    for reason in verdict.get("reasons", ()):
        yield from _wrapped(f"- {reason}", 2)


def _shares(verdict: Json) -> Iterator[str]:
    measures = verdict.get("measures", {})
    for name, title in (("records", "Records"), ("metadata", "Metadata changes")):
        share = measures.get(name)
        if share and share["asked"] + share["refused"]:
            counts = ", ".join(f"{share[kind]} {kind}" for kind in ("acked", "failed", "unknown", "refused"))
            yield from _wrapped(f"{title}: {words.percent(share['share'])} acknowledged ({counts})", 2)


def _aims(verdict: Json) -> Iterator[str]:
    for aim in verdict.get("aims", ()):
        told = f"{aim['name']}: {words.aim_measured(aim)} (wanted {words.aim_wanted(aim)}): {words.met(aim['met'])}"
        yield from _wrapped(told + (f"; {aim['detail']}" if aim["detail"] else ""), 2)


def _faults(verdict: Json) -> Iterator[str]:
    faults = words.faults_of(verdict)
    without = words.without_effect(faults)
    yield f"Faults: {len(faults) - len(without)} of {len(faults)} hit"
    for fault in without:
        told = f"- {fault['id']}, {fault['fault']}: {words.fault_hit(fault)}: {words.reason_of(fault)}"
        yield from _wrapped(told, 2)


def _anomalies(verdict: Json) -> Iterator[str]:
    kinds = words.first_of_each_kind(verdict)
    yield f"Anomalies: {sum(count for _, count in kinds)}"
    for anomaly, count in kinds[:MAX_KINDS]:
        yield from _wrapped(f"- {words.anomaly_line(anomaly)}{f' (and {count - 1} more)' if count > 1 else ''}", 2)
    if len(kinds) > MAX_KINDS:
        yield f"  and {len(kinds) - MAX_KINDS} more kinds"


def _wrapped(text: str, indent: int) -> Iterable[str]:
    clean = "".join(char if char.isprintable() else " " for char in text)
    return textwrap.wrap(clean, WIDTH, initial_indent=" " * (indent // 2 * 2), subsequent_indent=" " * (indent + 2))
