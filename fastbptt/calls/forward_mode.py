"""bptt and plan with a policy that carries the gradient forward: RTRL and SnAp1."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import arguments
from ..arrays import Array, on_gpu
from ..backends import devices
from ..backends.base import Backend
from ..engine.problem import Problem
from ..engine.readers import Reader, float_reader, one_hot, read, token_reader
from ..layers.composite import Layer, Stack, needs_future, recurrent_layers, state_of
from ..layers.network import Network, Readout
from ..memory.blocking import BlockSizes
from ..memory.endless import EndlessPlan
from ..memory.forward_mode import RTRL, ForwardMode
from ..memory.plan import Plan
from . import inputs, loss_inputs
from .progress import Progress, reporter


def check(
    layer: Layer, policy: ForwardMode, input_grad: bool, device: str | None, x: Any = None
) -> None:
    """Raise where the policy cannot be had."""
    if input_grad:
        raise ValueError(f"input_grad must be False with memory={policy}, which has no dL/dx")
    if needs_future(layer):
        raise ValueError(
            f"memory must not be {policy} with a Bidirectional layer, which needs the future"
        )
    name, source = devices.named(device)
    here = not on_gpu(x) and all(isinstance(a, np.ndarray) for a in layer.arrays())
    if name not in (None, "cpu") or not here:
        where = "arrays on a GPU" if name in (None, "cpu") else f"{source}={name!r}"
        raise ValueError(f"memory={policy} runs on the CPU, for now, not with {where}")


def plan(model: Network | Layer, T: int | None, B: int, policy: ForwardMode, resets: int) -> Any:
    """The Plan of T steps, or the EndlessPlan where T is None."""
    layer, readout = inputs.model(model)
    if layer is model:
        raise ValueError(
            f"memory must not be {policy} for a layer alone: bptt takes it, of a Network"
        )
    fixed, cache, held, factor = costs(layer, readout, B, policy)
    if T is None:
        return EndlessPlan(B, policy, fixed + cache // 2, held, factor, policy.exact)
    back = round((3 * factor - 1) / 2 * T)
    item = layer.dtype.itemsize
    state = sum(part.states * part.hidden for part in recurrent_layers(layer)) * B * item
    return Plan(
        steps=T, batch=B, memory=policy, state_bytes=state, step_bytes=0,
        fixed_bytes=fixed + 24 * resets, cache_bytes=cache, forward_steps=T, backward_steps=back,
        exact=policy.exact,
    )  # fmt: skip


_SNAP_FACTOR = 2.0  # a step takes about as long as two of BPTT


def row(model: Network | Layer, T: int, B: int, device: Backend) -> Plan | None:
    """RTRL's row of a frontier, or None where it cannot be had."""
    layer, _ = inputs.model(model)
    if layer is model or needs_future(layer) or device.name != "cpu" or not T:
        return None
    found: Plan = plan(model, T, B, RTRL(), 0)
    return found if max(found.peak_bytes, found.backward_steps) <= arguments.MOST else None


def costs(
    layer: Layer, readout: Readout | None, B: int, policy: ForwardMode
) -> tuple[int, int, int, float]:
    """(fixed, cache, held, time factor): bytes of scratch, of what bptt and what Online holds."""
    from ..engine import influence_bytes as own  # here, since it loads Numba
    from ..engine.influence_weights import forms as forms_of

    forms = forms_of(list(recurrent_layers(layer)))
    n = forms[0].above
    size = policy.steps(n)
    snap = not policy.exact
    drops = isinstance(layer, Stack) and layer.dropout > 0
    outputs = 0 if readout is None else readout.outputs
    item = layer.dtype.itemsize
    if snap:
        return *own.of_snap(forms, B, size, outputs, drops), _SNAP_FACTOR
    fixed = own.scratch(forms, B, size, outputs, drops) + own.gradient(forms, B)
    cache = own.held(forms, B, size, drops)
    changes = size * sum(own.back(form, item) for form in forms)
    held = cache + changes + own.ring(forms, B, size, False) + own.influences(forms, B)
    return fixed, cache, held + 3 * own.packed(forms, item), (1 + 2 * (n + 1) + n) / 3


