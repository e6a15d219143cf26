"""The bytes a call needs besides checkpoints and cached steps."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

from .backends import CUDA, Backend
from .compound import stages
from .kernels.cells import CELLS
from .kernels.cpu.products import packed_size
from .kernels.cpu.tile import VECTOR_BYTES
from .layers import Readout, Recurrent
from .spans import HANDED, LISTED_BYTES, Sizes, panel_steps
from .typing import Layer

_SCRATCH = 1 << 19  # bytes of pre-activations, or deltas, that stay in a core's own cache
_ROWS = 256  # rows that a chunk has at least: each adds to all gradients of the weights
_WORK = 300_000_000  # multiply-adds in a kernel call, a lane: at most some 40 ms, to hear Ctrl-C
_UNIT = 200  # multiply-adds that take as long as a gate of a unit
_SEGMENT = 1 << 16  # steps in a kernel call: a step takes a while even when it is small
_OBJECTS = 1 << 16  # bytes for the interpreter's own small objects


def sizes(layer: Layer, readout: Readout | None, total: int, batch: int, device: Backend) -> Sizes:
    """Bound the fixed bytes of bptt, backward and evaluate for `total` steps of a layer."""
    outputs = 0 if readout is None else readout.outputs
    item = layer.dtype.itemsize
    of_strand: Callable[..., Sizes] = _sizes
    if isinstance(device, CUDA):
        from . import gpu_sizes

        of_strand = partial(gpu_sizes.strand, device.ordinal)
    if isinstance(layer, Recurrent):
        own = ((layer.cell, layer.hidden, layer.inputs),)
        return of_strand(own, outputs, layer.hidden, item, total, batch)
    found = stages(layer)
    parts, held = [], 0  # held: the width of all that is held for all T
    for level, stage in enumerate(found):
        top = level == len(found) - 1
        if not top or len(stage) > 1:
            held += sum(strand.layers[-1].hidden for strand in stage)
        for strand in stage:
            shapes = tuple((part.cell, part.hidden, part.inputs) for part in strand.layers)
            last = top and strand is stage[-1]
            last_outputs = outputs if last else 0
            parts.append(of_strand(shapes, last_outputs, layer.outputs, item, total, batch))
    if len(parts) == 1:
        return parts[0]
    # What is held, and its gradient. One strand after the other has the room for its schedule.
    return Sizes(
        total=total,
        batch=batch,
        base=sum(part.base for part in parts) + 2 * held * total * batch * item,
        per_step=sum(part.per_step for part in parts),
        state=max(part.state for part in parts),
        step=max(part.step for part in parts),
        fitting=min(part.fitting for part in parts),
        longest=min(part.longest for part in parts),
        whole_step=sum(part.step for part in parts),
        whole_state=sum(part.state for part in parts),
        panel=parts[0].panel,
        whole=parts[0].whole,
        held=True,
    )


@lru_cache(maxsize=256)
def _sizes(
    layers: tuple[tuple[str, int, int], ...],
    outputs: int,
    read: int,
    item: int,
    total: int,
    batch: int,
) -> Sizes:
    matrices, parts = [], []  # (outputs, inputs) of each weight, and of those copied in parts
    units = panels = state = kept = gate_rows = 0
    for name, hidden, inputs in layers:
        cell = CELLS[name]
        matrices += [(cell.gates * hidden, inputs), (cell.gates * hidden, hidden)]
        if cell.split:
            parts.append((cell.gates * hidden, inputs))
        units += hidden * (1 + cell.second)
        panels += cell.delta_blocks * hidden
        state += cell.states * hidden * batch * item
        kept += cell.kept * hidden * batch * item
        gate_rows += cell.gates * hidden
    top = layers[-1][1]
    if outputs:
        matrices.append((outputs, read))  # by a readout of that many states
    weights = sum(
        (packed_size(m, n, item) + packed_size(n, m, item)) * item + m * n * 8 + m * (item + 8)
        for m, n in matrices
    )
    weights += sum(m * n * item for m, n in parts) + 16 * panels
    # In twos, for the chunk after: pre-activations or deltas, states between layers, dh, outputs.
    numbers = 2 * (panels + units + outputs) + 2 * (HANDED - 1) * (units - top)
    # In a short one also: copies of x and y, dx, the states given to a callable or zeros for dh.
    copies = 2 * layers[0][2] + outputs + top
    rows = batch * (4 * 8 + 2 * 8)  # row numbers, loss values
    short = batch * item * (numbers + copies) + rows + LISTED_BYTES * batch
    per_step = max(1, batch * item * numbers + rows, -(-short // 2))
    fitting = max(_SCRATCH // max(1, 2 * panels * batch * item), _ROWS // max(1, batch), 1)
    work = batch * (3 * sum(m * n for m, n in matrices) + _UNIT * gate_rows)
    lanes = VECTOR_BYTES // item
    return Sizes(
        total=total,
        batch=batch,
        base=weights + short + 8 * state + 4 * units * batch * item + 64 * batch + _OBJECTS,
        per_step=per_step,
        state=state,
        step=state + kept,
        fitting=fitting,
        longest=max(1, min(_SEGMENT, _WORK * lanes // max(1, work))),
        panel=panel_steps(batch),
    )
