"""What README and documentation show of the stored results: one function for each block of text.

A block stands between <!-- name:begin --> and <!-- name:end -->; `python -m bench.readme` fills it.
"""

import ast
import json
import statistics
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"
_NAMES = ("fastbptt", "torch", "jax")


def kept(name):
    """The contents of a file of results."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def block(name):
    """The text of the block of that name; `name` may have arguments, after colons."""
    kind, *arguments = name.split(":")
    return BLOCKS[kind](*arguments)


def headlines():
    """The table and the figures that a reader should see first."""
    compared, claims, runs = kept("compare"), kept("claims"), kept("examples")["examples"]
    ratios = {}
    for point in compared["points"]:
        ratios.setdefault((point["cell"], point["dtype"]), []).append(point["ratio"])
    times = [point["time_ratio"] for point in claims["budget"]]
    least = [point["memory_ratio"] for point in claims["budget"]]
    every = [ratio for values in ratios.values() for ratio in values]
    sizes = {len(values) for values in ratios.values()}
    amplifier = runs["amplifier"]
    lines = [
        f"**{_means(ratios, 'float32')} the speed of the fastest of PyTorch and JAX** on a CPU in "
        f"float32, {_means(ratios, 'float64')} in float64: geometric means of "
        f"{' or '.join(map(str, sorted(sizes)))} sizes each, from {min(every):.2f}x to "
        f"{max(every):.1f}x.",
        f"**{min(least):.0%} to {max(least):.0%} of the memory for {min(times):.1f} to "
        f"{max(times):.1f} times the time**: an exact gradient through "
        f"T = {claims['budget'][0]['T']:,} with one recompute, against every step cached; the "
        f"same bits.",
        f"**T = {amplifier['steps']:,} in {amplifier['budget']}**: an LSTM learns a guitar "
        f"amplifier by {amplifier['updates']} exact gradients through 30 s of audio; cuDNN's LSTM "
        f"ends at T = 65,535.",
    ]
    note = f"Measured on {where(compared)}; {compared['machine']['date'][:10]}."
    return "\n".join([*_peers(kept("lengths")), "", *(f"- {line}" for line in lines), "", note, ""])


def _peers(result):
    """A table of us, PyTorch and JAX: the gradient of the longest sequence, and what each has."""
    longest = max(point["T"] for point in result["points"])
    found = {point["name"]: point for point in result["points"] if point["T"] == longest}
    full, one, torch, jax = (found[name] for name in ("full", "one recompute", "torch", "jax"))
    micros = [f"{point['us_per_step']:.1f}" for point in (one, full, torch, jax)]
    errors = [f"{point['gradient_error']:.0e}" for point in (one, torch, jax)]
    shape = result["shape"]
    ours = (
        f"**{micros[0]}** in {_bytes(one['measured_bytes'])}; "
        f"{micros[1]} in {_bytes(full['measured_bytes'])}"
    )
    by_hand = "checkpoints that you place"
    return [
        _row(["", "fastbptt", "PyTorch", "JAX"]),
        "|---|---|---|---|",
        _row([
            f"exact gradient of an {shape['cell'].upper()} (H = {shape['hidden']}, "
            f"B = {shape['batch']}, T = {longest:,}), µs a step", ours, *micros[2:],
        ]),
        _row(["error of that gradient, against float64", f"**{errors[0]}**", *errors[1:]]),
        _row(["memory budget", '**`memory="64MB"`**: the same bits', by_hand, by_hand]),
        _row(["on a GPU", "written, not yet run on one", "**yes**", "**yes**"]),
    ]  # fmt: skip


def where(result):
    """The machine and the versions of a result, in a line."""
    machine = result["machine"]
    return (
        f"{machine['CPU']} ({machine['vectors']}), {machine['threads']} threads, "
        f"Python {machine['Python'].split()[0]}, NumPy {machine['numpy']}, "
        f"Numba {machine['numba']}, PyTorch {machine['torch']}, "
        f"JAX {machine['jax']} (`lax.scan`, jitted)"
    )


def speed():
    """The comparison: a line for each size."""
    result = kept("compare")
    rounds = f"{result['rounds']} interleaved rounds of {result.get('timed', 1)} runs"
    lines = [
        f"Forward and backward pass with all gradients, microseconds a time step, medians of "
        f"{rounds} on {where(result)}; {result['machine']['date'][:10]}.",
        "",
        "| layer | dtype | T | B | I | H | fastbptt | PyTorch | JAX | fastest other / fastbptt |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    ratios = {}
    for point in result["points"]:
        taken = point["us_per_step"]
        cells = [point["cell"], point["dtype"], *(f"{point[axis]:,}" for axis in "TBIH")]
        cells += [_short(taken[name]) if name in taken else "" for name in _NAMES]
        cells.append(f"{point['ratio']:.2f}")
        lines.append(_row(cells))
        ratios.setdefault((point["cell"], point["dtype"]), []).append(point["ratio"])
    lines.append("")
    means = (f"{cell} {dtype} {statistics.geometric_mean(values):.1f}"
             for (cell, dtype), values in ratios.items())  # fmt: skip
    lines.append("Geometric means of the last column: " + ", ".join(means) + ".")
    return "\n".join(lines) + "\n"


def budget():
    """What the least budget with one recompute costs, and the small figures beside it."""
    result = kept("claims")
    first = result["first_call"]
    lines = [
        "An RNN of H units and as many inputs, B = 1, float32: one recompute, in a fiftieth of the "
        "memory or the least with one recompute, against every step cached.",
        "",
        "| H | T | every step cached | within the budget | time | memory |",
        "|--:|--:|--:|--:|--:|--:|",
    ]
    for point in result["budget"]:
        lines.append(
            _row([
                str(point["H"]), f"{point['T']:,}", f"{point['full_s'] * 1e3:.0f} ms",
                f"{point['budget_s'] * 1e3:.0f} ms", f"{point['time_ratio']:.2f}x",
                f"{point['memory_ratio']:.1%}",
            ])
        )  # fmt: skip
    lines += [
        "",
        f"The smallest call, forward and backward at T = B = 1, takes "
        f"{result['smallest_call_us']:.0f} µs. The first call ever on a machine takes "
        f"{first['cold']['call_s']:.0f} s, which is compilation; the first of a later process "
        f"{first['warm']['call_s']:.2f} s. A backward pass whose deltas vanish takes "
        f"{result['vanishing_over_ordinary']:.2f} times as long as an ordinary one. Two threads "
        f"meet at a barrier in {result['barrier_us']:.2f} µs.",
    ]
    return "\n".join(lines) + "\n"


def roofline():
    """How far from the arithmetic alone each size is."""
    result = kept("roofline")
    tile, blas = result["tile"], result["blas"]
    lines = [
        "The floor is the time that the multiply-adds alone would take on all threads, at the rate "
        f"at which one core was measured to do them: {tile['float32']:.0f} thousand million a "
        f"second in float32, {tile['float64']:.0f} in float64 (NumPy's BLAS as shipped: "
        f"{blas['float32']['as shipped']:.0f} and {blas['float64']['as shipped']:.0f}).",
        "",
        "| layer | dtype | T | B | I | H | floor, µs a step | fastbptt | over the floor |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for point in result["points"]:
        lines.append(
            _row([
                point["cell"], point["dtype"], *(f"{point[axis]:,}" for axis in "TBIH"),
                _short(point["floor_us"]), _short(point["us"]), f"{point['over_floor']:.1f}",
            ])
        )  # fmt: skip
    return "\n".join(lines) + "\n"


def lengths():
    """Time, memory and error against T."""
    result = kept("lengths")
    shape = result["shape"]
    sizes = ", ".join(
        f"{letter} = {shape[name]}"
        for letter, name in zip("BIHO", ("batch", "inputs", "hidden", "outputs"), strict=True)
    )
    lines = [
        f"One gradient of an {shape['cell'].upper()} with its readout, {sizes}, {shape['dtype']}; "
        f"medians on {where(result)}; {result['machine']['date'][:10]}. The peak is measured, "
        f"beyond x, y and the returned gradients; the error is that against float64 with every "
        f"step cached. {_load(result['machine'])}",
        "",
        "| T | | µs a step | peak | planned | error | |",
        "|--:|---|--:|--:|--:|--:|---|",
    ]
    for point in result["points"]:
        missing = point["no_error"]
        lines.append(
            _row([
                f"{point['T']:,}",
                point["name"],
                _or_nothing(_short, point["us_per_step"]),
                _or_nothing(_bytes, point["measured_bytes"]),
                _or_nothing(_bytes, point["planned_bytes"]),
                _or_nothing("{:.1e}".format, point["gradient_error"]),
                point["left_out"] or (f"no error: float64 {missing}" if missing else ""),
            ])
        )  # fmt: skip
    return "\n".join(lines) + "\n"


def ragged():
    """Sequences that end at different times: us beside PyTorch's packed sequences."""
    result = kept("lengths_cost")
    first = result["points"][0]
    sizes = ", ".join(f"{axis} = {first[axis]:,}" for axis in "TIH")
    head = ["sequences", "dtype", "steps that count", "fastbptt", "of its whole batch",
            "PyTorch packed", "PyTorch padded", "faster of these / fastbptt"]  # fmt: skip
    lines = [
        f"Forward and backward pass of an {result['cell']}, {sizes}; milliseconds, medians of "
        f"interleaved runs (one run where PyTorch takes over 10 s), {where(result)}.",
        "",
        _row(head),
        "|---|---|" + "--:|" * (len(head) - 2),
    ]
    for point in result["points"]:
        ms = point["ms"]
        lines.append(
            _row([
                point["case"],
                point["dtype"],
                f"{point['live']:.0%}",
                _short(ms["fastbptt"]),
                f"{point['of_padded']:.0%}",
                _short(ms["torch"]),
                _short(ms["torch padded"]),
                f"{point['ratio']:.1f}",
            ])
        )  # fmt: skip
    return "\n".join(lines) + "\n"


