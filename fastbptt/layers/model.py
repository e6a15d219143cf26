"""What layers, readouts and networks have in common: their arrays and their files.

A file is an .npz archive: plain arrays, and one JSON text that describes the model they belong to.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .. import arguments
from ..arguments import File
from ..arrays import Array, Shape, home, module_of
from ..kernels import disk
from ..memory import html
from ..memory.plan import human
from .stored import KINDS as KINDS
from .stored import Stored

if TYPE_CHECKING:
    from typing_extensions import Self


class Definition:
    """Functions of the caller, with a name. A file holds the name, not the functions.

    `activates`: whether an RNN takes it as its activation.
    """

    if TYPE_CHECKING:  # every definition is a dataclass
        __dataclass_fields__: ClassVar[dict[str, Any]]

    name: str
    activates = False

    @property
    def made_of(self) -> str:
        """What tells it from another definition of its name in a file."""
        raise NotImplementedError

    def enter(self) -> None:
        """Make the definition known to `load`; it replaces an earlier one of the same name."""
        DEFINITIONS[type(self).__name__, self.name] = self

    def __copy__(self) -> Self:
        """Itself: it is immutable."""
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        """Itself: it is immutable."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle its arguments: the process that reads it makes the definition anew."""
        return type(self), tuple(getattr(self, f.name) for f in fields(self) if f.init)


DEFINITIONS: dict[tuple[str, str], Definition] = {}  # (class name, name) -> definition


_PLAIN = (str, float, int, Definition)  # fields that are neither arrays nor models


