"""The operators `fastbptt::recurrent` and, its way back, `fastbptt::recurrent_backward`.

What the way back needs is a Cache, and no tensor. So the way forward also returns a token: a tensor
of one byte whose memory is an array that owns the Cache. PyTorch keeps the token with the tensors
that it saves, and frees it with them. The way back finds the Cache by the address of that memory.
Where it finds none, since the token is a copy (made by a hook that moves saved tensors, say), it
runs the way forward again, with the same result to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

from ..calls import layerwise
from ..calls.cache import Cache
from ..memory.policies import Truncated
from . import views
from .spec import Spec, decode


class _Owner(np.ndarray):
    """The byte behind a token; it owns a Cache."""

    cache: Cache[Any]


_owners: WeakValueDictionary[int, _Owner] = WeakValueDictionary()


def _token(cache: Cache[Any]) -> Tensor:
    owner = np.zeros(1, np.uint8).view(_Owner)
    owner.cache = cache
    token = torch.from_numpy(owner)
    _owners[token.data_ptr()] = owner
    return token


def _given(spec: Spec, x: Tensor, hx: Sequence[Tensor], weights: Sequence[Tensor]) -> Any:
    """The layer, x and the state as fastbptt takes them."""
    layer = views.layer_of(spec, weights)
    return layer, views.along_time(x), views.state_of(layer, hx)


def _options(
    x: Tensor, lengths: Tensor | None, resets: Tensor | None, seed: Tensor | None
) -> dict[str, Any]:
    return {
        "lengths": None if lengths is None else lengths.numpy(),
        "resets": None if resets is None else resets.numpy(),
        "seed": None if seed is None else int(seed),
        # where the tensors are, whatever FASTBPTT_DEVICE says of arrays
        "device": None if x.is_cuda else "cpu",
    }


def _forward(
    x: Tensor,
    hx: Sequence[Tensor],
    weights: Sequence[Tensor],
    lengths: Tensor | None,
    resets: Tensor | None,
    seed: Tensor | None,
    spec: str,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return h (T, B, D*H), the final states h_n and, for an LSTM, c_n, and a token.

    keep : whether there may be a way back; without, every step is forgotten at once
    """
    with views.device_of(x):
        return _forward_there(x, hx, weights, lengths, resets, seed, spec, keep)


def _forward_there(x, hx, weights, lengths, resets, seed, spec, keep):  # type: ignore[no-untyped-def]
    own = decode(spec)
    given = _given(own, x, hx, weights)
    options = _options(x, lengths, resets, seed)
    token = None
    if keep:
        h, state, cache = layerwise.forward(*given, memory=own.memory, **options)
        token = _token(cache)
    elif seed is not None:  # only `forward` knows dropout; between windows it keeps nothing
        h, state, _ = layerwise.forward(*given, memory=Truncated(1, 1), **options)
    else:
        del options["seed"]
        h, state = layerwise.run(*given, **options)
    planes = views.planes_of(state, 1 + (own.mode == "LSTM"))
    if len(planes) == 1:
        planes.append(x.new_empty(0))
    if token is None:
        token = torch.zeros(1, dtype=torch.uint8)
    return views.tensor_of(h), planes[0], planes[1], token


def _fake_forward(x, hx, weights, lengths, resets, seed, spec, keep):  # type: ignore[no-untyped-def]
    own, (T, B, _), H = decode(spec), x.shape, weights[1].shape[1]
    plane = own.layers * own.directions, B, H
    c_n = x.new_empty(plane if own.mode == "LSTM" else (0,))
    token = torch.empty(1, dtype=torch.uint8, device="cpu")
    return x.new_empty((T, B, own.directions * H)), x.new_empty(plane), c_n, token


