"""plan, frontier and explain: what a call would do, without doing it."""

from __future__ import annotations

from dataclasses import replace

from .. import arguments
from ..arrays import ArrayLike, DTypeLike
from ..backends.base import Backend
from ..engine.footprint import footprint
from ..engine.losses import Loss, Reduction
from ..kernels.loss_table import LOSSES
from ..layers.composite import Layer, StateLike, stages
from ..layers.network import Network
from ..memory import policies
from ..memory.blocking import Footprint
from ..memory.forward_mode import policy_of
from ..memory.plan import Frontier, Plan, human
from ..memory.policies import Memory
from ..memory.speeds import Speeds
from . import device_choice, endless, forward_mode, inputs, loss_inputs, timing
from . import resets as own_resets
from .progress import Progress

_ALWAYS = 1 << 20  # bytes that "auto" takes without asking what is free, which takes a while


def choose(
    model: Network | Layer, T: int, B: int, memory: Memory, device: Backend, resets: int = 0
) -> tuple[Plan, Footprint, int | None]:
    """Return the plan, the footprint that it rests on, and the scratch bytes that a budget leaves.

    The block sizes follow from the last two, once it is known how the call's arrays lie. The plan
    is that of `bptt` for a Network, and that of `forward` and `backward` for a layer.
    """
    if policies.is_auto(memory):
        return _automatic(model, T, B, device, resets)
    policy = policies.as_policy(memory)
    carried = policy_of(policy)
    if carried is not None:
        raise ValueError(f"memory must not be {carried} here: only bptt and Online take it")
    window = policy.window(T)
    own = _footprint(model, T if window is None else window, B, device, resets)
    if policy.budget is None:
        return policy.plan(own.costs(T, own.scratch())), own, None
    scratch = own.scratch_within(policy.budget)
    if scratch < 0:
        raise policies.MemoryLimitError(policy.budget, own.budget(0))
    return policy.plan(own.costs(T, scratch)), own, scratch


def _footprint(
    model: Network | Layer, T: int, B: int, device: Backend, resets: int = 0
) -> Footprint:
    layer, readout = inputs.model(model)
    return footprint(layer, readout, T, B, device, resets, apart=layer is model)


def leaf_ahead(plan: Plan, layer: Layer, device: Backend) -> int:
    """A bound of the steps of a leaf, if it may be run while another is gone back over; else 0."""
    lowest = stages(layer)[0][0].layers[0]
    if not plan.recomputes or not device.runs_ahead(lowest, plan.batch):
        return 0
    return plan.cache_bytes // max(1, plan.step_bytes)


def _automatic(
    model: Network | Layer, T: int, B: int, device: Backend, resets: int
) -> tuple[Plan, Footprint, int | None]:
    """What `memory="auto"` chooses at this moment."""
    own = _footprint(model, T, B, device, resets)
    costs = own.costs(T, own.scratch())
    needed = costs.fixed_bytes + costs.full_bytes
    half = None if needed < _ALWAYS else device.free_bytes() // 2
    if half is None or needed < half:
        return _as_auto(policies.Full().plan(costs), half), own, None
    try:
        plan, own, scratch = choose(model, T, B, half, device, resets)
    except policies.MemoryLimitError as error:
        raise policies.MemoryLimitError(half, error.least_bytes, auto=True) from None
    why = f"full would take {human(needed)}, not less than {_half(half)}"
    return replace(plan, auto=why), own, scratch


def small(plan: Plan | None) -> Plan | None:
    """A plan of full caching as "auto" chooses it, if it is so small that it asks for no more."""
    return None if plan is None or plan.peak_bytes >= _ALWAYS else _as_auto(plan, None)


def _as_auto(plan: Plan, half: int | None) -> Plan:
    """A plan of full caching, chosen since it takes less than half of what is free."""
    most = human(_ALWAYS) if half is None else _half(half)
    return replace(plan, auto=f"full takes less than {most}")


def _half(half: int) -> str:
    return f"{human(half)}, half of the free memory"


def plan(
    network: Network | Layer,
    T: int | None,
    B: int | None = 1,
    *,
    memory: Memory = "full",
    loss: Loss = "squared_error",
    weights: ArrayLike | None = None,
    lengths: ArrayLike | int | None = None,
    resets: ArrayLike | None = None,
    state: StateLike | None = None,
    reduction: Reduction = "sum",
    input_grad: bool = False,
    seed: int | None = None,
    t0: int = 0,
    device: str | None = None,
    progress: Progress = None,
) -> Plan:
    """Return the Plan that `bptt` would carry out with the same arguments; nothing is run.

    Of a layer: what `forward` and `backward` would do.

    Parameters
    ----------
    network : Network, or a layer
    T : time steps; None for a sequence that never ends: what `Online` would take
    B : sequences; where T is None, None too, as in `Online`, for one without a batch axis
    memory : as in `bptt`; "auto" looks at the memory that is free now. A later call may find
        another amount: its own plan says what it did
    device : as in `bptt`; None decides as for arrays that lie where those of the network do
    resets : as in `bptt`; the plan counts a few bytes for each
    loss, weights, lengths, state, reduction, input_grad, seed, t0, progress : as in `bptt`, so that
        one set of keyword arguments serves both; the plan does not depend on them

    Returns
    -------
    Plan with .peak_bytes (a bound of the bytes that the call allocates beyond x, y and the
    results; of a layer, that both calls together hold beyond x, h, dh and the results),
    .forward_steps, .backward_steps, .recomputes, .time_factor, .auto and .actions; str() is
    a table. Where T is None an EndlessPlan, whose .steps and .actions are None, and whose
    .time_factor is that of a step

    Raises
    ------
    MemoryLimitError : the budget is too small for any exact schedule
    ValueError, TypeError : an argument of the wrong value or type
    RuntimeError : this machine does not have the device
    """
    carried = policy_of(memory)
    if T is None:
        B = 1 if B is None else B
        endless.check_device(device)
        device = "cpu"
    if T is None and carried is None:
        return endless.plan(network, arguments.integer("B", B, 1), memory)
    steps = None if T is None else arguments.integer("T", T, 0)
    T, B = steps or 0, arguments.integer("B", B, 0)
    loss_inputs.check_name(loss)
    arguments.choice("reduction", reduction, ("sum", "mean"))
    input_grad = arguments.flag("input_grad", input_grad)
    inputs.check_dropout(seed, t0, T)
    if carried is not None:
        forward_mode.check(inputs.model(network)[0], carried, input_grad, device)
        cuts = own_resets.count(own_resets.check(resets, T, B, squeeze=False))
        return forward_mode.plan(network, steps, B, carried, cuts)
    backend = device_choice.of_plan(device, inputs.model(network)[0], T, B)
    cuts = own_resets.count(own_resets.check(resets, T, B, squeeze=False))
    return choose(network, T, B, memory, backend, cuts)[0]


