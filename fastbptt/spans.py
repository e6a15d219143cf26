"""How a call cuts time into stretches, and which of its bytes go with that."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from .checkpointing import least_feasible

LISTED_BYTES = 40  # for each row listed: a token, a class, a weight and what checking them takes
HANDED = 4  # chunks of states that a layer hands on to the next in one kernel call
_LEAST_ROWS = 16  # rows of the shortest chunk, if there are as many: a product of fewer is slow
_LISTED = 4  # chunks for which rows are listed, at least
_LISTED_ROWS = 1 << 14  # rows listed where no budget limits them
_PANEL_ROWS = 4096  # rows that add up in float32 before they are carried into float64


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
        steps = max(self.chunk, min(HANDED * self.chunk, self.segment))
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
        return 0 if self.whole else max(1, LISTED_BYTES * self.batch)

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
