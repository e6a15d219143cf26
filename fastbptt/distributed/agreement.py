"""What processes must have in common, checked before any work: they tell each other, and compare.

All see the same, so all raise the same.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..kernels.source import SOURCE_KEY
from ..layers.model import contents
from ..layers.network import Network
from ..memory import policies
from ..memory.policies import Memory


@dataclass(frozen=True)
class Terms:
    """What a process tells of its call.

    same : a text for each argument that must be the same; None from a process that does not mind
    T, B : of its sequences
    windows : whether its gradient is truncated, by windows that depend on T
    count : the positions that count, for the mean
    """

    same: dict[str, str | None]
    T: int
    B: int
    windows: bool
    count: int

    def plain(self) -> dict[str, Any]:
        """The same as plain data, which another version of the package can read."""
        return {"version": SOURCE_KEY, **asdict(self)}


def of_network(network: Network) -> str:
    """A network in a line, by which another is told from it: its form and a hash of its numbers."""
    text, arrays = contents(network)
    digest = hashlib.blake2b(text.encode(), digest_size=8)
    for array in arrays.values():
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return f"{network!r} with numbers of hash {digest.hexdigest()}"


def of_memory(memory: Memory) -> str:
    """A memory policy in a line; "64MB" is the same as its bytes."""
    return "auto" if policies.is_auto(memory) else repr(policies.as_policy(memory))


def of_function(function: Any) -> str:
    """A loss in a line: functions of one name are taken to be the same."""
    if isinstance(function, str):
        return function
    function = getattr(function, "function", function)  # of an OutputLoss
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', '')}.{name}"


def check(told: list[dict[str, Any]], block: int) -> list[Terms]:
    """The terms of all processes, which must agree; raises ValueError in all where they do not."""
    versions = [one.pop("version") for one in told]
    _check_same("version of fastbptt", versions)
    terms = [Terms(**one) for one in told]
    for name in terms[0].same:
        _check_same(name, [one.same[name] for one in terms])
    held = {rank: one for rank, one in enumerate(terms) if one.B}
    if any(one.windows for one in terms):
        _check_same(
            "T, since windows of Truncated depend on it",
            [str(one.T) if one.B else None for one in terms],
        )
    for rank in list(held)[:-1]:
        if held[rank].B % block:
            raise ValueError(
                f"x must hold a multiple of block={block} sequences on every rank of comm but the "
                f"last that has any, but rank {rank} has {held[rank].B}"
            )
    return terms


def _check_same(name: str, values: list[str | None]) -> None:
    said = [(rank, value) for rank, value in enumerate(values) if value is not None]
    for rank, value in said[1:]:
        if value != said[0][1]:
            raise ValueError(
                f"all ranks of comm must have the same {name}, but rank {said[0][0]} has "
                f"{said[0][1]}, and rank {rank} {value}"
            )
