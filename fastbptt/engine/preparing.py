"""Layouts of the calls that have one: a run, a way forward that caches all, its way back, and bptt.

Each binds the lane of such a call over arrays of the right shapes whose contents do not matter.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array
from ..kernels.cpu.bound import address_of
from ..kernels.cpu.slots import LAYER
from ..kernels.cpu.team import team_for
from ..memory.blocking import BlockSizes
from ..memory.plan import Plan
from .chain import Chain
from .compiled import CompiledWalk
from .lanes import SILENT, Lane
from .losses import GivenDerivative, NamedLoss
from .prepared import Layout, layer_at, layout_of
from .problem import Problem
from .reserving import reserved
from .stages import Stages, Tape
from .time_views import view

_RESTORE = ("restore", 0)
BACKS = LAYER.u_back_at, LAYER.w_back_at, LAYER.second_back_at


class PreparedLayer(NamedTuple):
    """What a short call must know of a recurrent layer.

    at, initial, carry : its first slot, and those of its initial state and of its carry
    split : as in `kernels.cells.spec.Cell`, 0 or 1
    order, sums : for each gate and each param, the block of deltas that is its own
    states, hidden : of the cell, and units
    """

    at: int
    initial: int
    carry: int
    split: int
    order: Array
    sums: Array
    states: int
    hidden: int


class Prepared(NamedTuple):
    """A call's layout.

    layers : of the chain, bottom to top
    backs : of a way forward that caches all steps: its ways back, without and with dE/dx
    plan : of bptt; factor : scales its loss
    """

    layout: Layout
    layers: list[PreparedLayer]
    backs: tuple[Prepared, ...] = ()
    plan: Plan | None = None
    factor: float = 1.0


def _layers(stages: Stages) -> list[PreparedLayer]:
    return [
        PreparedLayer(
            layer_at(index), layer_at(index) + LAYER.initial_at, layer_at(index) + LAYER.carry_at,
            int(own.cell.split), np.array(own._order), np.array(own.cell.sums, np.int64),
            own.states, own.hidden,
        )
        for index, own in enumerate(stages.top.recurrences)
    ]  # fmt: skip


def _room(stages: Stages) -> dict[int, int]:
    """Room for input weights that have another order in kernels."""
    return {
        layer_at(index) + LAYER.ordered_at: own.layer.U.nbytes
        for index, own in enumerate(stages.top.recurrences)
        if own.cell.split
    }


def _bind(lane: Lane, threads: int) -> CompiledWalk:
    walk = CompiledWalk(lane, SILENT)
    walk.bound.divide(team_for(walk.bound.work, threads)[1])  # as many as a call will get
    walk.bound.set(budget=lane.chain.unheard)
    return walk


def forward(problem: Problem, blocks: BlockSizes, threads: int, kind: str) -> Prepared:
    """The layout of a way forward; `kind`: "all" outputs are kept, the "last", or a "cache"."""
    stages, T, B = Stages(problem, blocks, multi_flush=False), problem.shapes.T, problem.shapes.B
    chain, (direction,) = stages.top, problem.stages[0]
    h = reserved((T, B, problem.layer.outputs), problem.layer.dtype)
    caches: list[Any] = [None]
    if kind == "cache":
        size = T * chain.step_bytes + chain.state_bytes
        caches = stages.caches(reserved((size // h.itemsize,), h.dtype))
    outputs = None if kind == "last" else view(problem.device, h, blocks.call_steps)
    rows = _RESTORE, ("cache" if kind == "cache" else "advance", 0, T)
    reader, initial = stages.reader(0, direction), direction.of(problem.arrays.initial)
    lane = Lane(chain, reader, rows, initial, T, outputs=outputs, cache=caches[0])
    walk = _bind(lane, threads)
    tape, keeps = None, []
    if kind == "cache":
        tape = stages.tape(caches)  # packs what the way back needs of the weights as they are now
        for index, own in enumerate(stages.weights):
            backs = [own.input.back, *(part.back for part in own.parts)]
            walk.bound.hold(*backs)
            keeps += [*backs, own.bias, own.params]
            for name, packed in zip(BACKS, backs, strict=False):
                walk.bound.layers[index, name] = address_of(packed)
        keeps += [*caches[0].states, *caches[0].residuals]
    layout, places = layout_of(
        walk.bound, rows, (problem.arrays.x, h), walk.final, [chain.lengths], room=_room(stages),
        keeps=keeps,
    )  # fmt: skip
    ways: tuple[Prepared, ...] = ()
    if tape is not None:
        caches[0].start, caches[0].stop = 0, T
        ways = tuple(_back(problem, tape, places, threads, grad) for grad in (False, True))
        # As long as each other: a way back takes the memory that the way forward gives back.
        size = max(layout.size, *(way.layout.size for way in ways))
        layout = layout._replace(size=size)
        ways = tuple(way._replace(layout=way.layout._replace(size=size)) for way in ways)
    return Prepared(layout, _layers(stages), ways)


def _back(
    problem: Problem, tape: Tape, places: dict[int, int], threads: int, input_grad: bool
) -> Prepared:
    stages = Stages(problem, tape.blocks, False, tape)
    chain, (direction,), device = stages.top, problem.stages[0], problem.device
    steps, T = chain.call_steps, problem.shapes.T
    x = problem.arrays.x
    dh = reserved((T, problem.shapes.B, problem.layer.outputs), x.dtype)
    dx = reserved(x.shape, x.dtype)
    rows = (("reverse", 0, T),)
    lane = Lane(
        chain, stages.reader(0, direction), rows, direction.of(problem.arrays.initial), T,
        loss=GivenDerivative(view(device, dh, steps), x.dtype),
        grad_x=view(device, dx, steps) if input_grad else None,
        cache=tape.caches[0], back_steps=steps,
    )  # fmt: skip
    walk = _bind(lane, threads)
    layout, _ = layout_of(
        walk.bound, rows, (x, dh, dx), _grads(chain), [chain.lengths], tape=places
    )
    return Prepared(layout, _layers(stages))


def gradient(
    problem: Problem, loss: NamedLoss, plan: Plan, blocks: BlockSizes, threads: int,
    input_grad: bool,
) -> Prepared:  # fmt: skip
    """The layout of bptt, by an exact plan of few actions."""
    stages, T = Stages(problem, blocks, multi_flush=False), problem.shapes.T
    chain, (direction,) = stages.top, problem.stages[0]
    total = loss.sum(problem, blocks, chain.workspace, False)
    x = problem.arrays.x
    dx = np.empty_like(x)
    rows = _RESTORE, *plan.schedule()
    lane = Lane(
        chain, stages.reader(0, direction), rows, direction.of(problem.arrays.initial), T,
        loss=total, arena=stages.arena(plan.cache_bytes + plan.state_bytes),
        grad_x=view(problem.device, dx, chain.call_steps) if input_grad else None,
    )  # fmt: skip
    walk = _bind(lane, threads)
    results = [*walk.final, *_grads(chain), total.head.sum.grad]
    layout, _ = layout_of(
        walk.bound, rows, (x, loss.y, dx), results, [chain.lengths], room=_room(stages)
    )
    return Prepared(layout, _layers(stages), plan=plan, factor=total.factor)


def _grads(chain: Chain) -> list[Array]:
    return [grad for own in chain.recurrences for grad in (own.input.grad, own.recurrent.grad)]
