"""RTRL on a sequence that never ends: see `engine.influence`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import Array
from ..engine.influence import Block, Totals
from ..engine.influence_weights import Run, forms
from ..layers.composite import rebuilt, recurrent_layers, shaped
from ..layers.network import Network
from ..memory.forward_mode import RTRL
from .carried import Weights, first_state, one_hot, own_states
from .pieces import Due, Piece


class Rtrl:
    """RTRL: J is carried forward by blocks; updates are due at the end of each push."""

    def __init__(
        self, network: Network[Any], B: int, loss: Any, state: list[Array] | None, policy: RTRL
    ):
        layers = list(recurrent_layers(network.layer))
        self._B, self._loss, self._given = B, loss, state
        self._forms = forms(layers)
        self._size = self._forms[0].above if policy.block is None else policy.block
        self._initial = first_state(network, B, state)
        self._block: Block | None = None
        self._weights: Weights | None = None

    def push(self, network: Network[Any], piece: Piece) -> Due:
        """Run a piece; the losses of all of it are due."""
        n = len(piece.x)
        weights = self._weights
        if weights is None or not weights.same(network):
            weights = Weights(network, self._runs(network), self._loss, self._B)
        before = self._block
        if before is None:
            initial = first_state(network, self._B, self._given)
            block = Block(self._forms, self._B, self._size, initial, False)
        else:
            block = before.fork(n)
        found = self._pushed(block, weights, piece)
        if before is not None:
            block.take_spare(before)
        if n:
            self._block, self._weights = block, weights
        return found

    def _runs(self, network: Network[Any]) -> list[Run]:
        layers, own = recurrent_layers(network.layer), own_states(network)
        return [Run(*given) for given in zip(self._forms, layers, own, strict=True)]

    def _pushed(self, block: Block, weights: Weights, piece: Piece) -> Due:
        n, totals, loss = len(piece.x), Totals(self._forms, self._B), 0.0
        out = np.empty((n, self._B, weights.width), block.dtype)
        weights.end.begin()
        at = 0
        while at < n:
            stop = min(n, at + block.size - block.used)
            x = one_hot(piece.x[at:stop], self._forms[0].layer.inputs, block.dtype)
            ends = np.full(self._B, stop - at, np.int64)
            resets = np.empty(0, np.int64)
            if piece.resets is not None:
                resets = np.flatnonzero(piece.resets[at:stop])
            h = block.run(weights.runs, x, ends, resets)
            out[at:stop] = weights.end.outputs(h)
            if piece.y is not None:
                share = None if piece.weights is None else piece.weights[at:stop]
                y, time = piece.y[at:stop], piece.start + at
                value, dh = weights.end(h, out[at:stop], y, share, time)
                loss += value
                block.losses(dh, totals)
            if block.used == block.size:
                block.end()
            at = stop
        return Due(loss, self._gradient(weights, totals) if n else None, out, n)

    def _gradient(self, weights: Weights, totals: Totals) -> Network[Any]:
        network, own = weights.network, None
        if network.state is not None:
            flat = totals.own if self._given is not None else totals.own + totals.first.sum(axis=0)
            own = shaped(network.layer, iter(state_parts(self._forms, flat, network.dtype)))
        layer = rebuilt(network.layer, iter(totals.gradients()))
        return Network(layer, weights.end.gradient(), own)

    def finish(self, network: Network[Any]) -> Due:
        """Nothing: every loss was due at the end of its push."""
        return Due(0.0, None, None, 0)

    @property
    def state(self) -> list[Array]:
        """For each recurrent layer, the state after the last step, copies."""
        own = self._initial if self._block is None else self._block.final()
        return [state.copy() for state in own]

    @property
    def nbytes(self) -> int:
        """The bytes of the arrays that are held between pushes."""
        own = sum(a.nbytes for a in self._initial) * (1 + (self._given is not None))
        own += 0 if self._weights is None else self._weights.nbytes
        return own + (0 if self._block is None else self._block.nbytes)

    def reset(self) -> None:
        """Go back to the state of the construction, with J zero."""
        self._block = None

    def __getstate__(self) -> dict[str, Any]:
        """Plain arrays; weights are packed anew at the next push."""
        return {**self.__dict__, "_weights": None}


def state_parts(forms: Any, flat: Array, dtype: Any) -> list[Any]:
    """For each layer its part of a vector of n states, as users write the state of a sequence."""
    found = []
    for form in forms:
        rows = flat[form.first : form.first + form.rows].astype(dtype)
        parts = tuple(rows.reshape(-1, form.hidden).copy())
        found.append(parts if len(parts) > 1 else parts[0])
    return found
