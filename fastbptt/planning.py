"""plan, frontier and explain: what a call would do, without doing it."""

from __future__ import annotations

from . import arguments, devices, inputs, memory
from .chain import state_bytes, step_bytes
from .engine import sizes


def choose(network, T, B, policy):
    """Return the plan, and what its budget leaves for scratch and cache (None: no budget)."""
    policy = memory.as_policy(policy)
    layers = [inputs.network(network).layer]
    fixed = sizes(layers, network.readout, B)
    S, C = state_bytes(layers, B), step_bytes(layers, B)
    budget = getattr(policy, "budget", None)
    spare = None if budget is None else budget - fixed.base - S - C
    return memory.make_plan(T, B, S, C, fixed.fixed(spare), policy), spare


def plan(
    network, T, B=1, *, memory="full", loss="squared_error", weights=None, lengths=None,
    state=None, reduction="sum", input_grad=False, seed=None, t0=0, device=None, progress=None,
):  # fmt: skip
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
    devices.require(device)
    return choose(network, T, B, memory)[0]


def frontier(network, T, B=1, *, device=None):
    """Return the plans of least memory for full caching and for one, two and three recomputes.

    Returns
    -------
    Frontier, a tuple of Plans; str() is a table of memory against time
    """
    T, B = arguments.integer("T", T, 0), arguments.integer("B", B, 0)
    devices.require(device)
    layers = [inputs.network(network).layer]
    fixed = sizes(layers, network.readout, B)
    return memory.frontier(
        T, B, state_bytes(layers, B), step_bytes(layers, B), fixed.fixed()
    )
