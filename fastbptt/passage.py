"""All strands of a layer in one call: what one stage hands on is held for the next.

A layer without a Bidirectional is one strand, and nothing is held. A Bidirectional is two strands,
each of which needs all of its input before the next stage can begin: so what it reads, what it
hands on and the gradient of that are held for all T.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .along import Along, Reversal, Turned
from .chain import Chain, Leaf
from .compound import Strand
from .engine import backward_stretches, stretches
from .inputs import Call
from .sources import Floats, Ids
from .spans import Spans
from .typing import Array


@dataclass(frozen=True, eq=False)
class Kept:
    """What a way forward leaves for any number of ways back, at once too: nobody writes to it.

    weights : packed, one for each recurrent layer
    held : what each stage but the last hands on
    leaves : every step, one for each strand
    workspace : has the memory of all of these
    """

    call: Call
    spans: Spans
    several: bool
    weights: list[Any]
    held: list[Array]
    leaves: list[Leaf]
    workspace: Any


class Passage:
    """The strands of a call, from the bottom stage to the top one.

    With what another passage has `kept` it goes back, in working memory of its own.
    """

    def __init__(self, call: Call, spans: Spans, several: bool = True, kept: Kept | None = None):
        self.call, self.spans, self.several = call, spans, several
        self.device = device = call.device
        self.workspace = workspace = device.workspace()
        self.weights = (
            [device.weights(layer, call.B, workspace) for layer in call.leaves]
            if kept is None
            else kept.weights
        )
        self.stages = [
            [
                (strand, call.chain(spans, several, strand, strand.of(self.weights)))
                for strand in stage
            ]
            for stage in call.stages
        ]
        self.reversal = Reversal(call.lengths, call.T)
        # What each stage but the last hands on.
        self.held: list[Array] = [] if kept is None else kept.held

    @property
    def strands(self) -> list[tuple[Strand, Chain]]:
        """All strands, in the order of the state."""
        return [pair for stage in self.stages for pair in stage]

    def _turn(self, strand: Strand) -> Reversal | None:
        return self.reversal if strand.against_time else None

    def source(self, level: int, strand: Strand) -> Floats | Ids:
        """What a strand of that stage reads."""
        if level == 0:
            return self.call.source(self.spans.segment, self._turn(strand))
        held = self.held[level - 1]
        turned: Any = Turned(held, self.reversal) if strand.against_time else held
        return Floats(self.device, turned, self.spans.segment)

    def columns(self, array: Array, level: int, which: int, steps: int | None = None) -> Along:
        """The columns of a stage's output that are a strand's, in its own time."""
        steps = self.spans.segment if steps is None else steps
        if len(self.stages[level]) == 1:
            return Along(self.device, array, steps)
        widths = [strand.layers[-1].hidden for strand, _ in self.stages[level]]
        strand = self.stages[level][which][0]
        first = sum(widths[:which])
        return Along(self.device, array, steps, self._turn(strand), first, widths[which])

    def below(self, array: Array, level: int, which: int) -> Along:
        """The gradient of what a stage reads, in the time of one of its strands, to add to."""
        stage = self.stages[level]
        steps = self.spans.segment
        return Along(self.device, array, steps, self._turn(stage[which][0]), adds=len(stage) > 1)

    def outputs(self) -> Iterator[tuple[int, int, Array]]:
        """Run, caching nothing: (start, stop, states) a stretch of one chunk at a time."""
        call, steps = self.call, self.spans.chunk
        if call.held:
            whole = self.room(len(self.stages) - 1)
            self.forward(whole)
            for a, b in stretches(0, call.T, steps):
                yield a, b, whole[a:b]
            return
        strand, chain = self.stages[0][0]
        source, h = self.source(0, strand), chain.workspace.empty(
            (steps, call.B, call.layer.outputs), chain.dtype
        )  # fmt: skip
        chain.set_state(call.initial)
        for a, b in stretches(0, call.T, steps):
            chain.advance(source, a, b, h[: b - a])
            yield a, b, h[: b - a]

    def room(self, level: int) -> Array:
        """An array for what a stage hands on, or for its gradient."""
        call = self.call
        width = sum(strand.layers[-1].hidden for strand, _ in self.stages[level])
        memory = self.workspace.empty((call.T, call.B, width), call.layer.dtype)
        memory[...] = 0
        return memory

    def forward(
        self, top: Array | None, leaves: Sequence[Leaf] | None = None, progress: Any = None,
        levels: int | None = None,
    ) -> None:  # fmt: skip
        """Run the stages, or the lowest `levels`; `top` takes the states of the last one, if given.

        Each strand caches into its leaf, if there are `leaves`.
        """
        levels = len(self.stages) if levels is None else levels
        number = 0
        for level in range(levels):
            last = level == len(self.stages) - 1
            out = top if last else self.room(level)
            for which, (strand, chain) in enumerate(self.stages[level]):
                leaf = None if leaves is None else leaves[number]
                target = None if out is None else self.columns(out, level, which)
                chain.set_state(strand.of(self.call.initial))
                self._run(chain, leaf, self.source(level, strand), target, progress)
                number += 1
            if not last and out is not None:
                self.drop(out, level)
                self.held.append(out)

    def _run(
        self, chain: Chain, leaf: Leaf | None, source: Any, target: Along | None, progress: Any
    ) -> None:
        if leaf is not None:
            chain.begin(leaf, 0)
        for a, b in stretches(0, self.call.T, chain.segment):
            h = None if target is None else target.room(a, b)
            if leaf is None:
                chain.advance(source, a, b, h)
            else:
                chain.fill(leaf, source, a, b, h)
            if target is not None:
                target.done(a, b)
            self.device.wait()
            if progress is not None:
                progress.add(b - a)
        if leaf is not None:
            chain.end(leaf)

    def drop(self, values: Array, level: int) -> None:
        """Dropout of what a stage hands on, or of its gradient, in place."""
        if self.call.dropout is None:
            return
        layer = self.stages[level + 1][0][0].below
        for a, b in stretches(0, self.call.T, self.spans.segment):
            self.call.dropout.apply(self.device, values[a:b], values[a:b], layer, a)

    def backward(
        self, leaves: Sequence[Leaf], dh: Array, carry: Sequence[Array] | None,
        grad_x: Array | None, deltas: Sequence[Array] | None,
    ) -> None:  # fmt: skip
        """Go back through all steps, which the leaves have cached; fill `grad_x` and `deltas`."""
        for level in range(len(self.stages) - 1, -1, -1):
            below = self.room(level - 1) if level else grad_x
            for which, (strand, chain) in enumerate(self.stages[level]):
                chain.begin_reverse(None if carry is None else strand.of(carry))
                own = None if deltas is None else strand.of(deltas)
                self._back(level, which, leaves, dh, below, own)
            if level:
                assert below is not None
                self.drop(below, level - 1)
                dh = below

    def _back(
        self, level: int, which: int, leaves: Sequence[Leaf], dh: Array, below: Array | None,
        deltas: Sequence[Array] | None,
    ) -> None:  # fmt: skip
        strand, chain = self.stages[level][which]
        number = sum(len(stage) for stage in self.stages[:level]) + which
        source = self.source(level, strand)
        steps = chain.segment
        if not self.device.direct(dh) or (deltas is not None and not chain.plain):
            steps = chain.chunk
        given = self.columns(dh, level, which, steps)
        into = None if below is None else self.below(below, level, which)
        rooms = None
        if deltas is not None:
            rooms = [Along(self.device, array, steps, self._turn(strand)) for array in deltas]
        for a, b in backward_stretches(0, self.call.T, steps):
            chain.reverse(
                leaves[number], source, a, b, given.take(a, b), self.device.no_head(chain.dtype),
                None if into is None else into.room(a, b),
                None if rooms is None else [room.room(a, b) for room in rooms],
            )  # fmt: skip
            for room in (*(rooms or ()), *((into,) if into is not None else ())):
                room.done(a, b)
            self.device.wait()

    def leaves(self, arena: Array) -> list[Leaf]:
        """Leaves for all T, one a strand, carved out of a flat array."""
        found, used = [], 0
        for _, chain in self.strands:
            leaf = Leaf(self.device, arena[used:], chain.recurrences, self.call.T)
            used += leaf.size
            found.append(leaf)
        return found

    def keep(self, leaves: list[Leaf]) -> Kept:
        """End a way forward that has cached into the leaves: its scratch goes back."""
        lowest = {strand.first for strand, _ in self.stages[0]}  # the layers that read x
        for number, weights in enumerate(self.weights):
            weights.hold(self.call.tokens and number in lowest)
        for _, chain in self.strands:
            chain.release()
        return Kept(
            self.call, self.spans, self.several, self.weights, self.held, leaves, self.workspace
        )

    def states(self) -> list[Array]:
        """The final states, one for each recurrent layer."""
        return [state for _, chain in self.strands for state in chain.state()]

    def carried(self) -> list[Array]:
        """The derivatives by the initial states, one for each recurrent layer."""
        return [state for _, chain in self.strands for state in chain.carried()]

    def gradients(self) -> list[Any]:
        """The gradients of all recurrent layers."""
        return [part for _, chain in self.strands for part in chain.gradients()]

    def release(self) -> None:
        """Give back the memory that calls share."""
        self.workspace.release()
        for _, chain in self.strands:
            chain.release()
