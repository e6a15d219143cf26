"""Online: learning from a sequence that never ends."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Generic

import numpy as np

from .. import arguments
from ..arguments import File
from ..arrays import Array, ArrayLike
from ..calls import inputs, loss_inputs, states
from ..engine.losses import Loss
from ..engine.output_losses import OutputLoss
from ..layers.composite import (
    AnyLayer,
    State,
    StateLike,
    needs_future,
    recurrent_layers,
    shaped,
    state_of,
)
from ..layers.model import Model
from ..layers.network import Network
from ..layers.turns import Turns
from ..memory.forward_mode import RTRL, SnAp1
from ..memory.policies import Truncated
from . import piece_inputs, plain
from .pieces import Due, Method, Update


def _truncated(*given: Any) -> Method:
    from .window import Window  # here, since it loads Numba

    return Window(*given)


def _rtrl(*given: Any) -> Method:
    from .rtrl import Rtrl

    return Rtrl(*given)


def _snap(*given: Any) -> Method:
    from .snap import SnapOne

    return SnapOne(*given)


METHODS: dict[type, Callable[..., Method]] = {
    RTRL: _rtrl,
    SnAp1: _snap,
    Truncated: _truncated,
}
"""For each policy, what makes its method."""


class Online(Generic[AnyLayer]):
    """Learns from a sequence that never ends, piece by piece: what came is never needed again.

    Parameters
    ----------
    network : Network, of any layers but a Bidirectional, which needs the future. Dropout is off
    B : sequences; None for one sequence, whose arrays have no batch axis
    gradient : Truncated(k1, k2): every k1 steps the gradient of the last k1 losses, back over at
        most k2 steps (Williams and Peng 1990), with the same bits however pieces are cut. RTRL():
        the exact gradient of every loss back to the first step, due at the end of each push.
        SnAp1(): an approximation of it, in about as many bytes as the weights take
    loss : as in `bptt`
    state : the state before the first step, as in `bptt`; by default the network's own, or zero

    The arrays of the network may be changed in place between pushes, or `network` be set. Memory
    is constant. Learners pickle, copy and go on with the same bits. They run on the CPU.
    Threads that use one learner take turns.

    Raises
    ------
    ValueError, TypeError : an argument of the wrong shape, dtype or value; arrays on a GPU
    """

    def __init__(
        self,
        network: Network[AnyLayer],
        B: int | None = None,
        *,
        gradient: Any,
        loss: Loss = "squared_error",
        state: StateLike | None = None,
    ) -> None:
        self._network: Network[AnyLayer] = _on_cpu(inputs.network(network))
        layer = inputs.recurrent(network.layer)
        if needs_future(layer):
            raise ValueError(
                f"network must have no Bidirectional layer, which needs the future, not {layer!r}"
            )
        self._B = B if B is None else arguments.integer("B", B, 1)
        make = METHODS.get(type(gradient))
        if make is None:
            names = ", ".join(sorted(f"fastbptt.{known.__name__}" for known in METHODS))
            raise TypeError(f"gradient must be {names}, not {arguments.describe(gradient)}")
        loss_inputs.check_name(loss)
        if isinstance(loss, str):
            loss_inputs.check_readout(loss, network.readout)
        elif isinstance(loss, OutputLoss):
            loss_inputs.check_readout("squared_error", network.readout)
        self._gradient, self._loss, self._time = gradient, loss, 0
        self._tokens: bool | None = None
        self._turns = Turns()
        given = None if state is None else self._given(state)
        own = piece_inputs.own_loss(loss, self._B is None)
        self._form = piece_inputs.Form(network, self._B, loss)
        self._method: Method = make(self._network, self._batch, own, given, gradient)

    @property
    def _batch(self) -> int:
        return 1 if self._B is None else self._B

    def _given(self, state: StateLike) -> list[Array]:
        layer, squeeze = self._network.layer, self._B is None
        found = states.check("state", layer, state, self._batch, squeeze, piece_inputs.taken)
        return [np.stack(parts) for parts in found]

    def push(
        self,
        x: ArrayLike,
        y: Any = None,
        *,
        weights: ArrayLike | None = None,
        resets: ArrayLike | None = None,
    ) -> Update[AnyLayer]:
        """Run a piece of the sequence, and learn from it what has become due.

        A push that raises, Ctrl-C included, leaves the learner as it was before.

        Parameters
        ----------
        x : (n, B, I) of the network's dtype, or tokens (n, B), n >= 0; without B where the learner
            has none. One step may come without the time axis: (B, I) or (I,)
        y : targets with the axes of x, as in `bptt`; None: weight 0. For a loss of the caller's own
            its n entries along time
        weights : (n,), (n, B) or (n, B, O), as in `bptt`, without the axes that x lacks
        resets : (n,) or (n, B) booleans, as in `bptt`

        Returns
        -------
        Update with .loss, .grad, .outputs and .steps

        Raises
        ------
        ValueError, TypeError : an argument of the wrong shape, dtype or value, before any work
        """
        with self._turns.mine():
            piece, axes = self._form.check(x, y, weights, resets, self._time)
            tokens = piece.x.ndim == 2
            if self._tokens is not tokens and self._tokens is not None:
                what = ("floats", "tokens")
                raise TypeError(
                    f"x must hold {what[self._tokens]} like the pieces before, not {what[tokens]}"
                )
            due = self._method.push(self._network, piece)
            self._time += len(piece.x)
            self._tokens = tokens
        return _update(due, axes)

    def finish(self) -> Update[AnyLayer]:
        """What is due of the steps after the last window: that window, which may be partial.

        It starts at 0 if all steps came within k2 steps. The learner then goes on from its state.

        Returns
        -------
        Update, whose outputs are None

        Raises
        ------
        ValueError, TypeError : a loss of the caller's own returns something else than it should
        """
        with self._turns.mine():
            return _update(self._method.finish(self._network), (slice(None),))

    @property
    def network(self) -> Network[AnyLayer]:
        """The network; may be set to another of the same sizes, between pushes."""
        return self._network

    @network.setter
    def network(self, network: Network[AnyLayer]) -> None:
        _on_cpu(inputs.network(network))
        if _form(network) != _form(self._network):
            raise ValueError(
                f"network must have the sizes of the one before, {self._network!r}, not {network!r}"
            )
        self._network = network

    @property
    def state(self) -> State:
        """The state after the last step, in the form of the argument `state`, new arrays."""
        with self._turns.mine():
            values = self._method.state
        if self._B is None:
            values = [own[:, 0] for own in values]
        return state_of(self._network.layer, values)

    @property
    def time(self) -> int:
        """The steps that have come since the start, or since the last `reset`."""
        return self._time

    @property
    def nbytes(self) -> int:
        """The bytes of the arrays that it holds between pushes, the network's own aside."""
        return self._method.nbytes

    def reset(self) -> None:
        """Go back to time 0 and the state given at the construction; nothing is due."""
        with self._turns.mine():
            self._method.reset()
            self._time = 0

    def save(self, path: File) -> None:
        """Write the network and where the learner stands to an .npz file; `fastbptt.load` reads it.

        Parameters
        ----------
        path : a string or Path ("~" is the home directory), or an open binary file. An existing
            file is replaced only when the new one is complete

        Raises
        ------
        TypeError, ValueError : `path` is neither of these, or is not an ordinary file; the loss is
            a function, which files do not hold: pickle the learner
        OSError : the file cannot be written
        """
        if not isinstance(self._loss, str):
            raise TypeError(
                f"loss must be a name for a learner to be saved, not "
                f"{arguments.describe(self._loss)}: files hold no functions; pickle the learner"
            )
        with self._turns.mine():
            method = self._method.__getstate__()
            parts: list[Any] = []
            content = {
                "loss": self._loss,
                "gradient": [type(self._gradient).__name__, asdict(self._gradient)],
                "plain": [self._B, self._time, self._tokens],
                "given": plain.written(method["made"][3], parts),
                "method": {
                    name: plain.written(own, parts)
                    for name, own in method.items()
                    if name != "made"
                },
            }
            SavedOnline(self._network, json.dumps(content), tuple(parts)).save(path)

    def _stands(
        self, time: int, tokens: bool | None, method: dict[str, Any], given: list[Array] | None
    ) -> None:
        """Stand where a learner stood that was saved; `given` is its argument `state`."""
        for layer, state in zip(recurrent_layers(self._network.layer), given or (), strict=False):
            shape = layer.states, self._batch, layer.hidden
            arguments.check_floats("state", state, shape, layer.dtype)
        form, B, loss, _, policy = self._method.__getstate__()["made"]
        made = form, B, loss, given, policy
        self._method.__setstate__({**method, "made": made})
        self._time, self._tokens = time, tokens

    def __getstate__(self) -> dict[str, Any]:
        """What a copy has of its own: it learns on apart from this learner."""
        with self._turns.mine():
            return {**self.__dict__, "_method": copy.copy(self._method), "_turns": Turns()}

    def __repr__(self) -> str:
        return (
            f"Online({self._network!r}, B={self._B}, gradient={self._gradient!r}, "
            f"time={self._time})"
        )


