"""Learners in files: plain arrays, networks, and one JSON text that says what they are."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .. import arguments
from ..layers.model import Model
from ..layers.network import Network
from .learner import METHODS, Online

_DEPTH = 16
_KINDS = ("bool", "int64")  # of arrays that files hold as float64


def saved(
    learner: Online[Any], loss: Any, gradient: Any, plain: tuple[Any, Any, Any],
    method: dict[str, Any],
) -> SavedOnline:  # fmt: skip
    """A learner as a file holds it; `plain` are B, the time, and whether x holds tokens."""
    if not isinstance(loss, str):
        raise TypeError(
            f"loss must be a name for a learner to be saved, not {arguments.describe(loss)}: "
            "files hold no functions; pickle the learner"
        )
    given = method["made"][3]
    parts: list[Any] = []
    content = {
        "loss": loss,
        "gradient": [type(gradient).__name__, asdict(gradient)],
        "plain": plain,
        "given": _text(given, parts),
        "method": {name: _text(own, parts) for name, own in method.items() if name != "made"},
    }
    return SavedOnline(learner.network, json.dumps(content), tuple(parts))


def _text(value: Any, parts: list[Any]) -> Any:
    """A value for JSON, which has its arrays and networks in `parts`."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return {"list" if isinstance(value, list) else "tuple": [_text(v, parts) for v in value]}
    kind = ""
    if isinstance(value, np.ndarray):
        kind = value.dtype.name
        value = value.astype(np.float64) if kind in _KINDS else value
    elif not isinstance(value, Network):
        raise TypeError(f"a learner must hold plain arrays to be saved, not {type(value).__name__}")
    parts.append(value)
    return {"part": len(parts) - 1, "kind": kind}


def _value(text: Any, parts: tuple[Any, ...], depth: int = 0) -> Any:
    """The value that `_text` has written."""
    if depth > _DEPTH:
        raise ValueError(f"its values lie more than {_DEPTH} deep in each other")
    if not isinstance(text, dict):
        return text
    if "part" in text:
        found, kind = (
            parts[arguments.integer("part", text["part"], 0, len(parts) - 1)],
            text["kind"],
        )
        return found.astype(kind) if kind in _KINDS else found
    (name, values), *_ = text.items()
    inner = [_value(value, parts, depth + 1) for value in values]
    return inner if name == "list" else tuple(inner)


@dataclass(frozen=True, eq=False, repr=False)
class SavedOnline(Model):
    """An Online in a file.

    content : what it is, JSON; parts : its arrays, and networks
    """

    network: Network[Any]
    content: str
    parts: Any

    def _loaded(self) -> Online[Any]:
        content = json.loads(self.content)
        name, options = content["gradient"]
        policies = {policy.__name__: policy for policy in METHODS}
        B, time, tokens = content["plain"]
        method = {key: _value(own, self.parts, 1) for key, own in content["method"].items()}
        if any(state.shape[1] != (1 if B is None else B) for state in method["initial"]):
            raise ValueError("the states of a learner must have its sequences")
        learner: Online[Any] = Online(
            self.network, B, gradient=policies[name](**options), loss=content["loss"]
        )
        given = _value(content["given"], self.parts)
        learner._stands(arguments.integer("time", time, 0), tokens, method, given)
        return learner
