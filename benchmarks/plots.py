"""The plots of a report, as SVG and PNG.

Colours are Okabe and Ito's, which the colour-blind tell apart; hatching marks the peers as they come, not synced.
matplotlib is slow to import, so it is imported here alone, and only when something is drawn. Equal results give equal
files.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.summary import CEILING, LATENCY_KINDS, PRODUCT, Spread, Summary
from penstock.client.bench.histogram import Histogram

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    PRODUCT: "#0072B2",
    CEILING: "#999999",
    "kafka": "#E69F00",
    "kafka-synced": "#D55E00",
    "jetstream": "#56B4E9",
    "jetstream-synced": "#009E73",
}
DASHES = {CEILING: (0, (5, 2)), "kafka": (0, (1, 1)), "jetstream": (0, (1, 1))}
HATCHES = {"kafka": "//", "jetstream": "\\\\"}
OTHER = "#CC79A7"
CURVES = ("open-5k", "open-10k", "series")
PERCENTILES = (50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99)
TICKS = (50.0, 90.0, 99.0, 99.9, 99.99)
INK = "#222222"
_STYLE: Any = {
    "svg.hashsalt": "penstock",
    "svg.fonttype": "none",
    "font.size": 10,
    "hatch.linewidth": 0.8,
    "hatch.color": "white",
    "axes.edgecolor": "#888888",
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e5e5e5",
    "grid.linewidth": 0.6,
    "figure.facecolor": "white",
}
Get = Callable[[str, str], Spread | None]
"""A figure by system and workload."""


def draw(summary: Summary, folder: Path, kinds: Sequence[str] = ("svg", "png")) -> list[Path]:
    """Write every plot that has something to show; the files, in their order."""
    import matplotlib as mpl  # noqa: PLC0415  slow

    mpl.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    with mpl.rc_context(_STYLE):
        for name, make in PLOTS.items():
            figure = make(summary)
            if figure is not None:
                for kind in kinds:
                    files.append(folder / f"{name}.{kind}")
                    metadata = {"Date": None} if kind == "svg" else None
                    figure.savefig(files[-1], dpi=110, metadata=metadata)
    return files


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure  # noqa: PLC0415  slow

    return Figure(figsize=(width, height), layout="constrained")


# -- bars


def _throughput(summary: Summary) -> "Figure | None":
    """Records a second above, megabytes a second below: sizes apart, or small records would dwarf the large ones."""
    small = [w.name for w in summary.workloads("throughput", "consume") if w.record_bytes < 1024]
    large = [w.name for w in summary.workloads("throughput", "consume") if w.record_bytes >= 1024]
    parts = [
        (small, "records_s", 1e3, "thousand records of 100 B a second"),
        (large, "mb_s", 1, "MB/s, records of 1 KiB"),
    ]
    shown = [part for part in parts if part[0]]
    if not shown:
        return None
    figure = _figure(11, 3.9 * len(shown) + 0.5)
    every = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
    for axes, (names, figure_name, unit, label) in zip(every, shown, strict=True):

        def get(system: str, workload: str, wanted: str = figure_name) -> Spread | None:
            return summary.value(system, workload, wanted)

        _bars(axes, summary.systems, names, get, unit=unit)
        axes.set_ylabel(label)
    _legend(figure)
    return figure


def _ratio(summary: Summary) -> "Figure | None":
    """Ratio to the ceiling: throughput above, p99 below."""
    rates = [w.name for w in summary.workloads("throughput", "consume")]
    paced = [w.name for w in summary.workloads(*LATENCY_KINDS)]
    others = [system for system in summary.systems if system != CEILING]
    parts = [
        (rates, "records_s", "throughput, of the ceiling's\n(more is better)"),
        (paced, "p99_ms", "p99, of the ceiling's\n(less is better)"),
    ]
    shown = [part for part in parts if part[0]]
    if CEILING not in summary.systems or not others or not shown:
        return None
    figure = _figure(11, 3.7 * len(shown) + 0.5)
    every = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
    for axes, (names, figure_name, label) in zip(every, shown, strict=True):

        def get(system: str, workload: str, wanted: str = figure_name) -> Spread | None:
            return summary.ratio((system, workload, wanted), (CEILING, workload, wanted))

        latency = figure_name == "p99_ms"
        _bars(axes, others, names, get, base=1 if latency else 0)  # a logarithmic axis has no zero to begin at
        axes.axhline(1, color=COLOURS[CEILING], linestyle=DASHES[CEILING], linewidth=1.5)
        if latency:
            _logarithmic(axes)
        axes.set_ylabel(label)
    _legend(figure)
    return figure


def _logarithmic(axes: "Axes") -> None:
    """Make the y axis so, with plain numbers at 1, 2, 5, 10, ..."""
    from matplotlib.ticker import LogLocator  # noqa: PLC0415  slow

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(LogLocator(subs=()))


def _bars(
    axes: "Axes", systems: Sequence[str], names: Sequence[str], get: Get, *, unit: float = 1, base: float = 0
) -> None:
    """Groups by workload, a bar a system; whiskers from the least to the most."""
    width = 0.84 / len(systems)
    for index, system in enumerate(systems):
        places, heights, below, above = [], [], [], []
        for place, name in enumerate(names):
            found = get(system, name)
            if found is not None:
                places.append(place - 0.42 + width * (index + 0.5))
                heights.append(found.median / unit - base)
                below.append((found.median - found.least) / unit)
                above.append((found.most - found.median) / unit)
        axes.bar(
            places,
            heights,
            width * 0.92,
            base,
            label=system,
            color=COLOURS.get(system, OTHER),
            hatch=HATCHES.get(system),
            yerr=[below, above] if any(below) or any(above) else None,
            error_kw={"elinewidth": 1, "ecolor": INK},
        )
    axes.set_xticks(range(len(names)), [name.replace("-", "-\n", 1) for name in names])
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False, axis="x")


def _legend(figure: "Figure") -> None:
    """One for all axes, on top."""
    found: dict[str, Any] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    figure.legend(found.values(), found.keys(), loc="outside upper center", ncols=len(found), frameon=False)


# -- curves


def _latency(summary: Summary) -> "Figure | None":
    """Percentiles of the paced workloads, all repeats together."""
    from matplotlib.ticker import NullLocator  # noqa: PLC0415  slow

    named = {w.name: w for w in summary.workloads(*LATENCY_KINDS)}
    names = [name for name in CURVES if name in named]
    if not names:
        return None
    figure = _figure(4.2 * len(names) + 0.6, 4.6)
    every = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, name in zip(every, names, strict=True):
        for system in summary.systems:
            histogram = summary.histogram(system, name)
            if histogram.count:
                _curve(axes, system, histogram)
        axes.set_title(name)
        axes.set_xscale("log")
        _logarithmic(axes)
        axes.invert_xaxis()
        axes.set_xticks([100 - tick for tick in TICKS], [f"{tick:g}" for tick in TICKS])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("percentile")
    every[0].set_ylabel("milliseconds")
    _legend(figure)
    return figure


def _curve(axes: "Axes", system: str, histogram: Histogram) -> None:
    # A percentile that less than one record in all lies beyond is the maximum under another name.
    shown = [percent for percent in PERCENTILES if histogram.count * (100 - percent) >= 100]
    axes.plot(
        [100 - percent for percent in shown],
        [histogram.percentile(percent) for percent in shown],
        label=system,
        color=COLOURS.get(system, OTHER),
        linestyle=DASHES.get(system, "solid"),
        marker="o",
        markersize=3.5,
        linewidth=1.8,
    )


PLOTS: dict[str, Callable[[Summary], "Figure | None"]] = {
    "throughput": _throughput,
    "latency": _latency,
    "ceiling": _ratio,
}
CAPTIONS = {
    "throughput": "Throughput by workload and system",
    "latency": "Latency percentiles by system, of all repeats together",
    "ceiling": "Every result as its ratio to the ceiling",
}
