"""What a method of learning holds, for a file: JSON, with arrays and networks beside it."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import arguments
from ..layers.network import Network

_DEPTH = 16
_KINDS = ("bool", "int64")  # of arrays that files hold as float64


def written(value: Any, parts: list[Any]) -> Any:
    """A value for JSON, which has its arrays and networks in `parts`."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [written(one, parts) for one in value]}
    kind = ""
    if isinstance(value, np.ndarray):
        kind = value.dtype.name
        value = value.astype(np.float64) if kind in _KINDS else value
    elif not isinstance(value, Network):
        raise TypeError(f"a learner must hold plain arrays to be saved, not {type(value).__name__}")
    parts.append(value)
    return {"part": len(parts) - 1, "kind": kind}


def read(text: Any, parts: tuple[Any, ...], depth: int = 0) -> Any:
    """The value that `written` has written."""
    if depth > _DEPTH:
        raise ValueError(f"its values lie more than {_DEPTH} deep in each other")
    if not isinstance(text, dict):
        return text
    if "part" in text:
        kind, number = text["kind"], arguments.integer("part", text["part"], 0, len(parts) - 1)
        found = parts[number]
        return found.astype(kind) if kind in _KINDS else found
    (name, values), *_ = text.items()
    inner = [read(value, parts, depth + 1) for value in values]
    return inner if name == "list" else tuple(inner)
