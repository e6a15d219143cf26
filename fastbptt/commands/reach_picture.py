"""The picture of `reach`: the gradient's norm by lag, and the share that a window loses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..display import style

_FAINT = 1e-8  # of the largest norm; smaller norms are not drawn


def draw(path: Path, reach: Any, title: str) -> None:
    """Write a PNG of what `gradient_reach` returned."""
    figure, (left, right) = style.canvas(f"{title}; {reach.verdict}", 2)
    shown = reach.norms > _FAINT * reach.norms.max()
    end = max(5, int(reach.lags[shown].max(initial=0)))
    seen = reach.lags <= end
    _norms(left, reach, seen)
    _beyond(right, reach, seen)
    for axes in (left, right):
        axes.set_xlim(0, end)
        if reach.k2 is not None and reach.k2 <= end:
            axes.axvline(reach.k2, color=style.ORANGE, linewidth=1.2, linestyle="--")
            axes.annotate(
                f" k2 = {reach.k2:,}",
                (reach.k2, 0.02),
                xycoords=("data", "axes fraction"),
                color=style.ORANGE,
                ha="left" if reach.k2 < 0.8 * end else "right",
            )
    style.save(figure, path)


def _norms(axes: Any, reach: Any, seen: Any) -> None:
    lags = reach.lags[seen]
    floor = np.finfo(float).tiny
    low, high, norms = (np.maximum(a[seen], floor) for a in (reach.low, reach.high, reach.norms))
    text = f"10th to 90th percentile of {reach.losses:,} losses"
    axes.fill_between(lags, low, high, color=style.SKY, alpha=0.35, linewidth=0, label=text)
    axes.plot(lags, norms, color=style.BLUE, marker=".", markersize=4, label="mean")
    if 0 < reach.decay < 1:
        last = int(lags[norms > floor].max())
        anchor = norms[np.searchsorted(lags, last)]
        half = np.array([last / 2, last])
        fitted = anchor * reach.decay ** (half - last)
        constant = reach.time_constant
        steps = f"{constant:,.0f}" if constant >= 100 else f"{constant:.3g}"
        text = f"decay {reach.decay:.6g} a step:\ntime constant {steps} steps"
        axes.plot(half, fitted, color=style.ORANGE, linewidth=2, linestyle=":", label=text)
    axes.set_yscale("log")
    axes.set_ylim(bottom=max(floor, norms.max() * _FAINT / 10))
    axes.set_xlabel("lag behind the loss (steps)")
    axes.set_ylabel("norm of the loss's derivative by the state")
    axes.set_title("How far back the gradient reaches", fontsize=11)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 0.08), fontsize=9, framealpha=0.9)


def _beyond(axes: Any, reach: Any, seen: Any) -> None:
    share = 100 * np.maximum(reach.beyond[seen], 1e-12)
    axes.plot(reach.lags[seen], share, color=style.GREEN, marker=".", markersize=4)
    axes.axhline(100 * reach.share, color=style.GREY, linestyle=":", linewidth=1.2)
    axes.annotate(
        f"{100 * reach.share:g}%, as asked",
        (1, 100 * reach.share),
        (-4, 4),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="right",
        color=style.GREY,
        fontsize=9,
    )
    axes.set_yscale("log")
    axes.set_ylim(min(share.min(), 10 * reach.share), 200)
    style.plain_numbers(axes.yaxis)
    axes.set_xlabel("window k2 (steps)")
    axes.set_ylabel("share of the gradient beyond the window (%)")
    axes.set_title("What a truncated gradient loses", fontsize=11)
