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
    done: list[Lane | OutputsLane] = []
    for lane, after in zip(program.lanes, program.after, strict=True):
        # Lanes are added after those that they wait for.
        assert all(program.lanes[number] in done for number in after)
        if lane in done:
            continue
        lanes = [lane]
        if isinstance(lane, OutputsLane):
            cut = backward_spans if lane.backward else spans
            for start, stop in cut(0, lane.stop, lane.steps):
                lane.work(start, stop)
        elif lane.chain.device.compiled:
            from .compiled import CompiledWalk, walk  # here, since they load Numba

            together = [lane] if lane.beside is None else [lane, lane.beside]
            walk([CompiledWalk(own, progress) for own in together])
            lanes += together[1:]
        else:
            Walk(lane, progress).walk()
        done += lanes
