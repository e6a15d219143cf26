"""Which calls go the short way (`short`), and what is prepared for them.

They are calls on NumPy arrays as kernels read them, of one recurrent layer or a Stack of them
without dropout, from the second call of a shape on: a shape that never comes again is not worth it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from ..arrays import Array
from ..backends.base import Backend
from ..engine.problem import Arrays, Lengths, Problem, problem_of
from ..engine.reserving import reserved
from ..layers.composite import Layer, Stack, State
from ..layers.recurrent import Recurrent
from ..memory.blocking import flush_steps
from . import device_choice, states

if TYPE_CHECKING:
    from ..engine.preparing import Prepared

_MOST = 1 << 24  # multiply-adds forward: beyond these a call takes long anyway
_WEIGHTS = 1 << 17  # numbers in all weights: more are better packed by several threads
MOST_COPIED = 1 << 15  # bytes of x or y: a layout is made on copies of them, which no plan counts
_ALONE = 1 << 14  # up to these no other thread could help, so none is asked for
_HELD = 256  # shapes that are remembered

# By the key of a call; True: there was one such call; False: it goes the general way for good.
# The oldest are forgotten first.
_known: dict[tuple[Any, ...], Prepared | bool] = {}
_making = Lock()


class ShortCall(NamedTuple):
    """A call that may be short.

    parts : the recurrent layers, bottom to top
    x : (T, B, I); T, B
    squeeze : whether the caller's x has no batch axis
    adds : multiply-adds of all steps forward
    key : what its layout depends on
    """

    layer: Layer
    parts: Sequence[Recurrent]
    x: Array
    T: int
    B: int
    squeeze: bool
    adds: int
    key: tuple[Any, ...]


def _threads() -> int:
    """How many threads a call may use."""
    return _team().get_num_threads()


@cache
def _team() -> Any:
    from ..kernels.cpu import team  # here, since it loads Numba

    return team


@cache
def no_params(dtype: Any) -> Array:
    return np.empty(0, dtype)


def usable(value: Any, dtype: Any, shape: tuple[int, ...] | None = None) -> bool:
    """Whether kernels of short calls can be handed `value`, an array of that dtype and shape."""
    return (
        type(value) is np.ndarray
        and value.dtype == dtype
        and value.flags.carray
        and (shape is None or value.shape == shape)
    )


def call_of(kind: Any, layer: Any, x: Any, readout: int = 0) -> ShortCall | None:
    """The call as one that may be short, or None.

    kind : tells calls of one shape apart
    readout : the numbers in V, if there is one
    """
    if isinstance(layer, Recurrent):
        parts: Sequence[Any] = (layer,)
    elif type(layer) is Stack and not layer.dropout:
        parts = layer.layers
    else:
        return None
    if type(x) is not np.ndarray or not 2 <= x.ndim <= 3 or not x.flags.carray:
        return None
    shape, dtype, adds = x.shape, x.dtype, readout
    key = [kind, shape, dtype.char]
    for part in parts:
        if not isinstance(part, Recurrent):
            return None
        U, W, params = part.U, part.W, part.params
        if not (usable(U, dtype) and usable(W, dtype) and usable(part.b, dtype)):
            return None
        if params is not None and not usable(params, dtype):
            return None
        key += part.cell, U.shape, W.shape
        adds += U.size + W.size
    if shape[-1] != parts[0].inputs:
        return None
    if adds > _WEIGHTS:
        return None
    squeeze = len(shape) == 2
    T, B = (shape[0], 1) if squeeze else shape[:2]
    adds *= T * B
    if not 0 < adds <= _MOST:
        return None
    if adds > _ALONE:
        key.append(_threads())
    x = x.reshape(T, 1, -1) if squeeze else x
    return ShortCall(layer, parts, x, T, B, squeeze, adds, tuple(key))


Make: TypeAlias = "Callable[[Problem, int], Prepared | bool]"
"""`make(problem, threads)` prepares a call; False where it is none of ours."""


def find(call: ShortCall, device: str | None, make: Make) -> Prepared | None:
    """What is prepared for a call, if it is to be short; `make` prepares it."""
    backend = device_choice.of_numpy(device, call.layer, call.T, call.B)
    if not backend.compiled:
        return None
    found = _known.get(call.key)
    if found is None:
        _known[call.key] = True
        for oldest in tuple(_known)[:-_HELD]:
            _known.pop(oldest, None)
        return None
    # A signal's handler may make a call in the middle of this: that goes the general way.
    if found is True and _making.acquire(blocking=False):
        try:
            found = _known[call.key] = _make(call, backend, make)
        finally:
            _making.release()
    return None if isinstance(found, bool) else found


def _make(call: ShortCall, backend: Backend, make: Make) -> Prepared | bool:
    if flush_steps(call.B) < call.T:
        return False
    initial = states.zeros(backend, call.parts, call.B)
    arrays = Arrays(reserved(call.x.shape, call.x.dtype), Lengths(None, call.T, call.B), initial)
    threads = _threads() if call.adds > _ALONE else 1
    return make(problem_of(call.layer, backend, arrays), threads)


ShortState = list["tuple[int, int, Array]"]  # the layer, the number of the state, the array


def given_state(call: ShortCall, state: State | None) -> ShortState | None:
    """The arrays of a state of the layer, or None if kernels cannot be handed them."""
    if state is None:
        return []
    whole: Any = (state,) if isinstance(call.layer, Recurrent) else state
    if not isinstance(whole, (tuple, list)) or len(whole) != len(call.parts):
        return None
    found = []
    for index, (part, own) in enumerate(zip(call.parts, whole, strict=True)):
        arrays: Any = (own,) if part.states == 1 else own
        if not isinstance(arrays, (tuple, list)) or len(arrays) != part.states:
            return None
        H = part.W.shape[1]
        shape = (H,) if call.squeeze else (call.B, H)
        for number, array in enumerate(arrays):
            if not usable(array, call.x.dtype, shape):
                return None
            found.append((index, number, array.reshape(call.B, H)))
    return found
