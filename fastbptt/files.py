"""Reading the files that models are saved in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from zipfile import BadZipFile

import numpy as np

from . import compound, layers, own, typing  # noqa: F401 - every class of model must be known
from .models import DEFINITIONS, FORMAT, KINDS, as_path
from .typing import Array


def load(path: typing.Path) -> Any:
    """Read a layer or network that `.save(path)` wrote.

    Raises ValueError when the file is not one of ours, or damaged. Nothing in it is executed.
    """
    path = as_path(path)
    with open(path, "rb") as file:
        try:
            archive = np.load(file, allow_pickle=False)
            content = json.loads(str(archive["structure"]))
            version, model = content["format"], content["model"]
            if version == FORMAT:
                return _rebuild(model, archive)
        except (ValueError, EOFError, LookupError, TypeError, AttributeError, BadZipFile) as error:
            raise ValueError(
                f"path must be a file written by save(), whole, not {str(path)!r} ({error})"
            ) from None
    raise ValueError(f"{str(path)!r} has format {version!r}; this version reads format {FORMAT}")


def _rebuild(part: Any, archive: Mapping[str, Array]) -> Any:
    if isinstance(part, list):
        return tuple(_rebuild(item, archive) for item in part)
    if "array" in part:
        return archive[part["array"]]
    if "value" in part:
        return part["value"]
    if "defined" in part:
        kind, name = part["defined"]
        if (kind, name) not in DEFINITIONS:
            raise ValueError(f"make the fastbptt.{kind} named {name!r} first: files hold no code")
        return DEFINITIONS[kind, name]
    kind = KINDS.get(part["type"])
    if kind is None:
        raise ValueError(f"the file holds a model of unknown type {part['type']!r}")
    return kind(**{name: _rebuild(value, archive) for name, value in part["fields"].items()})
