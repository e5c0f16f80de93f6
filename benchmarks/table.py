"""The tables of a report, for a terminal and for a document. Pure.

A cell over several repeats is the median with the least and the most in parentheses.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.aims import Judgement, judge, number
from benchmarks.summary import CEILING, LATENCY_KINDS, Spread, Summary

NOTHING = "-"
RATES = ("throughput", "consume")
REFERENCES = {CEILING: "the ceiling", "kafka-synced": "Kafka synced"}


Line = tuple[str, str, str]
"""Label, workload, figure."""
Get = Callable[[str, str, str], Spread | None]
"""A figure by system, workload and its name."""


@dataclass(frozen=True, slots=True)
class Table:
    """A title, a word of explanation, and texts."""

    title: str
    note: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def text(self) -> str:
        """For a terminal: columns aligned."""
        every = [self.header, *self.rows]
        widths = [max(len(row[column]) for row in every) for column in range(len(self.header))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in every
        ]
        return "\n".join([self.title, *([self.note] if self.note else []), "", lines[0], *lines[1:]])

    def markdown(self) -> str:
        """For a document: numbers to the right."""
        ruler = ["---", *("---:" for _ in self.header[1:])]
        rows = ["| " + " | ".join(row) + " |" for row in (self.header, ruler, *self.rows)]
        return "\n".join([f"### {self.title}", "", *([self.note, ""] if self.note else []), *rows])


def cell(found: Spread | None) -> str:
    """Write a figure over repeats."""
    if found is None:
        return NOTHING
    if found.count == 1:
        return number(found.median)
    return f"{number(found.median)} ({number(found.least)} to {number(found.most)})"


def tables(summary: Summary, soak: dict[str, Any] | None = None) -> list[Table]:
    """Give all tables that have something to say."""
    every = [
        *_plain(summary),
        *(_ratios(summary, system, name) for system, name in REFERENCES.items()),
        _costs(summary),
        aims(judge(summary, soak)),
        _problems(summary),
    ]
    return [table for table in every if table.rows]


def _grid(systems: Sequence[str], lines: Iterable[Line], get: Get) -> list[list[str]]:
    """Rows of lines, columns by system; rows without any figure are left out."""
    rows = [[label, *(cell(get(system, name, figure)) for system in systems)] for label, name, figure in lines]
    return [row for row in rows if any(text != NOTHING for text in row[1:])]


def _plain(summary: Summary) -> list[Table]:
    rates = summary.workloads(*RATES)
    paced = summary.workloads(*LATENCY_KINDS)
    header = ["workload", *summary.systems]
    records = [(w.name, w.name, "records_s") for w in rates]
    volume = [(w.name, w.name, "mb_s") for w in rates if w.record_bytes >= 1024]
    latency = [(f"{w.name} {figure.removesuffix('_ms')}", w.name, figure) for w in paced for figure in _LATENCIES]
    grid = summary.systems
    return [
        Table("Records a second", "", header, _grid(grid, records, summary.value)),
        Table("Megabytes of values a second", "", header, _grid(grid, volume, summary.value)),
        Table("Latency in milliseconds", "", header, _grid(grid, latency, summary.value)),
    ]


_LATENCIES = ("p50_ms", "p99_ms", "p99.9_ms", "max_ms")


def _ratios(summary: Summary, reference: str, name: str) -> Table:
    """Every result as its ratio to a reference system, pair by pair."""
    others = [system for system in summary.systems if system != reference]
    lines = [(w.name, w.name, "records_s") for w in summary.workloads(*RATES)]
    for workload in summary.workloads(*LATENCY_KINDS):
        lines += [(f"{workload.name} {figure.removesuffix('_ms')}", workload.name, figure) for figure in _LATENCIES[:3]]

    def ratio(system: str, workload: str, figure: str) -> Spread | None:
        return summary.ratio((system, workload, figure), (reference, workload, figure))

    note = "Records a second: more is better. Latencies (p50, p99, p99.9): less is better."
    return Table(f"Ratio to {name}", note, ["workload", *others], _grid(others, lines, ratio))


def _costs(summary: Summary) -> Table:
    """CPU and memory."""
    lines = []
    for workload in summary.workloads():
        figure = "server_cpu_s" if workload.rate else "cpu_us"
        unit = "CPU s" if workload.rate else "µs CPU/record"
        name = workload.name
        lines += [(f"{name}: {unit}", name, figure), (f"{name}: own MB", name, "anon_mb")]
    note = (
        "All servers together, during the client's whole call (warm-up, and the filling of a topic that is then read, "
        "included). Own MB: resident memory that no file backs, at the end of it."
    )
    return Table("What it takes", note, ["workload", *summary.systems], _grid(summary.systems, lines, summary.value))


def aims(judged: Sequence[Judgement]) -> Table:
    """What Penstock is judged by."""
    rows = [[entry.work, entry.part, entry.aim, cell(entry.spread), entry.text] for entry in judged]
    return Table("Aims", "Medians over the repeats.", ["work", "measured", "aim", "value (range)", "state"], rows)


def _problems(summary: Summary) -> Table:
    """What is missing, and why."""
    results = summary.results
    rows = [[system, "all", "skipped: " + _one_line(why)] for system, why in results.skipped.items()]
    rows += [[run.system, f"{run.workload}, repeat {run.repeat}", _one_line(run.error)] for run in results.failed]
    rows += [[*text.split(": ", 1), "there was no time left"] for text in results.left_out]
    return Table("What is missing", "", ["system", "workload", "reason"], rows)


def _one_line(text: str, most: int = 300) -> str:
    short = " ".join(text.split()).replace("|", "/")
    return short if len(short) <= most else short[: most - 1] + "…"


def machine_lines(summary: Summary) -> list[str]:
    """Say what the run was made on."""
    results, machine = summary.results, summary.results.machine
    syncs = machine["disk"]["fsync_4k_ms"]
    repeats = len({run.repeat for run in results.runs})
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    form = "short form" if results.short else "full form"
    commit = f", commit {machine['commit']}" if machine.get("commit") else ""
    memory = f"{machine['memory_bytes'] / 1e9:.1f} GB of memory"
    syncs_text = f"p50 {syncs['p50']:.2f} ms, p99 {syncs['p99']:.2f} ms, at most {syncs['max']:.2f} ms"
    return [
        f"{form}, {repeats} repeat{'s' if repeats != 1 else ''}, begun {results.began}{commit}",
        f"{machine['cpu']}, {machine['cores']} cores, {memory}, {machine['kernel']}",
        f"disk: {machine['disk']['filesystem']}; a bare 4 KiB append with fsync takes {syncs_text}",
        f"Python {machine['python']}, {packages}",
    ]
