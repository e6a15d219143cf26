"""What exporters are given, checked: a network whose layers and numbers a file can hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import arguments
from ..arrays import Array, DTypeLike, home
from ..layers.composite import Bidirectional, Layer, Stack
from ..layers.model import Model
from ..layers.network import Network
from ..layers.recurrent import GRU, LSTM, RNN, Recurrent


def network_of(value: Any) -> Network:
    """`value`, or the network of a layer without a readout, if all its layers are built in."""
    if isinstance(value, (Recurrent, Bidirectional, Stack)):
        value = Network(value, None)
    if not isinstance(value, Network):
        raise TypeError(
            f"network must be a Network or a layer such as LSTM, not {arguments.describe(value)}"
        )
    for name, layer in named_layers(value):
        own = type(layer) not in (RNN, GRU, LSTM)
        if own or not isinstance(getattr(layer, "activation", ""), str):
            raise ValueError(
                f"{name} must be an RNN, GRU or LSTM of a built-in activation, not {layer!r}: "
                "files hold no code of your own"
            )
    return value


def converted(network: Network, dtype: DTypeLike, finite: bool) -> Network:
    """The network with NumPy arrays of that dtype.

    finite : NaN and infinity are a ValueError; else they stay what they are
    """
    network = network._moved(home)
    pairs = zip(_names(network), network.arrays(), strict=True)
    arrays = [_converted(name, array, dtype, finite) for name, array in pairs]
    return network.replace_arrays(arrays)


def named_layers(network: Network) -> Iterator[tuple[str, Recurrent]]:
    """The recurrent layers in the order of the state, with their names for messages."""

    def walk(name: str, layer: Layer) -> Iterator[tuple[str, Recurrent]]:
        if isinstance(layer, Stack):
            for index, part in enumerate(layer.layers):
                yield from walk(f"{name}.layers[{index}]", part)
        elif isinstance(layer, Bidirectional):
            yield from walk(f"{name}.forward", layer.forward)
            yield from walk(f"{name}.backward", layer.backward)
        else:
            yield name, layer

    yield from walk("network.layer", network.layer)


def _names(network: Network) -> Iterator[str]:
    """The name of each of the network's arrays, in their order."""
    models: list[tuple[str, Model]] = [*named_layers(network)]
    if network.readout is not None:
        models.append(("network.readout", network.readout))
    for where, model in models:
        own = [name for name, value in vars(model).items() if isinstance(value, Array)]
        yield from (f"{where}.{name}" for name in own)
    read = sum(len(model.arrays()) for _, model in models)
    yield from ["network.state"] * (len(network.arrays()) - read)


def _converted(name: str, array: Array, dtype: DTypeLike, finite: bool) -> Array:
    """The array in that dtype; ValueError where it loses numbers, or they must be finite."""
    with np.errstate(over="ignore"):
        found = array.astype(dtype, copy=False)
    lost = ~np.isfinite(found) & (finite | np.isfinite(array))
    if lost.any():
        where = tuple(int(i) for i in np.argwhere(lost)[0])
        what = "finite numbers" if finite else f"numbers that {found.dtype} holds"
        raise ValueError(f"{name} must hold {what}, not {array[where]} at {where}")
    return found
