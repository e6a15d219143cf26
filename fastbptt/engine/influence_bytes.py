"""The bytes that RTRL takes, told from sizes alone; what is not an array is a constant."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from ..kernels.cpu.influence import ADDRESSES
from ..kernels.cpu.products import packed_size
from ..kernels.cpu.snap import SPAN
from .influence_rows import group_rows
from .influence_weights import Form, Part

_OBJECTS = 1 << 17  # Python's own objects, and many small arrays
_WORD = 8


def held(forms: Sequence[Form], B: int, size: int, drops: bool = False) -> int:
    """Bytes of a Block, and of the weights of the network as it is."""
    item = forms[0].layer.dtype.itemsize
    return ring(forms, B, size, drops) + 2 * influences(forms, B) + packed(forms, item)


def ring(forms: Sequence[Form], B: int, size: int, drops: bool) -> int:
    """Bytes of the steps of a block."""
    item, rows = forms[0].layer.dtype.itemsize, size * B
    total = rows * (forms[0].layer.inputs * item + _WORD) + B
    for number, form in enumerate(forms):
        H, states = form.hidden, form.rows
        passed = 2 * H if drops and number + 1 < len(forms) else 0
        total += item * (B * (size + 1) * states + rows * (form.cell.residuals * H + H + passed))
        total += size * (ADDRESSES + 4) * _WORD
    return total


def influences(forms: Sequence[Form], B: int) -> int:
    """Bytes of J, with the part of the state at the beginning."""
    item, n = forms[0].layer.dtype.itemsize, forms[0].above
    found = [part.shape(form.above, item) for form in forms for part in form.parts]
    found.append(Part("one", 1, n, 0).shape(n, item))
    return item * B * sum(map(prod, found))


def back(form: Form, item: int) -> int:
    """Bytes of a layer's weights, packed for the way back."""
    layer, H = form.layer, form.hidden
    first = form.parts[1].outputs
    total = packed_size(first, H, item) + form.rows
    total += packed_size(H, H, item) if form.cell.second else 0
    total += packed_size(layer.gates * H, form.read, item) if form.first else 0
    return item * (total + H * len(form.cell.sums))


def packed(forms: Sequence[Form], item: int) -> int:
    """Bytes of all weights, packed both ways, and of two copies of the layers' own arrays."""
    total = 0
    for form in forms:
        layer, H, G = form.layer, form.hidden, form.layer.gates
        forth = packed_size(form.read, G * H, item) + form.cell.blocks * H
        forth += packed_size(H, form.parts[1].outputs, item)
        forth += packed_size(H, H, item) if form.cell.second else 0
        own = sum(array.size for array in layer.arrays()) + form.rows
        total += item * (forth + 2 * own + G * H) + back(form, item)
    return total


def gradient(forms: Sequence[Form], B: int) -> int:
    """Bytes of the running gradient of the layers, in float64, and of a stretch's."""
    item = forms[0].layer.dtype.itemsize
    numbers = sum(prod(part.shape(1, item)) for form in forms for part in form.parts)
    return numbers * (2 * item + 2 * _WORD) + 3 * _WORD * (B + 1) * forms[0].above


def scratch(forms: Sequence[Form], B: int, size: int, outputs: int, drops: bool = False) -> int:
    """Bytes of scratch for a block of steps, the readout's included."""
    item, n = forms[0].layer.dtype.itemsize, forms[0].above
    width = max(form.layer.inputs for form in forms)
    rows = max(group_rows(form, size) for form in forms)
    deltas = max(form.deltas for form in forms)
    panels = max(part.shape(1, item)[1] * part.shape(1, item)[3] for f in forms for part in f.parts)
    each = rows * (deltas + (2 + drops) * width * (len(forms) > 1)) + panels + 1
    z = max(form.cell.blocks * form.hidden for form in forms)
    top = forms[-1].hidden
    loss = B * (item * (5 * outputs + 3 * top + 2 * forms[0].layer.inputs) + 8 * _WORD)
    readout = 2 * (packed_size(top, outputs, item) + packed_size(outputs, top, item)) * item
    readout += 3 * _WORD * outputs * (top + 1)
    carried = item * n * (6 * n + 8 * rows)
    return size * (item * (each + B * z) + loss) + readout + carried + _OBJECTS


def of_snap(
    forms: Sequence[Form], B: int, size: int, outputs: int, drops: bool
) -> tuple[int, int, int]:
    """(bytes of scratch, of what bptt holds, of what Online holds) of SnAp-1."""
    item = forms[0].layer.dtype.itemsize
    weights = [sum(part.inputs * part.outputs for part in form.parts) for form in forms]
    J = item * B * sum(n * form.layer.states for n, form in zip(weights, forms, strict=True))
    running = sum(weights) * (3 * item + 2 * _WORD)
    passed = 2 * size * (B + 1) * item * max(form.deltas + 4 * form.layer.inputs for form in forms)
    units = (
        SPAN
        * item
        * max(
            form.hidden * form.layer.states * (form.layer.states + form.cell.delta_blocks + 1)
            for form in forms
        )
    )
    states = 3 * item * B * sum(form.rows for form in forms)
    fixed = scratch(forms, B, size, outputs, drops) + running + passed + units
    cache = ring(forms, B, size, drops) + J + states + packed(forms, item)
    return fixed + J, cache, cache + 2 * packed(forms, item)
