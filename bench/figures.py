"""The blocks of README and documentation that come from stored results: one function a block.

A block stands between <!-- name:begin --> and <!-- name:end -->; `python -m bench.readme` fills it.
"""

import ast
import statistics

from fastbptt.display.tables import markdown

from .frameworks import distributed, jax_calls, torch_modules
from .headlines import headlines, ratios_of
from .stored import ROOT, load
from .wording import joined, load_before, measured_on, or_nothing, short, size, where

_NAMES = ("fastbptt", "torch", "jax")


def block(name):
    """Return the text of a block; its name may have arguments, after colons."""
    kind, *arguments = name.split(":")
    return BLOCKS[kind](*arguments)


def speed():
    """Return the table of the comparison, a row for each size."""
    result = load("compare")
    rounds = f"{result['rounds']} interleaved rounds of {result['timed']} runs"
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
        cells += [short(taken[name]) if name in taken else "" for name in _NAMES]
        rows.append([*cells, f"{point['ratio']:.2f}"])
    means = (f"{cell} {dtype} {statistics.geometric_mean(values):.1f}"
             for (cell, dtype), values in ratios_of(result).items())  # fmt: skip
    lines += [*markdown(head, rows, left=(0, 1)), ""]
    return joined([*lines, f"Geometric means of the last column: {', '.join(means)}."])


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
        *_shares(result["shares"]),
        "",
        f"{_smallest(result)} The first call ever on a machine takes "
        f"{first['cold']['call_s']:.0f} s, which is compilation; the first of a later process "
        f"{first['warm']['call_s']:.2f} s. A backward pass whose deltas vanish takes "
        f"{result['vanishing_over_ordinary']:.2f} times as long as an ordinary one. Two threads "
        f"meet at a barrier in {result['barrier_us']:.2f} µs.",
    ]
    return joined(lines)


def _shares(found):
    """The table of an LSTM within 5% of its cached steps, and of all bytes."""
    sizes = ", ".join(f"{axis} = {found[axis]:,}" for axis in "TBIHO")
    everything = {
        "budget": "every step cached", "peak_bytes": found["full_bytes"], "memory_ratio": 1,
        "forward_steps": found["T"], "budget_s": found["full_s"], "time_ratio": 1,
    }  # fmt: skip
    rows = [
        [
            row["budget"], size(row["peak_bytes"]), f"{row['memory_ratio']:.1%}",
            f"{row['forward_steps']:,}", f"{row['budget_s'] * 1e3:.0f} ms",
            f"{row['time_ratio']:.2f}x",
        ]
        for row in [everything, *found["budgets"]]
    ]  # fmt: skip
    head = ["budget", "bytes", "of all", "forward steps", "time", "over every step cached"]
    return [
        f"An {found['cell']} with its readout, {sizes}, {found['dtype']}, by the budget:",
        "",
        *markdown(head, rows, left=(0,)),
    ]


def _smallest(result):
    """A sentence on the smallest calls."""
    micros = result["smallest_calls_us"]
    times = ", ".join(f"{name} {taken:.0f} µs" for name, taken in micros.items())
    return f"The smallest calls, at T = B = 1 and H = 8: {times}."


def load_beside():
    """Return the table of two layers on a quiet machine and beside busy processes."""
    result = load("load")
    names = [name for name in _NAMES if name in result["points"][0]["us_per_step"]]
    lines = [
        f"Forward and backward pass, {result['points'][0]['dtype']}, microseconds a time step; "
        f"medians of {result['rounds']} interleaved rounds of {result['timed']} runs, one for each "
        f"of {result['tries']} tries, on {measured_on(result)}",
        "",
    ]
    rows = [
        [
            point["cell"], *(f"{point[axis]:,}" for axis in "TBIH"),
            f"{point['busy']} busy processes" if point["busy"] else "nothing",
            *(_each(point["us_per_step"][name], short) for name in names),
            _each(point.get("ratio", ()), "{:.2f}".format),
        ]
        for point in result["points"]
    ]  # fmt: skip
    titles = {"fastbptt": "fastbptt", "torch": "PyTorch", "jax": "JAX"}
    head = ["layer", *"TBIH", "beside it", *map(titles.get, names), "PyTorch / fastbptt"]
    return joined(lines + markdown(head, rows, left=(0, 5)))


def _each(values, show):
    return ", ".join(map(show, values))


