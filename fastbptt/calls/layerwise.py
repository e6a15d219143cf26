"""forward, backward, run and predict: calls on a layer or network without a schedule."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import Any, Generic, Literal

import numpy as np

from .. import arguments
from ..arrays import Array, stream_of
from ..engine import programs, time_views
from ..engine.stages import Stages, Tape
from ..layers.composite import AnyLayer, Layer, State
from ..layers.network import Network
from ..memory.blocking import flush_steps
from . import inputs, states
from .inputs import Inputs


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

    def __init__(self, inputs: Inputs, tape: Tape):
        self._inputs, self._layer = inputs, inputs.problem.layer
        self._tape: Tape | None = tape
        self._lock = Lock()
        self._users: set[object] = set()  # the calls of backward at work on it
        self._consumer: object = None  # the one of them that consumes it

    def _look(self) -> Tape:
        if self._tape is None or self._consumer is not None:
            raise ValueError(
                "cache was consumed by an earlier backward(); pass keep=True there to use it again"
            )
        return self._tape

    def _take(self, user: object, keep: bool) -> Tape:
        with self._lock:
            tape = self._look()
            self._users.add(user)
            if not keep:
                self._consumer = user
            return tape

    def _leave(self, user: object, tape: Tape, done: bool) -> None:
        with self._lock:
            self._users.discard(user)
            if self._consumer is user:
                self._consumer = None
                self._tape = None if done else tape
            last = self._tape is None and not self._users
        if last:
            tape.workspace.release()

    def __repr__(self) -> str:
        return "Cache(consumed)" if self._tape is None else f"Cache({self._layer!r})"


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
    own = inputs.check(layer, x, state, lengths, device, seed=seed, drops=True)
    problem, footprint = own.problem, own.footprint()
    blocks = footprint.blocks(zero_copy=problem.zero_copy, indexed=problem.shapes.tokens)
    step, first = footprint.all_step or footprint.step, footprint.all_state or footprint.state
    cached = own.T * step + first
    needed = cached + footprint.base + footprint.scratch()
    with problem.device, problem.device.guard(needed):
        stages = Stages(problem, blocks, multi_flush=flush_steps(own.B) < own.T)
        caches = stages.caches(stages.workspace.empty(cached // layer.dtype.itemsize, layer.dtype))
        h = own.outputs.states()
        programs.forward(stages, h, caches)
        final = own.outputs.state(stages.final_states())
        return own.outputs.out(h), final, Cache(own, stages.tape(caches))


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
    cache._look()
    own = cache._inputs
    outputs, dtype = own.problem.layer.outputs, own.problem.layer.dtype
    derivative = arguments.floats("dh", own.given("dh", dh), own.times(outputs), dtype)
    stream = stream_of(dh)
    dh = derivative[:, None] if own.squeeze else derivative
    given = None if dstate is None else own.state("dstate", dstate)
    user, done = object(), False
    tape = cache._take(user, keep)
    try:
        with own.problem.device, own.problem.device.guard():
            own.problem.device.follow(stream)
            gradient = _backward(own, tape, dh, given, input_grad, deltas)
        done = True
    finally:
        cache._leave(user, tape, done)
    return gradient


def _backward(
    own: Inputs,
    tape: Tape,
    dh: Array,
    dstate: states.Given | None,
    input_grad: bool,
    deltas: bool,
) -> Gradient:
    problem, outputs = own.problem, own.outputs
    stages = Stages(problem, tape.blocks, tape.multi_flush, tape)
    carry = None
    if dstate is not None:
        carry = states.copied(problem.device, problem.recurrent, dstate, own.B)
    grad_x, all_deltas = None, []
    if input_grad and not problem.shapes.tokens:
        grad_x = outputs.array(problem.layer.inputs, zeros=problem.stores_outputs)
    if deltas:
        widths = [part.gates * part.hidden for part in problem.recurrent]
        all_deltas = [outputs.array(width, zeros=True) for width in widths]
    programs.backward(stages, tape.caches, dh, carry, grad_x, all_deltas)
    gradient = Gradient(
        layer=outputs.gradient(stages.gradients()),
        x=None if grad_x is None else outputs.out(grad_x),
        state=outputs.state(stages.grad_states()),
        deltas=outputs.per_layer(map(outputs.out, all_deltas)) if deltas else None,
    )
    stages.release()
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
    own = inputs.check(layer, x, state, lengths, device)
    problem, outputs = own.problem, own.outputs
    with problem.device, problem.device.guard():
        blocks = own.footprint().blocks(zero_copy=problem.zero_copy, indexed=problem.shapes.tokens)
        stages = Stages(problem, blocks)
        h = outputs.states() if keep == "all" or stages.joined else None
        programs.forward(stages, h)
        stages.release()
        last = stages.final_states()
        final = outputs.state(last)
        if keep == "all":
            assert h is not None
            return outputs.out(h), final
        if h is None:
            return outputs.copied(outputs.row(last[-1][0])), final
        return outputs.row(_last_of(own, stages, h)), final


def _last_of(own: Inputs, stages: Stages, h: Array) -> Array:
    """What joined directions are at each sequence's end, or at first where it has no steps."""
    arrays = own.problem.arrays
    initial = [direction.of(arrays.initial)[-1][0] for direction, _ in stages.stages[-1]]
    xp = own.outputs.xp
    last = xp.concatenate([own.outputs.moved(part) for part in initial], axis=1)
    some = np.flatnonzero(arrays.lengths.values)
    rows = xp.asarray(some)
    last[rows] = h[xp.asarray(arrays.lengths.values[some] - 1), rows]
    return last


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
    own = inputs.check(network.layer, x, state, lengths, device)
    problem = own.problem
    with problem.device, problem.device.guard():
        blocks = own.footprint(readout).blocks(zero_copy=False)
        stages = Stages(problem, blocks)
        top = stages.top
        ragged = problem.shapes.ragged
        head = problem.device.head(readout, own.B, top.workspace, False, ragged)
        o = own.outputs.array(readout.outputs)
        target = time_views.view(problem.device, o, blocks.chunk)

        def work(h: Array, start: int) -> None:
            stop = start + len(h)
            head.outputs(h, time_views.buffer(target, start, stop), top.lengths, start)
            time_views.commit(target, start, stop)

        programs.forward(stages, stages.consumer(work))
        stages.release()
        return own.outputs.out(o), own.outputs.state(stages.final_states())
