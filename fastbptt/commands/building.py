"""The layers that commands and benchmarks build from sizes."""

from __future__ import annotations

from typing import Any

CELLS = ("RNN", "GRU", "LSTM")


def make_layer(
    cell: str, inputs: int, hidden: int, layers: int, bidirectional: bool, rng: Any, dtype: str
) -> Any:
    """Return one layer, or a Stack where `layers` is more than one; `rng` is as for `init`."""
    import fastbptt as fb

    found: list[Any] = []
    for _ in range(layers):
        width = found[-1].outputs if found else inputs
        # Always two, so that the first layer is the same in a bidirectional one.
        pair = [getattr(fb, cell).init(width, hidden, rng=rng, dtype=dtype) for _ in range(2)]
        found.append(fb.Bidirectional(*pair) if bidirectional else pair[0])
    return found[0] if layers == 1 else fb.Stack(found)
