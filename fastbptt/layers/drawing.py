"""Initial weights."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias

import numpy as np

from .. import arguments
from ..arguments import Seed
from ..arrays import Array, DTypeLike

RecurrentInit: TypeAlias = Literal["uniform", "orthogonal", "identity"]
"""How W is drawn: like the other arrays, or for each gate an orthogonal matrix, or the identity."""

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
    source, bound = generator(rng), sizes["hidden"] ** -0.5
    return {
        name: source.uniform(-bound, bound, shape).astype(dtype) for name, shape in shapes.items()
    }


def generator(rng: Seed) -> Any:
    """The Generator of a seed; UNDRAWN as it is."""
    if rng is UNDRAWN:
        return rng
    if isinstance(rng, (bool, np.bool_)):
        raise TypeError(f"rng must be None, a seed or a NumPy Generator, not {rng!r}")
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError):
        raise TypeError(
            f"rng must be None, a seed or a NumPy Generator, not {arguments.describe(rng)}"
        ) from None


def with_recurrent(drawn: dict[str, Array], kind: str, rng: Any) -> dict[str, Array]:
    """The arrays as drawn, or with other blocks (H, H) of W (G*H, H), one a gate."""
    arguments.choice("recurrent", kind, ("uniform", "orthogonal", "identity"))
    if kind == "uniform" or rng is UNDRAWN:
        return drawn
    W = drawn["W"]
    H = W.shape[1]
    gates = len(W) // H
    if kind == "identity":
        return {**drawn, "W": np.tile(np.eye(H, dtype=W.dtype), (gates, 1))}
    blocks = []
    for _ in range(gates):
        q, r = np.linalg.qr(rng.standard_normal((H, H)))
        blocks.append(q * np.where(np.diag(r) < 0, -1, 1))  # else Q would not be uniform
    return {**drawn, "W": np.concatenate(blocks).astype(W.dtype)}


def chrono_bias(chrono: Any, hidden: int, rng: Any) -> Array:
    """Biases with which a gate keeps a state for tmin to tmax steps: log(U([tmin, tmax]) - 1)."""
    if not isinstance(chrono, (tuple, list)) or len(chrono) != 2:
        raise TypeError(f"chrono must be a pair (tmin, tmax), not {arguments.describe(chrono)}")
    low, high = (_number(f"chrono[{k}]", value) for k, value in enumerate(chrono))
    if not (1 <= low <= high and high > 1):
        raise ValueError(
            f"chrono must be (tmin, tmax) with 1 <= tmin <= tmax and 1 < tmax, "
            f"not {arguments.shown(chrono)}"
        )
    if rng is UNDRAWN:
        return np.zeros(hidden)
    return np.log(high - 1 - (high - low) * rng.random(hidden))  # random() is never 1


def constant_bias(name: str, value: Any, hidden: int) -> Array:
    """The same bias for each unit."""
    return np.full(hidden, _number(name, value))


def with_bias(drawn: dict[str, Array], biases: dict[int, Array]) -> dict[str, Array]:
    """The arrays as drawn, but for the biases of some gates, by their number."""
    b = drawn["b"].copy()
    for gate, values in biases.items():
        b[gate * len(values) : (gate + 1) * len(values)] = values
    return {**drawn, "b": b}


def _number(name: str, value: Any) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.number)):
        raise TypeError(f"{name} must be a number, not {arguments.describe(value)}")
    if isinstance(value, np.complexfloating) or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, not {arguments.shown(value)}")
    return float(value)
