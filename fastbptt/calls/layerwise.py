"""forward, backward, run and predict: calls on a layer or network without a schedule."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import numpy as np

from .. import arguments
from ..arrays import Array, ArrayLike, stream_of
from ..engine import programs, time_views
from ..engine.stages import Stages, Tape
from ..layers.composite import AnyLayer, Layer, State, StateLike
from ..layers.network import Network
from ..memory.blocking import flush_steps
from ..memory.policies import Memory
from . import inputs, planning, short, states
from . import resets as own_resets
from .cache import Cache, GeneralTape, Gradient
from .inputs import Inputs
from .short import ShortTape


def forward(
    layer: AnyLayer,
    x: ArrayLike,
    state: StateLike | None = None,
    *,
    lengths: ArrayLike | int | None = None,
    resets: ArrayLike | None = None,
    memory: Memory = "full",
    seed: int | None = None,
    t0: int = 0,
    device: str | None = None,
) -> tuple[Array, State, Cache[AnyLayer]]:
    """Run a layer over x and keep for `backward` every step, or what `memory` allows.

    Parameters
    ----------
    layer : RNN, LSTM, GRU, Stack, Bidirectional, or a layer of a Cell
    x : (T, B, I) array of the layer's dtype, or integer tokens (T, B); B may be left out. It and
        all other arrays may be of another package: whatever speaks DLPack, frames of pandas or
        polars, and data sets of h5py or zarr, of which a stretch is read at a time
    state : the state before x[0]; zero by default. RNN, GRU: (B, H); LSTM: a pair (s, c) of those;
        Stack, Bidirectional: a tuple of their layers' states
    lengths : (B,) integers, a list too, or one where B is left out; sequence b has only the steps
        t < lengths[b], and `h` is 0 after them
    resets : (T, B) or (T,) booleans: sequence b begins anew before x[t], from zero, where
        resets[t, b], and no gradient goes back from there. At t = 0 this is in place of `state`.
        Past a length they do not matter
    memory : "full", "auto", a budget such as "64MB" or an int of bytes, Full(), Checkpointed(...)
        or Truncated(k1, k2): the memory that this call and `backward` use, and keep in between;
        x, h, dh and the returned gradients do not count. Under a budget checkpoints are kept, and
        `backward` runs the steps between them again; the gradients have the same bits. With
        Truncated it runs all of them again: the gradient is that of sum_t <dh_t, h_t>, window by
        window
    seed : an int for the dropout masks of a Stack; needed if it has dropout
    t0 : the time of x[0], for the dropout masks of a sequence that is given in parts
    device : None, "cpu", "cuda" or "cuda:1". None: arrays on a GPU stay there; NumPy arrays go to
        the device that the environment variable FASTBPTT_DEVICE names, else to the faster one

    Returns
    -------
    h : (T, B, H) array of the layer's dtype; h[t] is the state after x[t], for an LSTM s
    state : the state after the last step of each sequence
    cache : Cache for `backward`, with the Plan of both calls as .plan. x must not change until
        then; the layer's arrays may, since `backward` uses the values from now

    Raises
    ------
    ValueError, TypeError : an argument of the wrong shape, dtype or value, before any work; for a
        token that does not exist, when it is read
    MemoryLimitError : the budget is too small for any exact schedule
    RuntimeError : this machine does not have the device
    MemoryError : the device has too little free memory
    """
    if lengths is resets is seed is None and type(t0) is int and t0 == 0:
        done = short.forward(layer, x, state, memory, device)
        if done is not None:
            h, final, short_tape, plan = done
            return h, final, Cache(layer, short_tape, plan)
    own = inputs.check(
        layer, x, state, lengths, device, resets=resets, seed=seed, t0=t0, drops=True
    )  # fmt: skip
    problem, backend, T, B = own.problem, own.problem.device, own.T, own.B
    plan, footprint, scratch = planning.choose(layer, T, B, memory, backend, own.resets)
    zero_copy = problem.zero_copy and plan.exact  # windows add to gradients through copies
    blocks = footprint.blocks(scratch, zero_copy=zero_copy, indexed=problem.shapes.tokens)
    least = partial(planning.least_bytes, layer, T, B, backend, own.resets)
    with backend, backend.guard(plan.peak_bytes, least):
        stages = Stages(problem, blocks, multi_flush=flush_steps(B) < plan.backward_steps)
        h = own.outputs.states()
        if plan.exact and not plan.recomputes:
            caches = stages.caches(stages.arena(plan.cache_bytes + footprint.first))
            programs.forward(stages, h, caches)
            tape = stages.tape(caches)
        else:
            tape = stages.tape((), programs.forward_within(stages, plan, h))
        final = own.outputs.state(stages.final_states())
        return own.outputs.out(h), final, Cache(layer, GeneralTape(own, tape), plan)


def backward(
    cache: Cache[AnyLayer],
    dh: ArrayLike,
    dstate: StateLike | None = None,
    *,
    input_grad: bool = True,
    deltas: bool = False,
    keep: bool = False,
) -> Gradient[AnyLayer]:
    """Backpropagate through the steps that `forward` has run.

    delta_t = (W^T delta_{t+1} + dL/dh_t) * g'(a_t), then dU = sum delta_t x_t^T,
    dW = sum delta_t s_{t-1}^T, db = sum delta_t (Werbos 1990).

    Parameters
    ----------
    cache : Cache from `forward`. The call consumes it when it succeeds, unless `keep` is true; a
        call that raises (Ctrl-C included) leaves it as it was. Of two calls at once that would
        consume it, one raises
    dh : dL/dh, of the shape and dtype of h
    dstate : dL/d(final state), in the form of the state; zero by default
    input_grad : whether to compute dL/dx; there is none for tokens
    deltas : whether to return all deltas, (T, B, G*H)
    keep : whether the cache may be used again; then any number of threads may use it at once, and
        each call takes working memory of its own. Where steps are run again, the first call goes
        on from where `forward` has stopped, and any other runs all steps once more

    Returns
    -------
    Gradient with .layer, .x, .state and .deltas

    Raises
    ------
    ValueError, TypeError : a consumed cache; an argument of the wrong shape or dtype
    MemoryError : the device has too little free memory
    """
    if not isinstance(cache, Cache):
        raise TypeError(f"cache must come from forward(), not {arguments.describe(cache)}")
    input_grad = arguments.flag("input_grad", input_grad)
    deltas = arguments.flag("deltas", deltas)
    keep = arguments.flag("keep", keep)
    tape = cache._look()
    if isinstance(tape, ShortTape) and not deltas:
        given = short.usable_back(tape, dh, dstate)
        if given is not None:

            def work(tape: Any) -> Gradient[AnyLayer]:
                layer, dx, initial = short.backward(tape, dh, given, input_grad)
                return Gradient(layer, dx, initial, None)

            return cache._use(keep, work)
    own = tape.inputs()
    outputs, dtype = own.problem.layer.outputs, own.problem.layer.dtype
    derivative = own.along_time("dh", dh)
    arguments.check_floats("dh", derivative, own.times(outputs), dtype)
    stream = stream_of(dh)
    dh = derivative[:, None] if own.squeeze else derivative
    given_state = None if dstate is None else own.state("dstate", dstate)

    def work_generally(tape: Any) -> Gradient[AnyLayer]:
        with own.problem.device, own.problem.device.guard():
            own.problem.device.follow(stream)
            return _backward(own, tape.general(own), dh, given_state, input_grad, deltas)

    return cache._use(keep, work_generally)


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
        adds = tape.kept is not None and not tape.kept.plan.exact
        grad_x = outputs.array(problem.layer.inputs, zeros=problem.stores_outputs or adds)
    if deltas:
        widths = [part.gates * part.hidden for part in problem.recurrent]
        all_deltas = [outputs.array(width, zeros=True) for width in widths]
    programs.backward(stages, tape, dh, carry, grad_x, all_deltas)
    initial, _ = own_resets.gradients(stages, outputs, own.state_given)
    gradient = Gradient(
        layer=outputs.gradient(stages.gradients()),
        x=None if grad_x is None else outputs.out(grad_x),
        state=initial,
        deltas=outputs.per_layer(map(outputs.out, all_deltas)) if deltas else None,
    )
    stages.release()
    return gradient


def run(
    layer: Layer,
    x: ArrayLike,
    state: StateLike | None = None,
    *,
    keep: Literal["all", "last"] = "all",
    lengths: ArrayLike | int | None = None,
    resets: ArrayLike | None = None,
    device: str | None = None,
) -> tuple[Array, State]:
    """Run a layer over x without caching anything. Dropout is left out.

    Parameters
    ----------
    layer, x, state, lengths, resets, device : as in `forward`
    keep : "all", or "last" to return only the last h, in memory that does not grow with T (except
        for a Bidirectional)

    Returns
    -------
    h : (T, B, H) array of the layer's dtype, 0 past a sequence's length; with keep="last" (B, H),
        after the last step of each sequence
    state : the state after the last step of each sequence

    Raises
    ------
    ValueError, TypeError : an argument of the wrong shape, dtype or value, before any work; for a
        token that does not exist, when it is read
    RuntimeError : this machine does not have the device
    MemoryError : the device has too little free memory
    """
    arguments.choice("keep", keep, ("all", "last"))
    if lengths is None and resets is None:
        done = short.run(layer, x, state, keep, device)
        if done is not None:
            return done
    own = inputs.check(layer, x, state, lengths, device, resets=resets)
    return run_checked(own, keep)


def run_checked(own: Inputs, keep: Literal["all", "last"]) -> tuple[Array, State]:
    """`run` of arguments that are checked."""
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
    x: ArrayLike,
    state: StateLike | None = None,
    *,
    lengths: ArrayLike | int | None = None,
    resets: ArrayLike | None = None,
    device: str | None = None,
) -> tuple[Array, State]:
    """Run a network over x and return its outputs. Dropout is left out.

    Parameters
    ----------
    network : Network with a readout
    x, lengths, device : as in `forward`
    resets : as in `bptt`
    state : the state before x[0]; by default the network's own, or zero

    Returns
    -------
    o : (T, B, O) array of the network's dtype, the outputs of the readout; 0 past a sequence's
        length
    state : the state after the last step of each sequence

    Raises
    ------
    ValueError, TypeError : an argument of the wrong shape, dtype or value, before any work; for a
        token that does not exist, when it is read
    RuntimeError : this machine does not have the device
    MemoryError : the device has too little free memory
    """
    readout = inputs.network(network).readout
    if readout is None:
        raise ValueError("network must have a readout to predict with, but its readout is None")
    own = inputs.check(
        network.layer, x, state, lengths, device, resets=resets, own_state=network.state
    )  # fmt: skip
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
