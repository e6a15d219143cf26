"""Following single losses back in time: the states to start from, and the norms by lag."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..arrays import Array
from ..engine.losses import Loss, LossFunction
from ..engine.output_losses import OutputLoss
from ..engine.time_views import picked
from ..layers.composite import State
from ..layers.network import Network
from ..layers.recurrent import RNN
from . import inputs, layerwise, loss_inputs
from .gradient import bptt
from .inputs import Inputs


def run_to(
    network: Network,
    own: Inputs,
    y: Array | None,
    loss: Loss,
    weights: Array | None,
    state: State | None,
    resets: Array | None,
    times: Array,
    rows: Array,
    max_lag: int,
) -> tuple[State, Array]:
    """Run once over x: the state `max_lag` steps before each loss, and dL/dh at the loss."""
    layer, device = network.layer, own.problem.device.name
    now = map_state(lambda s: s[None], state) if own.squeeze and state is not None else state
    started: dict[int, State] = {}
    dh = np.empty((len(times), layer.outputs), layer.dtype)
    at, starts, stops = 0, times - max_lag + 1, times + 1
    for stop in np.unique(np.concatenate([starts, stops])).tolist():
        given = np.clip(own.problem.arrays.lengths.values - at, 0, stop - at)
        cuts = None if resets is None else resets[at:stop]
        part = inputs.check(
            layer, own.problem.arrays.x[at:stop], now, given, device,
            resets=cuts[:, None] if own.squeeze and cuts is not None else cuts,
            own_state=network.state,
        )  # fmt: skip
        h, now = layerwise.run_checked(part, "last")
        at = stop
        for sample in np.flatnonzero(starts == stop):
            started[int(sample)] = map_state(lambda s, row=rows[sample]: s[row], now)
        here = np.flatnonzero(stops == stop)
        if len(here):
            dh[here] = _derivative(network, own, y, loss, weights, h, stop - 1)[rows[here]]
    return map_state(lambda *s: np.stack(s), *(started[i] for i in range(len(times)))), dh


def with_function(loss: Any, change: Callable[[LossFunction], LossFunction]) -> Loss:
    """A loss of one's own with its function changed."""
    if isinstance(loss, OutputLoss):
        return OutputLoss(change(loss.function))
    return change(loss)


def _derivative(
    network: Network,
    own: Inputs,
    y: Array | None,
    loss: Loss,
    weights: Array | None,
    h: Array,
    t: int,
) -> Array:
    """dL_t/dh_t of all sequences, (B, H).

    It is the gradient by the input of a layer that hands its input on: s = 1 x + 0 s'.
    """
    H, dtype = h.shape[1], h.dtype
    same = RNN(np.eye(H, dtype=dtype), np.zeros((H, H), dtype), np.zeros(H, dtype), "identity")
    chosen = loss
    if loss_inputs.is_own(loss):
        chosen = with_function(loss, lambda own: lambda given, y, start: own(given, y, t))
    live = (
        (t < own.problem.arrays.lengths.values).astype(int)
        if own.problem.arrays.lengths.given
        else None
    )
    r = bptt(
        Network(same, network.readout),
        h if own.squeeze else h[None],
        None if y is None else y[t : t + 1],
        chosen,
        weights=None if weights is None else weights[t : t + 1],
        lengths=int(live[0]) if own.squeeze and live is not None else live,
        input_grad=True,
        device=own.problem.device.name,
    )
    assert r.grad_x is not None
    return r.grad_x if own.squeeze else r.grad_x[0]


def follow(
    network: Network,
    own: Inputs,
    times: Array,
    rows: Array,
    lags: Array,
    started: State,
    dh: Array,
) -> Array:
    """The logarithms of the norms, (lags, losses): the losses side by side as one batch.

    Only the states at the lags are kept; the steps between two lags are run again on the way back.
    """
    layer, device = network.layer, own.problem.device.name

    def between(near: int, far: int) -> Array:
        steps = np.arange(1 - far, 1 - near)[:, None] + times
        return picked(own.problem.arrays.x, steps, rows)

    pairs = list(zip(lags[:-1].tolist(), lags[1:].tolist(), strict=True))
    states = [started]
    for near, far in pairs[:0:-1]:
        states.append(
            layerwise.run(layer, between(near, far), states[-1], keep="last", device=device)[1]
        )

    norms = [_norms(dh)]
    logs = [log_of(norms[0])]
    pulse, carry = _scaled(dh, norms[0]), None
    for near, far in pairs:
        h, _, cache = layerwise.forward(layer, between(near, far), states.pop(), device=device)
        given = np.zeros_like(h)
        if near == 0:
            given[-1] = pulse
        carry = layerwise.backward(cache, given, carry, input_grad=False).state
        # The way back is linear in what it carries, so scaling keeps it from under- and overflow.
        length = _norms(carry)
        carry = map_state(lambda part, length=length: _scaled(part, length), carry)
        logs.append(logs[-1] + log_of(length))
    return np.array(logs)


def map_state(function: Callable[..., Array], *states: State) -> State:
    """Apply a function to each array of the state, whatever its form."""
    if isinstance(states[0], tuple):
        return tuple(map_state(function, *parts) for parts in zip(*states, strict=True))
    return function(*states)


def _parts(state: State) -> Iterator[Array]:
    if isinstance(state, tuple):
        for part in state:
            yield from _parts(part)
    else:
        yield state


def _norms(state: State) -> Array:
    """The norm of each sequence's whole state."""
    return np.sqrt(sum(np.square(part, dtype=float).sum(axis=1) for part in _parts(state)))


def _scaled(part: Array, length: Array) -> Array:
    usable = np.isfinite(length) & (length > 0)
    return (part / np.where(usable, length, 1)[:, None]).astype(part.dtype)


def log_of(length: Array) -> Array:
    with np.errstate(divide="ignore"):
        return np.log(length)
