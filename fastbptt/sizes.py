"""The bytes a call needs besides checkpoints and cached steps, and how long its stretches are."""

from dataclasses import dataclass

from .chain import state_bytes, step_bytes
from .checkpointing import least_feasible
from .kernels.cpu.products import packed_size

_SCRATCH = 1 << 20  # bytes of scratch that stay in a core's own cache
_WORK = 400_000_000  # multiply-adds in a kernel call: at most some 50 ms, to hear Ctrl-C
_PANEL_ROWS = 4096  # rows that add up in float32 before they are carried into float64
_OBJECTS = 1 << 16  # bytes for the interpreter's own small objects


def panel_steps(batch):
    """Steps after which weight gradients are carried into float64: a power of two."""
    return _power_of_two_below(_PANEL_ROWS // max(1, batch))


def _power_of_two_below(n):
    return 1 << max(0, int(n).bit_length() - 1)


@dataclass(frozen=True)
class Sizes:
    """The bytes that a call needs besides checkpoints and cached steps.

    total : T; base : whatever the stretch; per_step : scratch for each step of a stretch;
    per_token_step : the same when x holds tokens; state, step : S and C; limit : what scratch may
    take when no budget says otherwise; work : multiply-adds of a step in the largest product
    """

    total: int
    batch: int
    base: int
    per_step: int
    per_token_step: int
    state: int
    step: int
    limit: int
    work: int

    def steps(self, tokens, reserve=None):
        """Steps in a stretch, a power of two; `reserve`: bytes set aside for scratch."""
        per_step = max(1, self.per_token_step if tokens else self.per_step)
        limit = self.limit if reserve is None else min(reserve, self.limit)
        steps = min(panel_steps(self.batch), limit // per_step, _WORK // max(1, self.work))
        return min(_power_of_two_below(max(1, steps)), max(1, self.total))

    def scratch(self):
        """Bytes of scratch where no budget limits them, for tokens or not."""
        dense = self.steps(tokens=False) * self.per_step
        return max(dense, self.steps(tokens=True) * self.per_token_step)

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
    panel = item if item < 8 else 0
    weights = sum(
        (packed_size(*a.shape, item) + packed_size(*a.shape[::-1], item)) * item
        + a.size * (panel + 8) + b.size * (item + 8)
        for a, b in linear
    )  # fmt: skip
    spare = sum(4 * layer.hidden * batch * item for layer in layers)
    widths = sum((layer.gates + 2) * layer.hidden for layer in layers)
    outputs = 0 if readout is None else 2 * readout.outputs
    rows = 4 * 8  # row numbers (twice), loss values, weights
    ids = 2 * 8
    state = state_bytes(layers, batch)
    return Sizes(
        total=total,
        batch=batch,
        base=weights + 8 * state + spare + 64 * batch + _OBJECTS,
        per_step=batch * ((widths + outputs + 2 * layers[0].inputs) * item + rows + ids),
        per_token_step=batch * ((widths + outputs) * item + rows + ids),
        state=state,
        step=step_bytes(layers, batch),
        limit=max(_SCRATCH, weights // 4),
        work=batch * max(a.size for a, _ in linear),
    )
