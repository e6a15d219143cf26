"""Layers in JAX: `recurrent`, a function with a gradient, and models as pytrees.

Importing this module imports JAX, and makes every layer, Readout and Network a pytree whose leaves
are its arrays. The work is done on the CPU, by a callback from JAX's compiled code.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from . import arguments
from .arrays import Array, ArrayLike
from .calls import inputs, planning
from .kernels import optional
from .layers import pytrees
from .layers.composite import AnyLayer, Layer, State, StateLike
from .layers.model import Model
from .layers.recurrent import Recurrent
from .memory import policies
from .memory.policies import Memory

optional.load("jax", "fastbptt.jax needs", "pip install 'fastbptt[jax]'")

import jax  # noqa: E402
from jax import numpy as jnp  # noqa: E402

from .calls.jax_calls import Backward, Callback, Forward, Signature  # noqa: E402

pytrees.register(jax.tree_util)

__all__ = ["recurrent"]


def recurrent(
    layer: AnyLayer,
    x: ArrayLike,
    state: StateLike | None = None,
    *,
    lengths: ArrayLike | int | None = None,
    resets: ArrayLike | None = None,
    memory: Memory = "full",
    seed: ArrayLike | int | None = None,
    t0: ArrayLike | int = 0,
) -> tuple[Any, State]:
    """Run a layer over x within JAX: for `jax.grad`, `jax.jit`, `jax.vmap` and `jax.lax.scan`.

    Any argument but `memory` may be traced. The derivatives by the layer, x and the state are those
    of `fastbptt.backward`, which runs the steps forward once more, within `memory`.

    Parameters
    ----------
    layer : a layer, as in `fastbptt.forward`, of NumPy or JAX arrays
    x : (T, B, I) array of the layer's dtype, or integer tokens (T, B); B may be left out
    state : the state before x[0], in the layer's form; zero by default
    lengths : (B,) integers, as in `fastbptt.forward`
    resets : (T, B) or (T,) booleans, as in `fastbptt.forward`
    memory : as in `fastbptt.forward`, for what the way back holds. It is chosen when the call is
        traced, "auto" included
    seed : an integer for the dropout masks of a Stack; needed if it has dropout
    t0 : an integer, the time of x[0], for these masks

    Returns
    -------
    h : (T, B, H) JAX array of the layer's dtype; h[t] is the state after x[t], for an LSTM s
    state : the state after the last step of each sequence

    Raises
    ------
    ValueError, TypeError : an argument of the wrong shape, dtype or value, before any work. Values
        that are traced are read when the call is run: JAX then raises an error of its own, with
        this one's text
    MemoryLimitError : the budget is too small for any exact schedule
    NotImplementedError : a second derivative is asked for
    """
    given, memory = _checked(layer, x, state, lengths, resets, memory, seed, t0)
    leaves, tree = jax.tree.flatten(given)
    shapes = tuple((leaf.shape, leaf.dtype.name) for leaf in leaves)
    return _recurrent(Signature(tree, shapes, memory), leaves)


def _checked(
    layer: Any, x: Any, state: Any, lengths: Any, resets: Any, memory: Memory, seed: Any, t0: Any
) -> tuple[tuple[Any, ...], Memory]:
    """Check the arguments by what is known when they are traced; returns them, and the policy.

    `inputs.check` does it, as for every other call, on arrays that stand for those of JAX.
    """
    inputs.recurrent(layer)
    for leaf in jax.tree.leaves(layer):
        if isinstance(leaf, Model):
            raise TypeError(
                f"layer must be of the package's own types, not {type(leaf).__name__}: JAX knows "
                "no subclass of them as a pytree"
            )
    model = jax.tree.map(_stand_in, layer)
    model = model._rebuilt(iter(model.arrays()))  # which checks, as unflattening does not
    x = x if isinstance(x, jax.Array) else arguments.array("x", x)
    own = inputs.check(
        model, _stand_in(x), _stand_in(state), _known(lengths), "cpu",
        resets=_known(resets), seed=_number("seed", seed), t0=_number("t0", t0), drops=True,
    )  # fmt: skip
    if jax.dtypes.canonicalize_dtype(model.dtype) != model.dtype:
        raise TypeError(
            f"layer must be float32, not {model.dtype}, which JAX keeps only after "
            f"jax.config.update('jax_enable_x64', True)"
        )
    plan = planning.choose(model, own.T, own.B, memory, own.problem.device, own.resets)[0]
    if policies.is_auto(memory):
        memory = plan.memory
    if own.problem.shapes.tokens and not isinstance(x, jax.core.Tracer):
        x = _tokens(np.asarray(x), own)
    drops = own.problem.dropout is not None
    found = (
        layer, x, _normal(layer, state), _integers(lengths), _integers(resets),
        _words(seed) if drops else None, _words(t0) if drops else None,
    )  # fmt: skip
    return jax.tree.map(jnp.asarray, found), memory


def _stand_in(value: Any) -> Any:
    """An array of the same shape and dtype for one of JAX's, traced or not; it takes no memory."""
    if isinstance(value, (list, tuple)):
        return [_stand_in(part) for part in value]
    if not isinstance(value, jax.Array):
        return value
    return np.broadcast_to(np.zeros((), value.dtype), value.shape)