def least_bytes(model: Network | Layer, T: int, B: int, device: Backend, resets: int = 0) -> int:
    """Smallest budget (bytes) that allows an exact gradient."""
    return _footprint(model, T, B, device, resets).budget(0)


def frontier(
    network: Network | Layer,
    T: int,
    B: int = 1,
    *,
    device: str | None = None,
    seconds: bool = False,
) -> Frontier:
    """Return the plans of least memory without recomputes, and with one, two and three.

    Where RTRL takes less memory than all of these, as with few units and many steps, its plan is
    the last; but not with `seconds`.

    Parameters
    ----------
    network : Network, or a layer, as in `plan`
    T : time steps
    B : sequences
    device : as in `plan`
    seconds : whether to predict the time of each plan. Short parts of the plans are then run on
        random data, by the network's own kernels, for at most a second in all, once these kernels
        are compiled. x is taken to hold floats, and the loss to be the one that goes with the
        readout: cross entropy with softmax, binary cross entropy with sigmoid, else the squared
        error. The machine should have nothing else to do meanwhile

    Returns
    -------
    Frontier, a tuple of Plans; str() is a table of memory against time. With `seconds`, each has
    its .seconds, and .knee is the Plan to stop at

    Raises
    ------
    ValueError, TypeError : an argument of the wrong value or type
    RuntimeError : this machine does not have the device
    MemoryError : with `seconds`, the device has too little free memory
    """
    T, B = arguments.integer("T", T, 0), arguments.integer("B", B, 0)
    seconds = arguments.flag("seconds", seconds)
    backend = device_choice.of_plan(device, inputs.model(network)[0], T, B)
    own = _footprint(network, T, B, backend)
    rows = policies.frontier(
        T, own.state, own.step, lambda policy: choose(network, T, B, policy, backend)[0],
        own.budget, own.stores_outputs,
    )  # fmt: skip
    if seconds:
        return speeds(network, rows, backend).all(rows)
    least = forward_mode.row(network, T, B, backend)
    return (
        rows
        if least is None or least.peak_bytes >= rows[-1].peak_bytes
        else Frontier((*rows, least))
    )


def speeds(model: Network | Layer, rows: Frontier, device: Backend, tokens: bool = False) -> Speeds:
    """Measure how fast the plans of a frontier are; x is floats, or `tokens`."""
    layer, readout = inputs.model(model)
    network, blocks = Network(layer, readout), []
    name = timing.loss_of(network)
    indexed = tokens or (name is not None and LOSSES[name].classes)
    for row in rows:
        _, own, scratch = choose(model, row.steps, row.batch, row.memory, device)
        leaf = leaf_ahead(row, network.layer, device)
        blocks.append(own.blocks(scratch, indexed=indexed, leaf=leaf))
    return timing.speeds(network, rows, blocks, device, tokens)


def explain(
    layer: Layer | Network,
    T: int,
    B: int = 1,
    *,
    dtype: DTypeLike | None = None,
    device: str | None = None,
) -> str:
    """Say which device, kernel, split and tile a call would use, and why.

    Parameters
    ----------
    layer : a layer or a Network
    T : time steps
    B : sequences
    dtype : "float32" or "float64"; None for the layer's own
    device : as in `plan`

    Returns
    -------
    str of a few lines, each with its subject first

    Raises
    ------
    ValueError, TypeError : an argument of the wrong value or type
    RuntimeError : this machine does not have the device
    """
    readout = layer.readout if isinstance(layer, Network) else None
    layer = inputs.recurrent(layer.layer if isinstance(layer, Network) else layer)
    T, B = arguments.integer("T", T, 0), arguments.integer("B", B, 0)
    if dtype is not None:
        wanted = arguments.dtype(dtype)
        layer = layer._moved(lambda a: a.astype(wanted, copy=False))
        if readout is not None:
            readout = readout._moved(lambda a: a.astype(wanted, copy=False))
    backend = device_choice.of_plan(device, layer, T, B)
    blocks = footprint(layer, readout, T, B, backend).blocks()
    lines = [f"device     {backend.name}: {device_choice.reason(device, layer, T, B)}"]
    shapes = [[direction.shapes for direction in stage] for stage in stages(layer)]
    lines += backend.describe(shapes, layer.dtype, B, blocks)
    return "\n".join(lines)
