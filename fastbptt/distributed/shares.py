"""The sequences of one process: checked, told of, and cut into blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .. import arguments
from ..arrays import AlongTime, on_gpu
from ..calls import device_choice, forward_mode, inputs, loss_inputs, planning
from ..calls import resets as own_resets
from ..calls.inputs import Inputs
from ..engine.dropout import PartSeed
from ..engine.losses import NamedLoss
from ..layers.composite import State, state_of
from ..layers.network import Network
from ..lazy import Lazy, Source
from ..memory.forward_mode import policy_of
from . import agreement
from .agreement import Terms

_COUNTED = 1 << 20  # numbers of weights that are looked at together


@dataclass
class Share:
    """The arguments of one process's call; `check` brings them to the form that blocks are cut of.

    B : its sequences; squeeze : whether x has no axis for them; block : the sequences of a block
    """

    network: Network
    x: Any
    y: Any
    loss: Any
    weights: Any
    lengths: Any
    resets: Any
    state: Any
    reduction: Any
    memory: Any
    input_grad: Any
    seed: Any
    t0: Any
    device: Any
    block: Any
    B: int = 0
    squeeze: bool = False

    def check(self) -> Terms:
        """Check the arguments; returns what the other processes must know."""
        network, layer = self.network, inputs.network(self.network).layer
        self.block = arguments.integer("block", self.block, 1)
        self.x = _held("x", self.x)
        self.weights, self.resets = _held("weights", self.weights), _held("resets", self.resets)
        if not loss_inputs.is_own(self.loss):
            self.y = _held("y", self.y)
        carried = policy_of(self.memory)
        if carried is not None:
            forward_mode.check(layer, carried, self.input_grad, self.device)
            self.device = "cpu"
        own = inputs.check(
            layer, self.x, self.state, self.lengths, self.device, resets=self.resets,
            own_state=network.state, seed=self.seed, t0=self.t0, drops=True,
        )  # fmt: skip
        loss = loss_inputs.check(network, own, self.y, self.loss, self.weights, self.reduction)
        self.B, self.squeeze = own.B, own.squeeze
        backend = own.problem.device
        if own.on_host:  # the size of a block decides, which is the same on all ranks
            backend = device_choice.of_numpy(self.device, layer, own.T, self.block)
            self.device = backend.name
        if not own.squeeze:
            self._take_apart(own)
        cuts = own_resets.check(self.resets, own.T, own.B, own.squeeze)
        most = max(own_resets.count(None if cuts is None else cuts[:, a:b]) for a, b in self.blocks)
        B = min(self.block, own.B)
        windows = False  # of RTRL and SnAp-1 there are none
        if carried is None:
            plan = planning.choose(network, own.T, B, self.memory, backend, most)[0]
            windows = not plan.exact
        count = 0
        if self.reduction == "mean":
            assert isinstance(loss, NamedLoss)  # no other has a mean
            count = loss.count(own.problem, max(1, _COUNTED // (own.B * loss.readout.outputs or 1)))
        kind = "tokens" if own.problem.shapes.tokens else str(layer.dtype)
        return Terms(self._same(kind, backend.name), own.T, own.B, windows, count)

    def _take_apart(self, own: Inputs) -> None:
        """Bring what has an entry for each sequence to arrays."""
        if self.lengths is not None:
            self.lengths = own.problem.arrays.lengths.values
        if self.state is not None:
            self.state = state_of(own.problem.layer, own.state("state", self.state))
        if loss_inputs.is_own(self.loss) and self.y is not None:
            shape: tuple[int, ...] = getattr(self.y, "shape", ())
            if len(shape) < 2 or shape[1] != own.B:
                raise ValueError(
                    f"y must be None or an array (T, B={own.B}, ...) with a loss of your own, of "
                    f"which each block of sequences gets its part, not {arguments.describe(self.y)}"
                )
            self.y = loss_inputs.by_position(self.y)

    def _same(self, x: str, device: str) -> dict[str, str | None]:
        """What must be the same in all processes, in words."""

        def given(value: Any) -> str | None:
            return None if not self.B else "None" if value is None else "an array"

        return {
            "network": agreement.of_network(self.network),
            "kind of x": x,
            "y": given(self.y),
            "loss": agreement.of_function(self.loss),
            "weights": given(self.weights),
            "lengths": given(self.lengths),
            "resets": given(self.resets),
            "state": given(self.state),
            "memory": agreement.of_memory(self.memory),
            "reduction": self.reduction,
            "input_grad": str(self.input_grad),
            "seed": str(self.seed),
            "t0": str(self.t0),
            "block": str(self.block),
            "device": device.partition(":")[0],
        }

    @property
    def blocks(self) -> list[tuple[int, int]]:
        """Where blocks of sequences begin and end; without sequences one of none."""
        starts = range(0, self.B, self.block)
        return [(start, min(start + self.block, self.B)) for start in starts] or [(0, 0)]

    def part(self, start: int, stop: int, first: int) -> dict[str, Any]:
        """The arguments of `bptt` for the block of the sequences start..stop.

        first : the number of this process's first sequence among those of all
        """

        def cut(value: Any, each: bool = True) -> Any:
            return value if value is None or self.squeeze or not each else _cut(value, start, stop)

        lengths, state = self.lengths, self.state
        if not self.squeeze:
            lengths = None if lengths is None else lengths[start:stop]
            state = None if state is None else mapped(lambda a: a[start:stop], state)
        return {
            "network": self.network,
            "x": cut(self.x),
            "y": cut(self.y),
            "loss": self.loss,
            "weights": cut(self.weights, getattr(self.weights, "ndim", 0) > 1),
            "lengths": lengths,
            "resets": cut(self.resets, getattr(self.resets, "ndim", 0) > 1),
            "state": state,
            "memory": self.memory,
            "input_grad": self.input_grad,
            "seed": None if self.seed is None else PartSeed(self.seed, first + start),
            "t0": self.t0,
            "device": self.device,
        }


def mapped(function: Callable[..., Any], *states: State) -> State:
    """A function of the arrays of states of one form."""
    if isinstance(states[0], tuple):
        return tuple(mapped(function, *parts) for parts in zip(*states, strict=True))
    return function(*states)


def _held(name: str, value: Any) -> AlongTime:
    """An argument as all blocks read it; a GPU's is left as it is, which knows its stream."""
    return value if value is None or on_gpu(value) else arguments.along_time(name, value)


def _cut(value: Any, first: int, stop: int) -> Any:
    """The sequences first..stop of an array (T, B, ...)."""
    if isinstance(value, Lazy):
        rows = _Rows(value.source.given, first, stop)
        return Lazy(Source(value.source.name, rows), 0, len(value))
    return value[:, first:stop]


class _Rows:
    """The sequences first..stop of a data set that is not in memory, as a data set."""

    def __init__(self, given: Any, first: int, stop: int):
        self.given, self.first, self.stop = given, first, stop
        self.shape = (given.shape[0], stop - first, *given.shape[2:])
        self.dtype, self.chunks = given.dtype, getattr(given, "chunks", None)

    def __getitem__(self, key: Any) -> Any:
        """Some steps, `[a:b]`, or those of one sequence, `[a:b, row]`."""
        times, *row = key if isinstance(key, tuple) else (key,)
        return self.given[times, self.first + row[0] if row else slice(self.first, self.stop)]