def _update(due: Due, axes: tuple[Any, ...]) -> Update[Any]:
    outputs = None if due.outputs is None else due.outputs[axes]
    return Update(due.loss, due.grad, outputs, due.steps)


def _on_cpu(network: Network[AnyLayer]) -> Network[AnyLayer]:
    for number, array in enumerate(network.arrays()):
        piece_inputs.taken(f"network.arrays()[{number}]", array)
    return network


def _form(network: Network[Any]) -> Any:
    """All of a network but its numbers."""
    layers = list(recurrent_layers(network.layer))
    readout = network.readout
    return (
        shaped(network.layer, iter([type(layer) for layer in layers])),
        [layer.cell for layer in layers],
        [(array.shape, array.dtype) for array in network.arrays()],
        None if readout is None else readout.activation,
        network.state is None,
    )


@dataclass(frozen=True, eq=False, repr=False)
class SavedOnline(Model):
    """An Online in a file.

    content : what it is, JSON; parts : its arrays, and networks
    """

    network: Network[Any]
    content: str
    parts: Any

    def _loaded(self) -> Online[Any]:
        content = json.loads(self.content)
        name, options = content["gradient"]
        policies = {policy.__name__: policy for policy in METHODS}
        B, time, tokens = content["plain"]
        method = {key: plain.read(own, self.parts, 1) for key, own in content["method"].items()}
        if any(state.shape[1] != (1 if B is None else B) for state in method["initial"]):
            raise ValueError("the states of a learner must have its sequences")
        learner: Online[Any] = Online(
            self.network, B, gradient=policies[name](**options), loss=content["loss"]
        )
        given = plain.read(content["given"], self.parts)
        learner._stands(arguments.integer("time", time, 0), tokens, method, given)
        return learner
