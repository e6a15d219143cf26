"""The file of a training: what it must agree with, and where it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..layers import files
from ..layers.model import as_new_file
from ..layers.network import Network
from . import data
from .base import Optimiser
from .result import Fit


def settings(
    network: Network, optimizer: Optimiser, own: Any, held: Any, loss: Any, others: dict[str, Any]
) -> dict[str, str]:
    """All that a training depends on, besides its weights and its seed, as texts."""
    sizes = [array.shape for array in network.arrays()]
    rate = "a function" if callable(optimizer.lr) else repr(optimizer.lr)
    kept = {**optimizer._settings(), "lr": rate}
    return {
        "network": f"{network!r}, arrays {sizes}",
        "loss": loss if isinstance(loss, str) else _name(loss),
        "optimizer": f"{type(optimizer).__name__} of {kept}, {optimizer.steps} steps done",
        **{name: str(value) for name, value in others.items()},
        "data": data.digest(own),
        "validation": data.digest(held),
    }


def _name(loss: Any) -> str:
    """The name of a loss of one's own: those of one name are taken to be the same."""
    function = getattr(loss, "function", loss)  # of an OutputLoss
    return f"the function {getattr(function, '__qualname__', type(function).__qualname__)}"


@dataclass(frozen=True)
class Place:
    """Where the file of a training is."""

    path: Path

    @staticmethod
    def of(path: Any) -> Place | None:
        """The place of an argument `path`, checked, or None."""
        if path is None:
            return None
        return Place(as_new_file(path))

    def read(self, due: dict[str, str], seed: int | None) -> Fit | None:
        """The training to go on from, or None where there is no file; raises for another one."""
        if not self.path.exists():
            return None
        found = files.load(self.path)
        if not isinstance(found, Fit):
            raise ValueError(
                f"path must be the file of a training, or a new one, but {str(self.path)!r} holds "
                f"a {type(found).__name__}"
            )
        for name in due:
            if found._settings.get(name) != due[name]:
                what = f"another {name}: {found._settings.get(name)}, not {due[name]}"
                if name == "data":
                    what = "other data: x, y, weights, lengths, resets, or what validation= leaves"
                elif name == "validation":
                    what = "other validation data"
                raise ValueError(
                    f"path must be the file of this training, or a new one, but "
                    f"{str(self.path)!r} is of {what}"
                )
        if seed is not None and seed != found._seed:
            raise ValueError(
                f"path must be the file of this training, or a new one, but {str(self.path)!r} "
                f"is of seed={found._seed}, not {seed}"
            )
        return found
