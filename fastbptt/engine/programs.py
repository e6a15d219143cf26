"""The programs that public functions run: which lanes, in which order, and what each is given.

Forward: the stages from the bottom, the directions of a stage independent of each other. Back: from
the top. Where outputs are stored, they come first, then the loss, then the way back through each
direction in turn; a top stage of one direction needs no outputs: the loss goes back with it, span
by span.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..arrays import Array
from ..memory.plan import Plan
from ..memory.schedules import Action, Schedule, after, forth
from .kept import Kept
from .lanes import (
    Consumer,
    Derivative,
    Lane,
    OutputsLane,
    Program,
    Progress,
    ProgressCallback,
)
from .losses import GivenDerivative, LossSum
from .runner import run
from .stages import Stages, Tape
from .step_cache import StepCache
from .time_views import TimeView, view


@dataclass(eq=False)
class WayBack:
    """What the way back through all stages is given; lists have an entry for each direction.

    rows, caches, arenas : of each lane
    loss : of the top stage's states; or dh, the gradient of the outputs, (T, B, outputs)
    room : steps that the cache has room for where there are windows, else None
    carry : for each recurrent layer, dE/d(final state), or None
    deltas : for each recurrent layer, an array (T, B, G*H) to fill, or none at all
    adds : whether windows overlap, and so add to dE/dx and to deltas
    stored : checkpoints that the top direction's arena holds already
    """

    rows: list[Iterable[Action]]
    caches: list[StepCache | None]
    arenas: Sequence[Array | None]
    loss: LossSum | None = None
    dh: Array | None = None
    room: int | None = None
    carry: Sequence[Array] | None = None
    deltas: Sequence[Array] = ()
    adds: bool = False
    stored: int = 0


def _add_forward(
    stages: Stages, program: Program, out: Array | Consumer | None, caches: Sequence[StepCache],
    levels: int,
) -> tuple[int, ...]:  # fmt: skip
    """Add the lowest stages, way forward; `out` takes the outputs of the last stage of all.

    Each direction caches its steps if there are `caches`. Returns the lanes to wait for.
    """
    after: tuple[int, ...] = ()
    for level in range(levels):
        if level == len(stages.stages) - 1:
            return _add_stage(stages, program, level, out, caches, after)
        outputs = stages.store(level)
        after = _add_stage(stages, program, level, outputs, caches, after)
        stages.stored.append(outputs)
        drops = stages.drop(outputs, level)
        after = program.add(drops, after) if drops else after
    return after


def _add_stage(
    stages: Stages, program: Program, level: int, out: Array | Consumer | None,
    caches: Sequence[StepCache], after: tuple[int, ...],
) -> tuple[int, ...]:  # fmt: skip
    action = "cache" if caches else "advance"
    rows: Sequence[Action] = ((action, 0, stages.T),) if stages.T else ()
    lanes = []
    for which, (own, chain) in enumerate(stages.stages[level]):
        outputs: TimeView | Consumer | None = None
        if isinstance(out, Consumer):
            outputs = out
        elif out is not None:
            outputs = stages.columns(out, level, which)
        number = len(stages.forth) + which
        initial = own.of(stages.problem.arrays.initial)
        lanes.append(
            Lane(
                chain, stages.reader(level, own), rows, initial, stages.T, outputs=outputs,
                cache=caches[number] if caches else None,
            )
        )  # fmt: skip
    if stages.beside(level):
        lanes[0].beside = lanes[1]
    stages.forth += lanes
    return program.add(lanes, after)


def _add_backward(
    stages: Stages, program: Program, after: tuple[int, ...], way: WayBack, grad_x: Array | None
) -> None:
    """Add all stages, top to bottom, way back; `grad_x` takes dE/dx."""
    number, dh = len(stages.directions), way.dh
    for level in range(len(stages.stages) - 1, -1, -1):
        number -= len(stages.stages[level])
        below = stages.store(level - 1) if level else grad_x
        lanes = []
        for which in range(len(stages.stages[level])):
            lane = _lane_back(stages, way, level, which, number + which, dh)
            lane.grad_x = stages.grad_of_input(below, level, which, way.adds)
            stages.back[number + which] = lane
            lanes.append(lane)
        if _back_beside(stages, level, lanes, below):
            after = program.add(lanes, after)
        else:  # one at a time: both add to the gradient of what they read, and may share an arena
            for lane in lanes:
                after = program.add([lane], after)
        if level:
            assert below is not None
            drops = stages.drop(below, level - 1)
            after = program.add(drops, after) if drops else after
        dh = below


def _back_beside(stages: Stages, level: int, lanes: list[Lane], below: Array | None) -> bool:
    """Let the two directions of a stage go back at once, if they can.

    Both add to the gradient of what they read, one from its end on, the other from its beginning.
    So they come to the middle together, and only then go on to where the other has been.
    """
    T, cached = stages.T, all(lane.cache is not None for lane in lanes)
    lengths = stages.problem.arrays.lengths
    apart = below is None or not (lengths.given or lengths.resets.size)
    if not (stages.beside(level) and T > 1 and cached and apart):
        return False
    lanes[0].beside = lanes[1]
    for lane, middle in zip(lanes, (T // 2, T - T // 2), strict=True):  # the same step for both
        lane.rows = ("reverse", middle, T), ("reverse", 0, middle)
    return True


def _lane_back(
    stages: Stages, way: WayBack, level: int, which: int, number: int, dh: Array | None
) -> Lane:
    """The lane of one direction, `dh` being the gradient of its stage's outputs, if stored."""
    own, chain = stages.stages[level][which]
    loss: Derivative | None = way.loss
    steps = chain.call_steps
    if dh is not None:
        in_place = stages.device.zero_copy(dh) and (not way.deltas or chain.deltas_in_order)
        steps = steps if in_place else chain.chunk
        loss = GivenDerivative(stages.columns(dh, level, which, steps), chain.dtype)
    reversal = stages.reversal_of(own)
    return Lane(
        chain,
        stages.reader(level, own),
        way.rows[number],
        own.of(stages.problem.arrays.initial),
        stages.T,
        room=way.room,
        loss=loss,
        deltas=[
            view(stages.device, out, steps, reversal, adds=way.adds) for out in own.of(way.deltas)
        ],
        carry=None if way.carry is None else own.of(way.carry),
        cache=way.caches[number],
        arena=way.arenas[number],
        stored=way.stored if number == len(way.rows) - 1 else 0,
        back_steps=steps,
    )


