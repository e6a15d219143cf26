"""All recurrent cells: each file enters its own in CELLS when it is read."""

from . import gru, lstm, rnn  # noqa: F401 - they enter themselves in CELLS
from .spec import CELLS, Cell, forward, gate, reverse, title, ungate

__all__ = ["CELLS", "Cell", "forward", "gate", "reverse", "title", "ungate"]
