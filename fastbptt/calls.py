"""forward, backward, run and predict: calls on a layer or network without a schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from . import arguments, inputs, states
from .chain import Chain, Leaf
from .engine import backward_stretches, stretches
from .inputs import Call
from .kernels.cpu.recurrence import Head, no_head
from .layers import Network
from .sizes import panel_steps
from .sources import Floats
from .typing import Array, Layer, State


@dataclass(frozen=True, eq=False)
class Gradient:
    """What `backward` returns; each part has the type and shape of what it is the gradient of.

    `x` and `deltas` are None where they were not asked for; `deltas` (T, B, G*H) are dL/d(the
    pre-activations).
    """

    layer: Layer
    x: Array | None
    state: State
    deltas: Array | None


class Cache:
    """What `forward` keeps for one `backward`. It refers to x, which must not change meanwhile."""

    def __init__(self, call: Call, chain: Chain, leaf: Leaf):
        self._call: Any = call
        self._chain: Any = chain
        self._leaf: Any = leaf

    def _take(self, keep: bool) -> tuple[Call, Chain, Leaf]:
        if self._leaf is None:
            raise ValueError(
                "cache was consumed by an earlier backward(); pass keep=True there to use it again"
            )
        parts = self._call, self._chain, self._leaf
        if not keep:
            self._call = self._chain = self._leaf = None
        return parts

    def __repr__(self) -> str:
        return "Cache(consumed)" if self._leaf is None else f"Cache({self._call.layer!r})"


def forward(
    layer: Layer,
    x: Array,
    state: State | None = None,
    *,
    lengths: Array | int | None = None,
    seed: int | None = None,
    device: str | None = None,
) -> tuple[Array, State, Cache]:
    """Run a layer over x and cache every step for `backward`.

    Parameters
    ----------
    layer : RNN or LSTM
    x : (T, B, I) array of the layer's dtype, or integer tokens (T, B); B may be left out
    state : the state before x[0]; zero by default. RNN: (B, H); LSTM: a pair (s, c) of those
    lengths : (B,) integers; sequence b counts only for t < lengths[b], `h` is 0 later
    seed : for dropout; of no use to these layers
    device : None, "cpu"

    Returns
    -------
    h : (T, B, H), h[t] being the state after x[t]
    state : the final state, each sequence's at its own end
    cache : for `backward`; x must not change until then

    Raises
    ------
    ValueError, TypeError : an argument of the wrong shape, dtype or value, before any work
    """
    inputs.check_dropout(seed, 0)
    call = Call(layer, x, state, lengths, device)
    sizes, spans = call.sizes(), call.spans()
    chain, source = call.chain(spans, panel_steps(call.B) < call.T), call.source(spans.segment)
    numbers = (call.T * sizes.step + sizes.state) // layer.dtype.itemsize
    memory = chain.workspace.empty(numbers, layer.dtype)
    leaf = Leaf(memory, chain.recurrences, call.T)
    h = np.empty((call.T, call.B, layer.outputs), layer.dtype)
    chain.set_state(call.initial)
    chain.begin(leaf, 0)
    for a, b in stretches(0, call.T, spans.segment):
        chain.fill(leaf, source, a, b, h[a:b])
    chain.end(leaf)
    return call.out(h), call.pack(chain.state()), Cache(call, chain, leaf)


def backward(
    cache: Cache,
    dh: Array,
    dstate: State | None = None,
    *,
    input_grad: bool = True,
    deltas: bool = False,
    keep: bool = False,
) -> Gradient:
    """Backpropagate through the steps that `forward` cached.

    delta_t = (W^T delta_{t+1} + dL/dh_t) * g'(a_t), then dU = sum delta_t x_t^T,
    dW = sum delta_t s_{t-1}^T, db = sum delta_t (Werbos 1990).

    Parameters
    ----------
    cache : from `forward`; consumed, unless `keep` is true
    dh : dL/dh, of the shape and dtype of h
    dstate : dL/d(final state), in the form of the state; zero by default
    input_grad : whether to compute dL/dx (for tokens there is none)
    deltas : whether to return all deltas, (T, B, G*H)

    Returns
    -------
    Gradient with .layer, .x, .state and .deltas
    """
    if not isinstance(cache, Cache):
        raise TypeError(f"cache must come from forward(), not {arguments.describe(cache)}")
    input_grad = arguments.flag("input_grad", input_grad)
    deltas = arguments.flag("deltas", deltas)
    keep = arguments.flag("keep", keep)
    call, chain, leaf = cache._take(keep=True)
    layer, dtype = call.layer, call.layer.dtype
    shape = (call.T, layer.outputs) if call.squeeze else (call.T, call.B, layer.outputs)
    dh = arguments.floats("dh", dh, shape, dtype)
    carry = None
    if dstate is not None:
        carry = states.unpack("dstate", layer, dstate, call.B, call.squeeze)
    cache._take(keep)

    segment = chain.segment
    dh = dh[:, None] if call.squeeze else dh
    plain = all(recurrence.plain for recurrence in chain.recurrences)
    if not (dh.flags.c_contiguous and dh.flags.aligned) or (deltas and not plain):
        segment = chain.chunk
    derivatives, source = Floats(dh, segment), call.source(segment)
    grad_x = None
    if input_grad and not call.tokens:
        grad_x = np.empty((call.T, call.B, layer.inputs), dtype)
    all_deltas = np.empty((call.T, call.B, layer.gates * layer.hidden), dtype) if deltas else None
    chain.begin_reverse(carry)
    for a, b in backward_stretches(0, call.T, segment):
        chain.reverse(
            leaf, source, a, b, derivatives.stretch(a, b)[0], no_head(dtype),
            None if grad_x is None else grad_x[a:b],
            None if all_deltas is None else [all_deltas[a:b]],
        )  # fmt: skip
    gradient = Gradient(
        layer=chain.gradients()[0],
        x=None if grad_x is None else call.out(grad_x),
        state=call.pack(chain.carried()),
        deltas=None if all_deltas is None else call.out(all_deltas),
    )
    if not keep:
        chain.release()
    return gradient


def run(
    layer: Layer,
    x: Array,
    state: State | None = None,
    *,
    keep: Literal["all", "last"] = "all",
    lengths: Array | int | None = None,
    device: str | None = None,
) -> tuple[Array, State]:
    """Run a layer over x, caching nothing.

    Parameters are those of `forward`; `keep="last"` holds no h for all T.

    Returns
    -------
    h : (T, B, H), or with keep="last" the last, (B, H) (each sequence's at its own end)
    state : the final state
    """
    arguments.choice("keep", keep, ("all", "last"))
    call = Call(layer, x, state, lengths, device)
    spans = call.spans()
    chain, source = call.chain(spans), call.source(spans.segment)
    h = np.empty((call.T, call.B, layer.outputs), layer.dtype) if keep == "all" else None
    chain.set_state(call.initial)
    for a, b in stretches(0, call.T, spans.segment):
        chain.advance(source, a, b, None if h is None else h[a:b])
    chain.release()
    if h is None:
        last = chain.state()[-1][0]
        return (last[0] if call.squeeze else last).copy(), call.pack(chain.state())
    return call.out(h), call.pack(chain.state())


def predict(
    network: Network,
    x: Array,
    state: State | None = None,
    *,
    lengths: Array | int | None = None,
    device: str | None = None,
) -> tuple[Array, State]:
    """Run a network over x.

    Parameters are those of `forward`, with a Network in place of the layer.

    Returns
    -------
    o : (T, B, O), the readout's outputs, 0 past a sequence's length
    state : the final state
    """
    readout = inputs.network(network).readout
    if readout is None:
        raise ValueError("network must have a readout to predict with, but its readout is None")
    call = Call(network.layer, x, state, lengths, device)
    spans = call.spans(readout).short()
    chain, source = call.chain(spans), call.source(spans.segment)
    head = Head(readout, call.B, chain.workspace, chain.threads, several=False)
    h = chain.workspace.empty((spans.segment, call.B, network.layer.outputs), readout.dtype)
    o = np.empty((call.T, call.B, readout.outputs), readout.dtype)
    chain.set_state(call.initial)
    for a, b in stretches(0, call.T, spans.segment):
        chain.advance(source, a, b, h[: b - a])
        head.outputs(h[: b - a], o[a:b], call.lengths.values, a)
    chain.release()
    return call.out(o), call.pack(chain.state())
