"""Initial weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import arguments
from ..arguments import Seed
from ..arrays import Array, DTypeLike

UNDRAWN: Any = object()
"""In place of `rng`: zeros that take no memory, for a plan, which needs only the sizes."""


def uniform(
    shapes: dict[str, tuple[int, ...]], sizes: dict[str, int], rng: Seed, dtype: DTypeLike
) -> dict[str, Array]:
    """Arrays of those shapes, drawn uniformly from -1/sqrt(H) to 1/sqrt(H).

    `sizes` holds H as "hidden", and the other sizes by the names that an error gives them.
    """
    dtype = arguments.dtype(dtype)
    if max(map(math.prod, shapes.values())) * 8 > arguments.MOST:
        raise ValueError(
            f"{' and '.join(sizes)} must leave the bytes of the weights at most {arguments.MOST}, "
            f"to fit into 64 bits, not be {' and '.join(map(str, sizes.values()))}"
        )
    if rng is UNDRAWN:
        return {name: np.broadcast_to(dtype.type(0), shape) for name, shape in shapes.items()}
    if isinstance(rng, (bool, np.bool_)):
        raise TypeError(f"rng must be None, a seed or a NumPy Generator, not {rng!r}")
    try:
        rng = np.random.default_rng(rng)
    except (TypeError, ValueError):
        raise TypeError(
            f"rng must be None, a seed or a NumPy Generator, not {arguments.describe(rng)}"
        ) from None
    bound = sizes["hidden"] ** -0.5
    return {name: rng.uniform(-bound, bound, shape).astype(dtype) for name, shape in shapes.items()}
