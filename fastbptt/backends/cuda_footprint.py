"""The bytes a call needs on a GPU, and how it cuts time there: see `engine.footprint`."""

from __future__ import annotations

from functools import lru_cache

from ..kernels.cells.registry import CELLS
from ..kernels.cuda import gpus
from ..kernels.cuda.layout import choose
from ..memory.blocking import Footprint

MOVED_BYTES = 1 << 20  # that a GPU moves at a time within an array
_SCRATCH = 1 << 28  # bytes of scratch where no budget limits it: products of many rows
_LAUNCH = 0.025  # seconds that a launch should take, half of what Ctrl-C may wait for
_CALL_STEPS = 1 << 16  # steps of a launch
_POOLED = 1 << 17  # bytes lost to rounding: CuPy's pool hands out multiples of 512


@lru_cache(maxsize=256)
def footprint(
    ordinal: int,
    layers: tuple[tuple[str, int, int], ...],
    outputs: int,
    read: int,
    item: int,
    total: int,
    batch: int,
) -> Footprint:
    """The Footprint of layers (cell, hidden, inputs) that run together, with the top's readout."""
    card, clock = gpus.card(ordinal), gpus.clock(ordinal)
    weights = panels = units = before = state = residuals = inputs = 0
    cycles = 0.0
    matrices = [] if not outputs else [(outputs, read)]
    for name, hidden, width in layers:
        cell = CELLS[name]
        gates = cell.gates * hidden
        matrices += [(gates, width), (gates, hidden)]
        for reverse in (False, True):
            shape, cost = choose(card, name, hidden, max(1, batch), item, reverse)
            cycles += cost
            for tile in (shape.first, shape.second):
                vectors = tile.quads * tile.wide * shape.threads if tile.inner else 0
                weights += 3 * shape.parts * vectors * tile.width * item  # as it is packed
            if shape.parts > 1:
                weights += 2 * sum(shape.exchanged(batch)) * (2 * 8 if shape.words else item)
        panels += cell.delta_blocks * hidden
        units += hidden * (2 + cell.second)
        before += hidden
        inputs += width
        state += cell.states * hidden * batch * item
        residuals += cell.residuals * hidden * batch * item
    # Of each weight: itself here, in order, transposed; its gradient's sum, a product and its copy.
    weights += sum(m * n * (5 * item + 3 * 8) + 8 * m * 8 for m, n in matrices)
    # Deltas and a copy of some of their blocks; states between layers; copies of those before each
    # step that count; x, dx, y and copies of them; weights of the outputs, in float64.
    numbers = 2 * panels + 2 * units + before + 4 * inputs + 5 * outputs + 3 * read
    per_step = max(1, batch * (item * numbers + 8 * outputs + 24 * 8))
    return Footprint(
        total=total,
        batch=batch,
        base=weights + 8 * state + residuals + 64 * batch + MOVED_BYTES + _POOLED,
        per_step=per_step,
        state=state,
        step=state + residuals,
        fitting=max(1, _SCRATCH // per_step),
        longest=max(1, min(_CALL_STEPS, int(_LAUNCH * clock / cycles))),
        flush=max(1, total),
        layers=len(layers),
        one_chunk_calls=True,
    )
