"""The blocks of README and documentation that come from stored results: one function a block.

A block stands between <!-- name:begin --> and <!-- name:end -->; `python -m bench.readme` fills it.
"""

import ast
import statistics

from fastbptt.commands.tables import markdown

from .stored import ROOT, load

_NAMES = ("fastbptt", "torch", "jax")


def block(name):
    """Return the text of a block; its name may have arguments, after colons."""
    kind, *arguments = name.split(":")
    return BLOCKS[kind](*arguments)


def headlines():
    """Return the table and the figures of the first screen."""
    compared, claims, runs = load("compare"), load("claims"), load("examples")["examples"]
    ratios = _ratios(compared)
    times = [point["time_ratio"] for point in claims["budget"]]
    least = [point["memory_ratio"] for point in claims["budget"]]
    every = [ratio for group in ratios.values() for ratio in group]
    sizes = {len(group) for group in ratios.values()}
    amplifier = runs["amplifier"]
    lines = [
        f"**{_means(ratios, 'float32')} the speed of the fastest of PyTorch and JAX** on a CPU in "
        f"float32, {_means(ratios, 'float64')} in float64: geometric means of "
        f"{' or '.join(map(str, sorted(sizes)))} sizes each, from {min(every):.2f}x to "
        f"{max(every):.1f}x.",
        f"**{_range(least, '.0%')} of the memory for {_range(times, '.1f')} times the time**: an "
        f"exact gradient through T = {claims['budget'][0]['T']:,} with one recompute, against "
        f"every step cached; the same bits.",
        f"**T = {amplifier['steps']:,} in {amplifier['budget']}**: an LSTM learns a guitar "
        f"amplifier by {amplifier['updates']} exact gradients through 30 s of audio; cuDNN's LSTM "
        f"ends at T = 65,535.",
    ]
    lengths = load("lengths")
    days = sorted({result["machine"]["date"][:10] for result in (compared, claims, lengths)})
    note = f"Measured on {where(compared)}; {', '.join(days)}."
    points = (f"- {line}" for line in lines)
    return "\n".join([*_peers(lengths), "", *points, "", note, ""])


def _range(values, form):
    """The least and the greatest value in words; one of them where they read alike."""
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"


def _ratios(compared):
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
        f"**{micros[0]}** in {_bytes(one['measured_bytes'])}; "
        f"{micros[1]} in {_bytes(full['measured_bytes'])}"
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


def where(result):
    """Return the machine and the versions of a result, in a line."""
    machine = result["machine"]
    return (
        f"{machine['CPU']} ({machine['vectors']}), {machine['threads']} threads, "
        f"Python {machine['Python'].split()[0]}, NumPy {machine['numpy']}, "
        f"Numba {machine['numba']}, PyTorch {machine['torch']}, "
        f"JAX {machine['jax']} (`lax.scan`, jitted)"
    )


def speed():
    """Return the table of the comparison, a row for each size."""
    result = load("compare")
    rounds = f"{result['rounds']} interleaved rounds of {result.get('timed', 1)} runs"
    lines = [
        f"Forward and backward pass with all gradients, microseconds a time step, medians of "
        f"{rounds} on {where(result)}; {result['machine']['date'][:10]}.",
        "",
    ]
    head = ["layer", "dtype", *"TBIH", "fastbptt", "PyTorch", "JAX", "fastest other / fastbptt"]
    rows = []
    for point in result["points"]:
        taken = point["us_per_step"]
        cells = [point["cell"], point["dtype"], *(f"{point[axis]:,}" for axis in "TBIH")]
        cells += [_short(taken[name]) if name in taken else "" for name in _NAMES]
        rows.append([*cells, f"{point['ratio']:.2f}"])
    means = (f"{cell} {dtype} {statistics.geometric_mean(values):.1f}"
             for (cell, dtype), values in _ratios(result).items())  # fmt: skip
    lines += [*markdown(head, rows, left=(0, 1)), ""]
    return _text([*lines, f"Geometric means of the last column: {', '.join(means)}."])


def budget():
    """Return the table of time against memory with one recompute, and some single figures."""
    result = load("claims")
    first = result["first_call"]
    lines = [
        "An RNN of H units and as many inputs, B = 1, float32: one recompute, in a fiftieth of the "
        "memory or the least with one recompute, against every step cached.",
        "",
    ]
    head = ["H", "T", "every step cached", "within the budget", "time", "memory"]
    rows = [
        [
            str(point["H"]), f"{point['T']:,}", f"{point['full_s'] * 1e3:.0f} ms",
            f"{point['budget_s'] * 1e3:.0f} ms", f"{point['time_ratio']:.2f}x",
            f"{point['memory_ratio']:.1%}",
        ]
        for point in result["budget"]
    ]  # fmt: skip
    lines += [
        *markdown(head, rows),
        "",
        f"The smallest call, forward and backward at T = B = 1, takes "
        f"{result['smallest_call_us']:.0f} µs. The first call ever on a machine takes "
        f"{first['cold']['call_s']:.0f} s, which is compilation; the first of a later process "
        f"{first['warm']['call_s']:.2f} s. A backward pass whose deltas vanish takes "
        f"{result['vanishing_over_ordinary']:.2f} times as long as an ordinary one. Two threads "
        f"meet at a barrier in {result['barrier_us']:.2f} µs.",
    ]
    return _text(lines)


