"""forward, backward, run and predict: calls on a layer or network without a schedule."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import Any, Generic, Literal

import numpy as np

from . import arguments, inputs, states
from .along import Along
from .arrays import module_of, stream_of
from .compound import shaped
from .inputs import Call
from .layers import Network
from .passage import Kept, Passage
from .room import room_for
from .spans import panel_steps
from .typing import AnyLayer, Array, Layer, State


@dataclass(frozen=True, eq=False)
class Gradient(Generic[AnyLayer]):
    """What `backward` returns; each part has the type and shape of what it is the gradient of.

    `x` and `deltas` are None where they were not asked for; `deltas` (T, B, G*H) are dL/d(the
    pre-activations), a Stack's a tuple of those and a Bidirectional's a pair.
    """

    layer: AnyLayer
    x: Array | None
    state: State
    deltas: Any


class Cache(Generic[AnyLayer]):
    """What `forward` keeps for `backward`. It refers to x, which must not change meanwhile.

    Its memory is free once it is consumed, or nothing refers to it any more.
    """

    def __init__(self, kept: Kept):
        self._kept: Kept | None = kept
        self._lock = Lock()
        self._users: set[object] = set()  # the calls of backward at work on it
        self._consumer: object = None  # the one of them that consumes it

    def _look(self) -> Kept:
        if self._kept is None or self._consumer is not None:
            raise ValueError(
                "cache was consumed by an earlier backward(); pass keep=True there to use it again"
            )
        return self._kept

    def _take(self, user: object, keep: bool) -> Kept:
        with self._lock:
            kept = self._look()
            self._users.add(user)
            if not keep:
                self._consumer = user
            return kept

    def _leave(self, user: object, kept: Kept, done: bool) -> None:
        with self._lock:
            self._users.discard(user)
            if self._consumer is user:
                self._consumer = None
                self._kept = None if done else kept
            last = self._kept is None and not self._users
        if last:
            kept.workspace.release()

    def __repr__(self) -> str:
        kept = self._kept
        return "Cache(consumed)" if kept is None else f"Cache({kept.call.layer!r})"


def forward(
    layer: AnyLayer,
    x: Array,
    state: State | None = None,
    *,
    lengths: Array | int | None = None,
    seed: int | None = None,
    device: str | None = None,
) -> tuple[Array, State, Cache[AnyLayer]]:
    """Run a layer over x and cache every step for `backward`.

    Parameters
    ----------
    layer : RNN, GRU, LSTM, Stack or Bidirectional
    x : (T, B, I) array of the layer's dtype, or integer tokens (T, B); B may be left out
    state : the state before x[0]; zero by default. RNN, GRU: (B, H); LSTM: a pair (s, c) of those;
        Stack, Bidirectional: a tuple of their layers' states
    lengths : (B,) integers; sequence b counts only for t < lengths[b], `h` is 0 later
    seed : for a Stack's dropout
    device : None, "cpu", "cuda" or "cuda:1"; None follows arrays on a GPU, and takes NumPy arrays
        to where FASTBPTT_DEVICE says, else to the faster device

    Returns
    -------
    h : (T, B, H), h[t] being the state after x[t]
    state : the final state, each sequence's at its own end
    cache : for `backward`; x must not change until then (the layer's arrays may: `backward` uses
        them as they are now)

    Raises
    ------
    ValueError, TypeError : an argument of the wrong shape, dtype or value, before any work
    """
    call = Call(layer, x, state, lengths, device, seed=seed, drops=True)
    sizes = call.sizes()
    spans = call.cut(sizes.free_spans, call.tokens, call.direct)
    step, first = sizes.whole_step or sizes.step, sizes.whole_state or sizes.state
    cached = call.T * step + first
    with call.device, room_for(call.device, cached + sizes.base + sizes.scratch()):
        passage = Passage(call, spans, panel_steps(call.B) < call.T)
        memory = passage.workspace.empty(cached // layer.dtype.itemsize, layer.dtype)
        leaves = passage.leaves(memory)
        h = call.outputs()
        passage.forward(h, leaves)
        return call.out(h), call.pack(passage.states()), Cache(passage.keep(leaves))


def backward(
    cache: Cache[AnyLayer],
    dh: Array,
    dstate: State | None = None,
    *,
    input_grad: bool = True,
    deltas: bool = False,
    keep: bool = False,
) -> Gradient[AnyLayer]:
    """Backpropagate through the steps that `forward` cached.

    delta_t = (W^T delta_{t+1} + dL/dh_t) * g'(a_t), then dU = sum delta_t x_t^T,
    dW = sum delta_t s_{t-1}^T, db = sum delta_t (Werbos 1990).

    Parameters
    ----------
    cache : from `forward`; consumed once the call has succeeded, unless `keep` is true: one that
        raised, Ctrl-C included, leaves it as it was. Of two calls at once that would consume it,
        one raises
    dh : dL/dh, of the shape and dtype of h
    dstate : dL/d(final state), in the form of the state; zero by default
    input_grad : whether to compute dL/dx (for tokens there is none)
    deltas : whether to return all deltas, (T, B, G*H)
    keep : whether the cache may be used again; then any number of threads may use it at once, each
        taking working memory of its own

    Returns
    -------
    Gradient with .layer, .x, .state and .deltas

    Raises
    ------
    ValueError, TypeError : a cache that is consumed, an argument of the wrong shape or dtype
    """
    if not isinstance(cache, Cache):
        raise TypeError(f"cache must come from forward(), not {arguments.describe(cache)}")
    input_grad = arguments.flag("input_grad", input_grad)
    deltas = arguments.flag("deltas", deltas)
    keep = arguments.flag("keep", keep)
    call = cache._look().call
    layer, dtype = call.layer, call.layer.dtype
    shape = (call.T, layer.outputs) if call.squeeze else (call.T, call.B, layer.outputs)
    derivative = arguments.floats("dh", call.given("dh", dh), shape, dtype)
    stream = stream_of(dh)
    dh = derivative[:, None] if call.squeeze else derivative
    given = None if dstate is None else call.unpack("dstate", dstate)
    user, done = object(), False
    kept = cache._take(user, keep)
    try:
        gradient = _backward(kept, dh, stream, given, input_grad, deltas)
        done = True
    finally:
        cache._leave(user, kept, done)
    return gradient


def _backward(
    kept: Kept,
    dh: Array,
    stream: int | None,
    dstate: list[tuple[Array, ...]] | None,
    input_grad: bool,
    deltas: bool,
) -> Gradient:
    call = kept.call
    layer = call.layer
    with call.device, room_for(call.device):
        call.device.follow(stream)
        passage = Passage(call, kept.spans, kept.several, kept)
        carry = None
        if dstate is not None:
            carry = states.copied(call.device, call.leaves, dstate, call.B)
        grad_x = all_deltas = None
        if input_grad and not call.tokens:
            grad_x = call.array(layer.inputs, zeros=call.held)
        if deltas:
            all_deltas = [call.array(part.gates * part.hidden, zeros=True) for part in call.leaves]
        passage.backward(kept.leaves, dh, carry, grad_x, all_deltas)
        gradient = Gradient(
            layer=call.grad_of(layer, passage.gradients()),
            x=None if grad_x is None else call.out(grad_x),
            state=call.pack(passage.carried()),
            deltas=None if all_deltas is None else shaped(layer, map(call.out, all_deltas)),
        )
        passage.release()
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
    with call.device, room_for(call.device):
        passage = Passage(call, call.spans())
        h = call.outputs() if keep == "all" or len(call.stages[-1]) > 1 else None
        passage.forward(h)
        passage.release()
        final = call.pack(passage.states())
        if keep == "all":
            assert h is not None
            return call.out(h), final
        top = passage.stages[-1]
        if len(top) == 1:
            last = passage.states()[-1][0]
            return call.handed_out(last[0] if call.squeeze else last), final
        # What both directions are at each sequence's end, or at first where it has no steps.
        first = [call.result(strand.of(call.initial)[-1][0]) for strand, _ in top]
        xp = module_of(first[0])
        last = xp.concatenate(first, axis=1)
        some = np.flatnonzero(call.lengths.values)
        assert h is not None
        where = xp.asarray(some)
        last[where] = h[xp.asarray(call.lengths.values[some] - 1), where]
        return (last[0] if call.squeeze else last), final


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
    with call.device, room_for(call.device):
        passage = Passage(call, call.spans(readout).short())
        top = passage.strands[-1][1]
        head = call.device.head(readout, call.B, top.workspace, False, call.lengths.given)
        o = call.array(readout.outputs)
        outputs = Along(call.device, o, passage.spans.chunk)
        for a, b, h in passage.outputs():
            head.outputs(h, outputs.room(a, b), top.lengths, a)
            outputs.done(a, b)
        passage.release()
        return call.out(o), call.pack(passage.states())
