"""Backpropagation through time on long sequences: exact, checkpointed or truncated."""

from importlib import import_module

_HOMES = {
    "layers": ("GRU", "LSTM", "RNN", "Network", "Readout", "load"),
    "memory": ("Checkpointed", "Full", "MemoryLimitError", "Truncated"),
    "calls": ("backward", "forward", "predict", "run"),
    "training": ("bptt", "evaluate"),
    "planning": ("explain", "frontier", "plan"),
    "devices": ("set_num_threads",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__version__ = "0.1.0"
__all__ = sorted(_HOME)


def __getattr__(name):
    # Imported when first used: importing fastbptt must not import Numba, which costs 0.2 s.
    if name not in _HOME:
        raise AttributeError(f"module 'fastbptt' has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__})
