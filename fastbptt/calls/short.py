"""The short way of small calls: what depends on their shape alone is made once for each shape.

The general way spends some 100 us on a call besides its arithmetic. A function of this module
returns None for a call that is not its own (see `short_calls`): then the general way does it, and
raises if an argument is bad. A bad `memory` or `device` is an error here, too, with the same text.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import Array
from ..engine.losses import NamedLoss
from ..engine.problem import Problem
from ..engine.stages import Stages, Tape
from ..kernels.loss_table import LOSSES
from ..layers.composite import Layer, State, rebuilt, state_of
from ..layers.network import Network
from ..memory.blocking import flush_steps
from ..memory.plan import Plan, Policy
from ..memory.policies import Full, Memory, as_policy, is_auto
from . import inputs, planning
from . import resets as own_resets
from .inputs import Inputs
from .short_calls import (
    MOST_COPIED,
    ShortCall,
    ShortState,
    call_of,
    find,
    given_state,
    no_params,
    usable,
)

if TYPE_CHECKING:
    from ..engine.prepared import Running
    from ..engine.preparing import Prepared

_ROWS = 256  # of the longest schedule that is kept


def _state(call: ShortCall, found: Iterable[Array]) -> State:
    """Arrays (states, B, H), one a layer, in the caller's form."""
    if call.squeeze:
        found = [array[:, 0] for array in found]
    return state_of(call.layer, found)


def _begin(
    call: ShortCall, prepared: Prepared, second: Array, third: Array, given: ShortState
) -> tuple[Running, list[Array]]:
    """Start a call that reads the layers; returns it, and its arrays of final states."""
    dtype, final = call.x.dtype, []
    running = prepared.layout.start(call.x, second, third)
    slots = running.slots
    for part, own in zip(call.parts, prepared.layers, strict=True):
        last = np.empty((own.states, call.B, own.hidden), dtype)
        params = part.params
        params = no_params(dtype) if params is None else params
        running.put_layer(slots, own.at, own.split, part.U, part.W, part.b, params, last)
        final.append(last)
    for index, number, array in given:
        running.put_state(slots, prepared.layers[index].initial, number, array)
    return running, final


def _walked(
    kind: str, layer: Any, x: Any, state: State | None, device: str | None, auto: bool = False
) -> tuple[ShortCall, Prepared, Running, Array, list[Array]] | None:
    """A way forward that is done: what it was, its outputs (T, B, H), and its final states.

    None also where `auto` would ask how much memory is free.
    """
    call = call_of(kind, layer, x)
    if call is None:
        return None
    given = given_state(call, state)
    if given is None:
        return None
    prepared = find(call, device, lambda problem, threads: _forward(problem, threads, kind))
    if prepared is None or (auto and planning.small(prepared.plan) is None):
        return None
    T = 0 if kind == "last" else call.T
    h = np.empty((T, call.B, call.parts[-1].W.shape[1]), call.x.dtype)
    running, final = _begin(call, prepared, h, h, given)
    running.walk()
    return call, prepared, running, h, final


def run(
    layer: Any, x: Any, state: State | None, keep: str, device: str | None
) -> tuple[Array, State] | None:
    """`layerwise.run`, the short way."""
    done = _walked(keep, layer, x, state, device)
    if done is None:
        return None
    call, _, running, h, final = done
    running.workspace.release()
    if keep == "last":
        h = final[-1][0].copy()
        return (h[0] if call.squeeze else h), _state(call, final)
    return (h[:, 0] if call.squeeze else h), _state(call, final)


def _forward(problem: Problem, threads: int, kind: str) -> Prepared:
    from ..engine import preparing

    shapes = problem.shapes
    plan, own, _ = planning.choose(problem.layer, shapes.T, shapes.B, "full", problem.device)
    return preparing.forward(problem, own.blocks(), threads, kind)._replace(plan=plan)


