"""Lanes: what a program is made of, as data.

A program is a list of lanes. A lane is one chain of layers and the rows of a schedule that it
carries out (`memory.schedules` says what each row means), once the lanes that it waits for are
done. A call by any memory policy, a layer's forward and backward, a run without a cache, and each
direction of a Bidirectional are lanes that differ in nothing but their data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Protocol, TypeAlias

from ..arrays import Array
from ..memory.schedules import Action
from .chain import Chain
from .copies import Copy
from .readers import Reader
from .step_cache import StepCache
from .time_views import TimeView

ProgressCallback: TypeAlias = Callable[[int, int], object]
"""Told (done_steps, total_steps)."""


class Progress:
    """Tells a callable (done, total), at most every 50 ms and at the end.

    Of `work` steps done in all, `total` are told: directions that run beside each other count as
    one.
    """

    def __init__(self, callback: ProgressCallback | None, total: int, work: int | None = None):
        self.callback, self.total, self.done, self.told = callback, total, 0, monotonic()
        self.work = total if work is None else work

    def add(self, steps: int) -> None:
        """Count steps as done."""
        self.done += steps
        if self.callback is None:
            return
        now = monotonic()
        if now - self.told >= 0.05 or self.done == self.work:
            self.told = now
            self.callback(self.done * self.total // self.work, self.total)


SILENT = Progress(None, 0)


@dataclass(eq=False)
class Consumer:
    """What takes a chain's outputs as they are computed, and then forgets them.

    buffer : (steps, B, H) room for them, a kernel call at a time
    work : `work(h, start)`, h (n, B, H) being the states of the steps from `start` on
    """

    buffer: Array
    work: Callable[[Array, int], object]


class Derivative(Protocol):
    """What says, on the way back, how the loss depends on a chain's outputs."""

    def derivative(self, h: Array, start: int) -> tuple[Array, Any]:
        """dE/dh (n, B, H) at the states h and a head; or scratch for it and a head with a loss."""
        ...

    def bind(self, bound: Any) -> list[Copy] | None:
        """Tell a bound lane where this lies.

        Returns the copies that each span needs; None if Python is to `fetch` it instead.
        """
        ...

    def fetch(self, bound: Any, states: Callable[[], Array], start: int) -> None:
        """Bring what the kernels read of a span into memory; `states()` are those of its steps."""
        ...

    def flush(self) -> None:
        """Carry the readout's gradients into float64."""
        ...


@dataclass(eq=False)
class Lane:
    """One chain, and the rows that it carries out.

    Attributes
    ----------
    chain, reader : the layers, and what they read
    rows : of a schedule
    initial : for each layer, the state before the first step
    steps, room : T, and how many steps the cache has room for, if there are windows
    outputs : where the states go that are computed on the way forward
    loss : on the way back, dE/dh
    grad_x, deltas : views that are filled on the way back: dE/dx, and for each layer its deltas
    carry : for each layer, dE/d(final state), for the last window if there are windows; None for
        zero
    cache : steps that are cached, or room for all of them; None where `arena` is cut as needed
    arena : room for checkpoints and cached steps, flat; None where no steps are run again
    stored : checkpoints in the arena; `run` leaves there how many there are then
    back_steps : steps of a kernel call on the way back; None for those of the chain
    beside : another lane that is walked at the same time; both begin each of their rows together

    Filled by `run`: final, the state after the last step, grad_state, dE/d(initial state), and
    cached, the first and the last (exclusive) of the steps that are in the arena.
    """

    chain: Chain
    reader: Reader
    rows: Iterable[Action]
    initial: Sequence[Array]
    steps: int
    room: int | None = None
    outputs: TimeView | Consumer | None = None
    loss: Derivative | None = None
    grad_x: TimeView | None = None
    deltas: Sequence[TimeView] = ()
    carry: Sequence[Array] | None = None
    cache: StepCache | None = None
    arena: Array | None = None
    stored: int = 0
    back_steps: int | None = None
    beside: Lane | None = None
    final: list[Array] = field(default_factory=list)
    grad_state: list[Array] = field(default_factory=list)
    cached: tuple[int, int] = (0, 0)


@dataclass(eq=False)
class OutputsLane:
    """Work on outputs that are stored for all T, span by span: dropout, a readout or a loss.

    work : `work(start, stop)`; steps : of a span; backward : the last span first
    """

    work: Callable[[int, int], object]
    stop: int
    steps: int
    backward: bool = False


@dataclass(eq=False)
class Program:
    """Lanes, and for each of them the numbers of those that must be done before it starts."""

    lanes: list[Lane | OutputsLane] = field(default_factory=list)
    after: list[tuple[int, ...]] = field(default_factory=list)

    def add(
        self, lanes: Sequence[Lane | OutputsLane], after: Sequence[int] = ()
    ) -> tuple[int, ...]:
        """Add lanes that do not wait for each other; returns their numbers."""
        first = len(self.lanes)
        self.lanes += lanes
        self.after += [tuple(after)] * len(lanes)
        return tuple(range(first, len(self.lanes)))
