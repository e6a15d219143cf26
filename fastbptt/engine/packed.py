"""The weights of a network at one moment, packed as kernels read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arrays import Array
from ..backends.base import Backend
from ..kernels.cpu.bound import address_of
from ..kernels.cpu.products import packed_size
from ..kernels.cpu.weights import Matrix
from ..layers.composite import recurrent_layers
from ..layers.network import Network

_ALIGNED = 512  # bytes by which the parts of a weight may be larger than all of it


class Packed:
    """The weights of a network at one moment.

    form : a network of the same form, whose numbers do not matter
    bits : of each array of the network then, to tell whether another has the same
    weights, head : packed, of each recurrent layer and of V; c, a copy
    restart : for each recurrent layer the state that resets set, (states, H), or None for zero
    """

    def __init__(self, form: Network[Any], arrays: Sequence[Array], device: Backend, tokens: bool):
        self.form, self.bits = form, bits_of(arrays)
        self._own: Network[Any] | None = None
        own, workspace = self.own, device.workspace()
        layers = list(recurrent_layers(own.layer))
        self.weights = [device.weights(layer, 1, workspace) for layer in layers]
        self.restart = own_states(own)
        self.head = self.c = None
        if own.readout is not None:
            self.head = Matrix(workspace, device.threads, own.readout.V)
            self.c = own.readout.c
        self._pack(tokens)

    def _pack(self, tokens: bool) -> None:
        """Note the addresses of all that is packed, which is done now: see `ring.WEIGHTS`."""
        self.slots: list[list[int]] = []
        for index, (own, restart) in enumerate(zip(self.weights, self.restart, strict=True)):
            read, second = tokens and index == 0, own.parts[1:]
            arrays = [
                own.input.table if read else own.input.forth, own.bias, own.parts[0].forth,
                second[0].forth if second else None, own.params,
                own.input.back if index else None, own.parts[0].back,
                second[0].back if second else None,
            ]  # fmt: skip
            if restart is not None:
                arrays.append(restart)
            self.slots.append([0 if a is None or not a.size else address_of(a) for a in arrays])
        self.head_slots: list[int] = []
        if self.head is not None:
            self.head_slots = [address_of(a) for a in (self.head.forth, self.head.back, self.c)]

    @property
    def own(self) -> Network[Any]:
        """The network as it was then, with arrays of its own."""
        if self._own is None:
            shapes = [(array.shape, array.dtype) for array in self.form.arrays()]
            self._own = self.form._rebuilt(
                np.frombuffer(bytearray(bits), dtype).reshape(shape)
                for bits, (shape, dtype) in zip(self.bits, shapes, strict=True)
            )
        return self._own

    def same(self, arrays: Sequence[Array]) -> bool:
        """Whether arrays have the same numbers, bit by bit."""
        return all(array.tobytes() == bits for array, bits in zip(arrays, self.bits, strict=True))

    def later(self, arrays: Sequence[Array]) -> Packed:
        """The weights of another moment, to be packed in the place of these."""
        other = object.__new__(Packed)
        other.__dict__.update(self.__dict__, bits=bits_of(arrays), _own=None)
        return other

    @property
    def nbytes(self) -> int:
        """The bytes of all this."""
        matrices: list[Any] = [] if self.head is None else [self.head]
        arrays = [a for a in (self.c, *self.restart) if a is not None]
        for own in self.weights:
            matrices += [own.input, *own.parts]
            arrays += [own.bias, own.params]
        arrays += [a for m in matrices for a in (m._forth, m._back, m._table) if a is not None]
        return sum(array.nbytes for array in arrays) + 2 * sum(map(len, self.bits))


def packed_bytes(network: Network[Any]) -> int:
    """A bound of the bytes of a `Packed`."""
    item, total = network.dtype.itemsize, 3 * sum(array.nbytes for array in network.arrays())
    weights = [matrix for n in recurrent_layers(network.layer) for matrix in (n.U, n.W)]
    weights += [] if network.readout is None else [network.readout.V]
    for matrix in weights:
        both = packed_size(*matrix.shape, item) + packed_size(*matrix.shape[::-1], item)
        total += (both + matrix.size) * item + _ALIGNED
    return total + sum(2 * layer.b.nbytes for layer in recurrent_layers(network.layer))


def bits_of(arrays: Sequence[Array]) -> list[bytes]:
    """The bits of each array, in C order."""
    return [array.tobytes() for array in arrays]


def own_states(network: Network[Any]) -> list[Array | None]:
    """A network's own state, for each recurrent layer (states, H), or None."""
    counts = [layer.states for layer in recurrent_layers(network.layer)]
    if network.state is None:
        return [None] * len(counts)
    flat = iter(network.arrays()[-sum(counts) :])
    return [np.stack([next(flat) for _ in range(count)]) for count in counts]
