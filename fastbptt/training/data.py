"""What a training reads: sequences beside each other, a list of them, or one long one, checked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import arguments
from ..arrays import AlongTime, Array, home, in_memory, module_of, on_host
from ..calls import inputs, loss_inputs
from ..calls.sequences import pad
from ..engine.readers import misplaced
from ..layers.network import Network
from ..lazy import Lazy

_STRETCH = 1 << 22  # bytes that are hashed together
_NAMES = ("x", "y", "weights", "resets")


@dataclass(frozen=True, eq=False)
class Part:
    """Some sequences beside each other, or a stretch of their time: arguments of one call.

    lengths : (B,) integers, or one where x has no batch axis, or None
    squeeze : whether x has no batch axis
    """

    x: AlongTime
    y: Any
    weights: AlongTime | None
    resets: Array | None
    lengths: Any
    squeeze: bool

    @property
    def steps(self) -> int:
        """T."""
        return len(self.x)

    def stretch(self, start: int, stop: int) -> Part:
        """The steps start..stop, the end of a sequence being where it was."""
        if start == 0 and stop >= self.steps:
            return self
        cut = {name: _cut(getattr(self, name), start, stop) for name in _NAMES}
        return replace(self, lengths=_clipped(self.lengths, start, stop), **cut)

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments besides network and loss."""
        found = {"x": self.x, "y": self.y, "weights": self.weights, "resets": self.resets}
        return {**found, "lengths": self.lengths}

    @property
    def longest(self) -> int:
        """The steps of the longest sequence."""
        return self.steps if self.lengths is None else int(np.max(self.lengths, initial=0))

    def positions(self) -> int:
        """How many positions count: as for reduction="mean"."""
        B = 1 if self.squeeze else self.x.shape[1]
        ends = np.full(B, self.steps) if self.lengths is None else np.ravel(self.lengths)
        if self.weights is None:
            return int(ends.sum())
        counts = home(in_memory(self.weights)) != 0
        if counts.ndim == 3 - self.squeeze:
            counts = counts.any(axis=-1)
        if counts.ndim == 1:
            counts = counts[:, None]
        return int(np.count_nonzero(counts & (np.arange(self.steps)[:, None] < ends)))


class Arrays:
    """Sequences that are given beside each other, (T, B, ...), or one without the batch axis."""

    def __init__(self, whole: Part):
        self._whole = whole
        self.count = 1 if whole.squeeze else whole.x.shape[1]
        self.steps = whole.steps

    def part(self, rows: Array | None) -> Part:
        """The sequences of these numbers; None for all."""
        whole = self._whole
        if rows is None:
            return whole
        taken = {name: _rows(name, getattr(whole, name), rows) for name in _NAMES}
        lengths = None if whole.lengths is None else whole.lengths[rows]
        return replace(whole, lengths=lengths, **taken)

    def split(self, share: float) -> tuple[Arrays, Arrays]:
        """The last sequences apart; of one sequence its last steps."""
        if self.count > 1:
            first = np.arange(_before(self.count, share))
            rest = np.arange(len(first), self.count)
            return Arrays(self.part(first)), Arrays(self.part(rest))
        at = _before(self.steps, share)
        return tuple(Arrays(self._whole.stretch(*ends)) for ends in ((0, at), (at, self.steps)))  # type: ignore[return-value]

    def batches(self, size: int | None) -> Iterator[Part]:
        """All sequences in their order, together: a call without a gradient needs no more."""
        yield self._whole

    def placed(self, error: ValueError, rows: Array | None, start: int) -> ValueError | None:
        """An error about an id of these sequences, from step `start`, as one of all the data."""
        found = misplaced(error)
        if found is None:
            return None
        b = found.b if rows is None else int(rows[found.b])
        return replace(found, t=found.t + start, b=b).error()

    def arrays(self) -> Iterator[Any]:
        """All that is read."""
        yield from (getattr(self._whole, name) for name in (*_NAMES, "lengths"))


class Lists:
    """Sequences that are given as a list, each of its own length."""

    def __init__(self, given: dict[str, list[Array] | None]):
        self._given = given
        self.count = len(given["x"] or ())
        self.steps = max((len(one) for one in given["x"] or ()), default=0)

    def part(self, rows: Array | None) -> Part:
        """The sequences of these numbers beside each other, padded; None for all."""
        numbers = range(self.count) if rows is None else rows.tolist()
        padded: dict[str, Any] = {}
        for name, items in self._given.items():
            some = None if items is None else pad([items[i] for i in numbers])
            padded[name] = None if some is None else some[0]
            if name == "x" and some is not None:
                padded["lengths"] = some[1]
        return Part(**padded, squeeze=False)

    def split(self, share: float) -> tuple[Lists, Lists]:
        """The last sequences apart."""
        at = _before(self.count, share)
        parts = (slice(None, at), slice(at, None))
        return tuple(
            Lists({name: items and items[part] for name, items in self._given.items()})
            for part in parts
        )  # type: ignore[return-value]

    def batches(self, size: int | None) -> Iterator[Part]:
        """All sequences in their order, `size` at a time, so that few are padded at once."""
        for start in range(0, self.count, size or self.count):
            yield self.part(np.arange(start, min(start + (size or self.count), self.count)))

    def placed(self, error: ValueError, rows: Array | None, start: int) -> ValueError | None:
        """An error about an id of these sequences, from step `start`, as one of all the data."""
        found = misplaced(error)
        if found is None:
            return None
        row = found.b if rows is None else int(rows[found.b])
        return replace(found, name=f"{found.name}[{row}]", t=found.t + start, b=None).error()

    def arrays(self) -> Iterator[Any]:
        """All that is read."""
        for items in self._given.values():
            yield from items or (None,)


