"""The picture of `plan`: memory against time, and the order in which a schedule runs steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ..display import style
from ..memory.plan import duration

KINDS = {
    "run": ("run, not cached", style.BLUE),
    "again": ("run again, not cached", style.PURPLE),
    "cached": ("run and cached", style.GREEN),
    "cached again": ("run again and cached", style.AMBER),
    "reversed": ("reversed", style.ORANGE),
    "stored": ("state stored", "#BBBBBB"),
}
_PIXELS = 1500  # of the longer side; of lines that differ by less, one is drawn
_MANY = 60  # with more actions, a close-up is drawn too
_CLOSE = 16  # actions in the close-up


def draw(path: Path, rows: Any, between: list[Any], plan: Any, title: str) -> None:
    """Write a PNG of the frontier and, if there is a plan, of its schedule."""
    many = plan is not None and len(list(islice(plan.schedule(), _MANY + 1))) > _MANY
    figure, axes = style.canvas(title, 1 + (plan is not None) + many)
    style.frontier(axes[0], rows, between)
    axes[0].set_title("What memory costs in time", fontsize=11)
    if plan is not None:
        peak = style.short_bytes(plan.peak_bytes)
        time = f"time factor {plan.time_factor:.2f}"
        if plan.seconds is not None:
            time = f"about {duration(plan.seconds)}"
        style.this_run(axes[0], plan, f"this plan: {peak},\n{time}")
        lines = list(strokes(plan.schedule()))
        _schedule(axes[1], lines, plan)
        if many:
            _close_up(axes[2], lines)
    style.save(figure, path)


def strokes(actions: Iterable[tuple[Any, ...]]) -> Iterator[tuple[str, int, int, int, int]]:
    """Yield a line (kind, t, done, t, done) for each action of a schedule.

    kind : of KINDS
    t, done : a time step, and the steps run by then; at either end of the line
    """
    done = furthest = 0
    stored: list[tuple[int, int]] = []
    for name, *times in actions:
        if name in ("advance", "cache"):
            a, b = times
            kind = {"advance": "run", "cache": "cached"}[name]
            if a < furthest:
                kind = {"run": "again", "cached": "cached again"}[kind]
            yield kind, a, done, b, done + b - a
            done += b - a
            furthest = max(furthest, b)
        elif name in ("reverse", "window"):
            a, b = times[0], times[-1]
            yield "reversed", b, done, a, done + b - a
            done += b - a
        elif name == "store":
            stored.append((times[0], done))
        elif name == "discard":
            at, since = stored.pop()
            yield "stored", at, since, at, done


def _schedule(axes: Any, lines: list[Any], plan: Any) -> None:
    """Draw the whole schedule; of lines within the same pixels, one."""
    total = plan.forward_steps + plan.backward_steps
    across, up = _PIXELS / max(1, plan.steps), _PIXELS / max(1, total)
    seen: dict[tuple[Any, ...], Any] = {}
    for line in lines:
        kind, t, y, u, z = line
        pixels = kind, int(t * across), int(y * up), int(u * across), int(z * up)
        seen.setdefault(pixels, line)
    _draw_lines(axes, list(seen.values()), 0.6 if len(seen) > _MANY else 1.6)
    axes.set_xlim(0, max(1, plan.steps))
    axes.set_ylim(0, max(1, total))
    present = {kind for kind, *_ in lines}
    handles = [
        Line2D([], [], color=colour, linewidth=2, label=text)
        for kind, (text, colour) in KINDS.items()
        if kind in present
    ]
    axes.legend(handles=handles, loc="upper right", fontsize=9, framealpha=0.9)
    axes.set_title("Its schedule, from bottom to top", fontsize=11)


def _close_up(axes: Any, lines: list[Any]) -> None:
    """Draw the lines in the middle of the list, and the states stored during them."""
    run = [line for line in lines if line[0] != "stored"]
    middle = run[len(run) // 2 : len(run) // 2 + _CLOSE]
    left = min(min(t, u) for _, t, _, u, _ in middle)
    right = max(max(t, u) for _, t, _, u, _ in middle)
    bottom, top = middle[0][2], middle[-1][4]
    stored = [
        line for line in lines
        if line[0] == "stored" and left <= line[1] <= right and line[2] < top and line[4] > bottom
    ]  # fmt: skip
    _draw_lines(axes, [*stored, *middle], 1.6)
    edge = 0.02 * (right - left)
    axes.set_xlim(left - edge, right + edge)
    axes.set_ylim(bottom, top)
    axes.set_title(f"Close-up: {len(middle)} actions halfway", fontsize=11)


def _draw_lines(axes: Any, lines: list[Any], width: float) -> None:
    for kind, (_, colour) in KINDS.items():
        ends = [((t, y), (u, z)) for k, t, y, u, z in lines if k == kind]
        stored = kind == "stored"
        widths = width if not stored else 0.6 if len(ends) < 10 * _MANY else 0.3
        axes.add_collection(
            LineCollection(ends, colors=colour, linewidths=widths, zorder=1 if stored else 2)
        )
    axes.set_xlabel("time step t of the sequence")
    axes.set_ylabel("steps run so far, forward and back")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axis.set_major_locator(MaxNLocator(5, integer=True))
