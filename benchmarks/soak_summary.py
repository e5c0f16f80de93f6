"""What the samples of `benchmarks.soak` say: is the memory of each node flat? Pure.

A sample is a JSON object: `at_s` (since the load began), totals so far, latencies since the sample before, and under
`processes` the benchmarks.procfs.Usage of each by its name. Memory is compared by the medians of two quarters of the
time, the second (the first warms up) and the last.
"""

from collections.abc import Sequence
from statistics import median
from typing import Any

FLAT_WITHIN = 0.05
"""Issue 6: "flat (last quarter within 5 % of the second)"."""
MEASURES = ("rss_anon", "rss")
NODE = "node-"
"""Begins the names of the servers among the processes."""
Sample = dict[str, Any]


def summarize(samples: Sequence[Sample]) -> dict[str, Any]:
    """Give totals, rates, CPU and memory by process. Empty where there are not two samples in each compared quarter."""
    if len(samples) < 2:
        return {}
    seconds = samples[-1]["at_s"]
    second, last = _between(samples, seconds / 4, seconds / 2), _between(samples, seconds * 3 / 4, seconds)
    if min(len(second), len(last)) < 2:
        return {}
    names = samples[0]["processes"]
    processes = {name: _process(name, samples, second, last) for name in names}
    nodes = [process for name, process in processes.items() if name.startswith(NODE)]
    return {
        "seconds": seconds,
        "records_per_s": (samples[-1]["acknowledged"] - samples[0]["acknowledged"]) / (seconds - samples[0]["at_s"]),
        "p99_ms_median": median(sample["p99_ms"] for sample in samples[1:]),
        "max_ms": max(sample["max_ms"] for sample in samples[1:]),
        "processes": processes,
        "flat": all(node["rss_anon"]["flat"] for node in nodes),
    }


def _between(samples: Sequence[Sample], begin_s: float, end_s: float) -> list[Sample]:
    return [sample for sample in samples if begin_s <= sample["at_s"] <= end_s]


def _process(name: str, samples: Sequence[Sample], second: list[Sample], last: list[Sample]) -> dict[str, Any]:
    begin, end = samples[0], samples[-1]
    cpu_s = end["processes"][name]["cpu_s"] - begin["processes"][name]["cpu_s"]
    return {
        "cpu_share": cpu_s / (end["at_s"] - begin["at_s"]),
        **{measure: _compared(name, measure, second, last) for measure in MEASURES},
    }


def _compared(name: str, measure: str, second: list[Sample], last: list[Sample]) -> dict[str, Any]:
    before, after = (median(sample["processes"][name][measure] for sample in part) for part in (second, last))
    change = after / before - 1
    return {
        "second_quarter_mb": before / 1e6,
        "last_quarter_mb": after / 1e6,
        "change": change,
        "flat": abs(change) <= FLAT_WITHIN,
    }


def lines(summary: dict[str, Any]) -> list[str]:
    """Write it for people."""
    if not summary:
        return ["too short to compare a quarter with another"]
    flat = "flat within" if summary["flat"] else "not flat: a change beyond"
    latency = f"p99 {summary['p99_ms_median']:.1f} ms (median of the samples), longest {summary['max_ms']:.0f} ms"
    return [
        f"{summary['seconds'] / 60:.1f} minutes, {summary['records_per_s']:,.0f} records/s, {latency}",
        *(_line(name, process) for name, process in summary["processes"].items()),
        f"own memory (RssAnon) of the nodes: {flat} {FLAT_WITHIN:.0%}",
    ]


def _line(name: str, process: dict[str, Any]) -> str:
    compared = ", ".join(
        f"{label} {part['second_quarter_mb']:.1f} MB -> {part['last_quarter_mb']:.1f} MB ({part['change']:+.1%})"
        for label, part in (("RssAnon", process["rss_anon"]), ("VmRSS", process["rss"]))
    )
    return f"{name}: {process['cpu_share']:.1%} of a core; second to last quarter: {compared}"
