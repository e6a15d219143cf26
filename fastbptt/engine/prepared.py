"""Layouts: how the slots of a lane are written for a call of a shape that was there before.

A lane is bound once in the ordinary way, over arrays that are then forgotten. A layout keeps what
its slots said: numbers as they are, and addresses as bytes from the beginning of one block of
memory, which holds all that a call works in. A layout has no arrays of a call, so that any number
of calls may use it at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, DType
from ..kernels.cpu import short
from ..kernels.cpu.bound import Bound, address_of
from ..kernels.cpu.memory import Workspace
from ..kernels.cpu.slots import (
    ACTIONS,
    DONE,
    HEAD,
    HEAD_AT,
    LANE,
    LAYER,
    LAYER_SIZE,
    LAYERS_AT,
    LEFT_AT,
)
from ..kernels.cpu.team import team_for
from ..kernels.cpu.walk import build_walk
from ..kernels.jit import prepare

# What begins at zero. The carry and the initial state are set anew where a call is given them.
_ZERO = {
    "carry_at",
    "dsum_at",
    "counts_at",
    "zeros_at",
    "initial_at",
    "total_at",
    "dc_at",
    "wave_left_at",
}
_BEGIN, *_KERNELS = short.build_short()


class Layout(NamedTuple):
    """The slots of a lane, relative to what each call has anew.

    template, marks : for each slot a number, and what it is relative to (`kernels.cpu.short`)
    size, zeros : bytes of a call's memory, and how many of them begin at zero
    kept : bytes of the memory that a way forward leaves for ways back
    rows : (n, 4), of the schedule
    work, threads : multiply-adds, and how many threads may help
    keep : constant arrays that slots point to
    """

    template: Array
    marks: Array
    size: int
    zeros: int
    kept: int
    rows: Array
    work: int
    threads: int
    keep: tuple[Any, ...]

    def start(
        self, first: Array, second: Array, third: Array, tape: Array | None = None
    ) -> Running:
        """Start a call on three arrays, and on what the way forward before it has kept."""
        running = Running(self, tape)
        _BEGIN(
            running.slots, self.template, self.marks, running.memory, running.tape, self.zeros,
            first, second, third,
        )  # fmt: skip
        return running


class Running:
    """A lane of a call that is under way.

    workspace : has the memory of the call
    tape : memory of a way forward that its ways back read; `kept` has that of this one
    """

    put_state, put_layer, put_back, take_back, put_head, take_head = map(staticmethod, _KERNELS)

    def __init__(self, layout: Layout, tape: Array | None):
        self.layout, self.workspace, self.kept = layout, Workspace(), Workspace()
        self.slots = np.empty(layout.template.size, np.int64)
        self.memory = self.workspace.block(layout.size + short.LINE)
        self.tape = self.kept.block(layout.kept + short.LINE) if tape is None else tape

    def walk(self) -> None:
        """Carry out all rows.

        They are short enough for Ctrl-C to be heard after them, and so few that nothing is to be
        carried into float64 before their end.
        """
        layout, slots, walk = self.layout, self.slots, build_walk()
        mailbox, _ = team_for(layout.work, layout.threads)
        walk(mailbox, slots, layout.rows)
        while slots[LANE.status] != DONE:
            walk(mailbox, slots, layout.rows)

    def array(self, slot: int, shape: tuple[int, ...], dtype: DType) -> Array:
        """The array of that shape in the tape to which a slot points."""
        first = int(self.slots[slot]) - address_of(self.tape)
        return self.tape[first : first + prod(shape) * dtype.itemsize].view(dtype).reshape(shape)


@cache
def load_kernels(dtype: DType) -> None:
    """Compile the kernels of short calls, or load them: nothing of that is left to a first call."""
    one, two, three = (np.zeros((1,) * axes, dtype) for axes in (1, 2, 3))
    slots, memory = np.zeros(1, np.int64), np.zeros(1, np.uint8)
    given: list[tuple[Any, ...]] = [
        (slots, slots, slots, memory, memory, 0, three, three, three),
        (slots, 0, 0, two),
        (slots, 0, 0, two, two, one, one, three),
        (slots, 0, two, two),
        (slots, 0, slots, slots, one, one, three),
        (slots, two, one, two),
        (slots, one),
    ]
    for kernel, arguments in zip(short.build_short(), given, strict=True):
        prepare(kernel, *arguments)


def layer_at(index: int) -> int:
    """The first slot of a layer."""
    return LAYERS_AT + index * LAYER_SIZE


def _addresses(count: int) -> Iterator[tuple[int, str]]:
    """The slots that are addresses of arrays, those that begin at zero first."""
    groups = [(0, LANE), (HEAD_AT, HEAD)] + [(layer_at(n), LAYER) for n in range(count)]
    found = [
        (first + number, name)
        for first, names in groups
        for number, name in enumerate(names._fields)
        if name.endswith("_at") and name != "left_at"
    ]
    return iter(sorted(found, key=lambda slot: slot[1] not in _ZERO))


def layout_of(
    bound: Bound,
    actions: Sequence[Sequence[Any]],
    given: Sequence[Array],
    results: Sequence[Array],
    constants: Sequence[Array],
    tape: dict[int, int] | None = None,
    room: dict[int, int] | None = None,
    keeps: Sequence[Array] = (),
) -> tuple[Layout, dict[int, int]]:
    """The layout of a bound lane, and by address where the arrays lie that it keeps.

    actions : the rows of its schedule
    given : the first, second and third array of a call
    results : arrays that are handed to the caller, whose slots are written later
    constants : that all calls share
    tape : by address, where the arrays lie that the way forward has kept
    room : slots to point to so many bytes more
    keeps : arrays that a way forward leaves for ways back; none of them begins at zero
    """
    assert not (bound.get("asks") or bound.get("copies"))  # Python has no part in such a walk
    load_kernels(given[0].dtype)
    rows = np.zeros((len(actions), 4), np.int64)
    for row, (name, *times) in zip(rows, actions, strict=True):
        row[: len(times) + 1] = ACTIONS[name], *times
    bound.begin_rows(len(rows))
    sizes: dict[int, int] = {}
    for array in bound.keep:
        if array is not None:
            at = address_of(array)
            sizes[at] = max(sizes.get(at, 0), array.nbytes)
    fixed = {address_of(array) for array in constants}
    late = {address_of(array) for array in results}
    marks_of = {address_of(a): short.FIRST + n for n, a in reversed(list(enumerate(given)))}
    template, marks = bound.slots.copy(), np.full_like(bound.slots, short.FIXED)
    places: dict[int, int] = {}
    size = zeros = kept = 0
    taped = {} if tape is None else dict(tape)
    for at in dict.fromkeys(map(address_of, keeps)):
        if at in sizes:
            taped[at] = kept
            kept += -(-sizes[at] // short.LINE) * short.LINE
    for slot, name in _addresses(len(bound.layers)):
        at = int(template[slot])
        if at == 0 or at in fixed:
            continue
        if at in marks_of or at in late:
            template[slot], marks[slot] = 0, marks_of.get(at, short.FIXED)
        elif at in taped:
            template[slot], marks[slot] = taped[at], short.TAPE
        else:
            if at not in places:
                places[at] = size
                size += -(-sizes[at] // short.LINE) * short.LINE
            template[slot], marks[slot] = places[at], short.MEMORY
            if name in _ZERO:
                zeros = size
    for slot, more in (room or {}).items():
        template[slot], marks[slot] = size, short.MEMORY
        size += -(-more // short.LINE) * short.LINE
    template[LANE.left_at], marks[LANE.left_at] = LEFT_AT * 8, short.SLOTS
    layout = Layout(
        template, marks, size, zeros, kept, rows, bound.work, bound.threads, tuple(constants)
    )
    return layout, taped
