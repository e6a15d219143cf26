"""recurrent: the layers of torch.nn.RNN, GRU and LSTM as a function of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from .. import arguments
from ..memory.policies import Memory
from . import operators, spec

TorchState: TypeAlias = "Tensor | tuple[Tensor, Tensor] | None"
"""PyTorch's state: (layers * directions, B, H), for an LSTM a pair (h, c) of these."""

_DTYPES = (torch.float32, torch.float64)
_HALF = (torch.float16, torch.bfloat16)


def recurrent(
    layer_kind: str,
    x: Tensor,
    hx: TorchState,
    weights: Sequence[Tensor],
    *,
    num_layers: int = 1,
    bidirectional: bool = False,
    dropout: float = 0.0,
    lengths: Tensor | Sequence[int] | None = None,
    resets: Tensor | None = None,
    memory: Memory = "full",
    seed: int | None = None,
) -> tuple[Tensor, Any]:
    """Run recurrent layers over x; PyTorch differentiates it.

    Parameters
    ----------
    layer_kind : "LSTM", "GRU", "RNN_TANH" or "RNN_RELU"
    x : (T, B, I) tensor, float32 or float64
    hx : the state before x[0], or None for zeros: (num_layers * directions, B, H); for an LSTM a
        pair (h, c) of these
    weights : PyTorch's flat list: for each layer and direction weight_ih, weight_hh, and bias_ih
        and bias_hh or neither
    num_layers : how many layers
    bidirectional : whether each layer runs in both directions of time
    dropout : probability, 0 <= dropout < 1, that a layer reads 0 in place of a state of the one
        below
    lengths : (B,) integers: sequence b has only the steps t < lengths[b]; the output is 0 after
        them
    resets : (T, B) or (T,) booleans: sequence b begins anew, from zero, before x[t]
    memory : what the gradient may take, as in fastbptt.forward
    seed : an int for the dropout masks; None draws one from PyTorch's generator

    Returns
    -------
    output : (T, B, H), or (T, B, 2*H) of both directions
    state : after each sequence's last step, in the form of hx

    Raises
    ------
    ValueError, TypeError : an argument of the wrong shape, dtype, device or value, before any work
    MemoryLimitError : the budget is too small for any exact schedule
    """
    mode = spec.mode_of(layer_kind)
    count = arguments.integer("num_layers", num_layers, 1)
    directions = 1 + arguments.flag("bidirectional", bidirectional)
    if not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
        raise ValueError(f"dropout must be a number, 0 <= dropout < 1, not {dropout!r}")
    weights = list(weights)
    if len(weights) not in (2 * count * directions, 4 * count * directions):
        raise ValueError(
            f"weights must hold 2 or 4 tensors for each of {count} layers and {directions} "
            f"directions, not {len(weights)}"
        )
    if not all(isinstance(weight, Tensor) for weight in weights):
        raise TypeError("weights must be tensors")
    known = spec.memory_text(memory)
    text = spec.encode(mode, count, directions, str(float(dropout)), known, weights[0].device)
    seeds = None
    if count > 1 and dropout:
        seeds = (
            drawn() if seed is None else torch.tensor(arguments.integer("seed", seed, 0, 2**63 - 1))
        )
    return call(text, count * directions, x, hx, weights, lengths, resets, seeds)


def drawn() -> Tensor:
    """A seed from PyTorch's generator."""
    return torch.randint(0, 2**63 - 1, (), dtype=torch.int64)


