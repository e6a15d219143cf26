"""What must hold of a case whose sequences are reset."""

import helpers
import numpy as np

import fastbptt as fb

from . import properties

MOST = 60  # pieces that are run by themselves


def check(case):
    """States are those of each piece by itself; every exact schedule has the same bits."""
    resets = helpers.drop_batch(case.resets) if case.squeeze else case.resets
    states(case, resets)
    given = {"resets": resets}
    if callable(case.loss):  # its value is added in other spans: the same to rounding
        return
    full = properties.bptt(case, **given)
    for memory, threads in zip(case.memories, case.threads, strict=False):
        fb.set_num_threads(threads)
        memory = enough(case, memory)
        r = properties.bptt(case, memory, **given)
        alone = full
        if not r.plan.exact:
            fb.set_num_threads(case.threads[0])
            alone = properties.bptt(case, memory, **given)
        properties.same_result(r, alone, f"resets, {memory}, {threads} threads")
    fb.set_num_threads(case.threads[0])


def enough(case, memory):
    """The budget, or the least one: resets take some bytes, too."""
    try:
        fb.plan(case.network, case.T, case.B, memory=memory, resets=case.resets)
    except fb.MemoryLimitError as error:
        return error.least_bytes
    return memory


def states(case, resets):
    """run and the forward of a budget, which drops nothing without a seed, are those of pieces."""
    h, last = fb.run(case.layer, case.x, resets=resets, **case.options)
    whole = h[:, None] if case.squeeze else h
    last = properties.state_in_full(case, last)
    ends = properties.ends_of(case)
    done = 0
    for b in range(case.B):
        cuts = [t for t in range(ends[b]) if case.resets[t, b]]
        starts = sorted({0, *cuts})
        for start, stop in zip(starts, [*starts[1:], int(ends[b])], strict=True):
            if stop == start or done == MOST:
                continue
            done += 1
            state = None
            if case.clean.state is not None and start not in cuts:
                state = row(case.clean.state, b)
            own, end = fb.run(case.layer, case.clean.x[start:stop, b : b + 1], state)
            what = f"steps {start} to {stop} of sequence {b} beside resets"
            properties.same(whole[start:stop, b : b + 1], own, what)
            if stop == ends[b]:
                final = tuple(part[b : b + 1] for part in helpers.flatten(last))
                properties.same(final, tuple(helpers.flatten(end)), f"the state after {what}")


def row(state, b):
    """The state of one sequence."""
    if isinstance(state, tuple):
        return tuple(row(part, b) for part in state)
    return np.ascontiguousarray(state[b : b + 1])
