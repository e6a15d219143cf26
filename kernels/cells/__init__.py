"""The recurrent cells, a file each."""

from . import gru, lstm, rnn  # noqa: F401 - they enter themselves in CELLS
from .anatomy import CELLS, Cell, forward, gate, reverse, title, ungate

__all__ = ["CELLS", "Cell", "forward", "gate", "reverse", "title", "ungate"]
