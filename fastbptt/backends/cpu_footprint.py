"""The bytes a call needs on the CPU, and how it cuts time there: see `engine.footprint`."""

from __future__ import annotations

from functools import lru_cache
from math import isqrt

from ..kernels.cells.registry import CELLS
from ..kernels.cpu.products import FEW_ROWS, borrowed_bytes, packed_size
from ..kernels.cpu.split import flows, pieces_of, runs_ahead
from ..kernels.cpu.tile import VECTOR_BYTES
from ..memory.blocking import CHUNKS_BETWEEN_LAYERS, INDEX_BYTES, Footprint, flush_steps

_SCRATCH = 1 << 19  # bytes of pre-activations, or deltas, that stay in a core's own cache
_ROWS = 256  # rows that a chunk has at least: each adds to all gradients of the weights
_WORK = 300_000_000  # multiply-adds in a kernel call, a lane: at most some 40 ms, to hear Ctrl-C
_UNIT = 200  # multiply-adds that take as long as a gate of a unit
_CALL_STEPS = 1 << 16  # steps in a kernel call: a step takes a while even when it is small
_SLOTS = 1 << 11  # bytes by which a layer beside others is told what to do
_OBJECTS = 1 << 16  # bytes for the interpreter's own small objects


@lru_cache(maxsize=256)
def footprint(
    layers: tuple[tuple[str, int, int], ...],
    outputs: int,
    read: int,
    item: int,
    total: int,
    batch: int,
    threads: int,
) -> Footprint:
    """The Footprint of layers (cell, hidden, inputs) that run together, with a readout of the top.

    The readout has `outputs` outputs and reads so many states; `item` is the bytes of a number.
    `threads` may work at once.
    """
    matrices, parts = [], []  # (outputs, inputs) of each weight, and of those copied in parts
    units = panels = state = residuals = gate_rows = 0
    for name, hidden, inputs in layers:
        cell = CELLS[name]
        matrices += [(cell.gates * hidden, inputs), (cell.gates * hidden, hidden)]
        if cell.split:
            parts.append((cell.gates * hidden, inputs))
        units += hidden * (1 + cell.second)
        panels += cell.delta_blocks * hidden
        state += cell.states * hidden * batch * item
        residuals += cell.residuals * hidden * batch * item
        gate_rows += cell.gates * hidden
    top = layers[-1][1]
    if outputs:
        matrices.append((outputs, read))  # by a readout of that many states
    weights = sum(
        (packed_size(m, n, item) + packed_size(n, m, item)) * item + m * (item + 8)
        for m, n in matrices
    )
    # Sums in float64 beside those in float32; in any case those of tokens, if the first reads them.
    weights += 8 * sum(m * n for m, n in (matrices if item < 8 else matrices[:1]))
    weights += sum(m * n * item for m, n in parts) + 16 * panels
    # Where threads make gradients of weights at once, each works in memory of its own.
    makers = min(threads, sum(pieces_of(m) for m, _ in matrices))
    borrowed = makers * max(
        borrowed_bytes(m, n, item) if n > 1 else borrowed_bytes(1, m, item) for m, n in matrices
    )
    # In twos, for the chunk after: pre-activations or deltas, states between layers, dh, outputs.
    numbers = 2 * (panels + units + outputs) + 2 * (CHUNKS_BETWEEN_LAYERS - 1) * (units - top)
    # Once: copies of the states, and of what a layer above the first reads, for gradients to come.
    copied = (2 * sum(hidden for _, hidden, _ in layers) - top) * flows(batch)
    numbers += copied
    # In a short one also: copies of x and y, dx, the states given to a callable or zeros for dh.
    copies = 2 * layers[0][2] + outputs + top
    lower = len(layers) - 1
    # Row numbers, loss values; row numbers of the lower layers, which go back beside the top one.
    rows = batch * (4 * 8 + 2 * 8 + 2 * 8 * lower * flows(batch))
    short = batch * item * (numbers + copies) + rows + INDEX_BYTES * batch
    # Beside copies: weights of the outputs, or for a loss of one's own dL/do in order. A chunk of
    # one step has room for them, since `short` is in the base once more.
    copying = short + 8 * outputs * batch
    per_step = max(1, batch * item * numbers + rows, -(-copying // 2))
    fitting = max(_SCRATCH // max(1, 2 * panels * batch * item), _ROWS // max(1, batch), 1)
    work = batch * (3 * sum(m * n for m, n in matrices) + _UNIT * gate_rows)
    lanes = VECTOR_BYTES // item
    shapes = [(CELLS[name].gates, hidden, inputs) for name, hidden, inputs in layers]
    ahead = 0  # the pre-activations of a leaf that is run while another is gone back over
    if runs_ahead(batch, shapes, outputs):
        ahead = CELLS[layers[0][0]].blocks * top * batch * item
    # The tree and the stack of a schedule: that of one recompute has the most checkpoints.
    schedule = 24 * (2 + isqrt(2 * total * (state + residuals) // max(1, state)))
    return Footprint(
        total=total,
        batch=batch,
        base=weights
        + short
        + 8 * state
        + (4 * units + copied) * batch * item
        + 64 * batch
        + schedule
        + (borrowed if total * batch > FEW_ROWS else 0)
        + _SLOTS * lower
        + _OBJECTS,
        per_step=per_step,
        state=state,
        step=state + residuals,
        fitting=fitting,
        longest=max(1, min(_CALL_STEPS, _WORK * lanes // max(1, work))),
        flush=flush_steps(batch),
        layers=len(layers),
        ahead=ahead,
    )
