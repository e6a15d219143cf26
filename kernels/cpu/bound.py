"""A lane bound to its arrays: their addresses in `slots`, and the compiled walk over them."""

import numpy as np

from . import split
from .slots import (
    COPY,
    COPY_SIZE,
    DONE,
    FLOATING,
    HEAD,
    HEAD_AT,
    LANE,
    LANE_SIZE,
    LAYER,
    LAYER_SIZE,
    LAYERS_AT,
    LEFT_AT,
    LEFT_SIZE,
    SIGNED,
    UNSIGNED,
)
from .team import team_for
from .walk import build_walk
from .workers import LINE

_NUMBERS = {"f": FLOATING, "i": SIGNED, "u": UNSIGNED, "b": UNSIGNED}  # by a dtype's kind


def _arrays(names):
    """By the name of an array, the numbers of its slots: that of its address, and of its step."""
    found = dict(zip(names._fields, names, strict=True))
    ends = [name.removesuffix("_at") for name in found if name.endswith("_at")]
    return {name: (found[name + "_at"], found.get(name + "_step")) for name in ends}


_LANE, _LAYER, _HEAD = map(_arrays, (LANE, LAYER, HEAD))


def address_of(array):
    """The address of an array's first number."""
    return array.__array_interface__["data"][0]


class Bound:
    """The slots of one lane, and the arrays that they point to.

    It belongs to one call: it is never shared, and never pickled.
    """

    def __init__(self, recurrences, batch, dtype, threads):
        self.recurrences, self.batch, self.threads = recurrences, batch, threads
        self.slots = np.zeros(LAYERS_AT + len(recurrences) * LAYER_SIZE, np.int64)
        self.lane, self.head = self.slots[:HEAD_AT], self.slots[HEAD_AT:LEFT_AT]
        self.left = self.slots[LEFT_AT:LAYERS_AT]
        self.layers = self.slots[LAYERS_AT:].reshape(-1, LAYER_SIZE)
        self.copies = []
        self.keep = []
        self.work = 0  # multiply-adds of the lane, to decide whether workers are worth waking
        self.split = 0
        self.set(batch=batch, item=dtype.itemsize, layers=len(recurrences))
        self.point(left=self.left)
        if len(recurrences) > 1:
            count = len(recurrences)
            shapes = (count, LANE_SIZE), (count, 2, LEFT_SIZE), 2 * count
            lanes, left, self.marks = (np.zeros(shape, np.int64) for shape in shapes)
            self.point(wave_lanes=lanes, wave_left=left, wave_marks=self.marks)
        self._walk = build_walk()

    def set(self, **values):
        """Set slots of the lane."""
        for name, value in values.items():
            self.lane[getattr(LANE, name)] = value

    def get(self, name):
        """A slot of the lane, an int."""
        return int(self.lane[getattr(LANE, name)])

    def _point(self, slots, names, arrays):
        for name, array in arrays.items():
            self.keep.append(array)
            slots[names[name][0]] = address_of(array)

    def point(self, **arrays):
        """Have the lane point to arrays."""
        self._point(self.lane, _LANE, arrays)

    def point_layer(self, index, **arrays):
        """Have a layer point to arrays."""
        self._point(self.layers[index], _LAYER, arrays)

    def hold(self, *arrays):
        """Keep arrays alive that slots point to."""
        self.keep += arrays

    def place(self, name, array, moves):
        """Have spans lie in an array (T, B, ...), or `moves` being false at a buffer's start."""
        self._place(self.lane, _LANE, name, array, moves)

    def take(self, dh):
        """Have the derivative of the next span lie in `dh`, until the one after it."""
        self.dh = dh
        self.lane[LANE.dh_at] = address_of(dh)

    def place_head(self, name, array, moves):
        """The same for what the head reads."""
        self._place(self.head, _HEAD, name, array, moves)

    def place_weights(self, array):
        """Have the loss weights of a span lie in a buffer (n, B, 1) or (n, B, O)."""
        self.place_head("weights", array, False)
        self.head[HEAD.weights_each] = array.shape[2]

    def take_targets(self, y):
        """Have what the loss of the next span reads lie in `y`, until the one after it."""
        self.y = y
        self.head[HEAD.y_at] = address_of(y)

    def place_deltas(self, index, array, moves):
        """The same for a layer's deltas."""
        self._place(self.layers[index], _LAYER, "delta", array, moves)

    def _place(self, slots, names, name, array, moves):
        self.keep.append(array)
        at, step = names[name]
        slots[at] = address_of(array)
        slots[step] = array.strides[0] if moves else 0

    def ask(self, moment):
        """Have every span return with that status, for Python to read or write."""
        self.lane[LANE.asks] |= 1 << moment

    def copy(self, moment, own):
        """Have every span make a copy where it would return with that status.

        own : an object with .array (T, ...), .buffer, and .weights, a buffer or None; its other
            attributes (way, against, classes, scored, waits) are named as their slots
        """
        array, row = own.array, np.zeros(COPY_SIZE, np.int64)
        self.keep += array, own.buffer
        self.copies.append(row)
        row[COPY.moment], row[COPY.way], row[COPY.at] = moment, own.way, address_of(array)
        row[COPY.time_step], row[COPY.width] = array.strides[0], 1
        if array.ndim > 1:
            row[COPY.batch_step] = array.strides[1]
        if array.ndim > 2:
            row[COPY.step], row[COPY.width] = array.strides[2], array.shape[2]
        row[COPY.item], row[COPY.number] = array.itemsize, _NUMBERS[array.dtype.kind]
        row[COPY.against], row[COPY.buffer_at] = own.against, address_of(own.buffer)
        row[COPY.classes], row[COPY.scored], row[COPY.waits] = own.classes, own.scored, own.waits
        if own.weights is not None:
            row[COPY.weights_at] = address_of(own.weights)

    def nothing_between_spans(self, *moments):
        """Whether nothing is done at these moments of a span, in Python or for copies."""
        asked = any(self.lane[LANE.asks] >> moment & 1 for moment in moments)
        return not asked and all(row[COPY.moment] not in moments for row in self.copies)

    def end_copies(self):
        """Have the lane point to its copies: there will be no more."""
        if self.copies:
            self.set(copies=len(self.copies))
            self.point(copies=np.array(self.copies))

    def divide(self, threads):
        """Have so many threads do the work."""
        if threads == self.split:
            return
        self.split = threads
        self.set(threads=threads, parts=split.sweep_parts(threads, self.batch))
        for row, own in zip(self.layers, self.recurrences, strict=True):
            row[LAYER.members] = self._gang(own, threads)
        self.set(wave_least=self._wave_least(threads))

    def _wave_least(self, threads):
        """The least steps of a part where layers go side by side; 0 where they do not."""
        if (self.layers[:, LAYER.members] > 1).any():
            return 0
        shapes = [
            (own.cell.gates, own.hidden, int(row[LAYER.inputs]) * (1 - int(row[LAYER.tokens])))
            for row, own in zip(self.layers, self.recurrences, strict=True)
        ]
        return split.wave_least(threads, self.batch, shapes, int(self.head[HEAD.outputs]))

    @property
    def status(self):
        """Why the walk has stopped: see `walk`."""
        return int(self.lane[LANE.status])

    def walk(self, rows, budget):
        """Carry out rows from where it stands, some `budget` steps at most; returns the status."""
        mailbox, threads = team_for(self.work, self.threads)
        self.divide(threads)
        self.lane[LANE.budget] = budget
        self._walk(mailbox, self.slots, rows)
        return self.status

    def walk_beside(self, rows, other, other_rows, budget):
        """Carry out the rows of two lanes that do not touch, each on threads of its own."""
        mailbox, threads = team_for(self.work + other.work, self.threads)
        if threads == 1 or self.gangs(threads) or other.gangs(threads):
            self.walk(rows, budget)
            other.walk(other_rows, budget)
            return
        members = threads // 2
        for bound in (self, other):
            bound.divide(members)
            bound.lane[LANE.budget] = budget
        other.lane[LANE.actions_at] = address_of(other_rows)
        self.lane[LANE.beside_at] = address_of(other.slots)
        self.subteams = np.zeros((2, members, LINE), np.int64)
        self.lane[LANE.members] = members
        self.lane[LANE.mailboxes_at] = address_of(self.subteams)
        self._walk(mailbox, self.slots, rows)
        self.lane[LANE.beside_at] = 0

    def gangs(self, threads):
        """Whether several of so many threads would do a sweep of one of the layers."""
        return any(self._gang(own, threads) > 1 for own in self.recurrences)

    def _gang(self, own, threads):
        return split.gang_size(threads, own.cell, own.hidden, self.batch, self.get("item"))

    def run_ahead(self, steps, arena, z, v):
        """Have a leaf be run while the one before it is gone back over: see `leaves`.

        steps : of a part, a power of two
        arena : of the lane
        z, v : scratch of the leaf that is run: pre-activations, and what a second product reads
        """
        lane, left = np.zeros((2, LANE_SIZE), np.int64), np.zeros((2, LEFT_SIZE), np.int64)
        layer, marks = np.zeros((2, LAYER_SIZE), np.int64), np.zeros(3, np.int64)
        self.point(leaf_lanes=lane, leaf_layers=layer, leaf_left=left, leaf_marks=marks)
        self.point(ahead_z=z, ahead_v=v)
        own = self.recurrences[0]
        least = split.leaf_least(self.batch, own.cell.gates, own.hidden, int(own.layer.inputs))
        end = address_of(arena) + arena.nbytes
        self.set(
            leaf_steps=steps, leaf_bits=steps.bit_length() - 1, leaf_least=least, arena_end=end
        )

    def begin_rows(self, count):
        """Stand before the first of `count` rows."""
        self.lane[LANE.row], self.lane[LANE.rows], self.lane[LANE.phase] = 0, count, 0
        self.lane[LANE.status] = DONE
