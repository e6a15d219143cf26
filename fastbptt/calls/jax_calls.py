"""The calls that JAX makes back into Python: arrays in, arrays out, with the axes of vmap in front.

Only `fastbptt.jax` imports this module, since it imports JAX.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import jax
import numpy as np

from ..arrays import Array
from ..layers import composite
from ..layers.recurrent import Recurrent
from . import layerwise, rows

_SMALL = 1 << 16  # bytes of an array that is copied, since short calls take none that is read-only


@dataclass(frozen=True)
class Signature:
    """What a call depends on besides the values of its arrays; JAX compares it by value.

    tree : that of the arguments: layer, x, state, lengths, resets, seed and t0
    shapes : shape and dtype of each array, without the axes that vmap adds
    """

    tree: Any
    shapes: tuple[tuple[tuple[int, ...], str], ...]
    memory: Any

    def with_leaves(self, leaves: Sequence[Any]) -> tuple[Any, ...]:
        """The arguments with these arrays."""
        return jax.tree.unflatten(self.tree, leaves)

    def structs(self) -> tuple[Any, ...]:
        """The arguments, a shape and a dtype in place of each array."""
        return self.with_leaves([jax.ShapeDtypeStruct(*own) for own in self.shapes])

    def outputs(self) -> tuple[Any, Any]:
        """Shape and dtype of h, and of the arrays of the state."""
        layer, x, *_ = self.structs()
        times = x.shape if x.dtype.kind in "iu" else x.shape[:-1]

        def state(part: Recurrent) -> Any:
            parts = (jax.ShapeDtypeStruct((*times[1:], part.hidden), layer.dtype),) * part.states
            return parts if len(parts) > 1 else parts[0]

        h = jax.ShapeDtypeStruct((*times, layer.outputs), layer.dtype)
        parts = map(state, composite.recurrent_layers(layer))
        return h, composite.shaped(layer, parts)

    def groups(self) -> list[int]:
        """How many of the arrays go together: the layer's, x, the state's, each of the rest."""
        return [n for n in map(_count, self.structs()) if n]


def _count(tree: Any) -> int:
    return len(jax.tree.leaves(tree))


def split(vector: Any, due: Sequence[Any]) -> list[Any]:
    """Arrays of these shapes from the vector of their numbers, which may have axes in front."""
    if len(due) == 1:
        return [vector]
    sizes = [math.prod(one.shape) for one in due]
    stops = list(accumulate(sizes))
    lead = vector.shape[:-1]
    return [
        vector[..., stop - size : stop].reshape(*lead, *one.shape)
        for one, size, stop in zip(due, sizes, stops, strict=True)
    ]


@dataclass(frozen=True)
class Callback:
    """What JAX calls back with arrays, for arrays; equal ones are compiled once.

    Arrays that go together, those of the layer or of a state, go as one vector: see `groups`.
    """

    signature: Signature

    def arguments(self) -> list[Any]:
        """Shape and dtype of each array that goes in."""
        return [jax.ShapeDtypeStruct(*own) for own in self.signature.shapes]

    def groups(self) -> list[int]:
        """How many of them go together, in their order."""
        return self.signature.groups()

    def results(self) -> tuple[Any, Any]:
        """Shape and dtype of the results: one along time, or None, and all others."""
        raise NotImplementedError

    def row(self, leaves: Sequence[Array]) -> tuple[Any, Any]:
        """The results for arrays without further axes."""
        raise NotImplementedError

    def rows(self, leaves: Sequence[Array], lead: tuple[int, ...]) -> tuple[Any, Any]:
        """The results for arrays with further axes, whose sizes are `lead`."""
        due, tree = jax.tree.flatten(self.results())
        found = [np.empty((*lead, *one.shape), one.dtype) for one in due]
        rows.each(lambda row: jax.tree.leaves(self.row(row)), leaves, len(lead), found)
        return jax.tree.unflatten(tree, found)

    def shapes(self) -> list[Any]:
        """What JAX is told of the results: the one along time, if any, and the others' vector."""
        along, others = self.results()
        due = jax.tree.leaves(others)
        if len(due) > 1:
            size = sum(math.prod(one.shape) for one in due)
            due = [jax.ShapeDtypeStruct((size,), due[0].dtype)]
        return [*jax.tree.leaves(along), *due]

    def results_of(self, found: Sequence[Any]) -> tuple[Any, Any]:
        """The results from arrays of `shapes`."""
        along, others = self.results()
        due, tree = jax.tree.flatten(others)
        first = None if along is None else found[0]
        return first, jax.tree.unflatten(tree, split(found[-1], due))

    def __call__(self, *given: Any) -> list[Array]:
        """What JAX calls."""
        due, leaves = self.arguments(), []
        arrays = [np.asarray(array) for array in given]
        arrays = [array.copy() if array.nbytes <= _SMALL else array for array in arrays]
        start = 0
        for array, size in zip(arrays, self.groups(), strict=True):
            leaves += split(array, due[start : start + size])
            start += size
        count = leaves[0].ndim - len(due[0].shape)
        lead = rows.leading(leaves, count)
        along, others = self.rows(leaves, lead) if count else self.row(leaves)
        values = jax.tree.leaves(others)
        if len(values) > 1:
            values = [np.concatenate([v.reshape(*lead, -1) for v in values], axis=-1)]
        return [*jax.tree.leaves(along), *values]