def checked(
    network: Network, x: Any, y: Any, loss: Any, reduction: Any, weights: Any, lengths: Any,
    resets: Any, device: str | None,
) -> Arrays | Lists:  # fmt: skip
    """The data of a training, checked as `bptt` checks its arguments."""
    if isinstance(x, (list, tuple)):
        return _listed(network, x, y, loss, reduction, weights, lengths, resets, device)
    own = inputs.check(
        network.layer, x, None, lengths, device, resets=resets, own_state=network.state
    )
    loss_inputs.check(network, own, y, loss, weights, reduction)
    if not loss_inputs.is_own(loss):
        y = arguments.along_time("y", y)
    given = None if lengths is None else lengths if own.squeeze else _whole_numbers(lengths)
    return Arrays(
        Part(
            arguments.along_time("x", x),
            loss_inputs.by_position(y),
            None if weights is None else arguments.along_time("weights", weights),
            None if resets is None else arguments.array("resets", resets),
            given,
            own.squeeze,
        )
    )


def _listed(
    network: Network, x: Any, y: Any, loss: Any, reduction: Any, weights: Any, lengths: Any,
    resets: Any, device: str | None,
) -> Lists:  # fmt: skip
    if not x:
        raise ValueError("x must hold at least one sequence, not none")
    if lengths is not None:
        raise ValueError(
            "lengths must be None where x is a list, whose sequences have their own, "
            f"not {arguments.describe(lengths)}"
        )
    found: dict[str, list[Array] | None] = {}
    for name, items in (("x", x), ("y", y), ("weights", weights), ("resets", resets)):
        if items is None:
            found[name] = None
            continue
        if not isinstance(items, (list, tuple)):
            raise TypeError(f"{name} must be a list like x, not {arguments.describe(items)}")
        if len(items) != len(x):
            raise ValueError(f"{name} must hold {len(x)} arrays, as x does, not {len(items)}")
        found[name] = [arguments.array(f"{name}[{i}]", one) for i, one in enumerate(items)]
    for name, arrays in found.items():
        for i, one in enumerate(arrays or ()):
            first, steps = arrays[0], len(found["x"][i])  # type: ignore[index]
            if not 1 <= one.ndim <= 2:
                raise ValueError(
                    f"{name}[{i}] must be of one sequence, with one axis or two, steps first, "
                    f"not of shape {one.shape}"
                )
            if len(one) != steps:
                raise ValueError(
                    f"{name}[{i}] must have {steps} steps, as x[{i}] has, not shape {one.shape}"
                )
            if one.shape[1:] != first.shape[1:] or one.dtype != first.dtype:
                raise ValueError(
                    f"{name}[{i}] must be like {name}[0], {arguments.describe(first)}, but for its "
                    f"steps, not {arguments.describe(one)}"
                )
    head = {name: arrays and arrays[0] for name, arrays in found.items()}
    own = inputs.check(
        network.layer, head["x"], None, None, device, resets=head["resets"], own_state=network.state
    )
    loss_inputs.check(network, own, head["y"], loss, head["weights"], reduction)
    return Lists(found)


def digest(data: Arrays | Lists | None) -> str:
    """A text that differs for other data."""
    found = hashlib.blake2b(digest_size=16)
    for array in () if data is None else data.arrays():
        if array is None or not hasattr(array, "dtype"):
            found.update(repr(type(array)).encode())
            continue
        found.update(repr((array.shape, str(array.dtype))).encode())
        step = max(1, _STRETCH // max(1, int(np.prod(array.shape[1:])) * array.dtype.itemsize))
        for start in range(0, len(array), step):
            stretch = home(in_memory(array[start : start + step]))
            found.update(np.ascontiguousarray(stretch).tobytes())
    return found.hexdigest()


def _before(count: int, share: float) -> int:
    """How many of `count` lie before the last share of them: at least one on either side."""
    if count < 2:
        raise ValueError("validation must be None or data where there is nothing to split")
    return min(max(count - round(count * share), 1), count - 1)


def _cut(value: Any, start: int, stop: int) -> Any:
    return None if value is None else value[start:stop]


def _clipped(lengths: Any, start: int, stop: int) -> Any:
    if lengths is None:
        return None
    left = np.clip(np.asarray(lengths) - start, 0, stop - start)
    return left if left.ndim else int(left)


def _whole_numbers(lengths: Any) -> Array:
    return home(arguments.array("lengths", lengths)).astype(np.int64)


def _rows(name: str, value: Any, rows: Sequence[int] | Array) -> Any:
    """The sequences of these numbers of an array (T, B, ...); (T,) is for all of them."""
    if value is None:
        return None
    if not hasattr(value, "ndim"):
        raise TypeError(f"{name} must be an array, to be cut into batches, not {type(value)}")
    if value.ndim < 2:
        return value
    if isinstance(value, Lazy):
        times = np.arange(len(value))
        each = [value.picked(times[:, None], np.array([row])) for row in rows]
        return np.concatenate(each, axis=1)
    return value[:, rows if on_host(value) else module_of(value).asarray(rows)]
