"""The bytes a call needs on a GPU, and how it cuts time there: see `sizes`."""

from __future__ import annotations

from functools import lru_cache

from .backends import MOVED_BYTES
from .kernels.cells import CELLS
from .kernels.cuda import cards
from .kernels.cuda.shapes import choose
from .spans import Sizes

_SCRATCH = 1 << 28  # bytes of scratch where no budget limits it: products of many rows
_LAUNCH = 0.025  # seconds that a launch should take, half of what Ctrl-C may wait for
_SEGMENT = 1 << 16  # steps of a launch
_POOLED = 1 << 17  # bytes lost to rounding: CuPy's pool hands out multiples of 512


@lru_cache(maxsize=256)
def strand(
    ordinal: int,
    layers: tuple[tuple[str, int, int], ...],
    outputs: int,
    read: int,
    item: int,
    total: int,
    batch: int,
) -> Sizes:
    """The Sizes of layers (cell, hidden, inputs) that run together, with a readout of the top."""
    card, clock = cards.card(ordinal), cards.clock(ordinal)
    weights = panels = units = before = state = kept = inputs = 0
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
                weights += 2 * (cell.gates + 1) * hidden * batch * item
        panels += cell.delta_blocks * hidden
        units += hidden * (2 + cell.second)
        before += hidden
        inputs += width
        state += cell.states * hidden * batch * item
        kept += cell.kept * hidden * batch * item
    # Of each weight: itself here, in order, transposed; its gradient's sum, a product and its copy.
    weights += sum(m * n * (5 * item + 3 * 8) + 8 * m * 8 for m, n in matrices)
    # Deltas and a copy of some of their blocks; states between layers; copies of those before each
    # step that count; x, dx, y and copies of them.
    numbers = 2 * panels + 2 * units + before + 4 * inputs + 5 * outputs + 3 * read
    per_step = max(1, batch * (item * numbers + 24 * 8))
    return Sizes(
        total=total,
        batch=batch,
        base=weights + 8 * state + kept + 64 * batch + MOVED_BYTES + _POOLED,
        per_step=per_step,
        state=state,
        step=state + kept,
        fitting=max(1, _SCRATCH // per_step),
        longest=max(1, min(_SEGMENT, int(_LAUNCH * clock / cycles))),
        panel=max(1, total),
        whole=True,
    )