class Forward(Callback):
    """The way forward: arrays of the call in, h and the final state out."""

    def results(self) -> tuple[Any, Any]:
        """Shape and dtype of h, and of the arrays of the state."""
        return self.signature.outputs()

    def row(self, leaves: Sequence[Array]) -> tuple[Any, Any]:
        """h and the state of one call."""
        layer, x, state, lengths, resets, seed, t0 = self.signature.with_leaves(leaves)
        lengths = _plain(lengths)
        if seed is None:
            return layerwise.run(layer, x, state, lengths=lengths, resets=resets, device="cpu")
        return layerwise.forward(
            layer, x, state, lengths=lengths, resets=resets, memory=self.signature.memory,
            seed=_integer(seed), t0=_integer(t0), device="cpu",
        )[:2]  # fmt: skip

    def rows(self, leaves: Sequence[Array], lead: tuple[int, ...]) -> tuple[Any, Any]:
        """Those of many: at once, unless each has a layer of its own, or dropout masks."""
        layer, x, state, lengths, resets, seed, _ = self.signature.with_leaves(leaves)
        count = len(lead)
        shared = math.prod(rows.leading(layer.arrays(), count)) == 1
        if not shared or seed is not None:
            return super().rows(leaves, lead)
        merged = rows.Merged(lead, self.results()[0].shape[1:-1])
        layer = jax.tree.map(lambda array: array.reshape(array.shape[count:]), layer)
        h, final = layerwise.run(
            layer,
            merged.taken(x, 1),
            None if state is None else merged.state(state),
            lengths=None if lengths is None else merged.taken(lengths, 0),
            resets=None if resets is None else merged.resets(resets, resets.ndim - count),
            device="cpu",
        )
        return merged.given(h, 1), jax.tree.map(lambda array: merged.given(array, 0), final)


@dataclass(frozen=True)
class Backward(Callback):
    """The way back: arrays of the call, dh and dstate in, gradients out.

    input_grad : whether the gradient by x is wanted
    """

    input_grad: bool

    def arguments(self) -> list[Any]:
        """Shape and dtype of the arrays of the call, of dh and of dstate."""
        return [*super().arguments(), *jax.tree.leaves(self.signature.outputs())]

    def groups(self) -> list[int]:
        """How many of them go together, in their order."""
        return [*self.signature.groups(), *map(_count, self.signature.outputs())]

    def results(self) -> tuple[Any, Any]:
        """Shape and dtype of the gradients: of x or None; of the layer's arrays, of the state."""
        layer, x, state, *_ = self.signature.structs()
        return x if self.input_grad else None, (jax.tree.leaves(layer), state)

    def row(self, leaves: Sequence[Array]) -> tuple[Any, Any]:
        """The gradients of one call."""
        count = len(self.signature.shapes)
        layer, x, state, lengths, resets, seed, t0 = self.signature.with_leaves(leaves[:count])
        own = {} if seed is None else {"seed": _integer(seed), "t0": _integer(t0)}
        *_, cache = layerwise.forward(
            layer, x, state, lengths=_plain(lengths), resets=resets, memory=self.signature.memory,
            device="cpu", **own,
        )  # fmt: skip
        dh, dstate = jax.tree.unflatten(
            jax.tree.structure(self.signature.outputs()), leaves[count:]
        )
        g = layerwise.backward(cache, dh, dstate, input_grad=self.input_grad)
        return g.x, (g.layer.arrays(), None if state is None else g.state)


def _plain(lengths: Array | None) -> Any:
    """`lengths` as a call takes them: of x without a batch axis an int."""
    return lengths if lengths is None or lengths.ndim else int(lengths)


def _integer(array: Array) -> int:
    """The integer that is traced, or that `fastbptt.jax` has made words of."""
    return int.from_bytes(array.tobytes(), "little") if array.ndim else int(array)
