"""The demo's picture: what the network learnt, and what memory costs in time."""

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

# Okabe and Ito's colours, told apart with any colour vision.
BLUE, SKY, ORANGE, GREEN, GREY = "#0072B2", "#56B4E9", "#D55E00", "#009E73", "#555555"


def draw(path, learning, exact, title):
    """Write a PNG with the learning curve beside the memory and time of the exact gradient."""
    figure = Figure(figsize=(12, 5), dpi=120, layout="constrained", facecolor="white")
    figure.suptitle(title, fontsize=11)
    left, right = figure.subplots(1, 2)
    _learning(left, learning)
    _memory(right, exact)
    for axes in (left, right):
        axes.grid(color="#DDDDDD", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, format="png")


def _learning(axes, learning):
    """Bits per character against training time; the baselines are named at the right."""
    seconds, bits = zip(*learning.held_out, strict=True)
    label = f"LSTM, held-out text: {bits[-1]:.2f} at the end"
    axes.plot(seconds, bits, color=BLUE, marker="o", markersize=4, label=label)
    label = "LSTM, training text, running mean"
    axes.plot(*zip(*learning.training, strict=True), color=SKY, linewidth=0.9, label=label)
    for (name, value), style in zip(learning.baselines.items(), ("-", "--", ":"), strict=True):
        axes.axhline(value, color=GREY, linestyle=style, linewidth=1.2)
        axes.annotate(
            f"{name}\n{value:.2f}",
            (1, value),
            (4, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            color=GREY,
            fontsize=9,
        )
    axes.legend(loc="upper right", frameon=False)
    axes.set_xlim(0, seconds[-1])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("training time (s)")
    axes.set_ylabel("bits per character (lower is better)")
    axes.set_title("Character LSTM trained by truncated BPTT", fontsize=11)


def _memory(axes, exact):
    """Peak bytes against the time factor for full caching and for one, two, three recomputes."""
    plans = sorted([*exact.frontier, *exact.between], key=lambda plan: plan.peak_bytes)
    axes.plot(
        [plan.peak_bytes / 1e6 for plan in plans],
        [plan.time_factor for plan in plans],
        color=GREEN,
        linewidth=1.2,
    )
    for plan in exact.frontier:
        point = (plan.peak_bytes / 1e6, plan.time_factor)
        axes.plot(*point, color=GREEN, marker="o")
        axes.annotate(
            f"{_recomputes(plan.recomputes)}\n{_bytes(plan.peak_bytes)}",
            point,
            (8, 5),
            textcoords="offset points",
            fontsize=9,
            color=GREEN,
        )
    here = exact.plan.peak_bytes / 1e6
    axes.plot(here, exact.plan.time_factor, color=ORANGE, marker="D", markersize=8)
    axes.annotate(
        f"this run: budget {exact.budget}\n{_bytes(exact.measured_bytes)} measured",
        (here, exact.plan.time_factor),
        (0, -10),
        textcoords="offset points",
        ha="right",
        va="top",
        color=ORANGE,
    )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))
    axes.margins(x=0.22, y=0.2)
    axes.set_xlabel("peak memory (MB)")
    axes.set_ylabel("time factor (1 = nothing recomputed)")
    axes.set_title(f"Exact gradient through {exact.steps:,} characters", fontsize=11)


def _bytes(count):
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"


def _recomputes(count):
    return ("every step cached", "one recompute", "two recomputes", "three recomputes")[count]