def call(
    text: str,
    parts: int,
    x: Tensor,
    hx: Any,
    weights: list[Tensor],
    lengths: Any,
    resets: Any,
    seed: Tensor | None,
) -> tuple[Tensor, Any]:
    """`recurrent` by the text of a Spec, with `parts` = layers * directions, a tensor as seed."""
    lstm = text.startswith("LSTM")
    planes = _planes(lstm, hx)
    first = weights[0]
    if not first.is_meta and torch.is_autocast_enabled(first.device.type):
        x, *planes = (t.to(first.dtype) if t.dtype in _HALF else t for t in (x, *planes))
    _check(x, planes, weights, parts)
    if lengths is not None:
        lengths = _integers(lengths, x.shape[1])
    if resets is not None:
        resets = _booleans(resets, x.shape[0], x.shape[1])
    keep = torch.is_grad_enabled() and any(t.requires_grad for t in (x, *planes, *weights))
    run = operators.differentiable if operators.plain(x) else operators.forward
    h, h_n, c_n, _ = run(x, planes, weights, lengths, resets, seed, text, keep)
    return h, ((h_n, c_n) if lstm else h_n)


def _planes(lstm: bool, hx: Any) -> list[Tensor]:
    if hx is None:
        return []
    if not lstm:
        if not isinstance(hx, Tensor):
            raise TypeError(f"hx must be a tensor, not {type(hx).__name__}")
        return [hx]
    if not isinstance(hx, (tuple, list)) or len(hx) != 2:
        raise TypeError(f"hx must be a pair of tensors (h, c), not {type(hx).__name__}")
    if not all(isinstance(part, Tensor) for part in hx):
        raise TypeError("hx must be a pair of tensors (h, c)")
    return list(hx)


def _check(x: Any, planes: list[Tensor], weights: list[Tensor], parts: int) -> None:
    first, H = weights[0], weights[1].shape[1]
    if not isinstance(x, Tensor):
        raise TypeError(f"input must be a tensor, not {type(x).__name__}")
    if first.dtype not in _DTYPES:
        raise TypeError(
            f"the weights must be float32 or float64, not {first.dtype}; keep the module in "
            "float32 (.float()), under torch.autocast for the rest of the model, or use torch.nn's"
        )
    if first.device.type not in ("cpu", "cuda", "meta"):
        raise TypeError(
            f"the weights must be on the CPU or a CUDA device, not on {first.device}: move the "
            "module, with .cpu(), or use torch.nn's there"
        )
    if x.dim() != 3 or x.shape[2] != first.shape[1]:
        raise ValueError(
            f"input must have {first.shape[1]} features in a shape of time, batch and features, "
            f"not {tuple(x.shape)}"
        )
    due = parts, x.shape[1], H
    for name, tensor in zip(("input", "hx", "hx[1]"), (x, *planes), strict=False):
        if tensor.dtype != first.dtype:
            raise TypeError(
                f"{name} must be {first.dtype} like the weights, not {tensor.dtype}; convert one "
                "of them, with .to"
            )
        if tensor is not x and tuple(tensor.shape) != due:
            raise ValueError(f"{name} must have shape {due}, not {tuple(tensor.shape)}")
    for tensor in (x, *planes, *weights):
        if tensor.device != first.device:
            raise TypeError(
                f"all tensors must be on one device, not {first.device} and {tensor.device}; move "
                "them, with .to"
            )
        if tensor.dtype != first.dtype:
            raise TypeError(f"all weights must be {first.dtype}, not {tensor.dtype}")


def _integers(lengths: Any, B: int) -> Tensor:
    lengths = torch.as_tensor(lengths).cpu()
    if lengths.dtype not in (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8):
        raise TypeError(f"lengths must be integers, not {lengths.dtype}")
    if tuple(lengths.shape) != (B,):
        raise ValueError(f"lengths must have shape ({B},), not {tuple(lengths.shape)}")
    return lengths


def _booleans(resets: Any, T: int, B: int) -> Tensor:
    resets = torch.as_tensor(resets).cpu()
    if resets.dtype != torch.bool:
        raise TypeError(f"resets must be booleans, not {resets.dtype}")
    if tuple(resets.shape) not in ((T, B), (T,)):
        raise ValueError(f"resets must have shape ({T}, {B}), not {tuple(resets.shape)}")
    return resets
