"""What optimisers have in common: they change a network's arrays in place, by its gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import copy
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .. import arguments
from ..arguments import File
from ..arrays import Array, home, module_of, on_its_gpu
from ..layers.model import Model, save
from ..layers.stored import Stored
from ..layers.turns import Turns
from . import rows

if TYPE_CHECKING:
    from typing_extensions import Self

Rate: TypeAlias = "float | Callable[[int], float]"
"""A learning rate, or a function of the number of steps done that returns one."""


class Optimiser(Stored):
    """What Adam and SGD have in common; each of them keeps some arrays for each of a network's.

    Their fields may be changed between steps.
    """

    lr: Rate
    weight_decay: float
    clip: float | None
    _steps: int
    _rows: Any
    _turns: Turns
    _means: tuple[tuple[Array, ...], ...]  # for each array of the network, those kept for it

    def __post_init__(self) -> None:
        self._check()
        self.lr = plain_rate(self.lr)
        self._steps, self._means, self._rows, self._turns = 0, (), None, Turns()

    @property
    def steps(self) -> int:
        """The number of steps done."""
        return self._steps

    def step(self, network: Model, grad: Model) -> None:
        """Change the arrays of a network, or of a layer or readout, in place.

        Parameters
        ----------
        network : Network, layer or readout; its arrays must be writable. From the first step on its
            arrays must keep their shapes and dtype; they may be other arrays, and on a GPU
        grad : the gradient, of the same type and shapes, as calls return it. A `state` that is None
            leaves the network's own state as it is

        Raises
        ------
        ValueError, TypeError : the gradient does not fit the network, the network is not that of
            the first step, an array is read-only, or the learning rate is no number of 0 or more;
            nothing is changed
        """
        self._update(network, grad)

    def save(self, path: File) -> None:
        """Write the settings and what is kept between steps; `fastbptt.load` reads it.

        Parameters
        ----------
        path : as of `network.save`. Of an lr that is a function no more is written than that: after
            `load`, set `.lr` again

        Raises
        ------
        TypeError, ValueError : `path` is neither a path nor a binary file
        OSError : the file cannot be written
        """
        with self._turns.mine():
            save(self, path)

    def rate(self) -> float:
        """The learning rate of the next step; raises ValueError or TypeError for a wrong one."""
        if self.lr is None:
            raise ValueError(
                "lr must be set again, since it was a function when the optimiser was saved, and "
                "files hold no code"
            )
        value = self.lr(self._steps) if callable(self.lr) else self.lr
        return number("lr" if value is self.lr else "the value of lr", value)

    def _update(self, network: Model, grad: Model, finite: bool = False) -> float:
        """One step. Returns the gradient's norm, where it is needed, else 0.

        finite : leave all as it is if the gradient is not finite
        """
        with self._turns.mine():
            self._check()
            rate = self.rate()
            pairs = rows.pairs(network, grad)
            with on_its_gpu(pairs[0][0]):
                return self._move(network, pairs, rate, finite)

    def _move(self, network: Model, pairs: rows.Pairs, rate: float, finite: bool) -> float:
        means = self._means if self._kept else ((),) * len(pairs)
        if not means or len(means[0]) != self._kept:
            means = tuple(
                tuple(module_of(a).zeros(a.shape, a.dtype) for _ in range(self._kept))
                for a in network.arrays()
            )
        if self._check_means(pairs, means):  # the network, or a file, was elsewhere before
            means = tuple(
                tuple(module_of(a).asarray(home(array)) for array in kept)
                for a, kept in zip(network.arrays(), means, strict=True)
            )
        self._rows = table = rows.rows_for(pairs, self._rows)
        table.take(pairs, means)
        norm = table.norm() if finite or self.clip is not None else 0.0
        if finite and not math.isfinite(norm):
            table.put_back()
            return norm
        scale = 1.0 if self.clip is None else rows.clipping(norm, self.clip)
        self._apply(table, means, rate, scale)
        table.put_back()
        self._means, self._steps = means, self._steps + 1
        return norm

    @property
    def _kept(self) -> int:
        """The number of arrays that are kept for each array."""
        raise NotImplementedError

    def _check(self) -> None:
        """Check the settings."""
        number("weight_decay", self.weight_decay)
        if self.clip is not None:
            positive("clip", self.clip)

    def _apply(self, table: Any, means: Any, rate: float, scale: float) -> None:
        """Change what the table says; `means` are the kept arrays in it."""
        raise NotImplementedError

    def _check_means(self, pairs: rows.Pairs, means: tuple[tuple[Array, ...], ...]) -> bool:
        """Raise unless the kept arrays fit; those of a state without a gradient come last.

        Returns whether some lie elsewhere than the weights.
        """
        moved = False
        for index, ((weight, _), kept) in enumerate(zip(pairs, means, strict=False)):
            name = f"network.arrays()[{index}]"
            for array in kept[:1]:
                moved |= module_of(weight) is not module_of(array)
                if weight.shape != array.shape or weight.dtype != array.dtype:
                    raise ValueError(
                        f"{name} must be a {array.dtype} array of shape {array.shape}, as at the "
                        f"first step of this optimiser, not {arguments.describe(weight)}"
                    )
        if len(pairs) > len(means):
            raise ValueError(
                f"network must have {len(means)} arrays, as at the first step of this optimiser, "
                f"not {len(pairs)}"
            )
        return moved

    def _settings(self) -> dict[str, Any]:
        """The fields by name, as Python's own numbers; an lr that is a function is None."""
        found = {entry.name: getattr(self, entry.name) for entry in fields(self)}  # type: ignore[arg-type]
        found["lr"] = None if callable(self.lr) else self.lr
        return {name: _plain(value) for name, value in found.items()}

    def _contents(self) -> dict[str, Any]:
        return {**self._settings(), "steps": self._steps, "means": self._means}

    @classmethod
    def _restored(cls, contents: dict[str, Any]) -> Self:
        contents = dict(contents)
        steps, means = contents.pop("steps"), contents.pop("means")
        lr = contents.pop("lr")
        made = cls(**{"lr": 0.0 if lr is None else lr, **contents})
        made.lr = lr
        made._steps = arguments.integer("steps", steps, 0)
        for kept in means:
            if not isinstance(kept, tuple) or len(kept) != made._kept:
                raise ValueError(f"each array must have {made._kept} kept ones")
            for array in kept:
                arguments.floats("means", array, kept[0].shape, kept[0].dtype)
        made._means = means
        return made

    def _copied(self) -> Self:
        """Another one, which goes on from here by itself."""
        other = copy(self)
        other._rows = None
        other._means = ()
        other._take(self)
        return other

    def _take(self, other: Self) -> None:
        """Have the settings of another one, and copies of what it keeps."""
        means = self._means
        forms = ([[module_of(a) for a in kept] for kept in each] for each in (means, other._means))
        if next(forms) != next(forms):
            means = tuple(tuple(a.copy() for a in kept) for kept in other._means)
        for own, kept in zip(means, other._means, strict=True):
            for to, of in zip(own, kept, strict=True):
                to[...] = of
        self.__dict__.update(other.__dict__, _means=means, _rows=self._rows, _turns=self._turns)

    def __getstate__(self) -> dict[str, Any]:
        with self._turns.mine():
            return {**self.__dict__, "_rows": None, "_turns": Turns()}  # _rows has addresses

    def __repr__(self) -> str:
        shown = {name: repr(value) for name, value in self._settings().items()}
        if callable(self.lr):
            shown["lr"] = getattr(self.lr, "__name__", type(self.lr).__name__)
        settings = ", ".join(f"{name}={text}" for name, text in shown.items())
        return f"{type(self).__name__}({settings}; {self._steps:,} steps done)"


def _plain(value: Any) -> Any:
    """A setting with Python's own numbers in place of NumPy's."""
    if isinstance(value, (tuple, list)):
        return tuple(map(_plain, value))
    return value.item() if isinstance(value, np.generic) else value


def plain_rate(lr: Any) -> Rate:
    """A learning rate as a function or a float."""
    return lr if callable(lr) else number("lr", lr)


def number(name: str, value: Any) -> float:
    """`value` as a float, which must be finite and 0 or more."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(
        value, (int, float, np.integer, np.floating)
    ):
        raise TypeError(f"{name} must be a number, not {arguments.describe(value)}")
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be a finite number, 0 or more, not {arguments.shown(value)}")
    return float(value)


def positive(name: str, value: Any) -> float:
    """`value` as a float, which must be finite and more than 0."""
    if not number(name, value) > 0:
        raise ValueError(f"{name} must be more than 0, not {arguments.shown(value)}")
    return float(value)
