"""Which kernel a call on the CPU meets, in words."""

from . import team
from .products import tiles
from .tile import VECTOR_BYTES


def lines(cell, gates, inputs, hidden, batch, dtype):
    """Describe kernel, vectors, tile and threads for one layer."""
    lanes = VECTOR_BYTES // dtype.itemsize
    rows, vectors = tiles(batch)
    work = batch * gates * hidden * hidden
    parts = team.parts(work, batch)
    if batch == 1:
        why = "one sequence: its steps depend on each other"
    elif parts == 1:
        why = "a hand-over costs more than it gives"
    else:
        why = "the sequences are split"
    return [
        f"kernel     {cell} sweep, {dtype}, {lanes} lanes of {VECTOR_BYTES * 8} bits",
        f"tile       {rows} sequences x {vectors * lanes} columns in registers, "
        f"W of {gates * hidden} x {hidden} in panels",
        f"threads    sweep: {parts} of {team.get_num_threads()} ({why}); "
        "products over a stretch and weight gradients: split where large enough",
    ]