def _backward(
    token: Tensor,
    dh: Tensor | None,
    dstate: Sequence[Tensor],
    x: Tensor,
    hx: Sequence[Tensor],
    weights: Sequence[Tensor],
    lengths: Tensor | None,
    resets: Tensor | None,
    seed: Tensor | None,
    spec: str,
    input_grad: bool,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Return the derivatives by x (empty unless `input_grad`), hx and weights."""
    with views.device_of(x):
        return _backward_there(
            token, dh, dstate, x, hx, weights, lengths, resets, seed, spec, input_grad
        )


def _backward_there(token, dh, dstate, x, hx, weights, lengths, resets, seed, spec, input_grad):  # type: ignore[no-untyped-def]
    own = decode(spec)
    owner = _owners.get(token.data_ptr())
    if owner is None:
        options = _options(x, lengths, resets, seed)
        cache = layerwise.forward(*_given(own, x, hx, weights), memory=own.memory, **options)[2]
    else:
        cache = owner.cache
    if dh is None:
        shape = *x.shape[:2], own.directions * weights[1].shape[1]
        dh = x.new_zeros(1).expand(shape)
    g = layerwise.backward(
        cache,
        views.along_time(dh),
        views.state_of(cache._layer, dstate),
        input_grad=input_grad,
        keep=True,  # PyTorch may come again (retain_graph); the token's end is the Cache's
    )
    dx = x.new_empty(0) if g.x is None else views.tensor_of(g.x)
    dhx = views.planes_of(g.state, len(hx)) if hx else []
    bias = len(weights) == 4 * own.layers * own.directions
    return dx, dhx, views.weight_gradients(g.layer, bias)


def _fake_backward(token, dh, dstate, x, hx, weights, lengths, resets, seed, spec, input_grad):  # type: ignore[no-untyped-def]
    dx = x.new_empty(x.shape if input_grad else (0,))
    return dx, [t.new_empty(t.shape) for t in hx], [t.new_empty(t.shape) for t in weights]


def plain(x: Tensor) -> bool:
    """Whether a call is computed at once, on tensors of numbers, and not traced or transformed.

    The dispatcher and its lists of tensors take as long as a small call, so plain calls go past it.
    """
    return (
        type(x) is Tensor
        and (x.is_cpu or x.is_cuda)
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and not torch._C._len_torch_dispatch_stack()
        and torch._C._functorch.peek_interpreter_stack() is None
    )


class _Recurrent(torch.autograd.Function):  # type: ignore[misc]
    """The autograd kernel of the way forward; `states` is the length of hx."""

    @staticmethod
    def forward(ctx, states, lengths, resets, seed, spec, keep, x, *rest):  # type: ignore[no-untyped-def]
        ctx.set_materialize_grads(False)
        ctx.states, ctx.spec = states, spec
        given = x, rest[:states], rest[states:], lengths, resets, seed, spec, keep
        if plain(x):
            found = _forward(*given)
        else:
            with torch._C._AutoDispatchBelowAutograd():
                found = forward(*given)
        ctx.save_for_backward(found[3], lengths, resets, seed, x, *rest)
        ctx.mark_non_differentiable(found[3])
        return found

    @staticmethod
    def backward(ctx, dh, dh_n, dc_n, _):  # type: ignore[no-untyped-def]
        token, lengths, resets, seed, x, *rest = ctx.saved_tensors
        hx, weights = rest[: ctx.states], rest[ctx.states :]
        dstate = []
        if not (dh_n is None and dc_n is None):
            own = decode(ctx.spec)
            shape = own.layers * own.directions, x.shape[1], weights[1].shape[1]
            parts = (dh_n, dc_n) if own.mode == "LSTM" else (dh_n,)
            dstate = [x.new_zeros(shape) if part is None else part for part in parts]
        wanted = ctx.needs_input_grad[6]
        run = _backward if plain(x) and not torch.is_grad_enabled() else backward
        dx, dhx, dweights = run(
            token, dh, dstate, x, hx, weights, lengths, resets, seed, ctx.spec, wanted
        )
        return *[None] * 6, dx if wanted else None, *dhx, *dweights


class _Once(torch.autograd.Function):  # type: ignore[misc]
    """The autograd kernel of the way back: an error for a second derivative."""

    @staticmethod
    def forward(ctx, rest, token, dh, x, hx, *tensors):  # type: ignore[no-untyped-def]
        states, given = rest
        dstate, tensors = tensors[:states], tensors[states:]
        with torch._C._AutoDispatchBelowAutograd():
            dx, dhx, dweights = backward(token, dh, dstate, x, tensors[:hx], tensors[hx:], *given)
        return dx, *dhx, *dweights

    @staticmethod
    def backward(ctx, *_):  # type: ignore[no-untyped-def]
        raise RuntimeError(
            "fastbptt.torch has no second derivatives; use torch.nn.RNN, GRU or LSTM for those: "
            "they have the same parameters, so load_state_dict takes them over"
        )


def _differentiable(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def differentiable(x, hx, weights, lengths, resets, seed, spec, keep):  # type: ignore[no-untyped-def]
    """The way forward, known to autograd."""
    if _differentiable(x, *hx, *weights):
        rest = lengths, resets, seed, spec, keep, x
        return _Recurrent.apply(len(hx), *rest, *hx, *weights)
    if plain(x):
        return _forward(x, hx, weights, lengths, resets, seed, spec, keep)
    with torch._C._AutoDispatchBelowAutograd():
        return forward(x, hx, weights, lengths, resets, seed, spec, keep)


def _backward_autograd(token, dh, dstate, x, hx, weights, *rest):  # type: ignore[no-untyped-def]
    if _differentiable(dh, *dstate, x, *hx, *weights):
        sizes = len(dstate), rest
        dx, *found = _Once.apply(sizes, token, dh, x, len(hx), *dstate, *hx, *weights)
        return dx, found[: len(hx)], found[len(hx) :]
    with torch._C._AutoDispatchBelowAutograd():
        return backward(token, dh, dstate, x, hx, weights, *rest)


def _register() -> None:
    """Define both operators, with their kernels for devices, shapes alone and autograd."""
    tensors = "Tensor x, Tensor[] hx, Tensor[] weights"
    rest = "Tensor? lengths, Tensor? resets, Tensor? seed, str spec"
    derivatives = "Tensor token, Tensor? dh, Tensor[] dstate"
    for name, signature, *kernels in (
        (
            "recurrent",
            f"({tensors}, {rest}, bool keep) -> (Tensor, Tensor, Tensor, Tensor)",
            _forward, _fake_forward, differentiable,
        ),
        (
            "recurrent_backward",
            f"({derivatives}, {tensors}, {rest}, bool input_grad) -> (Tensor, Tensor[], Tensor[])",
            _backward, _fake_backward, _backward_autograd,
        ),
    ):  # fmt: skip
        _library.define(name + signature, tags=(torch.Tag.pt2_compliant_tag,))
        for device in ("CPU", "CUDA"):
            _library.impl(name, kernels[0], device)
        torch.library.register_fake(f"fastbptt::{name}", kernels[1], lib=_library)
        _library.impl(name, kernels[2], "Autograd")


_library = torch.library.Library("fastbptt", "DEF")
_register()
forward = torch.ops.fastbptt.recurrent.default
backward = torch.ops.fastbptt.recurrent_backward.default
