"""The picture of `online`: the error as the stream went on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .. import style


def draw(path: Path, lines: list[tuple[int, float, float]], title: str) -> None:
    """Write a PNG of the errors of a stream."""
    figure, (axes,) = style.canvas(title, 1, width=9)
    count, error, last = np.array(lines).T
    axes.plot(count, error, color=style.BLUE, marker=".", label="network, before it learns the row")
    axes.plot(count, last, color=style.GREY, linestyle="--", label="the last row as a prediction")
    axes.axhline(1, color=style.AMBER, linewidth=1, linestyle=":", label="the mean")
    if min(error.min(), last.min()) > 0:
        axes.set_yscale("log")
    axes.set_xlabel("rows")
    axes.set_ylabel("squared error of the scaled numbers")
    style.plain_numbers(axes.xaxis)
    axes.legend(loc="upper right", fontsize=9)
    style.save(figure, path)