def forward(stages: Stages, out: Array | Consumer | None, caches: Sequence[StepCache] = ()) -> None:
    """Run all stages; `out` takes the outputs, each direction's steps go to its cache."""
    program = Program()
    if isinstance(out, Consumer) and stages.problem.stores_outputs:
        whole, own = stages.store(len(stages.stages) - 1), out
        after = _add_forward(stages, program, whole, caches, len(stages.stages))

        def work(start: int, stop: int) -> None:
            own.work(whole[start:stop], start)

        program.add([OutputsLane(work, stages.T, len(own.buffer))], after)
    else:
        _add_forward(stages, program, out, caches, len(stages.stages))
    run(program)


def forward_within(stages: Stages, plan: Plan, out: Array) -> Kept:
    """Run all stages by a plan that does not cache every step, as far as it goes without dE/dh.

    A top stage of one direction, which is the first to go back, begins with its own schedule, if
    that runs through all steps before anything goes back.
    """
    program = Program()
    _add_forward(stages, program, out, (), len(stages.stages))
    if stages.joined or not plan.exact:
        run(program)
        return Kept(stages.device, plan)
    top = stages.forth[-1]
    top.rows = rows = forth(_own_schedule(stages, plan, -1))
    top.arena = stages.arena(plan.cache_bytes + plan.state_bytes)
    run(program)
    return Kept(stages.device, plan, len(rows), top)


def _own_schedule(stages: Stages, plan: Plan, number: int) -> Schedule:
    """The schedule of one direction, without a run for the outputs."""
    if stages.problem.stores_outputs:
        chain = stages.directions[number][1]
        plan = plan.of_one_direction(chain.state_bytes, chain.step_bytes)
    return plan.memory.schedule(plan)


