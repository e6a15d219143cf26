"""What a call computes besides its tensors, as a text: operators of PyTorch take no objects."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch

from .. import arguments
from ..backends import devices
from ..memory import policies
from ..memory.policies import Memory

MODES = {"LSTM": "LSTM", "GRU": "GRU", "RNN_TANH": "tanh", "RNN_RELU": "relu"}
"""PyTorch's names of the cells; for an RNN, its activation."""

_POLICIES = ("Full", "Checkpointed", "Truncated")


class Spec(NamedTuple):
    """A stack of recurrent layers, and the memory of a call.

    mode : one of MODES
    layers, directions : how many; directions are 1 or 2
    dropout : between the layers
    memory : what fastbptt.forward takes
    """

    mode: str
    layers: int
    directions: int
    dropout: float
    memory: Memory


def encode(
    mode: str, layers: int, directions: int, dropout: str, memory: str, device: torch.device
) -> str:
    """The text of a Spec; `memory` is that of `memory_text`, `device` where the weights are.

    The probability comes as text: a compiler may take a number for one that changes.
    """
    if memory == "auto" and torch.compiler.is_compiling():
        memory = half_of_free_memory(str(device))
    return f"{mode};{layers};{directions};{dropout};{memory}"


@lru_cache(maxsize=256)
def decode(text: str) -> Spec:
    """The Spec of a text."""
    mode, layers, directions, dropout, memory = text.split(";")
    return Spec(mode, int(layers), int(directions), float(dropout), _memory(memory))


def _memory(text: str) -> Memory:
    name, bracket, fields = text.rstrip(")").partition("(")
    if not bracket:
        return int(text) if text.isdecimal() else text
    if name not in _POLICIES:
        raise ValueError(f"spec must name one of {', '.join(_POLICIES)}, not {name!r}")
    pairs = (field.split("=") for field in fields.split(", ") if field)
    return getattr(policies, name)(**{key: _value(value) for key, value in pairs})


def _value(text: str) -> int | str | None:
    if text == "None":
        return None
    return int(text) if text.isdecimal() else text


def memory_text(memory: Memory) -> str:
    """`memory=` as text, checked."""
    if memory == "full" or memory == "auto":
        return str(memory)
    policies.as_policy(memory)
    if isinstance(memory, (str, int)):
        return str(memory)
    fields = ", ".join(f"{name}={value}" for name, value in memory.__dict__.items())
    return f"{type(memory).__name__}({fields})"


def half_of_free_memory(device: str) -> str:
    """The budget that "auto" is in a graph, which is told the bytes when it is traced."""
    known = device if device.startswith("cuda") else "cpu"
    return str(devices.device(known, "the device of the weights").free_bytes() // 2)


# What torch.compiler.assume_constant_result sets, which would import the compiler, a second's work.
half_of_free_memory._dynamo_marked_constant = True  # type: ignore[attr-defined]


def mode_of(kind: str) -> str:
    """The mode that a `layer_kind` names: PyTorch's, or the name of one of fastbptt's cells."""
    known = kind.upper().replace("-", "_") if isinstance(kind, str) else None
    if known not in MODES:
        raise ValueError(
            f"layer_kind must be one of {', '.join(MODES)}, not {arguments.describe(kind)}"
        )
    return known
