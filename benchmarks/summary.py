"""From single runs to what is reported: figures of a run, medians over repeats, ratios. Pure.

A ratio of two systems (or of two workloads) is taken within each repeat, from runs that followed each other, and the
median is that of these ratios: what changed on the machine between repeats does not count.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from benchmarks.archive import Results, Run
from benchmarks.result import Load
from benchmarks.workloads import Workload
from penstock.client.bench.histogram import Histogram

CEILING = "limit"
PRODUCT = "penstock"
LATENCY_KINDS = {"open_loop", "series", "tail"}
PERCENTS = {"p50_ms": 50.0, "p99_ms": 99.0, "p99.9_ms": 99.9}


Figure = tuple[str, str, str]
"""System, workload, and the name of a figure (see `figures`)."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over repeats."""

    median: float
    least: float
    most: float
    count: int


def spread(values: Iterable[float]) -> Spread | None:
    """Summarize; None where there is nothing."""
    found = list(values)
    return Spread(median(found), min(found), max(found), len(found)) if found else None


def figures(run: Run) -> dict[str, float]:
    """Give all figures of a run, by name; empty where it failed.

    records_s, mb_s; pXX_ms and max_ms where latency was measured; server_cpu_s of all servers together, cpu_us the same
    by record, client_cpu_s; anon_mb: own memory of all servers together.
    """
    load = run.load
    if load is None:
        return {}
    server_cpu_s = sum(cost.cpu_s for cost in run.servers.values())
    return {
        "records_s": load.records / load.seconds if load.seconds else 0.0,
        "mb_s": load.bytes / load.seconds / 1e6 if load.seconds else 0.0,
        **_latency(load),
        "server_cpu_s": server_cpu_s,
        "cpu_us": server_cpu_s / load.records * 1e6 if load.records else 0.0,
        "client_cpu_s": load.client_cpu_s,
        "anon_mb": sum(cost.rss_anon for cost in run.servers.values()) / 1e6,
    }


def _latency(load: Load) -> dict[str, float]:
    histogram = Histogram(load.latency)
    if not histogram.count:
        return {}
    percentiles = {name: histogram.percentile(percent) for name, percent in PERCENTS.items()}
    return {**percentiles, "max_ms": histogram.max_us / 1000}


class Summary:
    """All figures of some results."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self._runs: dict[tuple[str, str], dict[int, dict[str, float]]] = {}
        for run in results.runs:
            if run.load is not None:
                self._runs.setdefault((run.system, run.workload), {})[run.repeat] = figures(run)
        measured = {system for system, _ in self._runs}
        self.systems = [name for name in dict.fromkeys(run.system for run in results.runs) if name in measured]
        """Those with a result; Penstock first, then the ceiling."""
        self.systems.sort(key=lambda name: (name != PRODUCT, name != CEILING))

    def workloads(self, *kinds: str) -> list[Workload]:
        """Give those of these kinds (none: all) that have a result, in their order."""
        wanted = [workload for workload in self.results.workloads if not kinds or workload.kind in kinds]
        return [w for w in wanted if any((system, w.name) in self._runs for system in self.systems)]

    def value(self, system: str, workload: str, figure: str) -> Spread | None:
        """Give a figure over all repeats; None where it was not measured."""
        repeats = self._runs.get((system, workload), {})
        return spread(found[figure] for found in repeats.values() if figure in found)

    def ratio(self, over: Figure, *under: Figure) -> Spread | None:
        """Divide figures within each repeat that has both; by the largest of several. None where no repeat has both."""
        above, below = self._figure(over), [self._figure(figure) for figure in under]
        return spread(
            above[repeat] / max(others)
            for repeat in sorted(above)
            if (others := [found[repeat] for found in below if found.get(repeat)])
        )

    def _figure(self, figure: Figure) -> dict[int, float]:
        """A figure by repeat."""
        system, workload, name = figure
        repeats = self._runs.get((system, workload), {})
        return {repeat: found[name] for repeat, found in repeats.items() if name in found}

    def histogram(self, system: str, workload: str) -> Histogram:
        """Give the latencies of all repeats together."""
        whole = Histogram()
        for run in self.results.runs:
            if (run.system, run.workload) == (system, workload) and run.load is not None:
                whole.merge(Histogram(run.load.latency))
        return whole
