"""What Penstock's speed is judged by, as data, and whether some results reach it. Pure.

Each part of each row is one Part: a figure of Penstock, taken as it is or divided by another within each repeat, the
median over the repeats, and a bound. docs/performance.md shows the table.
"""

from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.summary import CEILING, PRODUCT, Figure, Spread, Summary

KAFKA = "kafka-synced"
BATCHES = ("batch-64k", "batch-256k", "batch-1024k")
State = Literal["reached", "not reached", "not measured"]


@dataclass(frozen=True, slots=True)
class Part:
    """One bound."""

    text: str
    figure: Figure
    under: tuple[Figure, ...]
    """What it is divided by: the largest of these; nothing where there are none."""
    bound: float
    at_least: bool
    strict: bool = False
    """The bound itself does not do."""

    def holds(self, value: float) -> bool:
        """Whether this value is good enough."""
        if value == self.bound:
            return not self.strict
        return value > self.bound if self.at_least else value < self.bound


@dataclass(frozen=True, slots=True)
class Judgement:
    """What became of a part."""

    work: str
    part: str
    aim: str
    state: State
    value: float | None
    spread: Spread | None = None
    reason: str = ""
    """Why it was not measured."""

    @property
    def text(self) -> str:
        """As in the table: "reached: 0.85", "not reached: 0.6 instead of at least 0.8", "not measured: ..."."""
        if self.value is None:
            return f"{self.state}: {self.reason}"
        instead = "" if self.state == "reached" else f" instead of {self.aim}"
        return f"{self.state}: {number(self.value)}{instead}"


def _ratio(workload: str, figure: str, system: str, bound: float, *, at_least: bool) -> Part:
    """Penstock's figure over another system's."""
    against = "of the ceiling" if system == CEILING else "of Kafka synced"
    names = {"mb_s": "bytes/s", "records_s": "records/s", "p50_ms": "p50", "p99_ms": "p99"}
    own = (PRODUCT, workload, figure)
    return Part(f"{workload}: {names[figure]} {against}", own, ((system, workload, figure),), bound, at_least)


def _batches(workload: str) -> list[Part]:
    """Kafka's side is its best of the three sizes: small batches do not suit its client."""
    own = (PRODUCT, workload, "mb_s")
    peers = tuple((KAFKA, other, "mb_s") for other in BATCHES)
    return [
        _ratio(workload, "mb_s", CEILING, 0.8, at_least=True),
        Part(f"{workload}: bytes/s of Kafka synced at its best size", own, peers, 2.0, at_least=True),
    ]


def _paced(workload: str) -> list[Part]:
    tail: Figure = (PRODUCT, workload, "p99.9_ms")
    return [
        _ratio(workload, "p99_ms", CEILING, 2.0, at_least=False),
        _ratio(workload, "p99_ms", KAFKA, 0.25, at_least=False),
        Part(f"{workload}: p99.9 of its own p99", tail, ((PRODUCT, workload, "p99_ms"),), 3.0, at_least=False),
    ]


def _consumed(workload: str, bound: float) -> Part:
    return Part(f"{workload}: records/s", (PRODUCT, workload, "records_s"), (), bound, at_least=True)


AIMS: dict[str, list[Part]] = {
    "batches of 64 KiB to 1 MiB, RF3 acks=all": [part for workload in BATCHES for part in _batches(workload)],
    "one small batch in flight": [
        _ratio("series", "p50_ms", CEILING, 1.2, at_least=False),
        _ratio("series", "p99_ms", CEILING, 1.5, at_least=False),
        Part(
            "series: p99 of Kafka synced",
            (PRODUCT, "series", "p99_ms"),
            ((KAFKA, "series", "p99_ms"),),
            1.0,
            at_least=False,
            strict=True,
        ),
    ],
    "100 B records, 6 partitions, RF3 acks=all, from one Python process": [
        _ratio("small-rf3-all", "records_s", CEILING, 0.7, at_least=True),
        _ratio("small-rf3-all", "records_s", KAFKA, 1.3, at_least=True),
    ],
    "open loop 5,000/s and 10,000/s": [*_paced("open-5k"), *_paced("open-10k")],
    "consume 100 B, one Python process": [
        _consumed("consume-batches", 2_000_000),
        _consumed("consume-records", 800_000),
    ],
    "1,000 partitions at the same total rate": [
        Part(
            "CPU of all nodes, of that with 10 partitions",
            (PRODUCT, "partitions-1000", "server_cpu_s"),
            ((PRODUCT, "partitions-10", "server_cpu_s"),),
            1.5,
            at_least=False,
        )
    ],
}
"""By the name of the row."""
SOAK_WORK = "memory of each node over an hour of mixed load"
SOAK_BOUND = 0.05
SOAK_HOUR_S = 3_500.0
"""A soak that is shorter is no hour."""


def judge(summary: Summary, soak: dict[str, Any] | None = None) -> list[Judgement]:
    """Judge every part; `soak`: the file of benchmarks.soak."""
    judged = [_judge(summary, work, part) for work, parts in AIMS.items() for part in parts]
    return judged + _judge_soak(soak)


def _judge(summary: Summary, work: str, part: Part) -> Judgement:
    found = summary.ratio(part.figure, *part.under) if part.under else summary.value(*part.figure)
    aim = f"{_limit(part)} {number(part.bound)}"
    if found is None:
        return Judgement(work, part.text, aim, "not measured", None, reason=_missing(summary, part))
    state: State = "reached" if part.holds(found.median) else "not reached"
    return Judgement(work, part.text, aim, state, found.median, found)


def _limit(part: Part) -> str:
    if part.strict:
        return "above" if part.at_least else "below"
    return "at least" if part.at_least else "at most"


def _missing(summary: Summary, part: Part) -> str:
    """Say what there is no result of."""
    for system, workload, figure in (part.figure, *part.under):
        if system in summary.results.skipped:
            return f"{system} was skipped"
        if summary.value(system, workload, figure) is None:
            return f"no result of {workload} on {system}"
    return "no repeat has both"


def _judge_soak(soak: dict[str, Any] | None) -> list[Judgement]:
    aim = f"within {SOAK_BOUND:.0%}"
    text = "own memory, last quarter against the second"
    summary = (soak or {}).get("summary")
    if not summary or summary["seconds"] < SOAK_HOUR_S:
        reason = "no soak was given" if not summary else f"it took {summary['seconds'] / 60:.0f} minutes, not an hour"
        return [Judgement(SOAK_WORK, text, aim, "not measured", None, reason=reason)]
    judged = []
    for name, process in summary["processes"].items():
        if name.startswith("node-"):
            change = process["rss_anon"]["change"]
            state: State = "reached" if abs(change) <= SOAK_BOUND else "not reached"
            judged.append(Judgement(SOAK_WORK, f"{name}: {text} (change)", aim, state, change))
    return judged


def number(value: float) -> str:
    """Write a value with about three digits that count."""
    if abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.{1 if abs(value) >= 100 else 2 if abs(value) >= 0.1 else 3}f}"
