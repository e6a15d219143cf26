"""What layers, readouts and networks have in common: their arrays, and their files.

A file is an .npz of plain arrays and one JSON text that says how they fit together.
"""

from __future__ import annotations

import json
import os
from dataclasses import fields, replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from . import arguments, devices

KINDS = {}  # class name -> class, for `load`


class Model:
    """What every layer, readout and network can do; its fields hold arrays, models and strings."""

    def __init_subclass__(cls):
        """Let `load` know the class."""
        KINDS[cls.__name__] = cls

    def arrays(self) -> list:
        """Return the arrays in field order, not copied."""
        found = []
        for value in self._values():
            if isinstance(value, Model):
                found += value.arrays()
            elif value is not None and not isinstance(value, str):
                found.append(value)
        return found

    def replace_arrays(self, arrays):
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

    def _rebuilt(self, arrays):
        changes = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Model):
                changes[field.name] = value._rebuilt(arrays)
            elif value is not None and not isinstance(value, str):
                changes[field.name] = next(arrays)
        return replace(self, **changes)

    def _with(self, **arrays):
        """Return the same model with arrays of our own making, which need no checks."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, **arrays)
        return other

    def to(self, device):
        """Return the model with its arrays on `device`: "cpu", "cuda" or "cuda:1"."""
        devices.require(device)
        return self

    def save(self, path):
        """Write the model to `path` as an .npz file without pickles; `fastbptt.load` reads it.

        An existing file is replaced only once the new one is whole.
        """
        _save(self, path)

    def _values(self):
        return [getattr(self, field.name) for field in fields(self)]

    def _check(self, **shapes):
        """Check the arrays named in `shapes` and that they share one dtype."""
        dtype = None
        for name, shape in shapes.items():
            value = arguments.floats(f"{type(self).__name__}.{name}", getattr(self, name), shape)
            dtype = dtype or value.dtype
            if value.dtype != dtype:
                raise TypeError(
                    f"{type(self).__name__}.{name} must be {dtype} like the other arrays, "
                    f"not {value.dtype}"
                )


_FORMAT = 1


def _save(model, path):
    path = _path(path)
    if not path.parent.is_dir() or path.is_dir():
        raise FileNotFoundError(f"path must name a file in an existing folder, not {str(path)!r}")
    arrays = {}
    structure = _describe(model, arrays)
    text = json.dumps({"format": _FORMAT, "model": structure})
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            np.savez(file, structure=np.array(text), **arrays)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load(path):
    """Read a layer or network that `.save(path)` wrote.

    Raises ValueError when the file is not one of ours, or damaged. Nothing in it is executed.
    """
    path = _path(path)
    with open(path, "rb") as file:
        try:
            archive = np.load(file, allow_pickle=False)
            content = json.loads(str(archive["structure"]))
            version, model = content["format"], content["model"]
            if version == _FORMAT:
                return _rebuild(model, archive)
        except (ValueError, EOFError, LookupError, TypeError, AttributeError, BadZipFile) as error:
            raise ValueError(
                f"path must be a file written by save(), whole, not {str(path)!r} ({error})"
            ) from None
    raise ValueError(f"{str(path)!r} has format {version!r}; this version reads format {_FORMAT}")


def _path(path):
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path must be a string or a Path, not {arguments.describe(path)}")
    return Path(path)


def _describe(value, arrays):
    if isinstance(value, Model):
        parts = {f.name: _describe(getattr(value, f.name), arrays) for f in fields(value)}
        return {"type": type(value).__name__, "fields": parts}
    if isinstance(value, tuple):
        return [_describe(item, arrays) for item in value]
    if value is None or isinstance(value, (str, int, float)):
        return {"value": value}
    name = f"array{len(arrays)}"
    arrays[name] = value
    return {"array": name}


def _rebuild(part, archive):
    if isinstance(part, list):
        return tuple(_rebuild(item, archive) for item in part)
    if "array" in part:
        return archive[part["array"]]
    if "value" in part:
        return part["value"]
    kind = KINDS.get(part["type"])
    if kind is None:
        raise ValueError(f"the file holds a model of unknown type {part['type']!r}")
    return kind(**{name: _rebuild(value, archive) for name, value in part["fields"].items()})
