"""What goes between `Online` and a method of online learning, and what a push returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol

from ..arrays import Array
from ..layers.composite import AnyLayer
from ..layers.network import Network
from ..memory import html


class Piece(NamedTuple):
    """Some steps of a sequence that never ends, checked: `Online` has brought them to one form.

    The arrays are the caller's own where they have this form already: a method copies what it
    keeps.

    x : (n, B, I) of the network's dtype, in C order; or tokens (n, B), int64 within 0..I-1
    y : targets: (n, B, O) of the network's dtype, or classes (n, B), int64 within 0..O-1, in C
        order; for a loss of the caller's own, its n entries along time. None: weight 0 everywhere
    weights : float64 (n, B) or (n, B, O); None where all are 1
    resets : booleans (n, B); None where none is set
    start : the time of x[0]: the steps that came before, since the start or the last `reset`
    """

    x: Array
    y: Any
    weights: Array | None
    resets: Array | None
    start: int


class Due(NamedTuple):
    """What a method makes of a piece.

    loss : of the losses that became due, summed in float64; 0.0 while none is
    grad : its gradient; None while none is due
    outputs : of the readout, (n, B, O), new; of the states (n, B, H) where there is no readout;
        None from `finish`
    steps : time steps whose losses became due
    """

    loss: float
    grad: Network[Any] | None
    outputs: Array | None
    steps: int


class Method(Protocol):
    """Learns online. Constructed as `Method(network, B, loss, state, policy)`.

    network : Network, whose shapes, dtype and activations do not change; its numbers may, between
        pushes, in place too
    B : sequences
    loss : as the caller gave it, checked against the readout: a name, a callable or an OutputLoss
    state : for each recurrent layer, the state before the first step, (states, B, H), a copy; None
        where it is the network's own, or zero, at the first push after a `reset`
    policy : Truncated, RTRL or SnAp1

    A push that raises, or is interrupted, leaves everything as it was. It pickles, copies and is
    saved by `__getstate__`, and goes on with the same bits.
    """

    def __getstate__(self) -> dict[str, Any]:
        """Where it stands: None, numbers, text, tuples, lists, arrays (copies) and Networks.

        "made" are the arguments of the construction, and "initial" the states before the first
        step, a list as `state` is.
        """
        ...

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Stand there. Raises ValueError where it cannot be: a file may say anything."""
        ...

    def push(self, network: Network[Any], piece: Piece) -> Due:
        """Run a piece of n >= 0 steps by the network as it is now."""
        ...

    def finish(self, network: Network[Any]) -> Due:
        """What is still due; the method then has nothing due, and goes on from its state."""
        ...

    @property
    def state(self) -> Sequence[Array]:
        """For each recurrent layer, the state after the last step, (states, B, H), copies."""
        ...

    @property
    def nbytes(self) -> int:
        """The bytes of the arrays that are held between pushes."""
        ...

    def reset(self) -> None:
        """Go back to the state of the construction; nothing is due."""
        ...


@dataclass(frozen=True, eq=False, repr=False)
class Update(Generic[AnyLayer]):
    """What `Online.push` and `Online.finish` return.

    Attributes
    ----------
    loss : of the losses that became due, a float, summed in float64; 0.0 while none is
    grad : its gradient, a Network of the same form as the network; None while none is due
    outputs : of the readout at each step of the piece, made by the network as it was when the piece
        came: (n, B, O), without the axes that x lacked. Without a readout the states. None from
        `finish`
    steps : the time steps whose losses became due
    """

    loss: float
    grad: Network[AnyLayer] | None
    outputs: Array | None
    steps: int

    def __repr__(self) -> str:
        return f"Update(loss={self.loss:.6g}, steps={self.steps}, grad={self.grad!r})"

    def _repr_html_(self) -> str:
        outputs = "None" if self.outputs is None else str(tuple(self.outputs.shape))
        return html.table(
            "Update",
            [
                ("loss", f"{self.loss:.6g}"),
                ("steps", str(self.steps)),
                ("grad", repr(self.grad)),
                ("outputs", outputs),
            ],
        )
