"""Backpropagation through time on long sequences: exact, checkpointed or truncated.

Layers hold NumPy arrays, or CuPy arrays on a GPU. `bptt` returns the loss and its gradient, within
a memory budget. `fastbptt.__all__` lists the public names.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names again, for type checkers and editors
    from . import distributed as distributed
    from .backends.devices import set_num_threads as set_num_threads
    from .calls.gradient import bptt as bptt, evaluate as evaluate
    from .calls.layerwise import (
        backward as backward,
        forward as forward,
        predict as predict,
        run as run,
    )
    from .calls.planning import explain as explain, frontier as frontier, plan as plan
    from .calls.reach import gradient_reach as gradient_reach
    from .calls.sequences import (
        pack as pack,
        pad as pad,
        unpack as unpack,
        unpad as unpad,
    )
    from .engine.output_losses import OutputLoss as OutputLoss
    from .export.onnx import to_onnx as to_onnx
    from .export.rtneural import to_rtneural as to_rtneural
    from .layers.composite import Bidirectional as Bidirectional, Stack as Stack
    from .layers.activation import Activation as Activation
    from .layers.custom import Cell as Cell
    from .layers.definitions import where as where
    from .layers.files import load as load
    from .layers.network import Network as Network, Readout as Readout
    from .layers.pytorch import from_torch as from_torch, to_torch as to_torch
    from .layers.recurrent import GRU as GRU, LSTM as LSTM, RNN as RNN
    from .memory.forward_mode import RTRL as RTRL, SnAp1 as SnAp1
    from .online.stepper import Stepper as Stepper
    from .memory.policies import (
        Checkpointed as Checkpointed,
        Full as Full,
        MemoryLimitError as MemoryLimitError,
        Truncated as Truncated,
    )
    from .online.learner import Online as Online
    from .training.fitting import fit as fit
    from .training.optimisers import SGD as SGD, Adam as Adam, clip_norm as clip_norm
    from .training.result import NotFiniteError as NotFiniteError

_HOMES = {
    "layers.recurrent": ("GRU", "LSTM", "RNN"),
    "layers.network": ("Network", "Readout"),
    "layers.composite": ("Bidirectional", "Stack"),
    "layers.activation": ("Activation",),
    "layers.custom": ("Cell",),
    "layers.definitions": ("where",),
    "layers.files": ("load",),
    "layers.pytorch": ("from_torch", "to_torch"),
    "export.onnx": ("to_onnx",),
    "export.rtneural": ("to_rtneural",),
    "memory.forward_mode": ("RTRL", "SnAp1"),
    "memory.policies": ("Checkpointed", "Full", "MemoryLimitError", "Truncated"),
    "calls.layerwise": ("backward", "forward", "predict", "run"),
    "calls.gradient": ("bptt", "evaluate"),
    "calls.reach": ("gradient_reach",),
    "calls.sequences": ("pack", "pad", "unpack", "unpad"),
    "engine.output_losses": ("OutputLoss",),
    "online.learner": ("Online",),
    "online.stepper": ("Stepper",),
    "calls.planning": ("explain", "frontier", "plan"),
    "backends.devices": ("set_num_threads",),
    "training.fitting": ("fit",),
    "training.optimisers": ("SGD", "Adam", "clip_norm"),
    "training.result": ("NotFiniteError",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__version__ = "0.1.0"
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    # Imported on first use: importing fastbptt must not import Numba, which takes 0.2 s.
    if name == "distributed":
        return import_module(f".{name}", __name__)
    if name not in _HOME:
        raise AttributeError(f"module 'fastbptt' has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "distributed"})
