"""The timeline of a run as one SVG: faults, throughput, latency and reading over the seconds.

Deterministic: equal measures give equal bytes. Texts stay texts. matplotlib is slow to import, so it is imported here
alone, and only when something is drawn.
"""

import io
from collections.abc import Mapping, Sequence
from math import nan
from typing import TYPE_CHECKING, Any

from penstock.chaos import words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Json = Mapping[str, Any]

WIDTH_IN = 11.0
WIDTH_OF_FAULT_IN = 0.55
MAX_WIDTH_IN = 40.0
ROW_IN = 0.24
"""Height of a row of faults."""
LABEL_IN_PER_CHARACTER = 0.085
MAX_LABEL = 40
MARGINS_IN = 1.2
"""To the left and the right of the axes, in all."""

ACKED, UNKNOWN, FAILED = "#5b9bd5", "#f0a30a", "#c0392b"
HIT, NOT_HIT = "#8e6bbf", "#9aa0a6"
INK = "#222222"

USUAL_SHARE, ROOM = 0.95, 1.6
"""A rate axis ends at ROOM times what this share of the bins stays below."""

_STYLE: Any = {
    "svg.hashsalt": "penstock",
    "svg.fonttype": "none",
    "font.size": 9,
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
}


def timeline(measures: Json) -> str:
    """Draw the measures (in their JSON form); an `<svg>` element."""
    import matplotlib as mpl  # noqa: PLC0415  slow

    with mpl.rc_context(_STYLE):
        return _svg(_draw(measures))


def rows_of(spans: Sequence[tuple[float, float]]) -> list[int]:
    """Give each span, in the order of their beginnings, the first row in which it touches no other."""
    ends: list[float] = []
    rows = []
    for start, end in spans:
        row = next((index for index, taken in enumerate(ends) if taken <= start), len(ends))
        ends[row : row + 1] = [end]
        rows.append(row)
    return rows


def _draw(measures: Json) -> "Figure":
    from matplotlib.figure import Figure  # noqa: PLC0415  slow

    faults = [fault for fault in measures["faults"] if fault["status"] != "skipped"]
    duration = max(1.0, measures["duration_s"])
    width = min(MAX_WIDTH_IN, max(WIDTH_IN, WIDTH_OF_FAULT_IN * len(faults)))
    second_in = (width - MARGINS_IN) / duration
    rows = rows_of([(fault["inject"], _label_end(fault, duration, second_in)) for fault in faults])
    heights = [ROW_IN * (max(rows, default=0) + 1.4), 2.4, 2.0, 1.1]
    figure = Figure(figsize=(width, sum(heights) + 0.9), layout="constrained")
    lane, throughput, latency, reading = figure.subplots(4, 1, sharex=True, height_ratios=heights)
    _lane(lane, faults, rows, duration)
    _throughput(throughput, measures["series"])
    _latency(latency, measures["series"])
    _reading(reading, measures["series"])
    _shade((throughput, latency, reading), faults, duration)
    _phases((throughput, latency, reading), measures)
    reading.set_xlim(0, duration)
    reading.set_xlabel("seconds since the run began")
    figure.align_ylabels((throughput, latency, reading))
    return figure


def _label(fault: Json) -> str:
    return f"{fault['id']} {fault['fault']}"[:MAX_LABEL]


def _end(fault: Json, duration: float) -> float:
    return duration if fault["healed"] is None else float(fault["healed"])


def _label_end(fault: Json, duration: float, second_in: float) -> float:
    """The end of the bar or of its label, whichever is further."""
    label = fault["inject"] + len(_label(fault)) * LABEL_IN_PER_CHARACTER / second_in
    return float(max(_end(fault, duration), label))


def _color(fault: Json) -> str:
    return HIT if words.fault_hit(fault) == "hit" else NOT_HIT


