"""accelerate: the recurrent modules of a model, computed by fastbptt."""

from __future__ import annotations

import warnings
from typing import Any, TypeVar

import torch

from .. import arguments
from ..backends import devices
from ..memory.policies import Memory
from . import modules, spec

Model = TypeVar("Model", bound=torch.nn.Module)

_OURS = {
    torch.nn.RNN: modules.RNN,
    torch.nn.GRU: modules.GRU,
    torch.nn.LSTM: modules.LSTM,
}


_THEIRS: Any = tuple(_OURS)


def accelerate(model: Model, memory: Memory = "full") -> Model:
    """Have fastbptt compute every torch.nn.RNN, GRU and LSTM inside a model, in place.

    Parameters
    ----------
    model : a module; it may be one of these itself. The modules stay the objects that they are,
        with their Parameters and hooks, and change their class: optimizers and other references to
        them stay right
    memory : what each module's gradient may take, as in fastbptt.forward

    Returns
    -------
    The model. Modules of a subclass, parametrised ones, those with `proj_size`, with half dtypes or
    on a device that cannot be used are left as they are, with one warning for all.

    Raises
    ------
    TypeError : the model is no module
    ValueError, TypeError : a wrong `memory`
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, not {arguments.describe(model)}")
    text = spec.memory_text(memory)
    left = []
    found: list[tuple[str, Any]] = list(model.named_modules())
    for name, module in found:
        if not isinstance(module, _THEIRS):
            continue
        why = _obstacle(module)
        if why:
            left.append(f"{name or 'model'} ({why})")
            continue
        module.__class__ = _OURS[type(module)]
        module.memory, module.dropout = text, module.dropout
    if left:
        warnings.warn(f"accelerate left as they are: {', '.join(left)}", stacklevel=2)
    return model


def _obstacle(module: Any) -> str | None:
    """Why a module must stay as it is."""
    if type(module) not in _OURS:
        parametrised = torch.nn.utils.parametrize.is_parametrized(module)
        return "parametrised" if parametrised else f"a subclass, {type(module).__name__}"
    if module.proj_size:
        return f"proj_size={module.proj_size}"
    if module.dropout >= 1:
        return f"dropout={module.dropout}"
    places = {p.device.type for p in module.parameters()} - {"cpu", "meta"}
    if places == {"cuda"}:
        missing = devices.missing_gpu()
        if missing is not None:
            return f"on cuda: {missing}"
    elif places:
        return f"on {places.pop()}"
    dtypes = {p.dtype for p in module.parameters()} - {torch.float32, torch.float64}
    return f"{dtypes.pop()}" if dtypes else None