def roofline():
    """Return the table of each size's time over its floor."""
    result = load("roofline")
    tile, blas = result["tile"], result["blas"]
    lines = [
        "The floor is the time that the multiply-adds alone would take on all threads, at the rate "
        f"at which one core was measured to do them: {tile['float32']:.0f} thousand million a "
        f"second in float32, {tile['float64']:.0f} in float64 (NumPy's BLAS as shipped: "
        f"{blas['float32']['as shipped']:.0f} and {blas['float64']['as shipped']:.0f}).",
        "",
    ]
    head = ["layer", "dtype", *"TBIH", "floor, µs a step", "fastbptt", "over the floor"]
    rows = [
        [
            point["cell"], point["dtype"], *(f"{point[axis]:,}" for axis in "TBIH"),
            _short(point["floor_us"]), _short(point["us"]), f"{point['over_floor']:.1f}",
        ]
        for point in result["points"]
    ]  # fmt: skip
    return _text(lines + markdown(head, rows, left=(0, 1)))


def lengths():
    """Return the table of time, memory and error against T."""
    result = load("lengths")
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
    ]
    rows = []
    for point in result["points"]:
        missing = point["no_error"]
        rows.append([
            f"{point['T']:,}",
            point["name"],
            _or_nothing(_short, point["us_per_step"]),
            _or_nothing(_bytes, point["measured_bytes"]),
            _or_nothing(_bytes, point["planned_bytes"]),
            _or_nothing("{:.1e}".format, point["gradient_error"]),
            point["left_out"] or (f"no error: float64 {missing}" if missing else ""),
        ])  # fmt: skip
    head = ["T", "method", "µs a step", "peak", "planned", "error", "note"]
    return _text(lines + markdown(head, rows, left=(1, 6)))


def ragged():
    """Return the table of sequences of unequal lengths, beside PyTorch's packed sequences."""
    result = load("lengths_cost")
    first = result["points"][0]
    sizes = ", ".join(f"{axis} = {first[axis]:,}" for axis in "TIH")
    head = ["sequences", "dtype", "steps that count", "fastbptt", "of its whole batch",
            "PyTorch packed", "PyTorch padded", "faster of these / fastbptt"]  # fmt: skip
    lines = [
        f"Forward and backward pass of an {result['cell']}, {sizes}; milliseconds, medians of "
        f"interleaved runs (one run where PyTorch takes over 10 s), {where(result)}.",
        "",
    ]
    rows = []
    for point in result["points"]:
        ms = point["ms"]
        rows.append([
            point["case"],
            point["dtype"],
            f"{point['live']:.0%}",
            _short(ms["fastbptt"]),
            f"{point['of_padded']:.0%}",
            _short(ms["torch"]),
            _short(ms["torch padded"]),
            f"{point['ratio']:.1f}",
        ])  # fmt: skip
    return _text(lines + markdown(head, rows, left=(0, 1)))


def output(name):
    """Return the output of an example at full size."""
    run = load("examples")["examples"][name]
    return f"```\n$ {run['command']}\n{run['output'].rstrip()}\n```\n\n{run['seconds']:.0f} s.\n"


def source(path, name):
    """Return the source of a function or class."""
    text = (ROOT / path).read_text(encoding="utf-8")
    found = next((n for n in ast.parse(text).body if getattr(n, "name", None) == name), None)
    if found is None:
        raise LookupError(f"a page shows {name} of {path}, which does not exist")
    lines = text.splitlines()[found.lineno - 1 : found.end_lineno]
    return "```py\n" + "\n".join(lines) + "\n```\n"


def file(path):
    """Return the source of a file."""
    return "```py\n" + (ROOT / path).read_text(encoding="utf-8") + "```\n"


def ptxas():
    """Return the table of the sweeps' resources on two GPUs."""
    result = load("ptxas")
    sweeps = [row for row in result["rows"] if "cell" in row]
    found = {(row["card"], _sizes_of(row), row["kernel"]): row for row in sweeps}
    columns = [(card, kernel) for card in ("A100", "H100") for kernel in ("forward", "reverse")]
    rows = [
        [*map(str, sizes), *(_taken(found[card, sizes, kernel]) for card, kernel in columns)]
        for sizes in dict.fromkeys(map(_sizes_of, sweeps))
    ]
    head = ["cell", "dtype", "H", "B", *map(" ".join, columns)]
    made = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    note = f"Blocks that share a layer's units, registers, shared memory; {made}."
    return _text([*markdown(head, rows, left=range(4)), "", note])


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
    """Return the geometric mean of each cell in that dtype, in words."""
    found = [
        f"{statistics.geometric_mean(group):.1f}x ({cell})"
        for (cell, kind), group in ratios.items()
        if kind == dtype
    ]
    return ", ".join(found[:-1]) + " and " + found[-1] if len(found) > 1 else found[0]


def _load(machine):
    """Return a sentence on the load of the machine, or "" where it is unknown."""
    load = machine.get("load before")
    return "" if load is None else f"Load of the machine just before: {load:.1f}."


def _or_nothing(show, value):
    return "" if value is None else show(value)


def _text(lines):
    return "\n".join(lines) + "\n"


def _short(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _bytes(size):
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"
