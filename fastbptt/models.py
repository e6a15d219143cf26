"""What layers, readouts and networks have in common: their arrays, and their files.

A file is an .npz of plain arrays and one JSON text that says how they fit together.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from . import arguments, typing
from .arrays import home, on_gpu
from .typing import Array

if TYPE_CHECKING:
    from typing_extensions import Self

KINDS: dict[str, type[Model]] = {}  # class name -> class, for `load`


class Definition:
    """What a file names and does not hold: functions of the caller's."""

    name: str

    def enter(self) -> None:
        """Let `load` know the definition by its name; a later one of the name takes its place."""
        DEFINITIONS[type(self).__name__, self.name] = self


DEFINITIONS: dict[tuple[str, str], Definition] = {}  # (class name, name) -> definition


_PLAIN = (str, float, int, Definition)  # fields that are neither arrays nor models


class Model:
    """What every layer, readout and network can do; its fields hold arrays, models and strings."""

    if TYPE_CHECKING:  # every model is a dataclass
        __dataclass_fields__: ClassVar[dict[str, Any]]

    def __init_subclass__(cls) -> None:
        """Let `load` know the class."""
        super().__init_subclass__()
        KINDS[cls.__name__] = cls

    def arrays(self) -> list[Array]:
        """Return the arrays in field order, not copied."""
        found: list[Array] = []
        for value in self._values():
            for part in value if isinstance(value, tuple) else (value,):
                if isinstance(part, Model):
                    found += part.arrays()
                elif part is not None and not isinstance(part, _PLAIN):
                    found.append(part)
        return found

    def replace_arrays(self, arrays: Sequence[Array]) -> Self:
        """Return the same model with other arrays, given in the order of `arrays()`.

        Raises ValueError when their number or a shape does not fit.
        """
        if not isinstance(arrays, (list, tuple)):
            raise TypeError(f"arrays must be a list of arrays, not {arguments.describe(arrays)}")
        own = self.arrays()
        if len(arrays) != len(own):
            raise ValueError(f"arrays must be a list of {len(own)} arrays, not of {len(arrays)}")
        for position, (old, new) in enumerate(zip(own, arrays, strict=True)):
            name = f"arrays[{position}]"
            arguments.check_shape(name, arguments.array(name, new), old.shape)
        return self._rebuilt(iter(arrays))

    def _rebuilt(self, arrays: Iterator[Array]) -> Self:
        changes: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple):
                changes[field.name] = tuple(part._rebuilt(arrays) for part in value)
            elif isinstance(value, Model):
                changes[field.name] = value._rebuilt(arrays)
            elif value is not None and not isinstance(value, _PLAIN):
                changes[field.name] = next(arrays)
        return replace(self, **changes)

    def _with(self, **arrays: Any) -> Self:
        """Return the same model with arrays of our own making, which need no checks."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, **arrays)
        return other

    def to(self, device: str) -> Self:
        """Return the model with its arrays on `device`: "cpu", "cuda" or "cuda:1"."""
        from . import devices  # here, since it loads Numba

        name, _ = devices.named(device)
        if name is None:
            raise TypeError(f'device must be "cpu", "cuda" or "cuda:N", not {device!r}')
        if name == "cpu":
            there = all(isinstance(array, np.ndarray) for array in self.arrays())
            return self if there else self._moved(home)
        backend = devices.gpu(name)
        with backend:
            return self._moved(backend.here)

    def _moved(self, move: Callable[[Array], Array]) -> Self:
        """Return the same model with each of its arrays replaced by `move` of it."""
        return self._rebuilt(iter([move(array) for array in self.arrays()]))

    def save(self, path: typing.Path) -> None:
        """Write the model to `path` as an .npz file without pickles; `fastbptt.load` reads it.

        An existing file is replaced only once the new one is whole.
        """
        _save(self, path)

    def _values(self) -> list[Any]:
        return [getattr(self, field.name) for field in fields(self)]

    def _check(self, **shapes: typing.Shape) -> None:
        """Check the arrays named in `shapes` and that they share one dtype."""
        dtype = None
        for name, shape in shapes.items():
            given = getattr(self, name)
            value = arguments.floats(f"{type(self).__name__}.{name}", given, shape)
            if on_gpu(given):  # of whatever package: from here on CuPy's, over the same memory
                object.__setattr__(self, name, value)
            dtype = dtype or value.dtype
            if value.dtype != dtype:
                raise TypeError(
                    f"{type(self).__name__}.{name} must be {dtype} like the other arrays, "
                    f"not {value.dtype}"
                )


FORMAT = 1


def _save(model: Model, path: typing.Path) -> None:
    path = as_path(path)
    if not path.parent.is_dir() or path.is_dir():
        raise FileNotFoundError(f"path must name a file in an existing folder, not {str(path)!r}")
    arrays: dict[str, Any] = {}
    structure = _describe(model, arrays)
    text = json.dumps({"format": FORMAT, "model": structure})
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            np.savez(file, structure=np.array(text), **arrays)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def as_path(path: typing.Path) -> Path:
    """`path`, which must be a string or a Path."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path must be a string or a Path, not {arguments.describe(path)}")
    return Path(path)


def _describe(value: Any, arrays: dict[str, Array]) -> Any:
    if isinstance(value, Model):
        parts = {f.name: _describe(getattr(value, f.name), arrays) for f in fields(value)}
        return {"type": type(value).__name__, "fields": parts}
    if isinstance(value, Definition):
        return {"defined": [type(value).__name__, value.name]}
    if isinstance(value, tuple):
        return [_describe(item, arrays) for item in value]
    if value is None or isinstance(value, (str, int, float)):
        return {"value": value}
    name = f"array{len(arrays)}"
    arrays[name] = home(value)
    return {"array": name}
