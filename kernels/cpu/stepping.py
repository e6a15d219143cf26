"""A lane that goes on without end, a step or a short block at a time; its weights are packed once.

It has the slots of a lane (see `slots`), which are bound once, and behind them those of STEPPER. A
step hands over these slots and the caller's two arrays: handing over is most of what a short call
costs. The state stays in the lane's live rows from call to call.

`held` keeps the interpreter's lock. So a short call is one thing for all threads of the process,
and it never waits to get the lock again, which another thread may have for milliseconds. `free`
gives it back, for long calls, and lets the team help; whoever calls it claims the slots before.
"""

from functools import cache, partial

import numba
from numba import types

from ..flat import get
from ..jit import callback, entry, inner
from .addresses import address, call, view, words
from .loss_programs import read_out
from .shared import ready
from .slots import HEAD_AT, LANE, LAYER, LAYER_SIZE, LAYERS_AT, STEPPER, STEPPER_SIZE
from .split import threads_for
from .subnormals import flush_to_zero, restore
from .walk import run_layers
from .walk_states import checkpoint

_holding = partial(entry, nogil=False)
DONE, BUSY, CLASS = range(3)  # it is done; or another thread has the slots, or an id is no class's


def _run(like, lane_at, own_at, x_at, out_at, n):
    lane, own = view(words(lane_at), lane_at, (HEAD_AT,)), words(own_at)
    count, B = lane[LANE.layers], lane[LANE.batch]
    layers = view(own, lane_at + LAYERS_AT * 8, (count, LAYER_SIZE))
    mailbox = view(own, lane[LANE.mailbox_at], (lane[LANE.mailbox_size],))
    marks = view(own, lane[LANE.marks_at], (B,))
    O, H = get(own, STEPPER.outputs), layers[count - 1, LAYER.hidden]
    V, c = view(like, get(own, STEPPER.v_at), (1,)), view(like, get(own, STEPPER.c_at), (O,))
    start = 0
    while start < n:
        steps = min(n - start, get(own, STEPPER.span))
        at = out_at + start * get(own, STEPPER.out_row)
        lane[LANE.x_at] = x_at + start * get(own, STEPPER.x_row)
        lane[LANE.h_at] = get(own, STEPPER.hidden_at) if O > 0 else at
        lane[LANE.start], lane[LANE.stop] = 0, steps
        run_layers(mailbox, lane, layers, lane[:0], 0)
        if O > 0:
            read_out(
                mailbox, threads_for(steps * B * H * O, lane[LANE.threads]),
                get(own, STEPPER.readout), V, c,
                view(like, get(own, STEPPER.hidden_at), (steps, B, H)), view(own, 0, (0, 0)),
                view(like, at, (steps, B, O)), marks, 0,
            )  # fmt: skip
        start += steps


@cache
def run_of(dtype):
    """The compiled function that runs a stepper of that dtype; it does not touch subnormals."""
    ready(dtype)
    kinds = types.CPointer(numba.from_dtype(dtype)), *(types.intp,) * 5
    return callback(_run, types.void(*kinds))


@inner
def _own(slots):
    return slots[slots.size - STEPPER_SIZE :]


@inner
def _go(slots, x, out, n):
    own = _own(slots)
    word = flush_to_zero()
    call(own[STEPPER.run_at], (0, address(slots), address(own), address(x), address(out), n))
    restore(word)


@inner
def _are_classes(x, count):
    ids, wrong = words(address(x)), 0
    for i in range(x.size):
        wrong += get(ids, i) < 0 or get(ids, i) >= count
    return wrong == 0


@cache
def build_steps():
    """Kernels (held, free), which run n steps of x and write their outputs to `out`.

    slots : of a lane and of a stepper
    x, out : C-contiguous, of any axes
    """

    @_holding
    def held(slots, x, out, n):
        """Run, unless another thread has the slots or an id is no class's: see the module."""
        own = _own(slots)
        if own[STEPPER.busy]:
            return BUSY
        if own[STEPPER.classes] and not _are_classes(x, own[STEPPER.classes]):
            return CLASS
        slots[LANE.mailbox_at] = own[STEPPER.alone_at]
        slots[LANE.mailbox_size] = own[STEPPER.alone_size]
        slots[LANE.threads], slots[LANE.wave_least] = 1, 0
        _go(slots, x, out, n)
        return DONE

    @entry
    def free(mailbox, slots, x, out, n):
        """Run with the team, in slots that are claimed; ids are not checked."""
        own = _own(slots)
        slots[LANE.mailbox_at], slots[LANE.mailbox_size] = address(mailbox), mailbox.size
        slots[LANE.threads] = own[STEPPER.threads]
        slots[LANE.wave_least] = own[STEPPER.wave_least]
        _go(slots, x, out, n)

    return held, free


@cache
def build_changes():
    """Kernels (claim, keep, adopt); each is one thing for all threads.

    All return BUSY, and change nothing, if another thread has the slots.
    """

    @_holding
    def claim(slots, wanted):
        """Claim the slots (1), or give them back (0)."""
        own = _own(slots)
        if own[STEPPER.busy] and wanted:
            return BUSY
        own[STEPPER.busy] = wanted
        return DONE

    @_holding
    def keep(slots, state, save, mine):
        """Copy the live state of all layers to `state`, or from it. `mine`: slots are claimed."""
        if _own(slots)[STEPPER.busy] != mine:
            return BUSY
        layers = slots[LAYERS_AT : slots.size - STEPPER_SIZE].reshape(-1, LAYER_SIZE)
        checkpoint(slots[:HEAD_AT], layers, address(state), save != 0)
        return DONE

    @_holding
    def adopt(slots, numbers, values):
        """Write these values to the slots of these numbers."""
        if _own(slots)[STEPPER.busy]:
            return BUSY
        for i in range(numbers.size):
            slots[numbers[i]] = values[i]
        return DONE

    return claim, keep, adopt