def backward(
    stages: Stages, tape: Tape, dh: Array, carry: Sequence[Array] | None, grad_x: Array | None,
    deltas: Sequence[Array],
) -> None:  # fmt: skip
    """Go back over a tape; fill `grad_x` and `deltas`."""
    count, kept = len(stages.directions), tape.kept
    if kept is None:
        way = WayBack(
            [_all_back(stages)] * count, list(tape.caches), [None] * count, dh=dh, carry=carry,
            deltas=deltas,
        )  # fmt: skip
        _run_back(stages, way, grad_x)
        return
    plan = kept.plan
    with kept.arena() as (arena, begun):
        if arena is None:
            arena = stages.arena(plan.cache_bytes + plan.state_bytes)
        way = WayBack(
            [_own_schedule(stages, plan, number) for number in range(count)], [None] * count,
            [arena] * count, dh=dh, room=plan.memory.room(stages.T), carry=carry, deltas=deltas,
            adds=not plan.exact,
        )  # fmt: skip
        if begun:
            _go_on(stages, way, kept, arena)
        _run_back(stages, way, grad_x)


def _go_on(stages: Stages, way: WayBack, kept: Kept, arena: Array) -> None:
    """Have the top direction go on where the way forward has stopped."""
    way.rows[-1] = after(_own_schedule(stages, kept.plan, -1), kept.done)
    way.stored = kept.stored
    first = kept.stored * stages.top.state_bytes // arena.itemsize
    start, stop = kept.cached
    way.caches[-1] = cache = StepCache(arena[first:], stages.top.recurrences, stop - start)
    cache.start, cache.stop = start, stop


def _run_back(stages: Stages, way: WayBack, grad_x: Array | None) -> None:
    program = Program()
    _add_backward(stages, program, (), way, grad_x)
    run(program)


def _all_back(stages: Stages) -> Sequence[Action]:
    return (("reverse", 0, stages.T),) if stages.T else ()


def gradient(
    stages: Stages, plan: Plan, loss: LossSum, grad_x: Array | None, report: ProgressCallback | None
) -> None:
    """Run the plan; the chains and `loss` hold the gradients and the loss afterwards."""
    if stages.problem.stores_outputs:
        _gradient_of_stored(stages, plan, loss, grad_x, report)
        return
    arena = stages.arena(plan.cache_bytes + plan.state_bytes + stages.blocks.ahead)
    room = plan.memory.room(stages.T)
    way = WayBack([plan.schedule()], [None], [arena], loss=loss, room=room, adds=not plan.exact)
    program = Program()
    _add_backward(stages, program, (), way, grad_x)
    run(program, Progress(report, plan.forward_steps + plan.backward_steps))


def _gradient_of_stored(
    stages: Stages, plan: Plan, loss: LossSum, grad_x: Array | None, report: ProgressCallback | None
) -> None:
    """Outputs first, then the loss, then back through each direction in turn.

    A top stage of one direction needs no outputs: the loss goes back with it, span by span.
    """
    count, full = len(stages.directions), plan.recomputes == 0
    first = count if stages.joined else count - 1  # directions that compute outputs first
    plans = [
        plan.of_one_direction(chain.state_bytes, chain.step_bytes) for _, chain in stages.directions
    ]
    states = sum(chain.state_bytes for _, chain in stages.directions)
    arena = stages.arena(plan.cache_bytes + (states if full else plan.state_bytes))
    own: list[StepCache] = stages.caches(arena) if full else []

    program = Program()
    after = _add_forward(stages, program, None, own, len(stages.stages) - 1)
    dh: Array | None = None
    if stages.joined:
        top = len(stages.stages) - 1
        outputs, dh = stages.store(top), stages.store(top)
        after = _add_stage(stages, program, top, outputs, own, after)
        after = program.add([_loss_of(stages, outputs, loss, dh)], after)
    ran = [full and number < first for number in range(count)]
    way = WayBack(
        [_all_back(stages) if ran[n] else plans[n].schedule() for n in range(count)],
        [own[n] if ran[n] else None for n in range(count)],
        [None if ran[n] else own[n].memory if full else arena for n in range(count)],
        loss=loss, dh=dh,
    )  # fmt: skip
    _add_backward(stages, program, after, way, grad_x)
    work = first * plan.steps + sum(own.backward_steps for own in plans)
    work += sum(own.forward_steps for own, done in zip(plans, ran, strict=True) if not done)
    steps = plan.forward_steps + plan.backward_steps
    run(program, Progress(report, steps, max(1, work)))


def _loss_of(stages: Stages, outputs: Array, loss: LossSum, dh: Array) -> OutputsLane:
    def work(start: int, stop: int) -> None:
        loss.fill(outputs[start:stop], start, dh[start:stop])
        if start == 0:
            loss.flush()

    return OutputsLane(work, stages.T, stages.blocks.chunk, backward=True)
