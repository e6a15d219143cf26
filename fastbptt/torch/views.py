"""Tensors as layers, states and arrays over the same memory, and results as tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..arrays import Array, stream_of, wrapped
from ..backends import devices
from ..layers.composite import Bidirectional, Layer, Stack, State, recurrent_layers, shaped
from ..layers.recurrent import GRU, LSTM, RNN, Recurrent
from .spec import MODES, Spec

_SMALL = 1 << 14  # numbers; so few are made contiguous: a small call is then a fast one
_HERE = nullcontext()


def device_of(tensor: Tensor) -> AbstractContextManager[None]:
    """Where calls on a tensor run: for one on a GPU, there, on PyTorch's current stream."""
    if not tensor.is_cuda:
        return _HERE
    device = tensor.device
    return devices.gpu(str(device), "the device of the tensors", stream_of(tensor))


def array_of(tensor: Tensor) -> Array:
    """A tensor's numbers, in its own memory: NumPy's array, for a tensor on a GPU CuPy's."""
    plain = tensor.detach()
    return wrapped(plain) if plain.is_cuda else plain.numpy()


def along_time(tensor: Tensor) -> Array:
    """The same for (T, B, ...), which small calls want in order."""
    if not tensor.is_contiguous() and tensor.numel() < _SMALL:
        tensor = tensor.contiguous()
    return array_of(tensor)


def tensor_of(array: Array) -> Tensor:
    """The tensor over a result's memory."""
    return torch.from_numpy(array) if isinstance(array, np.ndarray) else torch.from_dlpack(array)


def layer_of(spec: Spec, weights: Sequence[Tensor]) -> Layer:
    """The layer that PyTorch's flat list of weights describes, over the same memory but for b."""
    directions = spec.directions
    each = len(weights) // (spec.layers * directions)
    parts = [_part(spec.mode, *weights[k : k + each]) for k in range(0, len(weights), each)]
    layers: list[Any] = parts
    if directions == 2:
        layers = [Bidirectional(*parts[k : k + 2]) for k in range(0, len(parts), 2)]
    return layers[0] if len(layers) == 1 else Stack(layers, spec.dropout)


def _part(mode: str, U: Tensor, W: Tensor, *biases: Tensor) -> Recurrent:
    if not biases:
        zero = W.new_zeros(W.shape[0])
        biases = zero, zero
    own, recurrent = biases
    if mode != "GRU":
        u, w, b = array_of(U), array_of(W), array_of(own + recurrent)
        return _checked(mode, w.dtype, u.shape, w.shape, b.shape)._with(U=u, W=w, b=b)
    n = 2 * W.shape[1]
    both = torch.cat((own[:n] + recurrent[:n], own[n:]))
    u, w, b, bn = array_of(U), array_of(W), array_of(both), array_of(recurrent)[n:]
    return _checked(mode, w.dtype, u.shape, w.shape, b.shape, bn.shape)._with(U=u, W=w, b=b, bn=bn)


@lru_cache(maxsize=256)
def _checked(mode: str, dtype: Any, *shapes: tuple[int, ...]) -> Recurrent:
    """A layer of these shapes, without memory: its checks take as long as a small call."""
    zero = np.zeros((), dtype)
    U, W, b, *bn = (np.broadcast_to(zero, shape) for shape in shapes)
    if mode == "GRU":
        return GRU(U, W, b, bn[0])
    if mode == "LSTM":
        return LSTM(U, W, b)
    return RNN(U, W, b, MODES[mode])  # type: ignore[arg-type]


def weight_gradients(gradient: Layer, bias: bool) -> list[Tensor]:
    """The gradient of a layer as PyTorch's flat list; no two share memory."""
    found = []
    for part in recurrent_layers(gradient):
        found += [part.U, part.W]
        if bias:
            found += [part.b, part.b.copy()]
        if bias and isinstance(part, GRU):
            found[-1][2 * part.hidden :] = part.bn
    return [tensor_of(array) for array in found]


def state_of(layer: Layer, planes: Sequence[Tensor]) -> State | None:
    """PyTorch's state, planes (layers * directions, B, H), as the layer's; None without planes."""
    if not planes:
        return None
    arrays = [array_of(plane) for plane in planes]

    def parts() -> Iterator[Any]:
        for index, _ in enumerate(recurrent_layers(layer)):
            each = tuple(plane[index] for plane in arrays)
            yield each if len(each) > 1 else each[0]

    return shaped(layer, parts())


def planes_of(state: State, count: int) -> list[Tensor]:
    """A state as `count` new tensors (layers * directions, B, H)."""
    flat: list[Array] = list(_flat(state)) if isinstance(state, tuple) else [state]
    if len(flat) == count:
        return [tensor_of(array[None]) for array in flat]
    return [torch.stack([tensor_of(a) for a in flat[k::count]]) for k in range(count)]


def _flat(state: State) -> Iterator[Array]:
    if isinstance(state, tuple):
        for part in state:
            yield from _flat(part)
    else:
        yield state