def _lane(axes: "Axes", faults: Sequence[Json], rows: Sequence[int], duration: float) -> None:
    for fault, row in zip(faults, rows, strict=True):
        start, end = fault["inject"], _end(fault, duration)
        bar = axes.barh(row, end - start, left=start, height=0.86, color=_color(fault), alpha=0.45, linewidth=0)
        bar[0].set_gid(f"fault-{fault['id']}")
        axes.text(start, row, " " + _label(fault), va="center", ha="left", fontsize=8, parse_math=False)
    axes.set_ylim(max(rows, default=0) + 0.7, -0.7)
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(bottom=False)
    axes.set_ylabel("faults", rotation=0, ha="right", va="center")


def _throughput(axes: "Axes", series: Json) -> None:
    kinds = (("acknowledged", "acked", ACKED), ("unknown", "unknown", UNKNOWN), ("failed", "failed", FAILED))
    rates = [[count / series["bin_s"] for count in series[name]["all"]] for _, name, _ in kinds]
    axes.stackplot(
        _times(series),
        *rates,
        labels=[label for label, _, _ in kinds],
        colors=[color for *_, color in kinds],
        step="post",
        linewidth=0,
    )
    axes.set_ylabel("writes / s")
    _limit(axes, [sum(counts) for counts in zip(*rates, strict=True)])
    axes.legend(loc="upper left", bbox_to_anchor=(0, 1.12), ncols=3, frameon=False, fontsize=8)


def _latency(axes: "Axes", series: Json) -> None:
    drawn = (("p50", "p50_ms", "#2c7a4b"), ("p99", "p99_ms", "#b3541e"), ("max", "max_ms", "#c9c9c9"))
    for order, (label, name, color) in enumerate(drawn):
        values = [nan if value is None else max(value, 0.01) for value in series[name]]
        axes.plot(
            _times(series),
            values,
            label=label,
            color=color,
            linewidth=1,
            drawstyle="steps-post",
            marker=".",
            markersize=2,
            zorder=5 - order,
        )
    axes.set_yscale("log")
    if all(value is None for value in series["p50_ms"]):
        axes.set_ylim(1, 1000)
    axes.set_ylabel("send latency, ms")
    axes.legend(loc="upper left", bbox_to_anchor=(0, 1.14), ncols=3, frameon=False, fontsize=8)


def _reading(axes: "Axes", series: Json) -> None:
    rates = [count / series["bin_s"] for count in series["records_read"]]
    axes.stackplot(_times(series), rates, colors=["#8fb9a8"], step="post", linewidth=0)
    axes.set_ylabel("read / s")
    _limit(axes, rates)


def _limit(axes: "Axes", rates: Sequence[float]) -> None:
    """Let no rare burst press everything else down; say how high the highest is."""
    highest = max(rates)
    usual = sorted(rates)[int(len(rates) * USUAL_SHARE)] * ROOM
    axes.set_ylim(0, min(highest, usual) * 1.05 or 1)
    if 0 < usual < highest:
        told = f"highest: {highest:,.0f} / s"
        axes.text(1, 1, told, transform=axes.transAxes, ha="right", va="bottom", fontsize=8, color="#555555")


def _shade(all_axes: "Sequence[Axes]", faults: Sequence[Json], duration: float) -> None:
    for axes in all_axes:
        for fault in faults:
            axes.axvspan(fault["inject"], _end(fault, duration), color=_color(fault), alpha=0.13, linewidth=0, zorder=0)


def _phases(all_axes: "Sequence[Axes]", measures: Json) -> None:
    for phase in measures["phases"]:
        for axes in all_axes:
            axes.axvline(phase["time"], color="#666666", linewidth=0.7, linestyle=":")
        all_axes[0].annotate(
            phase["name"],
            (phase["time"], 1),
            xycoords=("data", "axes fraction"),
            xytext=(2, -2),
            textcoords="offset points",
            va="top",
            fontsize=7,
            color="#555555",
            rotation=90,
            parse_math=False,
            bbox={"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 1},
        )


def _times(series: Json) -> list[float]:
    return [index * series["bin_s"] for index in range(len(series["records_read"]))]


def _svg(figure: "Figure") -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
