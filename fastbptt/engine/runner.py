"""Runs programs: the one way forward and the one way back, behind every public function.

On a CPU a lane's rows go into compiled code (`compiled`); on a GPU the same rows are read here
(`walk`), since its kernels are launched from Python.
"""

from __future__ import annotations

from .lanes import SILENT, Lane, OutputsLane, Program, Progress
from .walk import Walk, backward_spans, spans


def run(program: Program, progress: Progress = SILENT) -> None:
    """Carry out a program.

    The chains hold the gradients afterwards, the losses their values, the lanes their states.
    """
    done: set[int] = set()
    for number, (lane, after) in enumerate(zip(program.lanes, program.after, strict=True)):
        if number in done:
            continue
        assert done.issuperset(after)  # lanes are added after those that they wait for
        if isinstance(lane, OutputsLane):
            cut = backward_spans if lane.backward else spans
            for start, stop in cut(0, lane.stop, lane.steps):
                lane.work(start, stop)
        elif lane.beside and lane.chain.device.compiled:
            _walk_beside(lane, program.lanes[number + 1], progress)
            done.add(number + 1)
        else:
            _walk(lane, progress)
        done.add(number)


def _walk(lane: Lane, progress: Progress) -> None:
    if lane.chain.device.compiled:
        from .compiled import CompiledWalk  # here, since it loads Numba

        CompiledWalk(lane, progress).walk()
    else:
        Walk(lane, progress).walk()


def _walk_beside(first: Lane, second: Lane | OutputsLane, progress: Progress) -> None:
    from .compiled import CompiledWalk, walk_beside

    assert isinstance(second, Lane)
    walk_beside(CompiledWalk(first, progress), CompiledWalk(second, progress))
