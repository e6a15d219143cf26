"""A layer of a lane over a span: where it reads and writes, and the call of its pass.

Layers pass their outputs on in buffers, and on the way back the derivatives by them. `shift` is the
first step of a buffer that the span uses.
"""

from ..jit import inner
from .addresses import address, call, place
from .slots import LANE, LAYER
from .walk_states import slot_of, state_bytes


@inner
def slots_of(layers, index):
    """The address of a layer's slots."""
    return address(layers) + index * layers.shape[1] * 8


@inner
def _drop(lane, layers, index, out, values, start, n):
    """Dropout of the outputs of layer `index`, from `values` to `out`; returns where they are."""
    if layers[index, LAYER.drop] == 0:
        return values
    own = slots_of(layers, index)
    call(layers[index, LAYER.drop], (0, address(lane), own, out, values, start, n))
    return out


@inner
def _input(lane, layers, start):
    """The address of what the lane reads at step `start`."""
    row = layers[0, LAYER.inputs] * lane[LANE.item] if layers[0, LAYER.tokens] == 0 else 8
    row *= lane[LANE.batch]
    return place(lane[LANE.x_at], lane[LANE.x_step], row, start, lane[LANE.start])


@inner
def forward_layer(lane, layers, index, start, stop, cached, shift):
    """Run a layer over a part of the lane's span, from the live state or in the step cache."""
    begin, last = lane[LANE.start], lane[LANE.layers] - 1
    size, own = state_bytes(lane, layers, index), slots_of(layers, index)
    first = lane[LANE.live] ^ ((start - begin) & 1)
    if cached:
        first = slot_of(lane, layers, start)
    if index == 0:
        x = _input(lane, layers, start)
    else:
        below = state_bytes(lane, layers, index - 1)
        x = layers[index - 1, LAYER.outputs_at] + shift * below
        if cached and layers[index - 1, LAYER.drop] == 0:
            x = layers[index - 1, LAYER.states_at] + (first + 1) * below
    passed = 0
    if index < last:
        passed = layers[index, LAYER.outputs_at] + shift * size
    out = 0 if cached else passed
    if index == last:
        out = place(lane[LANE.h_at], lane[LANE.h_step], size, start, begin)
    call(layers[index, LAYER.forward], (0, address(lane), own, x, out, start, stop, first, cached))
    if index < last:
        if cached:
            out = layers[index, LAYER.states_at] + (first + 1) * size
        _drop(lane, layers, index, passed, out, start, stop - start)


@inner
def back_layer(lane, layers, head, index, start, stop, counts, shift):
    """Go back through a layer over a part of the lane's span, all of it in the step cache."""
    n, begin, last = stop - start, lane[LANE.start], lane[LANE.layers] - 1
    first, size = slot_of(lane, layers, start), state_bytes(lane, layers, index)
    if index < last:
        dh, dh_steps, counts = layers[index, LAYER.below_at] + shift * size, n, 0
    elif counts == 0:
        dh, dh_steps = lane[LANE.zeros_at], lane[LANE.chunk]
    elif lane[LANE.has_loss]:
        dh, dh_steps = lane[LANE.dh_at], lane[LANE.dh_steps]
    else:
        dh, dh_steps = place(lane[LANE.dh_at], lane[LANE.dh_step], size, start, begin), n
        counts = 0
    if index == 0:
        x = _input(lane, layers, start)
        row = layers[0, LAYER.inputs] * lane[LANE.batch] * lane[LANE.item]
        below = place(lane[LANE.dx_at], lane[LANE.dx_step], row, start, begin)
    else:
        size = state_bytes(lane, layers, index - 1)
        outputs = layers[index - 1, LAYER.outputs_at] + shift * size
        x = layers[index - 1, LAYER.states_at] + (first + 1) * size
        x = _drop(lane, layers, index - 1, outputs, x, start, n)
        below = layers[index - 1, LAYER.below_at] + shift * size
    call(layers[index, LAYER.reverse],
         (0, address(lane), slots_of(layers, index), address(head), x, below, dh, dh_steps, counts,
          start, stop, first))  # fmt: skip
    if index > 0:
        _drop(lane, layers, index - 1, below, below, start, n)
