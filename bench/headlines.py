"""The first screen of the README: a table and a few figures, from the stored results."""

import statistics

from fastbptt.display.tables import markdown

from .stored import load
from .wording import between, size, where


def headlines():
    """Return the table and the figures of the first screen."""
    compared, claims, runs = load("compare"), load("claims"), load("examples")["examples"]
    ratios = ratios_of(compared)
    times = [point["time_ratio"] for point in claims["budget"]]
    least = [point["memory_ratio"] for point in claims["budget"]]
    every = [ratio for group in ratios.values() for ratio in group]
    sizes = {len(group) for group in ratios.values()}
    amplifier, cost = runs["amplifier"], load("lengths_cost")
    lines = [
        f"**{_means(ratios, 'float32')} the speed of the fastest of PyTorch and JAX** on a CPU in "
        f"float32, {_means(ratios, 'float64')} in float64: geometric means of "
        f"{' or '.join(map(str, sorted(sizes)))} sizes each, from {min(every):.2f}x to "
        f"{max(every):.1f}x.",
        f"**{between(least, '.0%')} of the memory for {between(times, '.1f')} times the time**: an "
        f"exact gradient through T = {claims['budget'][0]['T']:,} with one recompute, against "
        f"every step cached; the same bits.",
        f"**T = {amplifier['steps']:,} in {amplifier['budget']}**: an LSTM learns a guitar "
        f"amplifier by {amplifier['updates']} exact gradients through 30 s of audio; cuDNN's LSTM "
        f"ends at T = 65,535.",
        _ragged(cost),
    ]
    lengths, modules = load("lengths"), load("torch_modules")
    used = compared, claims, lengths, cost
    if _sizes(compared) <= _sizes(modules):  # measured on the whole grid
        lines.append(_modules(modules))
        used = *used, modules
    days = sorted({result["machine"]["date"][:10] for result in used})
    note = f"Measured on {where(compared)}; {', '.join(days)}."
    points = (f"- {line}" for line in lines)
    return "\n".join([*_peers(lengths), "", *points, "", note, ""])


def _ragged(cost):
    """A ragged batch beside PyTorch's two ways to run one."""
    point = next(
        point
        for point in cost["points"]
        if point["dtype"] == "float32" and point["case"] == "16 sequences, ragged"
    )
    ours, *theirs = (point["ms"][name] for name in ("fastbptt", "torch", "torch padded"))
    packed, padded = (taken / ours for taken in theirs)
    lengths = point["lengths"]
    return (
        f"**Ragged batches at {padded:.1f} times the speed of PyTorch's padded ones, "
        f"{float(f'{packed:.3g}'):,.0f} times that of its packed ones**: an {cost['cell']} "
        f"(H = {point['H']}) over {point['B']} sequences of {min(lengths):,} to "
        f"{max(lengths):,} steps, forward and backward."
    )


def _sizes(result):
    return {tuple(point[axis] for axis in "TBIH") for point in result["points"]}


def _modules(result):
    """Our modules beside torch.nn's."""
    plain = {(cell, dtype): group for (cell, dtype), group in ratios_of(result).items()
             if " " not in cell}  # fmt: skip
    return (
        f"**Inside PyTorch, by one line**: {_means(plain, 'float32')} the speed of `torch.nn`'s "
        f"modules in a training step in float32, {_means(plain, 'float64')} in float64."
    )


def ratios_of(compared):
    """Return {(cell, dtype): ratios of the points} of the comparison."""
    ratios = {}
    for point in compared["points"]:
        ratios.setdefault((point["cell"], point["dtype"]), []).append(point["ratio"])
    return ratios


def _peers(result):
    """Return a table of us, PyTorch and JAX: the gradient of the longest sequence, and more."""
    longest = max(point["T"] for point in result["points"])
    found = {point["name"]: point for point in result["points"] if point["T"] == longest}
    full, one, torch, jax = (found[name] for name in ("full", "one recompute", "torch", "jax"))
    micros = [f"{point['us_per_step']:.1f}" for point in (one, full, torch, jax)]
    errors = [f"{point['gradient_error']:.0e}" for point in (one, torch, jax)]
    shape = result["shape"]
    ours = (
        f"**{micros[0]}** in {size(one['measured_bytes'])}; "
        f"{micros[1]} in {size(full['measured_bytes'])}"
    )
    what = (
        f"exact gradient of an {shape['cell'].upper()} (H = {shape['hidden']}, "
        f"B = {shape['batch']}, T = {longest:,}), µs a step"
    )
    by_hand = "checkpoints that you place"
    rows = [
        [what, ours, *micros[2:]],
        ["error of that gradient, against float64", f"**{errors[0]}**", *errors[1:]],
        ["memory budget", '**`memory="64MB"`**: the same bits', by_hand, by_hand],
        ["on a GPU", "written, not yet run on one", "**yes**", "**yes**"],
    ]
    return markdown(["", "fastbptt", "PyTorch", "JAX"], rows, left=(0, 1, 2, 3))


def _means(ratios, dtype):
    """Return the geometric mean of each cell in that dtype, in words."""
    found = [
        f"{statistics.geometric_mean(group):.1f}x ({cell})"
        for (cell, kind), group in ratios.items()
        if kind == dtype
    ]
    return ", ".join(found[:-1]) + " and " + found[-1] if len(found) > 1 else found[0]