class ShortTape:
    """What a short way forward leaves for ways back; nobody writes to it."""

    def __init__(self, call: ShortCall, prepared: Prepared, running: Running):
        self.call, self.prepared, self.running = call, prepared, running
        running.workspace.release()
        running.memory = running.tape  # the other is no longer its own
        self.workspace = running.kept

    def inputs(self) -> Inputs:
        """The call's inputs, for the general way."""
        call = self.call
        return inputs.check(call.layer, call.x[:, 0] if call.squeeze else call.x, device="cpu")

    def general(self, own: Inputs) -> Tape:
        """What the general way needs for a way back, copied."""
        from ..engine.preparing import BACKS
        from ..kernels.cpu.slots import LAYER

        call, running = self.call, self.running
        stages = Stages(own.problem, own.footprint().blocks(), multi_flush=False)
        chain, dtype = stages.top, call.x.dtype
        size = call.T * chain.step_bytes + chain.state_bytes
        (steps,) = stages.caches(stages.workspace.empty(size // dtype.itemsize, dtype))
        steps.stop = call.T
        for index, weights in enumerate(stages.weights):
            first = self.prepared.layers[index].at
            for matrix, slot in zip((weights.input, *weights.parts), BACKS, strict=False):
                packed = matrix.back  # of the caller's weights, which may be others by now
                packed[:] = running.array(first + slot, packed.shape, dtype)
            if weights.params.size:
                slot = first + LAYER.params_at
                weights.params[:] = running.array(slot, weights.params.shape, dtype)
            for whole, slot in (
                (steps.states[index], LAYER.states_at),
                (steps.residuals[index], LAYER.residuals_at),
            ):
                if whole.size:
                    whole[...] = running.array(first + slot, whole.shape, dtype)
        return stages.tape([steps])


def forward(
    layer: Any, x: Any, state: State | None, memory: Memory, device: str | None
) -> tuple[Array, State, ShortTape, Plan] | None:
    """`layerwise.forward`, the short way, with a tape and its plan in place of the cache."""
    auto = is_auto(memory)
    if not auto and as_policy(memory) != Full():
        return None
    done = _walked("cache", layer, x, state, device, auto)
    if done is None:
        return None
    call, prepared, running, h, final = done
    plan = planning.small(prepared.plan) if auto else prepared.plan
    assert plan is not None
    tape = ShortTape(call, prepared, running)
    return (h[:, 0] if call.squeeze else h), _state(call, final), tape, plan


def backward(
    tape: ShortTape, dh: Array, given: ShortState, input_grad: bool
) -> tuple[Any, Array | None, State]:
    """The gradients by the layer, by x or None, and by the initial state."""
    call, prepared = tape.call, tape.prepared.backs[input_grad]
    dx = np.empty(call.x.shape, call.x.dtype) if input_grad else call.x
    dh = dh.reshape(call.T, call.B, -1)
    running = prepared.layout.start(call.x, dh, dx, tape.running.tape)
    grads = _begin_back(call, prepared, running, given)
    running.walk()
    layer, dstate = _end_back(call, prepared, running, grads)
    running.workspace.release()
    if not input_grad:
        return layer, None, dstate
    return layer, dx[:, 0] if call.squeeze else dx, dstate


def usable_back(tape: ShortTape, dh: Any, dstate: State | None) -> ShortState | None:
    """The arrays of `dstate` if kernels can be handed them and `dh`, else None."""
    call = tape.call
    H = call.parts[-1].W.shape[1]
    shape = (call.T, H) if call.squeeze else (call.T, call.B, H)
    return given_state(call, dstate) if usable(dh, call.x.dtype, shape) else None


_Grads = list["tuple[Array, Array]"]


def _begin_back(call: ShortCall, prepared: Prepared, running: Running, given: ShortState) -> _Grads:
    """Give a way back arrays for the gradients of U and W."""
    grads, dtype = [], call.x.dtype
    for part, own in zip(call.parts, prepared.layers, strict=True):
        dU, dW = np.zeros(part.U.shape, dtype), np.zeros(part.W.shape, dtype)
        running.put_back(running.slots, own.at, dU, dW)
        grads.append((dU, dW))
    for index, number, array in given:
        running.put_state(running.slots, prepared.layers[index].carry, 2 * number, array)
    return grads


def _end_back(
    call: ShortCall, prepared: Prepared, running: Running, grads: _Grads
) -> tuple[Layer, State]:
    """The gradients by the layer and by its initial state."""
    dtype, slots = call.x.dtype, running.slots
    layers, initial = [], []
    for part, own, (dU, dW) in zip(call.parts, prepared.layers, grads, strict=True):
        db, given = np.empty(part.b.shape, dtype), part.params
        params = no_params(dtype) if given is None else np.empty(given.shape, dtype)
        dstate = np.empty((own.states, call.B, own.hidden), dtype)
        running.take_back(slots, own.at, own.order, own.sums, db, params, dstate)
        layers.append(part._gradient(dU, dW, db, None if given is None else params))
        initial.append(dstate)
    return rebuilt(call.layer, iter(layers)), _state(call, initial)


def gradient(
    network: Network, x: Any, y: Any, loss: Any, state: State | None, memory: Any, reduction: Any,
    input_grad: Any, device: str | None,
) -> dict[str, Any] | None:  # fmt: skip
    """The fields of the Result of `gradient.bptt`, the short way."""
    layer, readout = network.layer, network.readout
    if readout is None or not (type(loss) is type(reduction) is str and type(input_grad) is bool):
        return None
    if reduction not in ("sum", "mean"):
        return None
    auto = is_auto(memory)
    policy, V, c = Full() if auto else as_policy(memory), readout.V, readout.c
    kind = loss, policy, reduction, input_grad, V.shape, readout.activation
    call = call_of(kind, layer, x, V.size)
    if call is None or not (usable(V, call.x.dtype) and usable(c, call.x.dtype)):
        return None
    O = V.shape[0]
    if not usable(y, call.x.dtype, (call.T, O) if call.squeeze else (call.T, call.B, O)):
        return None
    if call.x.nbytes > MOST_COPIED or y.nbytes > MOST_COPIED:
        return None
    own = network.state if state is None else None
    given = given_state(
        call, state if own is None else own_resets.repeated(own, call.B, call.squeeze)
    )
    if given is None:
        return None
    y = y.reshape(call.T, call.B, O)

    def make(problem: Problem, threads: int) -> Prepared | bool:
        return _gradient(network, problem, threads, loss, policy, reduction, input_grad)

    prepared = find(call, device, make)
    if prepared is None:
        return None
    plan = planning.small(prepared.plan) if auto else prepared.plan
    if plan is None:
        return None
    dx = np.empty(call.x.shape, call.x.dtype) if input_grad else call.x
    running, final = _begin(call, prepared, y, dx, given)
    grads = _begin_back(call, prepared, running, [])
    dV, dc = np.zeros(V.shape, V.dtype), np.empty(c.shape, c.dtype)
    running.put_head(running.slots, V, c, dV)
    running.walk()
    grad, grad_state = _end_back(call, prepared, running, grads)
    own_grad = None
    if network.state is not None:
        own_grad = own_resets.summed(grad_state, call.squeeze, own is None)
    total, error = running.take_head(running.slots, dc)
    running.workspace.release()
    return {
        "loss": (total + error if isfinite(error) else total) * prepared.factor,
        "grad": Network(grad, readout._with(V=dV, c=dc), own_grad),
        "state": _state(call, final),
        "grad_state": grad_state,
        "grad_x": None if not input_grad else dx[:, 0] if call.squeeze else dx,
        "plan": plan,
    }


def _gradient(
    network: Network, problem: Problem, threads: int, loss: Any, policy: Policy, reduction: Any,
    input_grad: bool,
) -> Prepared | bool:  # fmt: skip
    from ..engine import preparing

    readout, shapes = network.readout, problem.shapes
    assert readout is not None
    known = LOSSES.get(loss)
    if known is None or known.classes or known.readout not in (None, readout.activation):
        return False
    plan, own, scratch = planning.choose(network, shapes.T, shapes.B, policy, problem.device)
    rows = list(islice(plan.schedule(), _ROWS + 1))
    if not plan.exact or len(rows) > _ROWS or plan.backward_steps > flush_steps(shapes.B):
        return False
    y = np.empty((shapes.T, shapes.B, readout.outputs), readout.dtype)
    checked = NamedLoss(loss, readout, y, None, reduction)
    return preparing.gradient(problem, checked, plan, own.blocks(scratch), threads, input_grad)
