"""The blocks of the pages on PyTorch and JAX: modules and calls there beside their own."""

from fastbptt.display.tables import markdown

from .stored import load
from .wording import joined, load_before, measured_on, short, size


def torch_modules():
    """Return the table of our modules beside torch.nn's, and what a call and a long step take."""
    result = load("torch_modules")
    calls, step = result["calls"], result["memory"]
    lines = [
        f"A training step with Adam, microseconds a time step; medians of {result['rounds']} "
        f"interleaved rounds of {result['timed']} runs, on {measured_on(result)}",
        "",
    ]
    rows = [
        [
            point["cell"], point["dtype"], *(f"{point[axis]:,}" for axis in "TBIH"),
            *(short(point["us_per_step"][name]) for name in ("fastbptt", "torch")),
            f"{point['ratio']:.1f}",
        ]
        for point in result["points"]
    ]  # fmt: skip
    head = ["module", "dtype", *"TBIH", "fastbptt.torch", "torch.nn", "torch.nn / fastbptt.torch"]
    over = [
        f"{call['cell']} {call['forward'] - call['run']:.0f} and "
        f"{call['pair'] - call['NumPy pair']:.0f}"
        for call in calls
    ]
    lines += [
        *markdown(head, rows, left=(0, 1)),
        "",
        "At T = B = 1, a call of a module takes longer than the NumPy function, without a gradient "
        f"and forward and backward, in µs: {', '.join(over)}. A step of an LSTM (H = {step['H']}) "
        f'over T = {step["T"]:,} with `memory="{step["memory"]}"` takes {size(step["bytes"])} '
        "beyond x, h and their gradients.",
    ]
    return joined(lines)


def jax_calls():
    """Return the table of gradients in JAX beside lax.scan's, and what an empty call costs."""
    result = load("jax_calls")
    calls = result["empty_calls"]
    alone = calls["jit alone"]
    over = [f"{max(0, calls[name] - alone):.0f}" for name in ("pure_callback", "typed FFI")]
    lines = [
        "The jitted gradient of an LSTM's weights and input, float32, microseconds a time step; "
        f"medians of {result['rounds']} interleaved rounds of {result['timed']} runs, on "
        + measured_on(result),
        "",
    ]
    names = ("fastbptt.jax", "lax.scan")
    rows = [
        [
            *(f"{point[axis]:,}" for axis in "TBIH"),
            *(short(point["us_per_step"][name]) for name in names), f"{point['ratio']:.2f}",
        ]
        for point in result["points"]
    ]  # fmt: skip
    lines += [
        *markdown([*"TBIH", *names, "lax.scan / fastbptt.jax"], rows),
        "",
        f"An empty call back into Python adds {over[0]} µs to a jitted program, an empty typed "
        f"call of XLA's foreign function interface {over[1]} µs. A gradient calls back twice.",
    ]
    return joined(lines)


def distributed():
    """Return the tables of one gradient over two processes, and of what their talk costs."""
    result = load("distributed")
    machine, over = result["machine"], result["talk"][0]["ms"]
    titles = {"mpi": "MPI", "torch": "gloo"}
    lines = [
        f"Milliseconds of a gradient in float32, medians of {result['rounds']} runs, one thread a "
        f"process, blocks of {result['block']} sequences, {machine['CPU']}, "
        f"{machine['date'][:10]}. {load_before(machine)}",
        "",
    ]
    rows = []
    for point in result["points"]:
        pairs = [point["ms"][name] for name in over]
        rows.append([
            point["cell"], *(f"{point[key]:,}" for key in ("T", "sequences", "I", "H")),
            short(point["alone_ms"]), *(short(pair[n]) for pair in pairs for n in ("1", "2")),
            *(f"{point['alone_ms'] / pair['2']:.2f}" for pair in pairs),
        ])  # fmt: skip
    each = [f"{titles[name]}, {n}" for name in over for n in (1, 2)]
    gain = [f"alone / {titles[name]}, 2" for name in over]
    head = ["layer", "T", "sequences", "I", "H", "`fb.bptt`, 1 process", *each, *gain]
    lines += [*markdown(head, rows, left=(0,)), ""]
    lines += ["Calls without time steps, in two processes: what there is to talk about.", ""]
    rows = [
        [size(row["bytes"]), *(short(row["ms"][name]) for name in over)] for row in result["talk"]
    ]
    head = ["gradient", *(f"{titles[name]}, ms" for name in over)]
    return joined(lines + markdown(head, rows))
