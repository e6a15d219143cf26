"""The bytes a call needs besides checkpoints and cached steps, and how it cuts time."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

from .checkpointing import least_feasible
from .kernels.cells import CELLS
from .kernels.cpu.products import packed_size
from .kernels.cpu.tile import VECTOR_BYTES

_SCRATCH = 1 << 19  # bytes of pre-activations, or deltas, that stay in a core's own cache
_ROWS = 256  # rows that a chunk has at least: each adds to all gradients of the weights
_WORK = 300_000_000  # multiply-adds in a kernel call, a lane: at most some 40 ms, to hear Ctrl-C
_UNIT = 200  # multiply-adds that take as long as a gate of a unit
_SEGMENT = 1 << 16  # steps in a kernel call: a step takes a while even when it is small
_SEGMENT_BYTES = 24  # for each row of a segment: a token, a class and a weight
_PANEL_ROWS = 4096  # rows that add up in float32 before they are carried into float64
_OBJECTS = 1 << 16  # bytes for the interpreter's own small objects


def panel_steps(batch):
    """Steps after which weight gradients are carried into float64: a power of two."""
    return _power_of_two_below(_PANEL_ROWS // max(1, batch))


def _power_of_two_below(n):
    return 1 << max(0, int(n).bit_length() - 1)


class Spans(NamedTuple):
    """Steps in a chunk, for which there is scratch, and in a segment, which is a kernel call."""

    chunk: int
    segment: int

    def short(self):
        """For a call that needs memory for each step of a segment: segments of one chunk."""
        return Spans(self.chunk, self.chunk)


@dataclass(frozen=True)
class Sizes:
    """The bytes that a call needs besides checkpoints and cached steps.

    total : T; base : whatever the spans; per_step : scratch for each step of a chunk and what goes
    with it; state, step : S and C; limit : what scratch may take when no budget says otherwise;
    longest : the steps of a kernel call that keeps within its time
    """

    total: int
    batch: int
    base: int
    per_step: int
    state: int
    step: int
    limit: int
    longest: int

    @cached_property
    def free_spans(self):
        """The spans where no budget limits the scratch."""
        return self.spans(self.limit)

    def spans(self, reserve):
        """The spans for `reserve` bytes of scratch: half of them for a chunk.

        Both are powers of two, if not all of T.
        """
        limit = min(reserve, self.limit)
        fitting = min(panel_steps(self.batch), limit // self.per_step, self.longest)
        chunk = min(_power_of_two_below(max(1, fitting)), max(1, self.total))
        rows = chunk * self.per_step // 2 // _SEGMENT_BYTES // max(1, self.batch)
        segment = _power_of_two_below(max(chunk, min(rows, self.longest)))
        return Spans(chunk, max(chunk, min(segment, self.total)))

    def scratch(self):
        """Bytes of scratch where no budget limits them."""
        return self.free_spans.chunk * self.per_step

    def reserve(self, budget):
        """Bytes of `budget` to set aside for scratch: at most a quarter of what can be spared.

        What is left for checkpoints and cached steps never shrinks as the budget grows.
        """
        spare = budget - self.base - least_feasible(self.total, self.state, self.step)
        return spare - max(spare - self.scratch(), min(3 * spare // 4, spare - self.per_step))

    def budget(self, cache_bytes):
        """The least budget that leaves `cache_bytes` for checkpoints and cached steps."""
        least = least_feasible(self.total, self.state, self.step)
        more = max(0, cache_bytes - least)
        spare = min(more + self.scratch(), max(-(-4 * more // 3), more + self.per_step))
        return self.base + least + spare


def sizes(layers, readout, total, batch):
    """Bound the fixed bytes of bptt, backward and evaluate for `total` steps of these layers."""
    shapes = tuple(
        (layer.gates, layer.hidden, layer.inputs, layer.planes, CELLS[layer.cell].kept)
        for layer in layers
    )
    outputs = 0 if readout is None else readout.outputs
    return _sizes(shapes, outputs, layers[0].dtype.itemsize, total, batch)


@lru_cache(maxsize=256)
def _sizes(layers, outputs, item, total, batch):
    matrices = []  # (outputs, inputs) of each weight
    for gates, hidden, inputs, _, _ in layers:
        matrices += [(gates * hidden, inputs), (gates * hidden, hidden)]
    top = layers[-1][1]
    if outputs:
        matrices.append((outputs, top))
    weights = sum(
        (packed_size(m, n, item) + packed_size(n, m, item)) * item + m * n * 8 + m * (item + 8)
        for m, n in matrices
    )
    units = sum(hidden for _, hidden, *_ in layers)
    gated = sum(gates * hidden for gates, hidden, *_ in layers)
    state = batch * item * sum(planes * hidden for _, hidden, _, planes, _ in layers)
    kept = batch * item * sum(kept * hidden for _, hidden, _, _, kept in layers)
    numbers = 2 * gated + units + 3 * top + 3 * outputs + layers[0][2]
    rows = 4 * 8 + 2 * 8  # row numbers, loss values
    per_step = max(1, 2 * batch * (numbers * item + rows))
    fitting = max(_SCRATCH // max(1, 2 * gated * batch * item), _ROWS // max(1, batch), 1)
    work = batch * (3 * sum(m * n for m, n in matrices) + _UNIT * gated)
    lanes = VECTOR_BYTES // item
    return Sizes(
        total=total,
        batch=batch,
        base=weights + 8 * state + 4 * units * batch * item + 64 * batch + _OBJECTS,
        per_step=per_step,
        state=state,
        step=state + kept,
        limit=fitting * per_step,
        longest=max(1, min(_SEGMENT, _WORK * lanes // max(1, work))),
    )
