"""The picture of `bench`: time per step, peak memory and gradient error against T."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...display import style

LOOKS = {
    "full": (style.BLUE, "o", 9),
    "one recompute": (style.GREEN, "s", 6),
    "two recomputes": (style.SKY, "^", 5),
    "truncated": (style.ORANGE, "D", 6),
    "torch": (style.PURPLE, "v", 7),
    "jax": (style.GREY, "X", 7),
}
"""Colour, marker and its size: each is visible even where lines coincide."""
NAMES = {"torch": "PyTorch", "jax": "JAX"}
_NONE = 1e-17  # where an error of 0 is drawn


def draw(path: Path, result: dict[str, Any]) -> None:
    """Write a PNG of `result`, the contents of the JSON file."""
    shape, machine = result["shape"], result["machine"]
    sizes = ", ".join(f"{name[0].upper()}={shape[name]}" for name in ("batch", "inputs", "hidden"))
    title = f"Gradient of an {shape['cell'].upper()} ({sizes}, {shape['dtype']})"
    where = f"{machine['CPU']}, {machine['threads']} threads, fastbptt {machine['fastbptt']}"
    figure, axes = style.canvas(f"{title}; {where}", 3, width=5.2)
    points = result["points"]
    _lines(axes[0], points, "us_per_step")
    axes[0].set_ylabel("time per step (µs)")
    axes[0].set_title("Time: medians of interleaved runs", fontsize=11)
    _lines(axes[1], points, "measured_bytes")
    _lines(axes[1], points, "planned_bytes", planned=True)
    axes[1].set_ylabel("peak memory beyond x, y and gradients")
    axes[1].set_title("Memory: measured (marks), planned (dashes)", fontsize=11)
    _lines(axes[2], points, "gradient_error")
    axes[2].set_ylabel("error of the weights' gradient, over its norm")
    axes[2].set_title("Error against float64 with every step cached", fontsize=11)
    if any(point["gradient_error"] == 0 for point in points):
        axes[2].annotate(
            "drawn here: no error at all", (0.02, _NONE), (0, 8), color=style.GREY, fontsize=9,
            xycoords=("axes fraction", "data"), textcoords="offset points",
        )  # fmt: skip
    for panel in axes:
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_xlabel("sequence length T (steps)")
    for panel, what, text in (
        (axes[0], "us_per_step", lambda value: f"{value:,.4g}"),
        (axes[1], "planned_bytes", style.short_bytes),
    ):
        values = [point[what] for point in points if point[what] is not None]
        if values:
            style.logarithmic(panel.yaxis, max(values) / min(values), text)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    style.save(figure, path)


def _lines(axes: Any, points: list[dict[str, Any]], what: str, planned: bool = False) -> None:
    for name in dict.fromkeys(point["name"] for point in points):
        line = [(p["T"], p[what]) for p in points if p["name"] == name and p[what] is not None]
        if not line:
            continue
        colour, marker, size = LOOKS["truncated" if name.startswith("truncated") else name]
        lengths, values = zip(*line, strict=True)
        values = tuple(max(value, _NONE) for value in values)
        if planned:
            axes.plot(lengths, values, color=colour, linestyle="--", linewidth=1.2)
            continue
        linestyle = "none" if what == "measured_bytes" else "-"
        axes.plot(
            lengths, values, color=colour, marker=marker, markersize=size, linestyle=linestyle,
            linewidth=1.2, markerfacecolor="none" if name == "full" else colour,
            label=NAMES.get(name, f"fastbptt, {name}"),
        )  # fmt: skip
