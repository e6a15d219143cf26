"""Models that go on step by step: which there are, and copies of their arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import arguments
from ..arrays import Array, home, on_gpu
from ..calls import inputs
from ..engine.packed import own_states
from ..layers.composite import Layer, needs_future, recurrent_layers, stages
from ..layers.network import Network


def refuse_gpu(name: str, value: Any) -> None:
    if on_gpu(value):
        raise TypeError(
            f"{name} must be in the memory of the CPU, where a Stepper runs, not on a GPU, as "
            f'{arguments.describe(value)}: take .to("cpu") of a model, or .get() of an array'
        )


def checked(network: Any) -> Network | Layer:
    """`network`, which must be a model that a Stepper can run."""
    layer, readout = inputs.model(network)
    if isinstance(network, Network) and readout is None:
        raise ValueError("network must have a readout, or be a layer, but its readout is None")
    if needs_future(layer):
        raise ValueError(
            "network must have no Bidirectional, which needs the future of its sequence, "
            f"not {layer!r}"
        )
    for number, array in enumerate(network.arrays()):
        refuse_gpu(f"network.arrays()[{number}]", array)
    return network


def copied(network: Any) -> Any:
    """The same model with arrays of its own."""
    return network.replace_arrays([np.array(home(a), order="C") for a in network.arrays()])


def structure(network: Any) -> tuple[Any, ...]:
    """What a model must have in common with the one that it takes the place of."""
    layer, readout = inputs.model(network)
    head = None if readout is None else (readout.V.shape, readout.activation)
    return layer.dtype.name, stages(layer)[0][0].shapes, head


def first_state(network: Network[Any], B: int, given: list[Array] | None) -> list[Array]:
    """For each layer the state (S, B, H) before the first step, a new array."""
    if given is not None:
        return [state.copy() for state in given]
    found = []
    for layer, own in zip(recurrent_layers(network.layer), own_states(network), strict=True):
        state = np.zeros((layer.states, B, layer.hidden), layer.dtype)
        if own is not None:
            state[...] = own[:, None]
        found.append(state)
    return found
