"""The figures as a picture: an SVG of four panels, the same bytes for the same figures.

Owns what is drawn. matplotlib is imported only when something is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.peers import PEERS
from benchmark.plan import Kind
from benchmark.processes import BenchmarkError
from benchmark.report import Row

# Okabe and Ito's palette: told apart by people who do not see all colours, and in grey.
_COLOURS = {
    "direct": "#999999",
    "nginx": "#009E73",
    "fastapi": "#E69F00",
    "litellm": "#D55E00",
    "main": "#56B4E9",
    "fast": "#0072B2",
}
_INCHES = (9.0, 7.0)


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        title: What it shows, with the unit.
        figure: The key of the figure.
        kinds: Of which loads.
    """

    title: str
    figure: str
    kinds: tuple[Kind, ...] = (Kind.PACED,)


PANELS = (
    Panel("CPU per event, µs", "cpu_us_per_event"),
    Panel(
        "added time to the first byte, median ms", "added_first_byte_ms", (Kind.IDLE, Kind.PACED)
    ),
    Panel("delay of events at the end, p99 ms", "delay_end_p99_ms"),
    Panel("real engine: CPU per event, µs", "cpu_us_per_event", (Kind.ENGINE,)),
)


def series(found: Sequence[Row], panel: Panel) -> dict[str, list[tuple[int, float]]]:
    """Return the points of each peer in a panel: streams and value; peers without any are left out.

    What is not positive cannot be drawn on the panels' logarithmic scale, and is left out too.
    """
    points: dict[str, list[tuple[int, float]]] = {}
    for row in found:
        value, streams = row.get(panel.figure), row["streams"]
        if row["kind"] in panel.kinds and isinstance(value, (int, float)) and value > 0:
            assert isinstance(streams, int)  # noqa: S101  # made by us
            points.setdefault(str(row["peer"]), []).append((streams, float(value)))
    return points


def draw(found: Sequence[Row], path: Path) -> None:
    """Write the picture.

    Raises:
        BenchmarkError: When matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise BenchmarkError("--plot needs matplotlib, of the dependency group bench") from error
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter

    # A fixed salt and no date: the same figures give the same file.
    mpl.rcParams.update({"svg.hashsalt": "benchmark", "svg.fonttype": "none", "font.size": 9})
    figure = Figure(figsize=_INCHES, layout="constrained")
    for axes, panel in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
        all_points = series(found, panel)
        ticks = sorted({streams for points in all_points.values() for streams, _ in points})
        for name, points in all_points.items():
            # Equal steps for the numbers of streams, which are far from equal.
            places = [ticks.index(streams) for streams, _ in points]
            values = [value for _, value in points]
            axes.plot(places, values, marker="o", color=_COLOURS[name], label=PEERS[name].title)
        axes.set_title(panel.title)
        axes.set_xlabel("streams")
        axes.set_xticks(range(len(ticks)), [str(tick) for tick in ticks])
        if all_points:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.5)))
        axes.grid(visible=True, alpha=0.3)
    handles = {
        label: handle
        for axes in figure.axes
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    titles = [peer.title for peer in PEERS.values() if peer.title in handles]
    figure.legend([handles[title] for title in titles], titles, loc="outside lower center", ncols=3)
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
