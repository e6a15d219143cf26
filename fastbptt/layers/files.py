"""Reading the files that `save` writes."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass
from importlib import import_module
from typing import IO, Any

from .. import arguments
from ..arguments import File, shown
from ..arrays import Array
from . import custom, network  # noqa: F401 - they enter their classes in KINDS
from .archive import DAMAGE, Archive
from .model import DEFINITIONS, FORMAT, KINDS, MOST_TEXT, Model, as_path

# Kinds of folders above this one, which enter themselves when their module is loaded.
_ABOVE = {"SavedOnline": "..online.learner"}
_DEPTH = 16  # of nested models and lists: a network has about 5
_LONGEST = 300  # characters of a reason, which may quote the file


def load(path: File) -> Any:
    """Read a layer, a network or a learner that `.save(path)` wrote.

    Parameters
    ----------
    path : a string or Path ("~" is the home directory), or an open binary file that can seek,
        which is read whole

    Returns
    -------
    the layer, readout, network or learner, with new NumPy arrays

    Raises
    ------
    ValueError : the file was not written by `save`, or is damaged. Nothing in it is executed, and
        no memory is allocated for contents that it claims to have but does not; or it holds a Cell
        or Activation by a name that this process has not defined
    TypeError : `path` is neither a path nor a binary file
    OSError : the file cannot be read
    """
    with _opened(path) as (file, name):
        try:
            return _model(Archive(file))
        except DAMAGE as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            if len(reason) > _LONGEST:
                reason = f"{reason[:_LONGEST]}..."
            raise ValueError(
                f"path must be a file written by save(), whole, not {name} ({reason})"
            ) from None


@contextmanager
def _opened(path: Any) -> Iterator[tuple[IO[bytes], str]]:
    """The open file, and its name for messages."""
    if not hasattr(path, "read"):
        path = as_path(path)
        with open(path, "rb") as file:
            yield file, repr(str(path))
    elif isinstance(path, io.TextIOBase):
        raise TypeError(f"path must be a binary file, not {arguments.describe(path)}")
    else:
        named = getattr(path, "name", None)
        yield path, repr(named) if isinstance(named, str) else "the file object, which has no name"


def _model(archive: Archive) -> Any:
    content = json.loads(archive.text("structure", MOST_TEXT))
    if not isinstance(content, dict) or not {"format", "model"} <= content.keys():
        raise ValueError("its structure must have a format and a model")
    version, model = content["format"], content["model"]
    if version != FORMAT:
        raise ValueError(f"it has format {shown(version)}; this version reads format {FORMAT}")
    used = []

    def stand_in(name: str) -> Array:
        if name not in archive.claims:
            raise ValueError(f"it lacks the array {shown(name)}")
        used.append(name)
        return archive.stand_in(name)

    _built(model, stand_in)  # checks all shapes before any numbers are read
    if sorted([*used, "structure"]) != sorted(archive.claims):
        raise ValueError("its structure must name each of its arrays once, and no others")
    return _built(model, archive.read)._loaded()


def _built(part: Any, array: Callable[[str], Array], depth: int = 0) -> Any:
    """The model that `part` describes; `array(name)` gives its arrays."""
    if not isinstance(part, dict) or not {"type", "fields"} <= part.keys():
        raise ValueError(f"it must hold a layer, a readout or a network, not {shown(part)}")
    kind = KINDS.get(part["type"]) or _entered(part["type"])
    if not is_dataclass(kind):
        raise ValueError(f"it holds a model of unknown type {shown(part['type'])}")
    values = {name: _field(value, array, depth + 1) for name, value in part["fields"].items()}
    return kind(**values)


def _entered(name: Any) -> type[Model] | None:
    """A kind of a folder above this one, whose module enters it in KINDS when it is loaded."""
    if isinstance(name, str) and name in _ABOVE:
        import_module(_ABOVE[name], __package__)
        return KINDS[name]
    return None


def _field(part: Any, array: Callable[[str], Array], depth: int) -> Any:
    if depth > _DEPTH:
        raise ValueError(f"its models lie more than {_DEPTH} deep in each other")
    if isinstance(part, list):
        return tuple(_field(item, array, depth + 1) for item in part)
    if "array" in part:
        return array(part["array"])
    if "value" in part:
        value = part["value"]
        if value is not None and not isinstance(value, (str, int, float)):
            raise ValueError(f"it has a field that is neither text nor a number: {shown(value)}")
        return value
    if "defined" in part:
        kind, name = part["defined"]
        if (kind, name) not in DEFINITIONS:
            raise ValueError(
                f"make the fastbptt.{kind} named {shown(name)} first: files hold no code"
            )
        found = DEFINITIONS[kind, name]
        if part.get("made_of", found.made_of) != found.made_of:
            warnings.warn(
                f"the fastbptt.{kind} named {shown(name)} computes something else than the one "
                "that was saved",
                stacklevel=2,
            )
        return found
    return _built(part, array, depth)
