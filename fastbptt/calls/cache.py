"""The Cache that `forward` returns, and the Gradient that `backward` makes of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, Generic, TypeAlias

import numpy as np

from ..arrays import Array
from ..engine.stages import Tape
from ..layers.composite import AnyLayer, State
from ..memory import html
from ..memory.plan import Plan
from .inputs import Inputs
from .short import ShortTape


@dataclass(frozen=True, eq=False, repr=False)
class Gradient(Generic[AnyLayer]):
    """What `backward` returns. Each part has the type and shape of what it is the gradient of.

    Attributes
    ----------
    layer : a layer of the same type: layer.U is dL/dU, and so on
    x : dL/dx; None for tokens, or if not asked for
    state : dL/d(initial state), in the form of the state
    deltas : (T, B, G*H), dL/d(pre-activations); of a Stack or Bidirectional a tuple of those of its
        layers; None if not asked for
    """

    layer: AnyLayer
    x: Array | None
    state: State
    deltas: Any

    def __repr__(self) -> str:
        return f"Gradient(layer={self.layer!r}, x={described(self.x)})"

    def _repr_html_(self) -> str:
        return html.table(
            "Gradient",
            [
                ("layer", repr(self.layer)),
                ("norm of layer", f"{norm(self.layer.arrays()):.6g}"),
                ("x", described(self.x)),
                ("deltas", "None" if self.deltas is None else "kept"),
            ],
        )


def described(array: Array | None) -> str:
    """Dtype and shape of an array, for a repr."""
    return "None" if array is None else f"{array.dtype} {tuple(array.shape)}"


def norm(arrays: Sequence[Array]) -> float:
    """The Euclidean norm of all numbers of arrays, taken in float64."""
    with np.errstate(over="ignore"):
        return math.sqrt(sum(float((array.astype(float) ** 2).sum()) for array in arrays))


class GeneralTape:
    """What the general way forward leaves for ways back; nobody writes to it."""

    def __init__(self, inputs: Inputs, tape: Tape):
        self._inputs, self._tape, self.workspace = inputs, tape, tape.workspace

    def inputs(self) -> Inputs:
        """The call's inputs."""
        return self._inputs

    def general(self, inputs: Inputs) -> Tape:
        """What a way back needs."""
        return self._tape


AnyTape: TypeAlias = "GeneralTape | ShortTape"


class Cache(Generic[AnyLayer]):
    """What `forward` keeps for `backward`: all steps, or checkpoints.

    It refers to x, which must not change before `backward`. Its memory is free again once
    `backward` has consumed it, or nothing refers to it any more. Only `forward` makes it.
    """

    def __init__(self, layer: AnyLayer, tape: AnyTape, plan: Plan):
        self._layer, self._plan = layer, plan
        self._tape: AnyTape | None = tape
        self._lock = Lock()
        self._users: set[object] = set()  # the calls of backward at work on it
        self._consumer: object = None  # the one of them that consumes it

    @property
    def plan(self) -> Plan:
        """The Plan of `forward` and `backward`, which says what "auto" has chosen."""
        return self._plan

    def _look(self) -> AnyTape:
        if self._tape is None or self._consumer is not None:
            raise ValueError(
                "cache was consumed by an earlier backward(); pass keep=True there to use it again"
            )
        return self._tape

    def _use(self, keep: bool, work: Callable[[AnyTape], Gradient[AnyLayer]]) -> Gradient[AnyLayer]:
        """`work(tape)`; the cache is consumed if that returns, unless `keep`."""
        user: object = object()
        with self._lock:
            tape = self._look()
            self._users.add(user)
            if not keep:
                self._consumer = user
        done = False
        try:
            gradient = work(tape)
            done = True
            return gradient
        finally:
            with self._lock:
                self._users.discard(user)
                if self._consumer is user:
                    self._consumer = None
                    self._tape = None if done else tape
                last = self._tape is None and not self._users
            if last:
                tape.workspace.release()

    def __repr__(self) -> str:
        return "Cache(consumed)" if self._tape is None else f"Cache({self._layer!r})"

    def _repr_html_(self) -> str:
        state = "consumed" if self._tape is None else "ready for backward"
        return html.table("Cache", [("layer", repr(self._layer)), ("state", state)])
