"""What a training returns, and what it raises: the best network, and how the loss went."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, NamedTuple

import numpy as np

from .. import arguments
from ..arguments import File, Path
from ..arrays import Array
from ..display import tables
from ..layers.composite import AnyLayer
from ..layers.model import as_path, save
from ..layers.network import Network
from ..layers.stored import Stored
from ..memory import html
from .base import Optimiser

if TYPE_CHECKING:
    from typing_extensions import Self

_MOST_ROWS = 20  # of a printed table


class Epoch(NamedTuple):
    """One pass over the data.

    number : 1 for the first
    loss : of the training data, each update's before it, by `reduction`
    validation : of the validation data, after the epoch; None without any
    lr : the learning rate of its last update
    steps : the updates since the beginning
    seconds : that it took
    """

    number: int
    loss: float
    validation: float | None
    lr: float
    steps: int
    seconds: float

    @property
    def score(self) -> float:
        """What the best epoch has least of: the loss of the validation data, if there are any."""
        return self.loss if self.validation is None else self.validation


def best_of(history: Sequence[Epoch]) -> Epoch | None:
    """The first epoch of the least loss; None where there is none."""
    return min(history, key=lambda epoch: epoch.score, default=None)


@dataclass(eq=False, repr=False)
class Fit(Stored, Generic[AnyLayer]):
    """What `fit` returns; at the `path` of a training, `fastbptt.load` reads it.

    Attributes
    ----------
    network : Network with the weights of the best epoch: that of the least validation loss, or
        without validation data of the least training loss
    history : tuple of epochs, each with .number, .loss, .validation (None without validation data),
        .lr, .steps (updates so far) and .seconds
    optimizer : the optimiser as it was after the last epoch; the one that was given is unchanged
    path : where it is kept, or None
    stopped : why it ended: "epochs", "patience", "callback", "interrupted" or "not finite"
    """

    network: Network[AnyLayer]
    history: tuple[Epoch, ...]
    optimizer: Optimiser
    path: str | None
    stopped: str
    # What `fit` goes on from: the network after the last epoch, the best one, and the rest.
    _last: Network[AnyLayer] = field(init=False)
    _best: Network[AnyLayer] = field(init=False)
    _seed: int = field(init=False)
    _settings: dict[str, str] = field(init=False)

    def _with(
        self, last: Network[AnyLayer], best: Network[AnyLayer], seed: int, settings: dict[str, str]
    ) -> Self:
        """The same, complete."""
        self._last, self._best, self._seed, self._settings = last, best, seed, settings
        return self

    @property
    def best(self) -> Epoch | None:
        """The epoch of the least loss; None where none is complete."""
        return best_of(self.history)

    def save(self, path: File) -> None:
        """Write it to a file, from which `fit` can go on.

        Parameters
        ----------
        path : as of `network.save`

        Raises
        ------
        TypeError, ValueError : `path` is neither a path nor a binary file
        OSError : the file cannot be written
        """
        save(self, path)

    def draw(self, path: Path, title: str = "") -> None:
        """Draw the learning curve; needs matplotlib.

        Parameters
        ----------
        path : of the picture, a PNG
        title : above it; by default the network's layer

        Raises
        ------
        ImportError : matplotlib is not installed
        TypeError, ValueError, OSError : `path` cannot be written
        """
        from .curve import draw

        draw(as_path(path), self, title or repr(self.network.layer))

    def _contents(self) -> dict[str, Any]:
        numbers = [[math.nan if v is None else v for v in epoch] for epoch in self.history]
        return {
            "network": self.network,
            "last": self._last,
            "best": self._best,
            "optimizer": self.optimizer,
            "history": np.array(numbers, np.float64).reshape(-1, len(Epoch._fields)),
            "stopped": self.stopped,
            "seed": self._seed,
            "settings": tuple(self._settings.items()),
        }

    @classmethod
    def _restored(cls, contents: dict[str, Any]) -> Self:
        networks = [contents[name] for name in ("network", "last", "best")]
        optimizer = contents["optimizer"]
        if not all(isinstance(network, Network) for network in networks):
            raise ValueError("a Fit must hold three networks")
        if not isinstance(optimizer, Optimiser):
            raise ValueError("a Fit must hold an optimiser")
        rows = arguments.floats("history", contents["history"], ("n", len(Epoch._fields)))
        settings = {str(name): str(value) for name, value in contents["settings"]}
        seed = arguments.integer("seed", contents["seed"], 0)
        stopped = str(contents["stopped"])
        history = tuple(map(_epoch, rows))
        network, last, best = networks
        made = cls(network, history, optimizer, None, stopped)
        return made._with(last, best, seed, settings)

    def __repr__(self) -> str:
        count, best = len(self.history), self.best
        text = "no epoch" if best is None else f"best {best.score:.6g} in epoch {best.number}"
        return f"Fit({text} of {count}, stopped by {self.stopped!r}, {self.network!r})"

    def _rows(self) -> tuple[list[str], list[list[str]]]:
        validated = any(epoch.validation is not None for epoch in self.history)
        head = ["epoch", "loss", *(["validation"] * validated), "lr", "steps", "seconds", ""]
        shown, best = _some(self.history), self.best
        body = [
            [
                str(e.number),
                f"{e.loss:.6g}",
                *([f"{e.score:.6g}"] * validated),
                f"{e.lr:.3g}",
                f"{e.steps:,}",
                f"{e.seconds:.2f}",
                "best" * (e is best),
            ]
            for e in shown
        ]
        return head, body

    def __str__(self) -> str:
        head, body = self._rows()
        return tables.aligned([head, *body])

    def _repr_html_(self) -> str:
        head, body = self._rows()
        return html.table(f"Fit, stopped by {self.stopped!r}", body, head)


class NotFiniteError(FloatingPointError):
    """The loss of a training, or its gradient, is not finite.

    Parameters
    ----------
    text : the message, which names the epoch, the step and the learning rate
    network : the last weights whose loss was finite
    fit : Fit of the epochs that were complete, whose .network is the best of them

    All of these are attributes, too.
    """

    def __init__(self, text: str, network: Network[Any], fit: Fit[Any]) -> None:
        super().__init__(text)
        self.text, self.network, self.fit = text, network, fit

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle it with what it holds."""
        return type(self), (self.text, self.network, self.fit)


def _epoch(row: Array) -> Epoch:
    number, loss, validation, lr, steps, seconds = row.tolist()
    own = None if math.isnan(validation) else validation
    return Epoch(int(number), loss, own, lr, int(steps), seconds)


def _some(history: Sequence[Epoch]) -> list[Epoch]:
    """At most `_MOST_ROWS` epochs from the first to the last, and the best."""
    if len(history) <= _MOST_ROWS:
        return list(history)
    picked = {round(i) for i in np.linspace(0, len(history) - 1, _MOST_ROWS - 1)}
    best = best_of(history)
    return [e for i, e in enumerate(history) if i in picked or e is best]
