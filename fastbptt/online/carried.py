"""RTRL and SnAp-1 on a sequence that never ends: see `engine.influence` and `engine.snap`."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import arguments
from ..arrays import Array
from ..backends import devices
from ..engine.influence import Block, Totals
from ..engine.influence_weights import Back, Form, Run, forms
from ..engine.packed import bits_of, own_states
from ..engine.readers import one_hot
from ..engine.snap import Snap, SnapTotals
from ..engine.step_loss import StepLoss
from ..layers.composite import rebuilt, recurrent_layers
from ..layers.network import Network
from ..memory.forward_mode import ForwardMode
from .models import first_state
from .pieces import Due, Piece


class Weights:
    """A network as it is now, packed.

    network : of copies of its arrays; runs : for each layer, packed; end : the readout and loss
    """

    def __init__(self, network: Network[Any], own: list[Form], loss: Any, B: int):
        self.network = network = network.replace_arrays([a.copy() for a in network.arrays()])
        layers = recurrent_layers(network.layer)
        triples = zip(own, layers, own_states(network), strict=True)
        self.runs = [Run(*triple) for triple in triples]
        self.bits = bits_of(network.arrays())
        self.end = StepLoss(network.readout, loss, B, devices.device("cpu"))

    @property
    def width(self) -> int:
        """The width of what a push returns as outputs."""
        readout = self.network.readout
        return self.network.layer.outputs if readout is None else readout.outputs

    def same(self, network: Network[Any]) -> bool:
        """Whether the network has these numbers still, bit by bit."""
        return bits_of(network.arrays()) == self.bits

    def share(self, steps: Any) -> None:
        """Take what the last step was run with, where it has the same numbers."""
        last = () if steps is None or not steps.used else steps.backs[steps.used - 1]
        for run, back in zip(self.runs, last, strict=False):
            if run.back.same(back):
                run.back = back

    @property
    def nbytes(self) -> int:
        """The bytes of all but what is packed for the way back."""
        own = 2 * sum(map(len, self.bits))
        return own + sum(run.nbytes for run in self.runs) + self.end.nbytes


class Carried:
    """A gradient that is carried forward; updates are due at the end of each push (a `Method`)."""

    steps: type[Block] | type[Snap]

    def __init__(
        self, network: Network[Any], B: int, loss: Any, state: list[Array] | None,
        policy: ForwardMode,
    ):  # fmt: skip
        self._form, self._policy = network, policy
        self._B, self._loss, self._given = B, loss, state
        self._forms = forms(list(recurrent_layers(network.layer)))
        self._size = policy.steps(self._forms[0].above)
        self._initial = first_state(network, B, state)
        self._steps: Any = None
        self._weights: Weights | None = None

    def push(self, network: Network[Any], piece: Piece) -> Due:
        """Run a piece; the losses of all of it are due."""
        n, weights, before = len(piece.x), self._weights, self._steps
        if weights is None or not weights.same(network):
            weights = Weights(network, self._forms, self._loss, self._B)
            weights.share(before)
        if before is None:
            steps = self._begun(first_state(network, self._B, self._given))
        else:
            steps = before.fork(n)
        found = self._pushed(steps, weights, piece)
        if before is not None:
            steps.take_spare(before)
        if n:
            self._steps, self._weights = steps, weights
        return found

    def _pushed(self, steps: Any, weights: Weights, piece: Piece) -> Due:
        n, totals, loss = len(piece.x), self._sums(), 0.0
        out = np.empty((n, self._B, weights.width), steps.dtype)
        weights.end.begin()
        at = 0
        while at < n:
            stop = min(n, at + steps.room)
            x = piece.x[at:stop]
            if x.ndim == 2:
                x = one_hot(x, self._forms[0].layer.inputs, steps.dtype)
            ends, resets = np.full(self._B, stop - at, np.int64), _NONE
            if piece.resets is not None:
                resets = np.flatnonzero(piece.resets[at:stop])
            h = steps.run(weights.runs, x, ends, resets)
            out[at:stop] = weights.end.outputs(h)
            dh = None
            if piece.y is not None:
                share = None if piece.weights is None else piece.weights[at:stop]
                y, time = piece.y[at:stop], piece.start + at
                value, dh = weights.end(h, out[at:stop], y, share, time)
                loss += value
            steps.learn(dh, totals)
            steps.end()
            at = stop
        return Due(loss, self._gradient(weights, totals) if n else None, out, n)

    def _gradient(self, weights: Weights, totals: Any) -> Network[Any]:
        layer = rebuilt(weights.network.layer, iter(totals.gradients()))
        own = None if weights.network.state is None else self._of_state(totals)
        return Network(layer, weights.end.gradient(), own)

    def _sums(self) -> Totals | SnapTotals:
        """What the gradient adds up in."""
        raise NotImplementedError

    def _of_state(self, totals: Any) -> Any:
        """The gradient by the network's own state."""
        raise NotImplementedError

    def finish(self, network: Network[Any]) -> Due:
        """Nothing: every loss was due at the end of its push."""
        return Due(0.0, None, None, 0)

    @property
    def state(self) -> list[Array]:
        """For each recurrent layer, the state after the last step, copies."""
        own = self._initial if self._steps is None else self._steps.final()
        return [state.copy() for state in own]

    @property
    def nbytes(self) -> int:
        """The bytes of the arrays that are held between pushes."""
        own = sum(a.nbytes for a in self._initial) * (1 + (self._given is not None))
        backs: set[Back] = set()
        if self._weights is not None:
            own += self._weights.nbytes
            backs |= {run.back for run in self._weights.runs}
        if self._steps is not None:
            own += self._steps.nbytes
            backs |= self._steps.held
        return own + sum(back.nbytes for back in backs)

    def reset(self) -> None:
        """Go back to the state of the construction, with J zero."""
        self._steps = None

    def __getstate__(self) -> dict[str, Any]:
        """Plain arrays and numbers; weights are packed anew at the next push."""
        return {
            "made": (self._form, self._B, self._loss, self._given, self._policy),
            "initial": [state.copy() for state in self._initial],
            "steps": None if self._steps is None else self._steps.plain(),
        }

    def __setstate__(self, own: dict[str, Any]) -> None:
        self.__init__(*own["made"])  # type: ignore[misc]
        for state, saved in zip(self._initial, own["initial"], strict=True):
            arguments.check_floats("initial", saved, state.shape, state.dtype)
        self._initial = [np.array(state) for state in own["initial"]]
        if own["steps"] is not None:
            self._steps = self._begun(self._initial)
            self._steps.put(own["steps"])

    def _begun(self, initial: list[Array]) -> Any:
        return self.steps(self._forms, self._B, self._size, initial, False)


_NONE = np.empty(0, np.int64)
