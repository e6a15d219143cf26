"""What RTRL and SnAp-1 have in common online: a network's weights, packed, and its first state."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import Array
from ..backends import devices
from ..engine.step_loss import StepLoss
from ..layers.composite import recurrent_layers
from ..layers.network import Network
from .window import own_states as stacked


class Weights:
    """A network as it is now, packed.

    network : of copies of its arrays; runs : for each layer, packed; end : the readout and loss
    """

    def __init__(self, network: Network[Any], runs: list[Any], loss: Any, B: int):
        self.network = network.replace_arrays([array.copy() for array in network.arrays()])
        self.runs = runs
        self.end = StepLoss(self.network.readout, loss, B, devices.device("cpu"))

    @property
    def width(self) -> int:
        """The width of what a push returns as outputs."""
        readout = self.network.readout
        return self.network.layer.outputs if readout is None else readout.outputs

    def same(self, network: Network[Any]) -> bool:
        """Whether the network has these numbers still."""
        pairs = zip(self.network.arrays(), network.arrays(), strict=True)
        return all(np.array_equal(own, given) for own, given in pairs)

    @property
    def nbytes(self) -> int:
        own = sum(array.nbytes for array in self.network.arrays())
        return own + sum(run.nbytes for run in self.runs) + self.end.nbytes


def own_states(network: Network[Any]) -> list[Array | None]:
    """For each layer the network's own state (S, H), or None."""
    if network.state is None:
        return [None] * len(list(recurrent_layers(network.layer)))
    return list(stacked(network))


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


def one_hot(x: Array, classes: int, dtype: Any) -> Array:
    """Floats as they are; tokens (m, B) as vectors of zeros and a one."""
    if x.ndim == 3:
        return x
    found = np.zeros((*x.shape, classes), dtype)
    np.put_along_axis(found, x[..., None], 1, axis=2)
    return found
