"""What a recurrent cell is: per unit, one step forward and one step in reverse.

A cell is two scalar functions, written once and compiled for every device:

`forward(a, s, p)` takes the pre-activations of one unit (a tuple, one a gate), its S states before
the step, `s[0]` being the output, and the unit's P params, after which come the drives. It returns
the states after the step and the R residuals: what `reverse` needs besides the states.

`reverse(ds, s, previous, residuals, p)` takes the loss's derivatives by the states after the step,
and the states after and before it. It returns the D deltas (derivatives by the pre-activations) and
the derivatives by the states before the step, *without* the part that goes through W: the sweep
adds that.

A cell may have two more things:

- `split`: the last gate does not add its input part (U x + b) and its recurrent part (W s), but
  takes both separately. `a` begins with the input part and ends with the recurrent part, the other
  gates between them; so do the deltas.
- `second`: the last gate's recurrent product is not with s but with a vector v that the other gates
  determine. `gate(a, s, p)` returns v. `ungate(dv, previous, residuals)` takes the derivative by v
  and returns the deltas that depend on it, what dv adds to ds[0], and v again.

Constants are written `cast_like(1, x)`: a bare 1.0 would widen float32.
"""

from collections.abc import Callable
from typing import NamedTuple

from numba.extending import overload

from ..jit import INLINED, distinct, scalar


class Cell(NamedTuple):
    """What a sweep needs to know of a cell: counts of values per unit, and its functions.

    sums : for each param the block of deltas whose sum over time is the param's gradient
    extra : blocks of deltas beyond those of the gates: for such sums alone, and for the drives
    drives : the last columns of x that follow the params, the same for all units; the last blocks
        of deltas are the derivatives by them
    """

    gates: int
    states: int
    residuals: int
    forward: Callable
    reverse: Callable
    sums: tuple = ()
    extra: int = 0
    drives: int = 0
    split: bool = False
    gate: Callable | None = None
    ungate: Callable | None = None

    @property
    def second(self):
        """How many gates need a second product."""
        return 0 if self.gate is None else 1

    @property
    def blocks(self):
        """Blocks of H pre-activations in a step."""
        return self.gates + self.split

    @property
    def delta_blocks(self):
        """Blocks of H deltas in a step."""
        return self.blocks + self.extra

    @property
    def order(self):
        """The gate of each of the first blocks."""
        gates = tuple(range(self.gates))
        return gates[-1:] + gates[:-1] if self.split else gates


CELLS = {}  # name -> Cell; custom ones are "own-NAME-..." and "rnn-own-NAME-..."


def title(cell):
    """The cell's name in messages."""
    for prefix in ("rnn-own-", "own-"):
        if cell.startswith(prefix):
            return cell[len(prefix) :].partition("-")[0]
    return cell.partition("-")[0].upper()


def forward(cell, a, s, p):
    """The forward function of the cell of that name, chosen when the caller is compiled."""
    raise NotImplementedError("compiled code only")


def reverse(cell, ds, s, previous, residuals, p):
    """The reverse function of the cell of that name, chosen when the caller is compiled."""
    raise NotImplementedError("compiled code only")


def gate(cell, a, s, p):
    """The gate function of the cell of that name, chosen when the caller is compiled."""
    raise NotImplementedError("compiled code only")


def ungate(cell, dv, previous, residuals):
    """The ungate function of the cell of that name, chosen when the caller is compiled."""
    raise NotImplementedError("compiled code only")


def _function(cell, what):
    """A function of the cell of that name; None if it is no literal.

    Numba tries a type that is none after an error in the literal's own code, which this would hide.
    """
    name = getattr(cell, "literal_value", None)
    return None if name is None else scalar(getattr(CELLS[name], what))


@overload(forward, prefer_literal=True, jit_options=INLINED)
def _forward(cell, a, s, p):
    function = _function(cell, "forward")
    return function and distinct(lambda cell, a, s, p: function(a, s, p))


@overload(reverse, prefer_literal=True, jit_options=INLINED)
def _reverse(cell, ds, s, previous, residuals, p):
    function = _function(cell, "reverse")
    return function and distinct(
        lambda cell, ds, s, previous, residuals, p: function(ds, s, previous, residuals, p)
    )


@overload(gate, prefer_literal=True, jit_options=INLINED)
def _gate(cell, a, s, p):
    function = _function(cell, "gate")
    return function and distinct(lambda cell, a, s, p: function(a, s, p))


@overload(ungate, prefer_literal=True, jit_options=INLINED)
def _ungate(cell, dv, previous, residuals):
    function = _function(cell, "ungate")
    return function and distinct(
        lambda cell, dv, previous, residuals: function(dv, previous, residuals)
    )