def output(name):
    """What an example printed at full size."""
    run = kept("examples")["examples"][name]
    return f"```\n$ {run['command']}\n{run['output'].rstrip()}\n```\n\n{run['seconds']:.0f} s.\n"


def source(path, name):
    """A function or class of ours, as it stands."""
    text = (ROOT / path).read_text(encoding="utf-8")
    found = next((n for n in ast.parse(text).body if getattr(n, "name", None) == name), None)
    if found is None:
        raise LookupError(f"a page shows {name} of {path}, which is not there")
    lines = text.splitlines()[found.lineno - 1 : found.end_lineno]
    return "```py\n" + "\n".join(lines) + "\n```\n"


def file(path):
    """A file of ours, whole."""
    return "```py\n" + (ROOT / path).read_text(encoding="utf-8") + "```\n"


def ptxas():
    """What the sweeps take of two cards."""
    result = kept("ptxas")
    sweeps = [row for row in result["rows"] if "cell" in row]
    found = {(row["card"], _sizes_of(row), row["kernel"]): row for row in sweeps}
    lines = [
        _row(["cell", "dtype", "H", "B", "A100 forward", "A100 reverse", "H100 forward",
              "H100 reverse"]),
        _row(["---"] * 4 + ["---:"] * 4),
    ]  # fmt: skip
    for sizes in dict.fromkeys(map(_sizes_of, sweeps)):
        cells = [
            _taken(found[card, sizes, kernel])
            for card in ("A100", "H100") for kernel in ("forward", "reverse")
        ]  # fmt: skip
        lines.append(_row([*map(str, sizes), *cells]))
    made = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return (
        "\n".join(
            [*lines, "", f"Blocks that share a layer's units, registers, shared memory; {made}."]
        )
        + "\n"
    )


def _sizes_of(row):
    return row["cell"], row["dtype"], row["H"], row["B"]


def _taken(row):
    assert not row["stack"] and not row["spills"]  # as the text around the table says
    return f"{row['parts']}, {row['registers']}, {row['shared'] / 1024:.0f} KiB"


BLOCKS = {
    "headlines": headlines,
    "speed": speed,
    "budget": budget,
    "roofline": roofline,
    "lengths": lengths,
    "ragged": ragged,
    "ptxas": ptxas,
    "output": output,
    "source": source,
    "file": file,
}


def _means(ratios, dtype):
    """The geometric mean for each cell, in words."""
    found = [
        f"{statistics.geometric_mean(values):.1f}x ({cell})"
        for (cell, own), values in ratios.items()
        if own == dtype
    ]
    return ", ".join(found[:-1]) + " and " + found[-1] if len(found) > 1 else found[0]


def _load(machine):
    """Whether others were at work, in a sentence."""
    load = machine.get("load before")
    return "" if load is None else f"Load of the machine just before: {load:.1f}."


def _or_nothing(show, value):
    return "" if value is None else show(value)


def _row(cells):
    return "| " + " | ".join(cells) + " |"


def _short(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _bytes(size):
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"
