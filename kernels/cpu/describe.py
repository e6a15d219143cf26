"""Which kernels a call on the CPU uses, in words."""

from ..cells.registry import CELLS
from . import split, team
from .products import tiles
from .tile import VECTOR_BYTES


def lines(shape, batch, dtype, together):
    """Describe kernel, vectors, tile and threads for one layer, (cell, hidden, inputs).

    together : for each direction of its stage, the shapes of the layers that run together
    """
    cell, hidden, _ = shape
    gates = CELLS[cell].gates
    lanes = VECTOR_BYTES // dtype.itemsize
    rows, vectors = tiles(batch)
    threads = team.get_num_threads()
    runs = split.sweep_parts(threads, batch)
    members = split.gang_size(threads, CELLS[cell], hidden, batch, dtype.itemsize)
    if threads == 1:
        how = "one thread does all"
    elif members > 1:
        how = (
            f"{members} threads share out the units of each step, since W is large "
            f"({gates * hidden * hidden * dtype.itemsize:,} bytes), and meet at a barrier "
            f"({team.barrier_seconds() * 1e6:.2f} us)"
        )
    elif runs == threads:
        how = f"{threads} runs of sequences, a thread each"
    elif len(together) > 1 and not _gangs(threads, batch, dtype, together):
        how = "one for each direction"
    else:
        how = (
            f"the sweep on {runs} of {threads}, its steps depending on each other; "
            "the others do the products of the chunks before and after"
            + (", or sweep other layers" if _side_by_side(threads, batch, dtype, together) else "")
        )
    return [
        f"kernel     {cell} sweep, {dtype}, {lanes} lanes of {VECTOR_BYTES * 8} bits",
        f"tile       {rows} sequences x {vectors * lanes} columns in registers, "
        f"W of {gates * hidden} x {hidden} in panels",
        f"threads    {how}",
    ]


def _gangs(threads, batch, dtype, together):
    """Whether several threads do a sweep of one of the layers."""
    return any(
        split.gang_size(threads, CELLS[cell], hidden, batch, dtype.itemsize) > 1
        for layers in together
        for cell, hidden, _ in layers
    )


def _side_by_side(threads, batch, dtype, together):
    if len(together) > 1 or _gangs(threads, batch, dtype, together):
        return False
    shapes = [(CELLS[cell].gates, hidden, inputs) for cell, hidden, inputs in together[0]]
    return split.wave_least(threads, batch, shapes, 0) > 0
