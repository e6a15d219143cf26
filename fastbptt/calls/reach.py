"""gradient_reach: how far back a loss's gradient reaches, and so which k2 `Truncated` needs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import arguments
from ..arrays import Array, ArrayLike, home
from ..backends.base import Backend
from ..engine.losses import Loss, LossFunction
from ..engine.readers import counts
from ..layers.composite import Stack, StateLike, stages
from ..layers.network import Network
from ..memory import html
from . import inputs, loss_inputs
from .inputs import Inputs
from .reach_follow import follow, log_of, map_state, run_to, with_function

_DEFAULT_LAG = 1000
_EACH = 32  # lags beyond which their distance grows, to 5%
_HEAD = ("lag", "mean norm of dL/dh", "share beyond")
_FAINT = 1e-6  # of the largest norm: the decay is fitted where more is left


@dataclass(frozen=True, eq=False, repr=False)
class Reach:
    """How far back the gradient of a loss reaches; str() is a table.

    Attributes
    ----------
    lags : (K,) integers from 0 to the longest lag: every one up to 50, then about 5% apart
    norms : (K,) float64, the norm of dL_t/d(state after x[t - lag]), its mean over the losses
    low, high : (K,) float64, the 10th and the 90th percentile of the same norms
    beyond : (K,) float64, the share of the gradient that a window of `lag` steps leaves out
    decay : the factor by which the norm shrinks per step, fitted to the later lags
    k2 : the fewest steps beyond which less than `share` of the gradient lies; None if that is
        more than the longest lag, or if the norms do not shrink
    share : the argument of `gradient_reach`
    losses : the number of losses that the mean is taken over
    """

    lags: Array
    norms: Array
    low: Array
    high: Array
    beyond: Array
    decay: float
    k2: int | None
    share: float
    losses: int

    @property
    def time_constant(self) -> float:
        """Steps in which the norm shrinks to 1/e of its value; infinite if it does not shrink."""
        if self.decay == 0:
            return 0.0
        return float("inf") if self.decay >= 1 else float(-1 / np.log(self.decay))

    @property
    def verdict(self) -> str:
        """The k2 to take, or why there is none, in a sentence."""
        if self.k2 is not None:
            return f"k2 = {self.k2:,}: less than {self.share:.3g} of the gradient lies beyond"
        if not np.any(self.norms):
            return "no k2: these losses have no gradient"
        if self.decay >= 1:
            return "no k2: the norms do not shrink with the lag"
        if np.isnan(self.norms).any():
            return "no k2: some norms are not numbers"
        longest = self.lags[-1]
        return f"no k2 of up to {longest:,} steps will do: {self.beyond[-1]:.3g} lies beyond"

    def _rows(self) -> list[tuple[str, str, str]]:
        """Some lags, their norms, and the shares beyond them."""
        wanted = [0, *(m * 10**p for p in range(8) for m in (1, 2, 5)), self.lags[-1]]
        chosen = sorted({int(np.searchsorted(self.lags, lag)) for lag in wanted})
        return [
            (f"{self.lags[i]:,}", f"{self.norms[i]:.4g}", f"{self.beyond[i]:.4g}")
            for i in chosen
            if i < len(self.lags)
        ]

    def _fit(self) -> str:
        constant = f"time constant {self.time_constant:,.4g} steps"
        return f"decay {self.decay:.6g} a step, {constant}; {self.losses:,} losses"

    def __str__(self) -> str:
        """A table of some lags, the decay and k2."""
        rows = [_HEAD, *self._rows()]
        lines = [f"{lag:>9}  {norm:>18}  {beyond:>12}" for lag, norm, beyond in rows]
        return "\n".join([*lines, self._fit(), self.verdict])

    def __repr__(self) -> str:
        return f"Reach(k2={self.k2}, share={self.share:.3g}, decay={self.decay:.6g})"

    def _repr_html_(self) -> str:
        return html.table(f"{self.verdict}; {self._fit()}", self._rows(), _HEAD)


def gradient_reach(
    network: Network,
    x: ArrayLike,
    y: Any,
    loss: Loss = "squared_error",
    *,
    weights: ArrayLike | None = None,
    lengths: ArrayLike | int | None = None,
    resets: ArrayLike | None = None,
    state: StateLike | None = None,
    share: float = 0.01,
    max_lag: int | None = None,
    samples: int = 64,
    seed: int = 0,
    device: str | None = None,
) -> Reach:
    """Measure how far back in time the gradient of a single loss reaches.

    For losses L_t drawn at random, it follows dL_t/dh_{t-lag} back, lag by lag, and takes the mean
    of its norm. With a window of k2, `Truncated` includes the lags 0 to k2 - 1 of a loss at the end
    of the window. So the sum of the norms from lag k2 on, divided by the sum of all, is the share
    that is lost. Beyond the longest measured lag the norms are assumed to continue with the fitted
    decay. If k1 > 1, a window of k2 + k1 - 1 gives every loss at least k2 steps.

    dL/dh is the derivative by the whole state as one vector: s of an RNN or GRU, (s, c) of an LSTM,
    those of all layers of a Stack, whose dropout is left out. Its norm is what vanishes or explodes
    in Bengio, Simard and Frasconi (1994).

    The cost is one run over x and, for each lag, about one forward and one backward step of
    `samples` sequences. Memory does not grow with T.

    Parameters
    ----------
    network, x, y, loss, weights, lengths, resets, state, device : as in `bptt`. The network must
        not have a Bidirectional. Positions of weight 0 are not drawn. A loss of one's own is
        called for single time steps
    share : the share of the gradient that may be lost, 0 < share < 1
    max_lag : the longest lag; by default 1000, or half the longest sequence (with resets, the
        longest piece) if that is less. Only losses with so many steps before them are drawn
    samples : the number of losses to draw; all of them if there are fewer
    seed : an int, the seed of the draw

    Returns
    -------
    Reach with .lags, .norms, .low, .high, .beyond, .decay, .time_constant, .k2 and .verdict; str()
    is a table

    Raises
    ------
    ValueError, TypeError : an argument of the wrong shape, dtype or value, before any work
    RuntimeError : this machine does not have the device
    MemoryError : the device has too little free memory
    """
    initial = inputs.network(network).state
    own = inputs.check(
        network.layer, x, state, lengths, device, resets=resets, own_state=initial
    )  # fmt: skip
    network = _along_time(network)
    resets = None if resets is None else home(arguments.array("resets", resets))
    if state is not None:
        state = own.outputs.state(own.problem.arrays.initial)
    if not own.on_host:  # single steps of single sequences are drawn here, and run there
        backend = own.problem.device
        if loss_inputs.is_own(loss):
            loss = with_function(loss, lambda own: _of_numpy(own, backend))
        elif y is not None:
            y = home(own.given("y", y))
        weights = None if weights is None else home(own.given("weights", weights))
        state = None if state is None else map_state(home, state)
        x, network, device = (
            home(own.outputs.out(own.problem.arrays.x)),
            network.to("cpu"),
            backend.name,
        )
        own = inputs.check(
            network.layer, x, state, _ends(own), device, resets=resets, own_state=network.state
        )  # fmt: skip
    loss_inputs.check(network, own, y, loss, weights, "sum")
    y = loss_inputs.by_position(y) if loss_inputs.is_own(loss) else own.along_time("y", y)
    weights = None if weights is None else own.given("weights", weights)
    if not isinstance(share, (int, float)) or isinstance(share, bool) or not 0 < share < 1:
        raise ValueError(f"share must lie between 0 and 1, not {arguments.describe(share)}")
    samples = arguments.integer("samples", samples, 1)
    seed = arguments.integer("seed", seed, 0, None)
    pieces = _pieces(own)
    longest = int(pieces[2].max(initial=0))
    if max_lag is None:
        max_lag = max(1, min(_DEFAULT_LAG, longest // 2))
    max_lag = arguments.integer("max_lag", max_lag, 1)
    if max_lag >= longest:
        raise ValueError(
            f"max_lag={max_lag} needs a sequence of more steps than that; the longest of x "
            f"has {longest}{'' if resets is None else ' between its resets'}"
        )
    times, rows = _draw(own, weights, pieces, max_lag, samples, np.random.default_rng(seed))

    started, dh = run_to(network, own, y, loss, weights, state, resets, times, rows, max_lag)
    lags = _grid(max_lag)
    log_norms = follow(network, own, times, rows, lags, started, dh)
    return _summary(lags, log_norms, float(share))


def _of_numpy(loss: LossFunction, device: Backend) -> LossFunction:
    """A loss of one's own of arrays on the GPU as one of NumPy's."""

    def on_host(given: Array, y: Any, start: int) -> tuple[float, Array]:
        with device:
            value, slope = loss(device.here(given), y, start)
            return value, home(slope)

    return on_host


def _along_time(network: Network) -> Network:
    """The network without dropout; raises if it reads time backwards."""
    layer = network.layer
    if any(direction.reverse for stage in stages(layer) for direction in stage):
        raise ValueError(
            "network must run along time alone: what a Bidirectional hands on comes from after the "
            "loss too, so there is no lag behind it"
        )
    if isinstance(layer, Stack) and layer.dropout:
        return replace(network, layer=replace(layer, dropout=0.0))
    return network


def _ends(own: Inputs) -> Array | int | None:
    """The lengths as a caller gives them."""
    lengths = own.problem.arrays.lengths
    if not lengths.given:
        return None
    return int(lengths.values[0]) if own.squeeze else lengths.values


def _pieces(own: Inputs) -> tuple[Array, Array, Array]:
    """The sequence, the first step and the steps of every piece between resets."""
    lengths, B = own.problem.arrays.lengths, own.B
    if lengths.pieces is None:
        return np.arange(B), np.zeros(B, np.int64), lengths.values
    first, times = lengths.pieces[: B + 1] - B - 1, lengths.pieces[B + 1 :]
    rows = np.repeat(np.arange(B), np.diff(first) + 1)
    starts = np.insert(times, first[:-1], 0)
    ends = np.insert(times, first[1:], lengths.values)
    return rows, starts, ends - starts


def _draw(
    own: Inputs,
    weights: Array | None,
    pieces: tuple[Array, Array, Array],
    max_lag: int,
    samples: int,
    rng: np.random.Generator,
) -> tuple[Array, Array]:
    """Times and sequences of the losses, in order of time."""
    rows, starts, steps = pieces
    if weights is None:
        room = np.maximum(steps - max_lag, 0)
        ends = np.cumsum(room)
        drawn = rng.choice(ends[-1], min(samples, ends[-1]), replace=False)
        own_pieces = np.searchsorted(ends, drawn, side="right")
        times = starts[own_pieces] + max_lag + drawn - (ends - room)[own_pieces]
        rows = rows[own_pieces]
    else:
        counted = counts(weights)
        if counted.ndim == 3 - own.squeeze:  # a number for each output
            counted = np.any(counted, axis=-1, keepdims=True)
        counted = counted.reshape(own.T, -1)[max_lag:]
        counted = counted & own.problem.arrays.lengths.live(max_lag, own.T)
        for row, start in zip(rows, starts, strict=True):
            if start:
                counted[max(0, start - max_lag) : start, row] = False
        found = np.flatnonzero(counted)
        if not len(found):
            raise ValueError(
                f"weights must not be 0 at all losses with max_lag={max_lag} steps before them"
            )
        drawn = rng.choice(found, min(samples, len(found)), replace=False)
        times, rows = max_lag + drawn // own.B, drawn % own.B
    order = np.argsort(times, kind="stable")
    return times[order], rows[order]


def _grid(max_lag: int) -> Array:
    lags = [0]
    while lags[-1] < max_lag:
        lags.append(min(max_lag, lags[-1] + max(1, (lags[-1] - _EACH) // 20 + 1)))
    return np.array(lags)


def _summary(lags: Array, log_norms: Array, share: float) -> Reach:
    with np.errstate(over="ignore", under="ignore"):
        each = np.exp(log_norms)
        norms = each.mean(axis=1)
        low, high = np.quantile(each, (0.1, 0.9), axis=1)
    decay = _decay(lags, norms)
    every = np.arange(lags[-1] + 1)
    logs = np.maximum(log_of(norms), -1e6)  # of 0, a number still
    with np.errstate(under="ignore"):
        dense = np.exp(np.interp(every, lags, logs))
        tail = 0.0
        if norms[-1] > 0:
            tail = norms[-1] * decay / (1 - decay) if decay < 1 else np.inf
    left = np.cumsum(dense[::-1])[::-1] + tail
    with np.errstate(invalid="ignore", divide="ignore"):
        beyond = np.where(np.isinf(left), 1.0, left / left[0])
    enough = np.flatnonzero(beyond[1:] < share)
    return Reach(
        lags=lags,
        norms=norms,
        low=low,
        high=high,
        beyond=beyond[lags],
        decay=decay,
        k2=int(enough[0]) + 1 if len(enough) else None,
        share=share,
        losses=log_norms.shape[1],
    )


def _decay(lags: Array, norms: Array) -> float:
    """The factor a step of the exponential that fits the later half of the lags that matter."""
    present = norms > _FAINT * norms.max()
    last = lags[present].max(initial=0)
    used = present & (lags >= last // 2) & (norms > 0)
    if np.count_nonzero(used) < 2:  # it is gone after a step
        return float(norms[1] / norms[0]) if norms[0] > 0 else float("nan")
    return float(np.exp(np.polyfit(lags[used], np.log(norms[used]), 1)[0]))
