"""plan, frontier and explain: what a call would do, without doing it."""

from __future__ import annotations

from . import arguments, choice, inputs, losses, memory
from .backends import CUDA, Backend
from .compound import leaves
from .layers import Network
from .memory import Frontier, Plan
from .sizes import sizes
from .spans import Spans
from .typing import Array, DTypeLike, Layer, Loss, Memory, Progress, Reduction, State


def choose(network: Network, T: int, B: int, policy: Memory, device: Backend) -> tuple[Plan, Spans]:
    """Return the plan, and the spans that go with it."""
    policy = memory.as_policy(policy)
    longest = min(T, policy.k2) if isinstance(policy, memory.Truncated) else T
    size = sizes(inputs.network(network).layer, network.readout, longest, B, device)
    budget = getattr(policy, "budget", None)
    if budget is None:
        spans, fixed = size.free_spans, size.base + size.scratch()
    else:
        reserve = size.reserve(budget)
        if reserve < 0:
            raise memory.MemoryLimitError(budget, size.budget(0))
        spans, fixed = size.spans(reserve), size.base + reserve
    whole_step = size.whole_step if size.held else None
    plan = memory.make_plan(T, B, size.state, size.step, fixed, policy, whole_step)
    return plan, spans


def plan(
    network: Network,
    T: int,
    B: int = 1,
    *,
    memory: Memory = "full",
    loss: Loss = "squared_error",
    weights: Array | None = None,
    lengths: Array | int | None = None,
    state: State | None = None,
    reduction: Reduction = "sum",
    input_grad: bool = False,
    seed: int | None = None,
    t0: int = 0,
    device: str | None = None,
    progress: Progress = None,
) -> Plan:
    """Return the Plan that `bptt` would carry out with the same arguments; runs nothing.

    Only the network, T, B and `memory` matter; the others are taken so that one set of keyword
    arguments serves both.

    Returns
    -------
    Plan with .peak_bytes (bounds the array bytes allocated beyond x, y and the returned
    gradients), .forward_steps, .backward_steps, .time_factor, .actions; str() is a table

    Raises
    ------
    MemoryLimitError : a budget too small for any exact schedule
    """
    T, B = arguments.integer("T", T, 0), arguments.integer("B", B, 0)
    losses.check_name(loss)
    arguments.choice("reduction", reduction, ("sum", "mean"))
    arguments.flag("input_grad", input_grad)
    inputs.check_dropout(seed, t0, T)
    backend = choice.of_plan(device, inputs.network(network).layer, T, B)
    return choose(network, T, B, memory, backend)[0]


def least_bytes(network: Network, T: int, B: int, device: Backend) -> int:
    """The least budget in which the exact gradient can be had."""
    return sizes(network.layer, network.readout, T, B, device).budget(0)


def frontier(network: Network, T: int, B: int = 1, *, device: str | None = None) -> Frontier:
    """Return the plans of least memory for full caching and for one, two and three recomputes.

    Returns
    -------
    Frontier, a tuple of Plans; str() is a table of memory against time
    """
    T, B = arguments.integer("T", T, 0), arguments.integer("B", B, 0)
    backend = choice.of_plan(device, inputs.network(network).layer, T, B)
    size = sizes(network.layer, network.readout, T, B, backend)
    return memory.frontier(
        T, size.state, size.step,
        lambda policy: choose(network, T, B, policy, backend)[0],
        lambda cache_bytes: size.budget(cache_bytes), size.held,
    )  # fmt: skip


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
    layer : a layer or Network; T, B : steps and sequences
    dtype : "float32" or "float64", if other than the layer's own

    Returns
    -------
    str, a few lines
    """
    readout = layer.readout if isinstance(layer, Network) else None
    layer = inputs.recurrent(layer.layer if isinstance(layer, Network) else layer)
    T, B = arguments.integer("T", T, 0), arguments.integer("B", B, 0)
    if dtype is not None:
        wanted = arguments.dtype(dtype)
        layer = layer._moved(lambda a: a.astype(wanted, copy=False))
        if readout is not None:
            readout = readout._moved(lambda a: a.astype(wanted, copy=False))
    backend = choice.of_plan(device, layer, T, B)
    spans = sizes(layer, readout, T, B, backend).free_spans
    lines = [f"device     {backend.name}: {choice.reason(device, layer, T, B)}"]
    if isinstance(backend, CUDA):
        from .kernels.cuda import describe as gpu

        lines.append(f"stretch    {spans.segment:,} steps a launch, to hear Ctrl-C between two")
        for part in leaves(layer):
            lines += gpu.lines(part.cell, part.hidden, B, part.dtype, backend.ordinal)
        return "\n".join(lines)
    from .kernels.cpu import describe

    lines.append(
        f"stretch    {spans.segment:,} steps a kernel call, to hear Ctrl-C between two; in chunks "
        f"of {spans.chunk:,}, whose scratch stays in a core's cache"
    )
    for part in leaves(layer):
        lines += describe.lines(part.cell, part.hidden, B, part.dtype)
    return "\n".join(lines)
