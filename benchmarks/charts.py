"""The charts of a report: SVG with its text as text, the same bytes for the same results, to be read on white and on black."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from benchmarks.results import Results, number
from benchmarks.suite import BARE, OURS, Workload, median

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOG_OVER = 30.0
"""Values that span more than so many times have an axis of powers of ten."""

INK, FAINT = "#757575", "#9a9a9a44"  # Grey enough for both grounds.
COLOR_OURS, COLOR_BARE, COLOR_OTHER = "#2f81f7", "#b1bac4", "#d4a72c"

STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "actorflow",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "savefig.transparent": True,
}

_POINT = re.compile(r"us_(\d+)_(rows|actors)")


class NoCharts(Exception):
    """There is nothing to draw with."""

    def __init__(self) -> None:
        super().__init__("charts are drawn by matplotlib, which is not installed: pip install 'actorflow[bench]'")


def write(chosen: Sequence[Workload], results: Results, folder: Path) -> dict[str, list[str]]:
    """The charts of these workloads as files in that folder; returns what they are called, by the ids of the workloads.

    Raises:
        NoCharts: matplotlib is not installed; nothing was written.
    """
    with _style():
        drawn = {workload.id: _figures(workload, results) for workload in chosen}
        for figures in drawn.values():
            for name, figure in figures.items():
                folder.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(_svg(figure))
    return {id: list(figures) for id, figures in drawn.items()}


def _style() -> AbstractContextManager[None]:
    try:
        import matplotlib as mpl  # noqa: PLC0415  (an extra)
    except ImportError:
        raise NoCharts from None
    return mpl.rc_context(STYLE)


def _figures(workload: Workload, results: Results) -> dict[str, Figure]:
    """By the names of the files."""
    figures = {f"{workload.id.lower()}.svg": _bars(workload, results)}
    for what in ("rows", "actors"):
        figures[f"{workload.id.lower()}_{what}.svg"] = _growth(workload, results, what)
    return {name: figure for name, figure in figures.items() if figure is not None}


def _figure(height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(8.0, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    # Lines end without spaces, so that nothing that tidies a repository changes them.
    return b"\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + b"\n"


def _bars(workload: Workload, results: Results) -> Figure | None:
    """The main metric by contender, the first at the top, with the least and the greatest as a whisker."""
    metric = workload.metrics[0]
    found = [(each.name, results.measured(workload, each.name, metric.name)) for each in results.taking_part(workload)]
    drawn = [(name, values) for name, values in found if values]
    if len(drawn) < 2:
        return None
    middles = [median(values) or 0.0 for _, values in drawn]
    figure, axes = _figure(0.9 + 0.34 * len(drawn))
    least = [max(0.0, middle - min(values)) for middle, (_, values) in zip(middles, drawn, strict=True)]
    most = [max(0.0, max(values) - middle) for middle, (_, values) in zip(middles, drawn, strict=True)]
    bars = axes.barh(
        [name for name, _ in drawn],
        middles,
        xerr=[least, most],
        color=[_color(name) for name, _ in drawn],
        height=0.62,
        error_kw={"ecolor": INK, "elinewidth": 1.0, "capsize": 3.0},
    )
    axes.bar_label(bars, [number(middle, metric.digits) for middle in middles], padding=6)
    axes.invert_yaxis()

    axes.set_xlabel(f"{metric.unit} ({metric.better} is better)")
    axes.set_xscale(*_scale(axes, middles))
    axes.margins(x=0.14)
    return figure


def _scale(axes: Axes, middles: Sequence[float]) -> tuple[Literal["log", "linear"]]:
    above = [value for value in middles if value > 0]
    if not above or len(above) < len(middles) or max(above) / min(above) <= LOG_OVER:
        return ("linear",)
    axes.set_xlim(left=min(above) / 3)
    return ("log",)


def _color(name: str) -> str:
    if name.split(",", maxsplit=1)[0] == OURS:
        return COLOR_OURS
    return COLOR_BARE if name == BARE else COLOR_OTHER


def _growth(workload: Workload, results: Results, what: str) -> Figure | None:
    """What a step costs over that which grows, if it was measured in more than one point."""
    names = {name for sample in results.of(workload, OURS) for name in sample.measured}
    counts = sorted(int(match[1]) for match in map(_POINT.fullmatch, names) if match and match[2] == what)
    if len(counts) < 2:
        return None
    values = [results.measured(workload, OURS, f"us_{count}_{what}") for count in counts]
    middles = [median(each) or 0.0 for each in values]
    figure, axes = _figure(2.6)
    least, most = [min(each) for each in values], [max(each) for each in values]
    axes.fill_between(counts, least, most, color=COLOR_OURS, alpha=0.2, linewidth=0)
    axes.plot(counts, middles, color=COLOR_OURS, marker="o", markersize=4)
    for count, middle in zip(counts, middles, strict=True):
        axes.annotate(number(middle), (count, middle), textcoords="offset points", xytext=(0, 7), ha="center")
    axes.set_xscale("log")
    axes.set_ylim(0, max(most) * 1.25)
    axes.set_xlabel({"rows": "rows in the store", "actors": "live actors"}[what])
    axes.set_ylabel("µs a step")
    return figure
