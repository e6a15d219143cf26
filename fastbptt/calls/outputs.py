"""What a call returns: arrays where the caller has x, with or without the batch axis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arrays import Array
from ..engine.problem import Problem
from ..layers.composite import State, rebuilt, shaped
from ..layers.recurrent import Recurrent


@dataclass(frozen=True, eq=False)
class Outputs:
    """Makes results.

    xp : the module of the caller's arrays; squeeze : whether x came without the batch axis
    """

    problem: Problem
    xp: Any
    squeeze: bool

    def array(self, width: int, zeros: bool = False) -> Array:
        """An array (T, B, width) of all steps to return, where x lies."""
        shapes = self.problem.shapes
        make = self.xp.zeros if zeros else self.xp.empty
        return make((shapes.T, shapes.B, width), self.problem.layer.dtype)

    def states(self) -> Array:
        """An array for the layer's outputs, 0 past each sequence's end."""
        return self.array(self.problem.layer.outputs, zeros=self.problem.stores_outputs)

    def out(self, array: Array) -> Array:
        """Drop the batch axis of a result (T, B, ...) where x had none."""
        return array[:, 0] if self.squeeze else array

    def row(self, array: Array) -> Array:
        """Drop the batch axis of a result (B, ...) where x had none."""
        return array[0] if self.squeeze else array

    def moved(self, array: Array) -> Array:
        """An array on the device as the caller gets it: where x is."""
        return array if self.xp is not np else self.problem.device.home(array)

    def copied(self, array: Array) -> Array:
        """A copy of an array on the device that the caller may keep."""
        moved = self.moved(array)
        return moved.copy() if moved is array else moved

    def model(self, model: Any) -> Any:
        """A model of arrays on the device, its arrays where x lies."""
        if model is None or self.xp is self.problem.device.xp:
            return model
        return model._moved(self.problem.device.home)

    def gradient(self, parts: Sequence[Recurrent]) -> Any:
        """The gradient of the layer from those of its recurrent layers."""
        return self.model(rebuilt(self.problem.layer, iter(parts)))

    def per_layer(self, values: Iterator[Any]) -> Any:
        """One value for each recurrent layer, in the form of the layer's state."""
        return shaped(self.problem.layer, values)

    def one(self, states: Sequence[Array]) -> State:
        """New arrays in the caller's form of the states of a recurrent layer."""
        parts = tuple(map(self.copied, states))
        return parts if len(parts) > 1 else parts[0]

    def state(self, values: Sequence[Array]) -> State:
        """New arrays in the caller's form from arrays (states, B, H), one a recurrent layer."""
        return self.per_layer(self.one([self.row(state) for state in own]) for own in values)
