"""The demo's picture: the learning curve, and memory against time of the exact gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...display import style


def draw(path: Path, learning: Any, exact: Any, title: str) -> None:
    """Write a PNG with the learning curve beside the memory and time of the exact gradient."""
    figure, (left, right) = style.canvas(title, 2)
    _learning(left, learning)
    style.frontier(right, exact.frontier, exact.between)
    style.runs(
        right,
        [(run.measured_bytes, run.seconds, f"{run.seconds:.1f} s") for run in exact.runs],
        "this run: peak measured, and time",
    )
    right.set_title(f"Exact gradient through {exact.steps:,} characters", fontsize=11)
    style.save(figure, path)


def _learning(axes: Any, learning: Any) -> None:
    """Draw bits per character against training time; baselines are labelled at the right."""
    seconds, bits = zip(*learning.held_out, strict=True)
    label = f"LSTM, held-out text: {bits[-1]:.2f} at the end"
    axes.plot(seconds, bits, color=style.BLUE, marker="o", markersize=4, label=label)
    label = "LSTM, training text, running mean"
    axes.plot(*zip(*learning.training, strict=True), color=style.SKY, linewidth=0.9, label=label)
    for (name, value), line in zip(learning.baselines.items(), ("-", "--", ":"), strict=True):
        axes.axhline(value, color=style.GREY, linestyle=line, linewidth=1.2)
        axes.annotate(
            f"{name}\n{value:.2f}",
            (1, value),
            (4, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            color=style.GREY,
            fontsize=9,
        )
    axes.legend(loc="upper right", frameon=False)
    axes.set_xlim(0, seconds[-1])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("training time (s)")
    axes.set_ylabel("bits per character (lower is better)")
    axes.set_title("Character LSTM trained by truncated BPTT", fontsize=11)
