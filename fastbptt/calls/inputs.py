"""The arguments that all calls share, checked and brought to one form: a Problem."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import arguments
from ..arrays import AlongTime, Array, module_of, on_gpu, on_host, stream_of
from ..backends import devices
from ..engine import dropout
from ..engine.footprint import footprint
from ..engine.problem import Arrays, Lengths, Problem, problem_of
from ..layers.composite import Bidirectional, Layer, Stack, State, recurrent_layers
from ..layers.model import Model
from ..layers.network import Network, Readout
from ..layers.recurrent import Recurrent
from ..memory.blocking import Footprint
from . import device_choice, states
from . import resets as own_resets
from .outputs import Outputs


def recurrent(layer: Any) -> Layer:
    """`layer`, which must be a recurrent layer."""
    if not isinstance(layer, (Recurrent, Stack, Bidirectional)):
        raise TypeError(
            f"layer must be a recurrent layer such as fastbptt.LSTM, "
            f"not {arguments.describe(layer)}"
        )
    return layer


def network(value: Any) -> Network:
    """`value`, which must be a Network."""
    if not isinstance(value, Network):
        raise TypeError(f"network must be a fastbptt.Network, not {arguments.describe(value)}")
    _check_own("network", value)
    return value


def _check_own(name: str, model: Model) -> None:
    """Check that the arrays of a model are of a kind that calls read."""
    for number, array in enumerate(model.arrays()):
        if not on_host(array) and not on_gpu(array):
            raise TypeError(
                f"{name}.arrays()[{number}] must be an array of NumPy or CuPy, not "
                f"{arguments.describe(array)}; jax.tree.map(numpy.asarray, {name}) makes it that, "
                "and fastbptt.jax.recurrent runs a layer within JAX"
            )


def model(value: Any) -> tuple[Layer, Readout | None]:
    """The layer and the readout of `value`, which must be a Network or a recurrent layer."""
    if isinstance(value, Network):
        return value.layer, value.readout
    if not isinstance(value, (Recurrent, Stack, Bidirectional)):
        raise TypeError(
            f"network must be a fastbptt.Network or a recurrent layer, "
            f"not {arguments.describe(value)}"
        )
    return value, None


def check_dropout(seed: int | None, t0: int, T: int) -> None:
    """Check the arguments that dropout will take: a seed or None, and the time of x[0]."""
    if seed is not None:
        arguments.integer("seed", seed, 0, None)
    arguments.integer("t0", t0, 0)
    if t0 + T > arguments.MOST:
        raise ValueError(f"t0 + T must be at most {arguments.MOST}, not {t0} + {T}")


@dataclass(frozen=True, eq=False)
class Inputs:
    """The checked arguments that all functions share.

    problem : what the engine is told
    outputs : makes results
    state_given : whether the call gives the initial state
    resets : how many there are, for plans
    """

    problem: Problem
    outputs: Outputs
    state_given: bool = False
    resets: int = 0

    @property
    def T(self) -> int:
        """The steps."""
        return self.problem.shapes.T

    @property
    def B(self) -> int:
        """The sequences."""
        return self.problem.shapes.B

    @property
    def squeeze(self) -> bool:
        """Whether x came without the batch axis."""
        return self.outputs.squeeze

    @property
    def on_host(self) -> bool:
        """Whether the caller's arrays are NumPy's."""
        return self.outputs.xp is np

    def given(self, name: str, value: Any) -> Array:
        """`value`, which must be an array that lies where x does."""
        value = arguments.array(name, value)
        _check_place(name, value, self.problem.arrays.x)
        return value

    def along_time(self, name: str, value: Any) -> AlongTime:
        """`value`, which must be an array along time that lies where x does."""
        value = arguments.along_time(name, value)
        _check_place(name, value, self.problem.arrays.x)
        return value

    def times(self, *axes: int) -> tuple[int, ...]:
        """The shape (T, B, ...) of an argument, without B where x has none."""
        return (self.T, *axes) if self.squeeze else (self.T, self.B, *axes)

    def state(self, name: str, state: State) -> states.Given:
        """The arrays of a state of the layer, checked, a tuple for each recurrent layer."""
        layer = self.problem.layer
        return states.check(name, layer, state, self.B, self.squeeze, self.given)

    def footprint(self, readout: Readout | None = None) -> Footprint:
        """The bytes that this call needs."""
        problem = self.problem
        return footprint(problem.layer, readout, self.T, self.B, problem.device, self.resets)


def check(
    layer: Layer,
    x: Any,
    state: State | None = None,
    lengths: Any = None,
    device: str | None = None,
    *,
    resets: Any = None,
    own_state: State | None = None,
    seed: int | None = None,
    t0: int = 0,
    drops: bool = False,
) -> Inputs:
    """Check the arguments of a call.

    own_state : that of the network; drops : whether a Stack's dropout acts in the call
    """
    layer = recurrent(layer)
    given_x, x = x, arguments.along_time("x", x)
    stream = stream_of(given_x)
    _check_layer(layer, x)
    squeeze = _check_shape(layer, x)
    x = x[:, None] if squeeze else x
    T, B = x.shape[:2]
    check_dropout(seed, t0, T)
    own_dropout = dropout.of(layer, seed, t0) if drops else None
    ends = _check_lengths(lengths, T, B, squeeze)
    cuts = own_resets.check(resets, T, B, squeeze)

    def placed(name: str, value: Any) -> Array:
        value = arguments.array(name, value)
        _check_place(name, value, x)
        return value

    own = own_resets.own_state(layer, own_state, placed)
    given = None if own is None else own_resets.for_batch(own, B)
    if state is not None:
        given = states.check("state", layer, state, B, squeeze, placed)
    own_resets.enter(cuts, ends)
    backend = device_choice.of_call(device, layer, x, T, B, stream)
    with backend:
        layers = list(recurrent_layers(layer))
        initial, restart = states.copied(backend, layers, given, B), None
        if own is not None:
            restart = [part[:, 0] for part in states.copied(backend, layers, own, 1)]
        own_resets.set_first(backend, initial, restart, ends)
    problem = problem_of(layer, backend, Arrays(x, ends, initial, restart), own_dropout)
    outputs = Outputs(problem, module_of(x), squeeze)
    return Inputs(problem, outputs, state is not None, own_resets.count(cuts))


def _check_layer(layer: Layer, x: AlongTime) -> None:
    own = layer.arrays()
    _check_own("layer", layer)
    if not on_host(x) or any(not on_host(array) for array in own):
        for number, array in enumerate(own):
            _check_place(f"layer.arrays()[{number}]", array, x)


def _check_place(name: str, value: Any, x: Any) -> None:
    host = on_host(x)
    if on_host(value) != host:
        where = "a NumPy array" if host else "on the GPU"
        raise TypeError(f"{name} must be {where} like x, not {arguments.describe(value)}")
    if not host and value.device != x.device:
        raise TypeError(f"{name} must be on {x.device} like x, not on {value.device}")


def _check_shape(layer: Layer, x: AlongTime) -> bool:
    """Check x; returns whether it comes without the batch axis."""
    if x.dtype.kind in "iu":
        if layer.drives:
            raise TypeError(
                f"x must be {layer.dtype} for a layer with drives, not tokens ({x.dtype})"
            )
        if x.ndim not in (1, 2):
            raise ValueError(
                f"x of tokens must have shape (T, B) or (T,), not {x.shape}: integers are tokens; "
                f"give features as .astype({layer.dtype.name!r})"
            )
        return x.ndim == 1
    if x.ndim not in (2, 3):
        raise ValueError(
            f"x must have shape (T, B, {layer.inputs}) or (T, {layer.inputs}), not {x.shape}"
        )
    arguments.check_floats("x", x, ("T", "B", layer.inputs)[3 - x.ndim :], layer.dtype)
    return x.ndim == 2


def _check_lengths(lengths: Any, T: int, B: int, squeeze: bool) -> Lengths:
    if lengths is None:
        return Lengths(None, T, B)
    if squeeze:
        values = np.array([arguments.integer("lengths", lengths, 0)])
    else:
        values = arguments.array("lengths", lengths)
        device = devices.of_array(values, stream_of(lengths))
        with device:
            values = device.home(values)
        if values.dtype.kind not in "iu" and values.size:  # an empty list has no integers
            raise TypeError(f"lengths must be integers, not {values.dtype}")
        arguments.check_shape("lengths", values, (B,))
    for b, length in enumerate(values):
        if not 0 <= length <= T:
            raise ValueError(f"lengths must lie in 0..T={T}, but lengths[{b}] is {length}")
    return Lengths(values, T, B)
