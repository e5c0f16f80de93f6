"""How the report of a bench is shown to people, and its progress while it runs."""

import sys
from typing import TextIO

from penstock.client.bench.histogram import Histogram
from penstock.client.bench.report import PERCENTILES, Latency, Report
from penstock.client.bench.run import Progress
from penstock.client.cli.output import Cell, Table, say

MB = 1_000_000
MIB = 1 << 20
BAR_WIDTH = 40


class ProgressLines:
    """A line a second on standard error, where that is a terminal: what was done in that second, and p99 so far."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._before = ("", 0.0, 0, 0)
        """Stage, seconds, records and bytes of the last line."""

    def __call__(self, progress: Progress) -> None:
        """Write a line."""
        tally = progress.tally
        stage, seconds, records, size = self._before
        if stage != progress.stage or tally.done < records:
            seconds, records, size = 0.0, 0, 0
        self._before = (progress.stage, progress.elapsed_s, tally.done, tally.bytes)
        if not self._shown:
            return
        took = max(1e-9, progress.elapsed_s - seconds)
        text = f"{progress.stage} {progress.elapsed_s:4.0f} s {(tally.done - records) / took:12,.0f} records/s"
        text += f" {(tally.bytes - size) / took / MB:8,.1f} MB/s"
        if tally.latency.count:
            text += f"   p99 {tally.latency.percentile(99):,.1f} ms"
        failed = tally.failed + tally.unknown
        say(text + (f"   {failed:,} failed" if failed else ""))


def parts(report: Report) -> list[Table | str]:
    """Give the report as lines and tables."""
    shown: list[Table | str] = [_headline(report), "", Table(("what", "value"), _rows(report))]
    if report.latencies:
        columns = ("latency", "samples", *(f"{name}_ms" for name in PERCENTILES), "max_ms")
        shown += ["", Table(columns, [_latency_row(latency) for latency in report.latencies])]
    shown += ["", Table(("process", "cpu_s", "cpus", "memory_mib", "note"), _usage_rows(report))]
    if report.latencies and report.latencies[-1].histogram.count:
        last = report.latencies[-1]
        shown += ["", Table((f"{last.start} to {last.end}", "samples", "percent", "bar"), _bars(last.histogram))]
    failures = [(reason, count) for reason, count in report.tally.failures.items()]
    failures += [("OUTCOME_UNKNOWN", report.tally.unknown)] if report.tally.unknown else []
    failures += [(f"{reason} in the warm-up", count) for reason, count in report.warmup_failures.items()]
    failures += [("not consumed", report.not_consumed)] if report.not_consumed else []
    return [*shown, "", Table(("failed", "records"), failures)] if failures else shown


def write_histogram(report: Report, file: TextIO) -> None:
    """Write the last latency's histogram as tab-separated lines, finer than the table: one a bucket."""
    file.write("up_to_us\tsamples\tpercentile\n")
    if not report.latencies:
        return
    histogram, seen = report.latencies[-1].histogram, 0
    for upper_us, count in histogram.to_json():
        seen += count
        file.write(f"{upper_us}\t{count}\t{100 * seen / histogram.count:.5f}\n")


def _headline(report: Report) -> str:
    plan = report.plan
    where = f"{plan.topic}: {_many(plan.partitions, 'partition')}, {_many(report.replication, 'replica')}"
    if report.verb == "consume":
        return f"consume, {report.form}, {where}"
    pace = "as fast as it goes" if plan.rate is None else f"{plan.rate:,g} records/s due"
    load = f"{_many(plan.producers, 'producer')}, {plan.record_bytes:,} B records, {pace}"
    return f"{report.verb}, {where}; acks {plan.options.get('acks', 'all')}; {load}"


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _rows(report: Report) -> list[tuple[Cell, ...]]:
    tally = report.tally
    return [
        ("records", f"{tally.done:,}"),
        ("seconds", f"{tally.seconds:,.3f}"),
        ("records/s", f"{report.records_per_s:,.0f}"),
        ("MB/s", f"{report.bytes_per_s / MB:,.2f}"),
    ]


def _latency_row(latency: Latency) -> tuple[Cell, ...]:
    histogram = latency.histogram
    figures = [histogram.percentile(percent) for percent in PERCENTILES.values()] + [histogram.max_us / 1000]
    shown = [f"{figure:,.2f}" if histogram.count else None for figure in figures]
    return (f"{latency.start} to {latency.end}", histogram.count, *shown)


def _usage_rows(report: Report) -> list[tuple[Cell, ...]]:
    rows: list[tuple[Cell, ...]] = []
    for use in report.nodes:
        memory = None if use.resident_bytes is None else f"{use.resident_bytes / MIB:,.0f}"
        cpu_s = None if use.cpu_s is None else f"{use.cpu_s:,.2f}"
        rows.append((f"node {use.node_id}", cpu_s, None if use.cpus is None else f"{use.cpus:.2f}", memory, use.note))
    client, memory = report.client, f"{report.client.resident_bytes / MIB:,.0f}"
    return [*rows, ("client", f"{client.cpu_s:,.2f}", f"{report.client_cpus:.2f}", memory, "")]


def _bars(histogram: Histogram) -> list[tuple[Cell, ...]]:
    powers = histogram.powers()
    most = max(count for _, count in powers)
    return [
        (
            f"< {upper_us / 1000:,.3f} ms",
            count,
            f"{100 * count / histogram.count:7.3f}",
            "#" * -(-BAR_WIDTH * count // most),
        )
        for upper_us, count in powers
    ]
