"""The picture of a training: the loss of each epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..kernels import optional


def draw(path: Path, fit: Any, title: str) -> None:
    """Write a PNG of the losses of a Fit, and of the learning rate if it changed."""
    optional.load("matplotlib", "a picture needs", "pip install 'fastbptt[cli]'")
    from matplotlib.ticker import MaxNLocator

    from ..display import style

    figure, (axes,) = style.canvas(title, 1, width=7.5)
    history, best = fit.history, fit.best
    numbers = [epoch.number for epoch in history]
    marker = "o" if len(history) <= 40 else None
    axes.plot(
        numbers, [epoch.loss for epoch in history], color=style.SKY, marker=marker, markersize=4,
        label="training data, while they were learnt",
    )  # fmt: skip
    if best is not None and best.validation is not None:
        axes.plot(
            numbers, [epoch.score for epoch in history], color=style.BLUE, marker=marker,
            markersize=4, label="validation data, after each epoch",
        )  # fmt: skip
    if best is not None:
        axes.plot(
            best.number, best.score, color=style.ORANGE, marker="D", markersize=8, linestyle="none",
            label=f"best: {best.score:.4g} in epoch {best.number}",
        )  # fmt: skip
    losses = [value for epoch in history for value in (epoch.loss, epoch.score)]
    if losses and min(losses) > 0 and max(losses) > 10 * min(losses):
        axes.set_yscale("log")
        style.logarithmic(axes.yaxis, max(losses) / min(losses), lambda value: f"{value:.3g}")
    rates = {epoch.lr for epoch in history}
    if len(rates) > 1:
        other = axes.twinx()
        other.plot(numbers, [epoch.lr for epoch in history], color=style.GREY, linestyle=":")
        other.set_ylabel("learning rate (dotted)", color=style.GREY)
        other.set_ylim(bottom=0)
        other.spines[["top"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss")
    axes.legend(loc="upper right", frameon=False)
    style.save(figure, path)
