"""The style of all pictures: the colours of Okabe and Ito on white, plain axes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

# Distinct with any kind of colour vision.
BLUE, SKY, GREEN, AMBER = "#0072B2", "#56B4E9", "#009E73", "#E69F00"
ORANGE, PURPLE, GREY = "#D55E00", "#CC79A7", "#555555"


def canvas(title: str, columns: int, width: float = 6.0) -> tuple[Figure, list[Any]]:
    """Return a figure and its axes, side by side, each `width` inches wide."""
    figure = Figure(figsize=(width * columns, 5), dpi=120, layout="constrained", facecolor="white")
    figure.suptitle(title, fontsize=11)
    every = list(figure.subplots(1, columns, squeeze=False)[0])
    for axes in every:
        axes.grid(color="#DDDDDD", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, every


def save(figure: Figure, path: Path) -> None:
    """Write the picture as a PNG."""
    figure.savefig(path, format="png")


def plain_numbers(axis: Any) -> None:
    """Write ticks as 1,000, not as 10^3."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))


def logarithmic(axis: Any, ratio: float, text: Callable[[float], str]) -> None:
    """Set the ticks of a logarithmic axis; `ratio` is that of its ends, `text` writes a tick."""
    axis.set_major_locator(LogLocator(subs=_ticks(ratio)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
    axis.set_minor_formatter(NullFormatter())


def _ticks(ratio: float) -> tuple[float, ...]:
    return (1, 1.5, 2, 3, 5, 7) if ratio < 10 else (1, 2, 5) if ratio < 100 else (1,)


def frontier(axes: Any, rows: Any, between: list[Any]) -> None:
    """Draw time against peak bytes; the plans in `rows` are labelled, and the knee is marked.

    The time is that in seconds where plans have it, else the time factor.
    """
    plans = sorted([*rows, *between], key=lambda plan: plan.peak_bytes)
    memory = [float(plan.peak_bytes) for plan in plans]
    axes.plot(memory, [_time(plan) for plan in plans], color=GREEN, linewidth=1.2)
    for plan in rows:
        point = float(plan.peak_bytes), _time(plan)
        axes.plot(*point, color=GREEN, marker="o")
        if plan is rows.knee:
            axes.plot(*point, color=GREEN, marker="o", markersize=14, fillstyle="none")
        full = plan.recomputes == 0
        axes.annotate(
            f"{_RECOMPUTES[plan.recomputes]}\n{short_bytes(plan.peak_bytes)}"
            + ("\na good place to stop" if plan is rows.knee else ""),
            point,
            (8, -8) if full else (8, 8),
            textcoords="offset points",
            ha="right" if full else "left",
            va="top" if full else "bottom",
            fontsize=9,
            color=GREEN,
        )
    axes.set_xscale("log")
    logarithmic(axes.xaxis, memory[-1] / memory[0], short_bytes)
    axes.margins(x=0.12, y=0.22)
    axes.set_xlabel("peak memory")
    if rows.knee is None:
        axes.set_ylabel("time factor (1 = nothing recomputed)")
    else:
        axes.set_ylabel("predicted time (s)")
        axes.set_ylim(bottom=0)
        plain_numbers(axes.yaxis)


def _time(plan: Any) -> float:
    """The seconds of a plan where it has them, else its time factor."""
    return float(plan.time_factor if plan.seconds is None else plan.seconds)


def this_run(axes: Any, plan: Any, text: str) -> None:
    """Mark one plan in the frontier; the legend describes it."""
    point = float(plan.peak_bytes), _time(plan)
    axes.plot(*point, color=ORANGE, marker="D", markersize=8, linestyle="none", label=text)
    axes.legend(loc="upper right", frameon=False, labelcolor=ORANGE)


def runs(axes: Any, points: list[tuple[float, float, str]], label: str) -> None:
    """Mark runs in the frontier, each (bytes, seconds, text)."""
    for size, seconds, text in points:
        axes.annotate(
            text, (size, seconds), (-4, -8), textcoords="offset points", ha="center", va="top",
            fontsize=9, color=ORANGE,
        )  # fmt: skip
    sizes, times = [size for size, *_ in points], [seconds for _, seconds, _ in points]
    axes.plot(sizes, times, color=ORANGE, marker="D", markersize=7, linestyle="none", label=label)
    axes.legend(loc="upper right", frameon=False, labelcolor=ORANGE)


_RECOMPUTES = ("every step cached", "one recompute", "two recomputes", "three recomputes")


def short_bytes(count: float) -> str:
    """Write bytes with three significant digits."""
    for power, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= 0.9995 * power:
            return f"{count / power:.3g} {unit}"
    return f"{count:.3g} B"