def _known(value: Any) -> Any:
    """The value, for an array that is not traced."""
    traced = isinstance(value, jax.core.Tracer)
    return np.asarray(value) if isinstance(value, jax.Array) and not traced else _stand_in(value)


def _number(name: str, value: Any) -> Any:
    """An integer, or 0 for one that is traced."""
    if not isinstance(value, jax.core.Tracer):
        return value
    if value.shape or value.dtype.kind not in "iu":
        raise TypeError(f"{name} must be an integer, not {value.dtype} of shape {value.shape}")
    return 0


def _words(value: Any) -> Any:
    """An integer of any size as an array, which JAX's own integers may be too small for."""
    if isinstance(value, jax.core.Tracer):
        return value
    value = int(value)
    data = value.to_bytes(8 * (value.bit_length() // 64 + 1), "little")
    return np.frombuffer(data, np.uint32)


def _integers(value: Any) -> Any:
    """`lengths` or `resets`, as an array."""
    return value if value is None or isinstance(value, jax.Array) else np.asarray(value)


def _tokens(ids: Array, own: inputs.Inputs) -> Array:
    """Check tokens that are not traced, before JAX makes them 32 bits wide."""
    classes = own.problem.layer.inputs
    wrong = (ids < 0) | (ids >= classes)
    if not wrong.any():
        return ids
    columns = ids[:, None] if own.squeeze else ids
    live = np.arange(own.T)[:, None] < own.problem.arrays.lengths.values
    for t, b in np.argwhere(wrong.reshape(columns.shape) & live):
        raise ValueError(
            f"x must hold classes 0..{classes - 1}, but at t={t}, b={b} it is {columns[t, b]}"
        )
    return np.where(wrong, -1, ids.astype(np.int64)).astype(np.int32)


def _normal(layer: Layer, state: Any) -> Any:
    """A checked state with tuples in place of lists."""
    if state is None:
        return None
    if not isinstance(layer, Recurrent):
        return tuple(map(_normal, layer.parts, state))
    return tuple(state) if layer.states > 1 else state


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _called(callback: Callback, leaves: list[Any]) -> Any:
    """The results of a callback within JAX.

    Each array that is passed to and fro costs some 20 us: so small ones go joined.
    """
    given, due = callback.groups(), callback.shapes()
    start, arrays = 0, []
    for size in given:
        arrays.append(_joined(leaves[start : start + size]))
        start += size
    found = jax.pure_callback(callback, due, *arrays, vmap_method="expand_dims")
    return callback.results_of(found)


def _joined(arrays: list[Any]) -> Any:
    """The numbers of some arrays in one vector; one array as it is."""
    if len(arrays) == 1:
        return arrays[0]
    return jnp.concatenate([array.ravel() for array in arrays])


@_called.defjvp
def _no_second_derivative(callback: Callback, primals: Any, tangents: Any) -> Any:
    raise NotImplementedError(
        "fastbptt.jax.recurrent has no second derivative, nor one in forward mode: take jax.grad "
        "or jax.vjp of it once; jax.lax.stop_gradient keeps an outer derivative out"
    )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _differentiable(signature: Signature, leaves: list[Any]) -> Any:
    return _called(Forward(signature), leaves)


def _forward(signature: Signature, primals: list[Any]) -> tuple[Any, Any]:
    """What JAX runs forward if a derivative is wanted; all that the way back needs are the inputs.

    Whether the gradient by x is wanted is said by the size of an array, 1 or 0: what is kept must
    be arrays, in the same tree whatever is wanted, and their values are not known on the way back.
    """
    leaves = [primal.value for primal in primals]
    _, x, *_ = signature.with_leaves(primals)
    return _differentiable(signature, leaves), (leaves, jnp.zeros(int(x.perturbed)))


def _backward(signature: Signature, kept: tuple[Any, Any], cotangents: Any) -> tuple[list[Any]]:
    """The gradients by all arrays; None by integers and booleans."""
    leaves, wanted = kept
    given = jax.tree.map(_filled, cotangents, is_leaf=_is_zero)
    tokens = signature.structs()[1].dtype.kind in "iu"
    back = Backward(signature, bool(wanted.size) and not tokens)
    dx, (layer, dstate) = _called(back, [*leaves, *jax.tree.leaves(given)])
    found = [*layer, dx, *jax.tree.leaves(dstate)]
    return ([*found, *[None] * (len(leaves) - len(found))],)


def _is_zero(value: Any) -> bool:
    return isinstance(value, jax.custom_derivatives.SymbolicZero)


def _filled(value: Any) -> Any:
    """A cotangent as an array, for JAX's sign of one that is zero."""
    return jnp.zeros(value.shape, value.dtype) if _is_zero(value) else value


_differentiable.defvjp(_forward, _backward, symbolic_zeros=True)
# Within a jit, NumPy's arrays that vmap takes apart are JAX's: its rules for constants ask that.
_recurrent = jax.jit(_differentiable, static_argnums=0)
