"""The demo's picture: what the network learnt, and what memory costs in time."""

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

# Okabe and Ito's colours, told apart with any colour vision.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#555555"


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
    """Bits per character against training time, the baselines as named lines."""
    seconds, bits = zip(*learning.held_out, strict=True)
    axes.plot(*zip(*learning.training, strict=True), color=BLUE, linewidth=0.8, alpha=0.4)
    axes.plot(seconds, bits, color=BLUE, marker="o", markersize=4)
    axes.annotate(
        f"LSTM, held-out text\n{bits[-1]:.2f} at the end (thin: training text)",
        (seconds[-1], bits[-1]),
        (0, -8),
        textcoords="offset points",
        ha="right",
        va="top",
        color=BLUE,
    )
    for (name, value), style in zip(learning.baselines.items(), ("-", "--", ":"), strict=True):
        axes.axhline(value, color=GREY, linestyle=style, linewidth=1.2)
        axes.annotate(
            f"{name}: {value:.2f}",
            (1, value),
            (0, 2),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            va="bottom",
            color=GREY,
            fontsize=9,
        )
    lowest = min(*bits, *learning.baselines.values())
    axes.set_xlim(left=0)
    axes.set_ylim(max(0, lowest - 0.7), max(*bits[:1], *learning.baselines.values()) + 0.4)
    axes.set_xlabel("training time (s)")
    axes.set_ylabel("bits per character (lower is better)")
    axes.set_title("Character LSTM trained by truncated BPTT", fontsize=11)


def _memory(axes, exact):
    """Peak bytes against the time factor for full caching and for one, two, three recomputes."""
    peaks = [plan.peak_bytes / 1e6 for plan in exact.frontier]
    factors = [plan.time_factor for plan in exact.frontier]
    axes.plot(peaks, factors, color=GREEN, marker="o", linestyle="--", linewidth=0.8)
    for plan, peak, factor in zip(exact.frontier, peaks, factors, strict=True):
        axes.annotate(
            f"{_recomputes(plan.recomputes)}\n{peak:,.3g} MB",
            (peak, factor),
            (7, 5),
            textcoords="offset points",
            fontsize=9,
            color=GREEN,
        )
    here = exact.plan.peak_bytes / 1e6
    axes.plot(here, exact.plan.time_factor, color=ORANGE, marker="D", markersize=8)
    axes.annotate(
        f"this run: budget {exact.budget}\n{exact.measured_bytes / 1e6:.3g} MB measured",
        (here, exact.plan.time_factor),
        (10, -12),
        textcoords="offset points",
        va="top",
        color=ORANGE,
    )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))
    axes.margins(x=0.22, y=0.2)
    axes.set_xlabel("peak memory (MB)")
    axes.set_ylabel("time factor (1 = nothing recomputed)")
    axes.set_title(f"Exact gradient through {exact.steps:,} characters", fontsize=11)


def _recomputes(count):
    return ("every step cached", "one recompute", "two recomputes", "three recomputes")[count]
