"""Models on disk: an .npz of plain arrays and one JSON text that says how they fit together."""

import json
import os
from dataclasses import fields
from pathlib import Path

import numpy as np

from . import layers

_FORMAT = 1


def save(model, path):
    """Write `model` to `path`; an existing file is replaced only once the new one is whole."""
    arrays = {}
    structure = _describe(model, arrays)
    text = json.dumps({"format": _FORMAT, "model": structure})
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            np.savez(file, structure=np.array(text), **arrays)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load(path):
    """Read a layer or network that `.save(path)` wrote.

    Raises ValueError when the file is not one of ours. Nothing in it is executed.
    """
    with open(path, "rb") as file:
        try:
            archive = np.load(file, allow_pickle=False)
        except (ValueError, EOFError):
            archive = None  # no archive of arrays at all
        if "structure" not in getattr(archive, "files", ()):
            raise ValueError(f"path must be a file written by save(), not {os.fspath(path)!r}")
        content = json.loads(str(archive["structure"]))
        if content.get("format") != _FORMAT:
            raise ValueError(
                f"{os.fspath(path)!r} has format {content.get('format')!r}; "
                f"this version reads format {_FORMAT}"
            )
        return _rebuild(content["model"], archive)


def _describe(value, arrays):
    if isinstance(value, layers.Model):
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
    kind = getattr(layers, part["type"], None)
    if not (isinstance(kind, type) and issubclass(kind, layers.Model)):
        raise ValueError(f"the file holds a model of unknown type {part['type']!r}")
    return kind(**{name: _rebuild(value, archive) for name, value in part["fields"].items()})