def gradient(
    own: inputs.Inputs, checked: loss_inputs.CheckedLoss,
    planned: tuple[ForwardMode, Plan],
    progress: Progress,
) -> dict[str, Any]:  # fmt: skip
    """The fields of the Result of `gradient.bptt`."""
    from ..engine.influence import Block, Totals  # here, since they load Numba
    from ..engine.influence_weights import Run
    from ..engine.influence_weights import forms as forms_of
    from ..engine.snap import Snap, SnapTotals

    policy, plan = planned
    problem, outputs = own.problem, own.outputs
    T, B, device = own.T, own.B, problem.device
    forms = forms_of(problem.recurrent)
    size = policy.steps(forms[0].above)
    arrays = problem.arrays
    lengths, restart = arrays.lengths, arrays.restart
    restarts = [None] * len(forms) if restart is None else restart
    runs = [Run(*given) for given in zip(forms, problem.recurrent, restarts, strict=True)]
    exact = plan.exact
    kind = Block if exact else Snap
    steps: Any = kind(forms, B, size, arrays.initial, problem.dropout is not None)
    if exact and lengths.first is not None:
        steps.begun[lengths.first] = False
    sizes = BlockSizes(size, size, size, size)
    workspace = device.workspace()
    totals: Any = Totals(forms, B) if exact else SnapTotals(forms)
    loss = checked.sum(problem, sizes, workspace, True)
    reader = _reader(problem, size)
    report, finish = reporter(progress)
    try:
        for start in range(0, T, size):
            stop = min(T, start + size)
            low, high = np.searchsorted(lengths.resets, (start * B, stop * B))
            ends = np.clip(lengths.values - start, 0, stop - start)
            drop = None if problem.dropout is None else _drop(problem, start)
            x = _floats(reader, start, stop, problem)
            resets = lengths.resets[low:high] - start * B
            h = steps.run(runs, x, ends, resets, drop)
            dh = np.empty_like(h)
            loss.fill(h, start, dh)
            loss.flush()
            steps.learn(dh, totals)
            steps.end()
            if report is not None:
                report(stop, T)
    finally:
        finish()
    grad_state = own_grad = None
    if exact:
        dtype, grads = problem.layer.dtype, []
        for form in forms:
            part = totals.first[:, form.first : form.first + form.rows]
            apart = part.reshape(B, form.rows // form.hidden, form.hidden)
            grads.append(np.array(apart.transpose(1, 0, 2), dtype, order="C"))
        grad_state = outputs.state(grads)
        if restart is not None:
            own_grad = state_of(problem.layer, totals.of_own_state(own.state_given))
    layer = outputs.gradient(totals.gradients())
    result = {
        "loss": loss.value(),
        "grad": Network(layer, outputs.model(loss.gradient()), own_grad),
        "state": outputs.state(steps.final()),
        "grad_state": grad_state,
        "grad_x": None,
        "plan": plan,
    }
    workspace.release()
    return result


def _reader(problem: Problem, steps: int) -> Reader:
    x, device, layer = problem.arrays.x, problem.device, problem.layer
    if not problem.shapes.tokens:
        return float_reader(device, x, steps)
    return token_reader(
        device, x, steps, name="x", classes=layer.inputs, dtype=layer.dtype,
        counted=problem.arrays.lengths.live,
    )  # fmt: skip


def _floats(reader: Reader, start: int, stop: int, problem: Problem) -> Array:
    """The inputs of steps as floats: a token is a one among zeros."""
    x, ids = read(reader, start, stop)
    layer = problem.layer
    return one_hot(ids, layer.inputs, layer.dtype) if problem.shapes.tokens else x


def _drop(problem: Problem, start: int) -> Any:
    def drop(values: Array, layer: int) -> None:
        assert problem.dropout is not None
        problem.dropout.apply(problem.device, values, values, layer, start)

    return drop
