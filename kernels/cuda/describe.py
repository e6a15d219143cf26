"""The layout of a layer's sweeps on a card, in words."""

import numpy as np

from . import gpus
from .layout import choose


def lines(cell, hidden, batch, dtype, ordinal):
    """The lines of `fastbptt.explain` for one layer."""
    dtype = np.dtype(dtype)
    card, clock = gpus.card(ordinal), gpus.clock(ordinal)
    major, minor = card.capability
    found = [
        f"card       {gpus.name(ordinal)}, capability {major}.{minor}, {card.processors} "
        f"multiprocessors, {card.shared:,} bytes of shared memory in a block"
    ]
    for reverse in (False, True):
        shape, cycles = choose(card, cell, hidden, max(1, batch), dtype.itemsize, reverse)
        found += _sweep("reverse" if reverse else "forward", shape, cycles, batch, dtype, clock)
    return found


def _sweep(direction, shape, cycles, batch, dtype, clock):
    slices = -(-batch // shape.rows)
    tile = shape.first
    if shape.parts == 1:
        kind = f"block sweep: all {shape.hidden} units in a block"
    else:
        kind = (
            f"grid sweep: {shape.units} units a block, {shape.parts} blocks that meet each step, "
            "since no block holds W"
        )
    read = tile.quads - tile.registers - tile.shared
    yield (
        f"{direction:10} {kind}; {slices} slice{'s' * (slices != 1)} of {shape.rows} "
        f"sequence{'s' * (shape.rows != 1)}, {shape.threads} threads"
    )
    share = [
        f"{100 * part // tile.quads}% in {where}"
        for part, where in (
            (tile.registers, "registers"),
            (tile.shared, "shared memory"),
            (read, "L2, read each step"),
        )
        if part
    ]
    yield (
        f"{'':10} W {', '.join(share)}; {shape.shared_bytes(dtype.itemsize):,} bytes of shared "
        f"memory; by the model {1e6 * cycles / clock:.2f} us a step"
    )
