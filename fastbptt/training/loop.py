"""A training on its way: epochs, updates, what is kept, and what ends it."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeAlias

import numpy as np

from ..arrays import Array
from ..calls import gradient
from ..calls.progress import Progress
from ..engine.losses import Reduction
from ..engine.readers import misplaced
from ..layers.composite import AnyLayer, Stack, State
from ..layers.network import Network
from . import files
from .data import Arrays, Lists, Part
from .progress import progress_of
from .result import Epoch, Fit, NotFiniteError

Callback: TypeAlias = Callable[[Epoch, Network[Any]], Any]
"""`callback(epoch, network)`, after each epoch; True ends the training."""


class Training(Generic[AnyLayer]):
    """A training on its way."""

    def __init__(
        self, start: Fit[AnyLayer], data: Arrays | Lists, held: Arrays | Lists | None,
        call: dict[str, Any], batch: int | None, window: int | None, place: files.Place | None,
    ):  # fmt: skip
        self.data, self.held, self.call, self.place = data, held, call, place
        self.batch, self.window = batch, window
        self.history, self.seed, self.settings = list(start.history), start._seed, start._settings
        self.live = copied(start._last)  # the only network that changes
        self.last, self.best = start._last, start._best
        self.optimizer, self.kept = start.optimizer._copied(), start.optimizer
        failed = start.stopped == "not finite"
        self.good = copied(start.network if failed else self.live)  # last of a finite loss
        self.lr = self.optimizer.rate()
        self.stopped, self.leading = start.stopped, start.best
        self.total = sum(part.positions() for part in data.batches(batch))
        for name, own in (("x", data), ("validation", held)):
            if own is not None and not any(part.positions() for part in own.batches(batch)):
                raise ValueError(
                    f"{name} must have a position that counts: of a length, and of a weight"
                )

    def run(
        self, epochs: int, patience: int | None, callbacks: Sequence[Callback], progress: Progress
    ) -> Fit[AnyLayer]:
        """Train until something ends it."""
        done = len(self.history)
        if done >= epochs or self._impatient(patience):
            return self._fit(self.best)
        self.stopped = "epochs"
        try:
            with progress_of(progress, self.total * (epochs - done)) as show:
                while self.stopped == "epochs" and len(self.history) < epochs:
                    epoch = self._epoch(len(self.history) + 1, done, show)
                    if self._impatient(patience):
                        self.stopped = "patience"
                    for callback in callbacks:
                        if callback(epoch, self.live) is True:
                            self.stopped = "callback"
                    self._write(self.best)
            return self._fit(self.best)
        except KeyboardInterrupt:
            return self._fit(self._interrupted())

    def _epoch(self, epoch: int, done: int, show: Callable[[float, str], object]) -> Epoch:
        """One pass over the data, and what is kept of it."""
        begun, total = time.perf_counter(), _Total(self.call["reduction"])
        before = (epoch - 1 - done) * self.total
        note = ""
        if self.history:
            note = f", before {self.history[-1].score:.4g}"
        for update, rows in enumerate(self._order(epoch)):
            part, state = self.data.part(rows), None
            seed = self._dropout_seed(epoch, update)
            for start in range(0, part.longest, self.window or max(1, part.steps)):
                stretch = part.stretch(start, start + (self.window or part.steps))
                try:
                    state, value, count = self._update(epoch, stretch, state, seed, start)
                except ValueError as error:
                    placed = self.data.placed(error, rows, start)
                    if placed is None:
                        raise
                    raise placed from None
                total.add(value, count)
                show(before + total.count, f"epoch {epoch}, loss {total.value():.4g}{note}")
        validation = self._validate(epoch)
        seconds = time.perf_counter() - begun
        steps = self.optimizer.steps
        entry = Epoch(epoch, total.value(), validation, self.lr, steps, seconds)
        if self.leading is None or entry.score < self.leading.score:
            self.leading = entry
            write_over(self.best, self.live)
        write_over(self.last, self.live)
        self.kept._take(self.optimizer)
        self.history.append(entry)
        return entry

    def _order(self, epoch: int) -> Iterator[Array | None]:
        """The numbers of the sequences of each update; None for all."""
        count = self.data.count
        if self.batch is None or self.batch == count:
            yield None
            return
        order = np.random.default_rng([self.seed, epoch]).permutation(count)
        for start in range(0, count, self.batch):
            yield order[start : start + self.batch]

    def _dropout_seed(self, epoch: int, update: int) -> int | None:
        layer = self.live.layer
        if not (isinstance(layer, Stack) and layer.dropout):
            return None
        drawn = np.random.SeedSequence([self.seed, epoch, update]).generate_state(1, np.uint64)
        return int(drawn[0])

    def _update(
        self, epoch: int, part: Part, state: State | None, seed: int | None, t0: int
    ) -> tuple[State | None, float, int]:
        """One gradient and one step; the final state, the loss, and how many positions count."""
        r = gradient.bptt(
            self.live, **part.arguments, **self.call, state=state, seed=seed,
            t0=t0 if seed is not None else 0,
        )  # fmt: skip
        if not math.isfinite(r.loss):
            raise self._not_finite(epoch, f"the loss is {r.loss}")
        count = part.positions()
        if count:
            write_over(self.good, self.live)
            self.lr = self.optimizer.rate()
            if not math.isfinite(self.optimizer._update(self.live, r.grad, finite=True)):
                raise self._not_finite(epoch, "the gradient is not finite")
        return (r.state if self.window else None), r.loss, count

    def _validate(self, epoch: int) -> float | None:
        """The loss of the validation data, or None; raises unless the new weights are finite."""
        value = None
        if self.held is not None:
            total = _Total(self.call["reduction"])
            call = {name: self.call[name] for name in ("loss", "reduction", "device")}
            for part in self.held.batches(self.batch):
                try:
                    found = gradient.evaluate(self.live, **part.arguments, **call)
                except ValueError as error:
                    if misplaced(error) is None:
                        raise
                    raise ValueError(f"validation: {error}") from None
                total.add(found, part.positions())
            value = total.value()
            if not math.isfinite(value):
                raise self._not_finite(epoch, f"the loss of the validation data is {value}")
        elif not all(math.isfinite(_sum(a)) for a in self.live.arrays()):
            raise self._not_finite(epoch, "the weights are not finite")
        return value

    def _not_finite(self, epoch: int, what: str) -> NotFiniteError:
        """The error; the last good weights are written first."""
        self.stopped = "not finite"
        where = self._write(self.good)
        text = (
            f"{what} in epoch {epoch}, after step {self.optimizer.steps:,}, at a learning rate of "
            f"{self.lr:.6g}: the last weights whose loss was finite are in .network of this "
            f"error{where}"
        )
        return NotFiniteError(text, self.good, self._fit(self.best))

    def _interrupted(self) -> Network[AnyLayer]:
        """Say what is kept; returns that."""
        self.stopped = "interrupted"
        best = self.leading
        network = copied(self.live) if best is None else self.best
        what = "the weights of this moment" if best is None else "the best weights so far"
        which = "" if best is None else f", those of epoch {best.number},"
        where = self._write(network)
        epoch = len(self.history) + 1
        text = f"interrupted in epoch {epoch}: {what}{which} are kept{where}"
        print(f"\nfastbptt: {text}", file=sys.stderr, flush=True)
        return network

    def _impatient(self, patience: int | None) -> bool:
        if self.leading is None or patience is None:
            return False
        return len(self.history) - self.leading.number >= patience

    def _fit(self, network: Network[AnyLayer]) -> Fit[AnyLayer]:
        path = None if self.place is None else str(self.place.path)
        found = Fit(network, tuple(self.history), self.kept, path, self.stopped)
        return found._with(self.last, self.best, self.seed, self.settings)

    def _write(self, network: Network[AnyLayer]) -> str:
        """Write the file, if there is one; returns where, for a message."""
        if self.place is None:
            return ""
        self._fit(network).save(self.place.path)
        return f" and at {str(self.place.path)!r}"


class _Total:
    """The loss of several calls: their sum, or their mean by the positions that count."""

    def __init__(self, reduction: Reduction):
        self.mean = reduction == "mean"
        self.parts: list[float] = []
        self.last, self.count, self.sum = 0.0, 0, 0.0

    def add(self, value: float, count: int) -> None:
        """Enter the loss of a call."""
        self.last = value
        self.count += count
        self.parts.append(value * count if self.mean else value)
        self.sum += self.parts[-1]

    def value(self) -> float:
        """The loss of all."""
        if len(self.parts) == 1:
            return self.last
        return self.sum / max(1, self.count) if self.mean else self.sum


def copied(network: Network[AnyLayer]) -> Network[AnyLayer]:
    """The network with arrays of its own."""
    return network._rebuilt(iter([array.copy() for array in network.arrays()]))


def write_over(target: Network, source: Network) -> None:
    """Write the numbers of one network into the arrays of another."""
    for to, of in zip(target.arrays(), source.arrays(), strict=True):
        to[...] = of


def _sum(array: Any) -> float:
    return float(array.sum(dtype=np.float64))
