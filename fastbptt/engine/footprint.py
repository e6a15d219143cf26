"""The bytes a call needs besides checkpoints and cached steps, whatever its layers and device."""

from __future__ import annotations

from dataclasses import replace

from ..backends.base import Backend
from ..layers.composite import Layer, stages
from ..layers.network import Readout
from ..memory.blocking import Footprint


def footprint(
    layer: Layer, readout: Readout | None, total: int, batch: int, device: Backend,
    apart: bool = False,
) -> Footprint:  # fmt: skip
    """Bound the fixed bytes of bptt and evaluate for `total` steps of a layer.

    apart : those of `forward` and `backward`, in which the outputs of the top and their gradient
        are the caller's
    """
    outputs = 0 if readout is None else readout.outputs
    item = layer.dtype.itemsize
    found = stages(layer)
    parts, stored = [], 0  # stored: the width of all outputs that are stored for all T
    for level, stage in enumerate(found):
        top = level == len(found) - 1
        if not top or (len(stage) > 1 and not apart):
            stored += sum(direction.layers[-1].hidden for direction in stage)
        for direction in stage:
            last = outputs if top and direction is stage[-1] else 0
            parts.append(
                device.footprint(direction.shapes, last, layer.outputs, item, total, batch)
            )
    if len(parts) == 1:
        return replace(parts[0], apart=True) if apart else parts[0]
    # What is stored, and its gradient. One direction after the other has the room for its schedule.
    return Footprint(
        total=total,
        batch=batch,
        base=sum(part.base for part in parts) + 2 * stored * total * batch * item,
        per_step=sum(part.per_step for part in parts),
        state=max(part.state for part in parts),
        step=max(part.step for part in parts),
        fitting=min(part.fitting for part in parts),
        longest=min(part.longest for part in parts),
        flush=parts[0].flush,
        layers=max(part.layers for part in parts),
        all_step=sum(part.step for part in parts),
        all_state=sum(part.state for part in parts),
        stores_outputs=True,
        one_chunk_calls=parts[0].one_chunk_calls,
        apart=apart,
    )
