"""The bytes a call needs besides checkpoints and cached steps, and how it cuts time."""

from dataclasses import dataclass
from typing import NamedTuple

from .chain import state_bytes, step_bytes
from .checkpointing import least_feasible
from .kernels.cpu.products import packed_size
from .kernels.cpu.tile import VECTOR_BYTES

_SCRATCH = 1 << 19  # bytes of scratch that stay in a core's own cache
_WORK = 150_000_000  # multiply-adds in a kernel call, a lane: at most some 40 ms, to hear Ctrl-C
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

    def spans(self, reserve=None):
        """The spans for `reserve` bytes of scratch: half of them for a chunk.

        Both are powers of two, if not all of T.
        """
        limit = self.limit if reserve is None else min(reserve, self.limit)
        fitting = min(panel_steps(self.batch), limit // self.per_step, self.longest)
        chunk = min(_power_of_two_below(max(1, fitting)), max(1, self.total))
        rows = chunk * self.per_step // 2 // _SEGMENT_BYTES // max(1, self.batch)
        segment = _power_of_two_below(max(chunk, min(rows, self.longest)))
        return Spans(chunk, max(chunk, min(segment, self.total)))

    def scratch(self):
        """Bytes of scratch where no budget limits them."""
        return self.spans().chunk * self.per_step

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
    item = layers[0].dtype.itemsize
    linear = [(a, b) for layer in layers for a, b in ((layer.U, layer.b), (layer.W, layer.b))]
    if readout is not None:
        linear.append((readout.V, readout.c))
    weights = sum(
        (packed_size(*a.shape, item) + packed_size(*a.shape[::-1], item)) * item
        + a.size * 8 + b.size * (item + 8)
        for a, b in linear
    )  # fmt: skip
    spare = sum(4 * layer.hidden * batch * item for layer in layers)
    widths = sum(2 * layer.gates * layer.hidden + layer.hidden for layer in layers)
    top, outputs = layers[-1].hidden, 0 if readout is None else 3 * readout.outputs
    rows = 4 * 8 + 2 * 8  # row numbers, loss values
    state = state_bytes(layers, batch)
    gates = sum(layer.gates * layer.hidden for layer in layers)
    work = batch * (3 * sum(a.size for a, _ in linear) + _UNIT * gates)
    lanes = VECTOR_BYTES // item
    return Sizes(
        total=total,
        batch=batch,
        base=weights + 8 * state + spare + 64 * batch + _OBJECTS,
        per_step=max(
            1, 2 * batch * ((widths + 3 * top + outputs + layers[0].inputs) * item + rows)
        ),
        state=state,
        step=step_bytes(layers, batch),
        limit=max(_SCRATCH, weights // 4),
        longest=max(1, min(_SEGMENT, _WORK * lanes // max(1, work))),
    )
