"""The bytes a call needs besides checkpoints and cached steps, and how it cuts time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import NamedTuple

from .backends import CUDA, Backend
from .checkpointing import least_feasible
from .compound import stages
from .kernels.cells import CELLS
from .kernels.cpu.products import packed_size
from .kernels.cpu.tile import VECTOR_BYTES
from .layers import Readout, Recurrent
from .typing import Layer

_SCRATCH = 1 << 19  # bytes of pre-activations, or deltas, that stay in a core's own cache
_ROWS = 256  # rows that a chunk has at least: each adds to all gradients of the weights
_WORK = 300_000_000  # multiply-adds in a kernel call, a lane: at most some 40 ms, to hear Ctrl-C
_UNIT = 200  # multiply-adds that take as long as a gate of a unit
_SEGMENT = 1 << 16  # steps in a kernel call: a step takes a while even when it is small
_LISTED_BYTES = 40  # for each row listed: a token, a class, a weight and what checking them takes
_LEAST_ROWS = 16  # rows of the shortest chunk, if there are as many: a product of fewer is slow
_HANDED = 4  # chunks of states that a layer hands on to the next in one kernel call
_LISTED = 4  # chunks for which rows are listed, at least
_LISTED_ROWS = 1 << 14  # rows listed where no budget limits them
_PANEL_ROWS = 4096  # rows that add up in float32 before they are carried into float64
_OBJECTS = 1 << 16  # bytes for the interpreter's own small objects


def panel_steps(batch: int) -> int:
    """Steps after which weight gradients are carried into float64: a power of two."""
    return _power_of_two_below(_PANEL_ROWS // max(1, batch))


def _power_of_two_below(n: int) -> int:
    return 1 << max(0, int(n).bit_length() - 1)


class Spans(NamedTuple):
    """How many steps are done at a time.

    chunk : for which there is scratch; listed : for which tokens, classes and weights are held;
    segment : of a kernel call
    """

    chunk: int
    listed: int
    segment: int

    def short(self) -> Spans:
        """For a call that copies what the kernels read: segments of one chunk, half as long."""
        half = max(1, self.chunk // 2)
        return Spans(half, half, half)

    def handing_on(self) -> Spans:
        """For a call whose layers hand on their states, for which there is room in a segment."""
        steps = max(self.chunk, min(_HANDED * self.chunk, self.segment))
        return Spans(self.chunk, steps, steps)

    def lists(self) -> Spans:
        """For a call with tokens, classes or weights."""
        return self._replace(segment=self.listed)


@dataclass(frozen=True)
class Sizes:
    """The bytes that a call needs besides checkpoints and cached steps.

    total : T; base : whatever the spans; per_step : scratch for each step of a chunk and of a short
    one; state, step : S and C; fitting : steps whose scratch stays in cache; longest : the steps
    of a kernel call that keeps within its time; held : whether outputs are held for all T;
    whole_step, whole_state : then, C and S of all strands together; panel : steps of a chunk at
    most; whole : whether a kernel call is one chunk, which has room for all it reads
    """

    total: int
    batch: int
    base: int
    per_step: int
    state: int
    step: int
    fitting: int
    longest: int
    held: bool = False
    whole_step: int = 0
    whole_state: int = 0
    panel: int = 0
    whole: bool = False

    @cached_property
    def free_spans(self) -> Spans:
        """The spans where no budget limits the scratch."""
        return self._spans(self.fitting, _LISTED_ROWS // max(1, self.batch))

    def spans(self, reserve: int) -> Spans:
        """The spans for `reserve` bytes of scratch."""
        return self._spans(reserve // self._each(_LISTED), self.free_spans.listed, reserve)

    def _spans(self, chunk: int, listed: int, reserve: int | None = None) -> Spans:
        # Powers of two, if not all of T.
        chunk = max(1, min(chunk, self.fitting, self.panel, self.longest, self.total))
        chunk = chunk if chunk == self.total else _power_of_two_below(chunk)
        if self.whole:
            return Spans(chunk, chunk, chunk)
        if reserve is not None:
            listed = min(listed, (reserve - chunk * self.per_step) // self._listing)
        segment = _power_of_two_below(self.longest)
        listed = min(_power_of_two_below(max(_LISTED * chunk, listed)), segment)
        return Spans(chunk, *(max(chunk, min(steps, self.total)) for steps in (listed, segment)))

    @property
    def _listing(self) -> int:
        return 0 if self.whole else max(1, _LISTED_BYTES * self.batch)

    def _each(self, listed: int) -> int:
        return self.per_step + listed * self._listing

    def scratch(self) -> int:
        """Bytes of scratch where no budget limits them."""
        spans = self.free_spans
        return spans.chunk * self.per_step + spans.listed * self._listing

    def least_scratch(self) -> int:
        """Bytes without which nothing is done."""
        steps = min(self.free_spans.chunk, -(-_LEAST_ROWS // max(1, self.batch)))
        return min(self.scratch(), steps * self._each(_LISTED))

    def reserve(self, budget: int) -> int:
        """Bytes of `budget` to set aside for scratch: at most a third of what can be spared.

        What is left for checkpoints and cached steps never shrinks as the budget grows. Less than
        0 if the budget is too small.
        """
        least = self.least_scratch()
        spare = budget - self.base - least_feasible(self.total, self.state, self.step)
        if spare < least:
            return -1
        return spare - max(spare - self.scratch(), min(2 * spare // 3, spare - least))

    def budget(self, cache_bytes: int) -> int:
        """The least budget that leaves `cache_bytes` for checkpoints and cached steps."""
        least = least_feasible(self.total, self.state, self.step)
        more = max(0, cache_bytes - least)
        scratch = max(min(self.scratch(), -(-more // 2)), self.least_scratch())
        return self.base + least + more + scratch


def sizes(layer: Layer, readout: Readout | None, total: int, batch: int, device: Backend) -> Sizes:
    """Bound the fixed bytes of bptt, backward and evaluate for `total` steps of a layer."""
    outputs = 0 if readout is None else readout.outputs
    item = layer.dtype.itemsize
    of_strand: Callable[..., Sizes] = _sizes
    if isinstance(device, CUDA):
        from . import gpu_sizes

        of_strand = partial(gpu_sizes.strand, device.ordinal)
    if isinstance(layer, Recurrent):
        own = ((layer.cell, layer.hidden, layer.inputs),)
        return of_strand(own, outputs, layer.hidden, item, total, batch)
    found = stages(layer)
    parts, held = [], 0  # held: the width of all that is held for all T
    for level, stage in enumerate(found):
        top = level == len(found) - 1
        if not top or len(stage) > 1:
            held += sum(strand.layers[-1].hidden for strand in stage)
        for strand in stage:
            shapes = tuple((part.cell, part.hidden, part.inputs) for part in strand.layers)
            last = top and strand is stage[-1]
            last_outputs = outputs if last else 0
            parts.append(of_strand(shapes, last_outputs, layer.outputs, item, total, batch))
    if len(parts) == 1:
        return parts[0]
    # What is held, and its gradient. One strand after the other has the room for its schedule.
    return Sizes(
        total=total,
        batch=batch,
        base=sum(part.base for part in parts) + 2 * held * total * batch * item,
        per_step=sum(part.per_step for part in parts),
        state=max(part.state for part in parts),
        step=max(part.step for part in parts),
        fitting=min(part.fitting for part in parts),
        longest=min(part.longest for part in parts),
        whole_step=sum(part.step for part in parts),
        whole_state=sum(part.state for part in parts),
        panel=parts[0].panel,
        whole=parts[0].whole,
        held=True,
    )


@lru_cache(maxsize=256)
def _sizes(
    layers: tuple[tuple[str, int, int], ...],
    outputs: int,
    read: int,
    item: int,
    total: int,
    batch: int,
) -> Sizes:
    matrices, parts = [], []  # (outputs, inputs) of each weight, and of those copied in parts
    units = panels = state = kept = gate_rows = 0
    for name, hidden, inputs in layers:
        cell = CELLS[name]
        matrices += [(cell.gates * hidden, inputs), (cell.gates * hidden, hidden)]
        if cell.split:
            parts.append((cell.gates * hidden, inputs))
        units += hidden * (1 + cell.second)
        panels += cell.delta_blocks * hidden
        state += cell.states * hidden * batch * item
        kept += cell.kept * hidden * batch * item
        gate_rows += cell.gates * hidden
    top = layers[-1][1]
    if outputs:
        matrices.append((outputs, read))  # by a readout of that many states
    weights = sum(
        (packed_size(m, n, item) + packed_size(n, m, item)) * item + m * n * 8 + m * (item + 8)
        for m, n in matrices
    )
    weights += sum(m * n * item for m, n in parts) + 16 * panels
    # In twos, for the chunk after: pre-activations or deltas, states between layers, dh, outputs.
    numbers = 2 * (panels + units + outputs) + 2 * (_HANDED - 1) * (units - top)
    # In a short one also: copies of x and y, dx, the states given to a callable or zeros for dh.
    copies = 2 * layers[0][2] + outputs + top
    rows = batch * (4 * 8 + 2 * 8)  # row numbers, loss values
    short = batch * item * (numbers + copies) + rows + _LISTED_BYTES * batch
    per_step = max(1, batch * item * numbers + rows, -(-short // 2))
    fitting = max(_SCRATCH // max(1, 2 * panels * batch * item), _ROWS // max(1, batch), 1)
    work = batch * (3 * sum(m * n for m, n in matrices) + _UNIT * gate_rows)
    lanes = VECTOR_BYTES // item
    return Sizes(
        total=total,
        batch=batch,
        base=weights + short + 8 * state + 4 * units * batch * item + 64 * batch + _OBJECTS,
        per_step=per_step,
        state=state,
        step=state + kept,
        fitting=fitting,
        longest=max(1, min(_SEGMENT, _WORK * lanes // max(1, work))),
        panel=panel_steps(batch),
    )
