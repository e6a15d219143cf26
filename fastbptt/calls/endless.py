"""The plan of truncated BPTT on a sequence that never ends."""

from __future__ import annotations

from typing import Any

from ..backends import devices
from ..engine.footprint import footprint
from ..layers.composite import Layer, needs_future, recurrent_layers
from ..layers.network import Network
from ..memory.endless import EndlessPlan
from ..memory.policies import windows_of
from . import inputs

_MORE = 2  # steps in the ring beyond k2: none that a window may need is overwritten


def plan(model: Network | Layer, B: int, memory: Any) -> Any:
    """The EndlessPlan: what `Online` takes with that policy, which must be Truncated."""
    policy = windows_of(memory)
    if policy is None:
        raise ValueError(
            f"T must be an integer with memory={memory!s}; None, for a sequence that never ends, "
            "goes with Truncated, RTRL and SnAp1 alone"
        )
    layer, readout = inputs.model(model)
    if not isinstance(model, Network):
        raise ValueError("network must be a Network where T is None: what Online takes")
    if needs_future(layer):
        raise ValueError(
            "network must have no Bidirectional layer where T is None: it needs the future"
        )
    from ..engine.packed import packed_bytes  # here, since it loads Numba

    size, item = policy.k2 + _MORE, layer.dtype.itemsize
    own = footprint(layer, readout, size, B, devices.device("cpu"), B * size)
    outputs = 0 if readout is None else readout.outputs
    each = max(8, layer.inputs * item) + max(8, outputs * item) + 8 * max(1, outputs) + 1
    ring = size * own.step + own.state
    kept = 2 * size * B * each
    weights = packed_bytes(model)
    versions = size if policy.weights == "stored" else 1
    states = sum(part.states * part.hidden for part in recurrent_layers(layer)) * B * item
    held = ring * (1 + (policy.weights == "replay")) + kept + 3 * states
    held += own.base + own.scratch() + versions * weights
    factor = (1 + 2 * policy.k2 / policy.k1) / 3
    return EndlessPlan(B, policy, ring + kept + weights, held, factor, exact=False)


def check_device(device: str | None) -> None:
    """Raise unless learners run there. FASTBPTT_DEVICE is not for them."""
    if device is not None and devices.named(device)[0] != "cpu":
        raise ValueError(
            f"device must be 'cpu' or None where T is None, not {device!r}: learners run on the "
            "CPU for now"
        )
