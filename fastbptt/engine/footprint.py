"""The bytes a call needs besides checkpoints and cached steps, whatever its layers and device."""

from __future__ import annotations

from dataclasses import replace

from ..backends.base import Backend
from ..layers.composite import Layer, recurrent_layers, stages
from ..layers.network import Readout
from ..memory.blocking import Footprint


def footprint(
    layer: Layer,
    readout: Readout | None,
    total: int,
    batch: int,
    device: Backend,
    resets: int = 0,
    apart: bool = False,
) -> Footprint:
    """Bound the fixed bytes of bptt, backward and evaluate for `total` steps of a layer.

    resets : how many there are
    apart : those of `forward` and `backward`, in which the outputs of the top and their gradient
        are the caller's
    """
    found = _without_resets(layer, readout, total, batch, device, apart)
    if not resets:
        return found
    found = _with_resets(found, layer, batch, resets)
    if device.compiled:
        return found
    # The states before a chunk's steps once more, those that are reset among them.
    widest = max(part.hidden for part in recurrent_layers(layer))
    return replace(found, per_step=found.per_step + batch * widest * layer.dtype.itemsize)


_NUMBER = 8  # bytes of a reset


def _with_resets(found: Footprint, layer: Layer, batch: int, resets: int) -> Footprint:
    """The same with so many resets in all."""
    item, parts = layer.dtype.itemsize, list(recurrent_layers(layer))
    # Their numbers; sequence by sequence, and sorted, where time is reversed.
    numbers = 1 + 5 * any(direction.reverse for stage in stages(layer) for direction in stage)
    base = numbers * _NUMBER * resets + 2 * _NUMBER * batch
    for part in parts:
        states = part.states * part.hidden
        base += batch * part.hidden * item  # the states of a step
        base += 2 * states * item + _NUMBER * (states * batch + part.gates * part.hidden)
        base += (64 + item) * part.hidden * _NUMBER  # the part of W's gradient, in parts
    rows = 2 * _NUMBER * batch * len(parts)  # those that read the state before them
    return replace(found, base=found.base + base + rows, per_step=found.per_step + rows)


def _without_resets(
    layer: Layer, readout: Readout | None, total: int, batch: int, device: Backend, apart: bool
) -> Footprint:
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
        return replace(parts[0], apart=True, ahead=0) if apart else parts[0]
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
