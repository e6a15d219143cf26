"""Backpropagation through time on long sequences: exact, checkpointed or truncated."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names again, for type checkers and editors
    from .calls import backward as backward, forward as forward, predict as predict, run as run
    from .compound import Bidirectional as Bidirectional, Stack as Stack
    from .devices import set_num_threads as set_num_threads
    from .files import load as load
    from .layers import (
        GRU as GRU,
        LSTM as LSTM,
        RNN as RNN,
        Network as Network,
        Readout as Readout,
    )
    from .memory import (
        Checkpointed as Checkpointed,
        Full as Full,
        MemoryLimitError as MemoryLimitError,
        Truncated as Truncated,
    )
    from .own import Activation as Activation, Cell as Cell, where as where
    from .planning import explain as explain, frontier as frontier, plan as plan
    from .reach import gradient_reach as gradient_reach
    from .torch_modules import from_torch as from_torch, to_torch as to_torch
    from .training import bptt as bptt, evaluate as evaluate

_HOMES = {
    "compound": ("Bidirectional", "Stack"),
    "files": ("load",),
    "layers": ("GRU", "LSTM", "RNN", "Network", "Readout"),
    "own": ("Activation", "Cell", "where"),
    "memory": ("Checkpointed", "Full", "MemoryLimitError", "Truncated"),
    "calls": ("backward", "forward", "predict", "run"),
    "training": ("bptt", "evaluate"),
    "reach": ("gradient_reach",),
    "planning": ("explain", "frontier", "plan"),
    "torch_modules": ("from_torch", "to_torch"),
    "devices": ("set_num_threads",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__version__ = "0.1.0"
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    # Imported when first used: importing fastbptt must not import Numba, which costs 0.2 s.
    if name not in _HOME:
        raise AttributeError(f"module 'fastbptt' has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
