"""Layers, readouts and networks as pytrees of JAX, whose leaves are their arrays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from .composite import Bidirectional, Stack
from .custom import Custom
from .model import Model
from .network import Network, Readout
from .recurrent import GRU, LSTM, RNN

KINDS: tuple[type[Model], ...] = (
    RNN, GRU, LSTM, Custom, Stack, Bidirectional, Readout, Network
)  # fmt: skip
# By their names, not their values: JAX puts numbers, None and markers where arrays were.
_SETTINGS = {"activation", "reset", "dropout", "definition"}


def register(tree_util: Any) -> None:
    """Have `jax.tree_util` know every kind of model."""
    for kind in KINDS:
        _register(kind, tree_util)


def _register(kind: type[Model], tree_util: Any) -> None:
    names = [field.name for field in fields(kind)]
    settings = [name for name in names if name in _SETTINGS]
    inner = [name for name in names if name not in _SETTINGS]
    keys = [tree_util.GetAttrKey(name) for name in inner]

    def flatten(model: Any) -> tuple[list[Any], tuple[Any, ...]]:
        return [getattr(model, n) for n in inner], tuple(getattr(model, n) for n in settings)

    def flatten_with_keys(model: Any) -> tuple[list[Any], tuple[Any, ...]]:
        values, own = flatten(model)
        return list(zip(keys, values, strict=True)), own

    def unflatten(own: tuple[Any, ...], values: Iterable[Any]) -> Model:
        model = object.__new__(kind)  # unchecked: what the leaves are is JAX's affair
        model.__dict__.update(zip(settings, own, strict=True))
        model.__dict__.update(zip(inner, values, strict=True))
        return model

    tree_util.register_pytree_with_keys(kind, flatten_with_keys, unflatten, flatten)