class Model(Stored):
    """The methods of every layer, readout and network. Fields hold arrays, models and strings."""

    if TYPE_CHECKING:  # every model is a dataclass
        __dataclass_fields__: ClassVar[dict[str, Any]]

    def _contents(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def _restored(cls, contents: dict[str, Any]) -> Self:
        return cls(**contents)

    def arrays(self) -> list[Array]:
        """Return the arrays in the order of the fields, without copying them.

        Returns
        -------
        list of arrays: for a Network those of its layer, V and c of its readout, its state
        """
        return [array for value in self._values() for array in arrays_of(value)]

    def replace_arrays(self, arrays: Sequence[Array]) -> Self:
        """Return a model of the same kind with other arrays.

        Parameters
        ----------
        arrays : list of arrays in the order of `arrays()`, of the same shapes; not copied

        Returns
        -------
        the new model; this one is unchanged

        Raises
        ------
        ValueError : another number of arrays, or another shape
        TypeError : no list of arrays; a dtype other than float32 and float64, or more than one
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

    def flat(self) -> Array:
        """Return all numbers of the model in one vector, array after array in C order.

        Returns
        -------
        (n,) array of the model's dtype, new, in the order of `arrays()`; `with_flat` is its inverse
        """
        own = self.arrays()
        return module_of(own[0]).concatenate([array.ravel() for array in own])

    def with_flat(self, vector: Array) -> Self:
        """Return a model of the same kind with other numbers.

        Parameters
        ----------
        vector : (n,) array of the model's dtype, the numbers in the order of `flat()`; copied

        Returns
        -------
        the new model; this one is unchanged

        Raises
        ------
        ValueError : another number of numbers, or of axes
        TypeError : no array, or one of another dtype
        """
        own = self.arrays()
        size = sum(array.size for array in own)
        numbers = arguments.floats("vector", vector, (size,), own[0].dtype).copy()
        arrays, start = [], 0
        for array in own:
            arrays.append(numbers[start : start + array.size].reshape(array.shape))
            start += array.size
        return self._rebuilt(iter(arrays))

    def _repr_html_(self) -> str:
        rows = [(name, text, _numbers(arrays)) for name, text, arrays in self._parts("")]
        if len(rows) > 1:
            rows.append(("all", "", _numbers(self.arrays())))
        return html.table(type(self).__name__, rows, ("part", "", "numbers"))

    def _parts(self, name: str) -> Iterator[tuple[str, str, list[Array]]]:
        """Name, description and arrays of the parts that arrays are in, in their order."""
        inner = [
            (f"{name}.{field.name}{f'[{index}]' * isinstance(value, tuple)}".lstrip("."), part)
            for field, value in zip(fields(self), self._values(), strict=True)
            for index, part in enumerate(value if isinstance(value, tuple) else (value,))
            if isinstance(part, Model)
        ]
        if not inner:
            yield name, repr(self), self.arrays()
        for path, part in inner:
            yield from part._parts(path)

    def _rebuilt(self, arrays: Iterator[Array]) -> Self:
        changes: dict[str, Any] = {}
        for field in fields(self):
            changes[field.name] = _replaced(getattr(self, field.name), arrays)
        return replace(self, **changes)

    def _with(self, **arrays: Any) -> Self:
        """Return the same model with arrays made by the package, which need no checks."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, **arrays)
        return other

    def to(self, device: str) -> Self:
        """Return the model with its arrays on a device.

        Parameters
        ----------
        device : "cpu" for NumPy arrays; "cuda", or "cuda:1" for the second GPU, for CuPy arrays

        Returns
        -------
        the model; with its own arrays, not copied, where they are on the device already

        Raises
        ------
        TypeError, ValueError : `device` is no such name
        RuntimeError : this machine does not have the device
        """
        from ..backends import devices  # here, since it loads Numba

        if device is None:  # which would ask the environment
            raise TypeError('device must be "cpu", "cuda" or "cuda:N", not None')
        name, _ = devices.named(device)
        assert name is not None
        if name == "cpu":
            there = all(isinstance(array, np.ndarray) for array in self.arrays())
            return self if there else self._moved(home)
        backend = devices.gpu(name)
        with backend:
            return self._moved(backend.here)

    def _moved(self, move: Callable[[Array], Array]) -> Self:
        """Return the same model with each array replaced by `move(array)`."""
        return self._rebuilt(iter([move(array) for array in self.arrays()]))

    def save(self, path: File) -> None:
        """Write the model to an .npz file without pickles; `fastbptt.load` reads it.

        Parameters
        ----------
        path : a string or Path ("~" is the home directory), or an open binary file. An existing
            file is replaced only when the new one is complete

        Raises
        ------
        TypeError, ValueError : `path` is neither of these, or is not an ordinary file
        OSError : the file cannot be written
        """
        save(self, path)

    def _values(self) -> list[Any]:
        return [getattr(self, field.name) for field in fields(self)]

    def _check(self, **shapes: Shape) -> None:
        """Check the arrays named in `shapes`, and that all have one dtype."""
        dtype = None
        for name, shape in shapes.items():
            given = getattr(self, name)
            value = arguments.floats(f"{type(self).__name__}.{name}", given, shape)
            if not isinstance(given, np.ndarray):  # from here on an array over the same memory
                object.__setattr__(self, name, value)
            dtype = dtype or value.dtype
            if value.dtype != dtype:
                raise TypeError(
                    f"{type(self).__name__}.{name} must be {dtype} like the other arrays, "
                    f"not {arguments.describe(given)}"
                )


def _numbers(arrays: list[Array]) -> str:
    """How many numbers some arrays have, and their bytes."""
    return f"{sum(a.size for a in arrays):,} ({human(sum(a.nbytes for a in arrays))})"


def arrays_of(value: Any) -> Iterator[Array]:
    """The arrays of a field, which may be a tuple of models or of arrays."""
    if isinstance(value, Model):
        yield from value.arrays()
    elif isinstance(value, tuple):
        for part in value:
            yield from arrays_of(part)
    elif value is not None and not isinstance(value, _PLAIN):
        yield value


def _replaced(value: Any, arrays: Iterator[Array]) -> Any:
    """A field with its arrays replaced, in that order."""
    if isinstance(value, Model):
        return value._rebuilt(arrays)
    if isinstance(value, tuple):
        return tuple(_replaced(part, arrays) for part in value)
    return value if value is None or isinstance(value, _PLAIN) else next(arrays)


FORMAT = 1
MOST_TEXT = 1 << 24
"""The most characters that the description of a model in a file may have."""

_MOST_ARRAYS = 1 << 16


def contents(model: Stored) -> tuple[str, dict[str, Any]]:
    """What the file of a model holds: a text, and NumPy arrays by the names that it gives them."""
    arrays: dict[str, Any] = {}
    text = json.dumps({"format": FORMAT, "model": _describe(model, arrays)})
    return text, arrays


def save(model: Stored, path: Any) -> None:
    """Write a file that `load` reads: see `Model.save`."""
    text, arrays = contents(model)
    if len(arrays) > _MOST_ARRAYS or len(text) > MOST_TEXT:
        raise ValueError(
            f"the model must have at most {_MOST_ARRAYS} arrays, described by {MOST_TEXT} "
            f"characters, to be saved, not {len(arrays)} and {len(text)}"
        )
    written(path, lambda file: np.savez(file, structure=np.array(text), **arrays))


def written(path: Any, write: Callable[[Any], None]) -> None:
    """Write by `write(file)`: to an open binary file, or to one that replaces `path` once whole."""
    if isinstance(path, io.TextIOBase):
        raise TypeError(f"path must be a binary file, not {arguments.describe(path)}")
    if hasattr(path, "write"):
        write(path)
        return
    with disk.replacing(as_new_file(path)) as file:
        write(file)


def as_new_file(path: Any) -> Path:
    """`as_path` of a file to write; raises for a folder, and where its own folder is missing."""
    found = as_path(path)
    if found.is_dir():
        raise IsADirectoryError(f"path must name a file, not the folder {str(found)!r}")
    if not found.parent.is_dir():
        raise FileNotFoundError(f"path must name a file in an existing folder, not {str(found)!r}")
    return found


def as_path(path: Any) -> Path:
    """`path` as a Path, with "~" expanded; raises unless it can name an ordinary file or folder."""
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(text, str):
        raise TypeError(
            f"path must be a string, a Path or a binary file, not {arguments.describe(path)}"
        )
    if "\0" in text:
        raise ValueError(f"path must not hold a null character, not {arguments.describe(path)}")
    found = Path(os.path.expanduser(text))
    if found.exists() and not (found.is_file() or found.is_dir()):
        raise ValueError(f"path must name an ordinary file, not {str(found)!r}")
    return found


def _describe(value: Any, arrays: dict[str, Array]) -> Any:
    if isinstance(value, Stored):
        parts = {name: _describe(part, arrays) for name, part in value._contents().items()}
        return {"type": type(value).__name__, "fields": parts}
    if isinstance(value, Definition):
        return {"defined": [type(value).__name__, value.name], "made_of": value.made_of}
    if isinstance(value, tuple):
        return [_describe(item, arrays) for item in value]
    if value is None or isinstance(value, (str, int, float)):
        return {"value": value}
    name = f"array{len(arrays)}"
    arrays[name] = home(value)
    return {"array": name}
