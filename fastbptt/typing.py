"""The words that signatures use. All of them are for reading and for type checkers alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, Union

import numpy as np

if TYPE_CHECKING:
    from .compound import Bidirectional, Stack
    from .layers import Recurrent
    from .memory import Checkpointed, Full, Truncated
    from .own import Activation as OwnActivation

Array: TypeAlias = np.ndarray
"""A NumPy array. Which axes it has, and of which dtype, its docstring says."""

DType: TypeAlias = "np.dtype[Any]"
"""float32 or float64, as NumPy's own object."""

DTypeLike: TypeAlias = "str | type | np.dtype[Any]"
"""float32 or float64, in any form that `numpy.dtype` takes."""

Shape: TypeAlias = "tuple[int | str, ...]"
"""Sizes; a letter stands for an axis of any size."""

Layer: TypeAlias = "Recurrent | Bidirectional | Stack"
"""What a Network has as its layer, and what forward and run take."""

AnyLayer = TypeVar("AnyLayer", bound="Recurrent | Bidirectional | Stack")
"""The type of some layer: its gradient has the same."""

State: TypeAlias = Union[Array, "tuple[State, ...]"]
"""RNN, GRU: an array (B, H); LSTM: a pair (s, c) of those; else a tuple of the layers' states."""

Policy: TypeAlias = "Full | Checkpointed | Truncated"
"""What a `memory=` argument stands for."""

Memory: TypeAlias = "str | int | Policy"
"""What `memory=` takes: "full", a budget as text or an int of bytes, or a policy."""

LossName: TypeAlias = Literal["squared_error", "cross_entropy", "binary_cross_entropy"]

LossFunction: TypeAlias = Callable[[Array, Any, int], "tuple[float, Array]"]
"""`loss(h, y, start) -> (value, dh)`, for the stretch of time that begins at start."""

Loss: TypeAlias = "LossName | LossFunction"
Reduction: TypeAlias = Literal["sum", "mean"]
Activation: TypeAlias = 'Literal["tanh", "sigmoid", "relu", "identity"] | OwnActivation'
ReadoutActivation: TypeAlias = Literal["identity", "sigmoid", "tanh", "softmax"]

ProgressCallback: TypeAlias = Callable[[int, int], object]
"""Told (done_steps, total_steps)."""

Progress: TypeAlias = "bool | ProgressCallback | None"
Seed: TypeAlias = "int | np.random.Generator | None"
Path: TypeAlias = "str | os.PathLike[str]"

File: TypeAlias = "Path | IO[bytes]"
"""A path, or an open binary file."""

Action: TypeAlias = "tuple[Any, ...]"
"""A step of a schedule: its name and its times; see `fastbptt.schedule`."""