def steps():
    """Return the table of single steps and blocks beside PyTorch's cells."""
    result = load("steps")
    grown = max(result["grown_bytes"].values())
    lines = [
        f"Microseconds a step from Python, layers of one sequence, float32, medians of "
        f"{result['rounds']} interleaved rounds on {measured_on(result)} PyTorch is its "
        f"`LSTMCell` or `GRUCell` under `inference_mode`, with one thread, `run` is `fb.run` on "
        f"{result['steps']:,} steps at once. At 48 kHz there are 20.8.",
        "",
    ]
    names = [name for name in result["points"][0]["us"] if name != "torch"]
    head = ["layer", "I", "H", *names, "PyTorch"]
    rows = [
        [point["cell"], str(point["I"]), str(point["H"]),
         *(short(point["us"][name]) if name in point["us"] else "" for name in (*names, "torch"))]
        for point in result["points"]
    ]  # fmt: skip
    lines += [*markdown(head, rows, left=(0,)), ""]
    return joined([*lines, f"After two million steps a process held {grown / 1e3:.0f} kB more."])


def roofline():
    """Return the table of each size's time over its floor."""
    result = load("roofline")
    tile, blas = result["tile"], result["blas"]
    lines = [
        f"The largest tile does {tile['float32']:.0f} billion (10^9) multiply-adds a second on "
        f"one core in float32, {tile['float64']:.0f} in float64 (NumPy's BLAS as shipped: "
        f"{blas['float32']['as shipped']:.0f} and {blas['float64']['as shipped']:.0f}).",
        "",
    ]
    machine = result["machine"]
    reads = [result["reads"][key] for key in sorted(result["reads"], key=int)]
    rates = {}
    for read in reads:
        rates.setdefault(read["level"], []).append(read)
    brought = "; ".join(
        f"{level} {max(read['alone'] for read in group):.0f}, "
        f"{max(read['together'] for read in group):.0f}"
        for level, group in rates.items()
    )
    lines[0] += (
        f" With {machine['threads']} threads at work it is {result['tile_together']:.0f} in "
        f"float32. A core brings weights from a cache at so many GB a second, alone and beside "
        f"the others: {brought}. {result['points'][0]['dtype']}, {machine['date'][:10]}. "
        f"{load_before(machine)}"
    )
    head = ["layer", *"TBIH", "fastbptt, µs a step", "arithmetic", "weights", "chain",
            "over the floor", "held back by", "none of them"]  # fmt: skip
    rows = [
        [
            point["cell"], *(f"{point[axis]:,}" for axis in "TBIH"), short(point["us"]),
            *(short(point["floors_us"][name]) for name in ("arithmetic", "weights", "chain")),
            f"{point['over_floor']:.1f}", _held(point), f"{point['none_of_them']:.0%}",
        ]
        for point in result["points"]
    ]  # fmt: skip
    return joined(lines + markdown(head, rows, left=(0, 10)))


def _held(point):
    """The largest floor of a point; for weights with the cache that they stay in."""
    name = point["held_by"]
    return f"{name} (W in {point['divided']['W in']})" if name == "weights" else name


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
        f"step cached. {load_before(result['machine'])}",
        "",
    ]
    rows = []
    for point in result["points"]:
        missing = point["no_error"]
        rows.append([
            f"{point['T']:,}",
            point["name"],
            or_nothing(short, point["us_per_step"]),
            or_nothing(size, point["measured_bytes"]),
            or_nothing(size, point["planned_bytes"]),
            or_nothing("{:.1e}".format, point["gradient_error"]),
            point["left_out"] or (f"no error: float64 {missing}" if missing else ""),
        ])  # fmt: skip
    head = ["T", "method", "µs a step", "peak", "planned", "error", "note"]
    return joined(lines + markdown(head, rows, left=(1, 6)))


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
            short(ms["fastbptt"]),
            f"{point['of_padded']:.0%}",
            short(ms["torch"]),
            short(ms["torch padded"]),
            f"{point['ratio']:.1f}",
        ])  # fmt: skip
    return joined(lines + markdown(head, rows, left=(0, 1)))


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
    return joined([*markdown(head, rows, left=range(4)), "", note])


def _sizes_of(row):
    return row["cell"], row["dtype"], row["H"], row["B"]


def _taken(row):
    assert not row["stack"] and not row["spills"]  # as the text around the table says
    return f"{row['parts']}, {row['registers']}, {row['shared'] / 1024:.0f} KiB"


BLOCKS = {
    "headlines": headlines,
    "speed": speed,
    "torch_modules": torch_modules,
    "jax_calls": jax_calls,
    "budget": budget,
    "load": load_beside,
    "steps": steps,
    "roofline": roofline,
    "lengths": lengths,
    "ragged": ragged,
    "ptxas": ptxas,
    "distributed": distributed,
    "output": output,
    "source": source,
    "file": file,
}
