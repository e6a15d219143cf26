"""Networks of the estimators' settings: made, trained, and run on lists of sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import arguments
from ..arrays import Array
from ..calls.layerwise import predict
from ..calls.sequences import pad
from ..engine.losses import Loss
from ..layers.composite import Bidirectional, Stack
from ..layers.custom import Cell
from ..layers.network import Network, Readout
from ..layers.recurrent import GRU, LSTM, RNN
from ..training.fitting import fit
from ..training.optimisers import Adam
from ..training.result import Fit

_CELLS = {"rnn": RNN, "gru": GRU, "lstm": LSTM}
_TOGETHER = 256  # sequences of about one length that are run together


def build(settings: Any, inputs: int, outputs: int, activation: Any, seed: int) -> Network:
    """A network of the settings' sizes, its weights drawn."""
    rng = np.random.default_rng(seed)
    kind = settings.cell
    if not isinstance(kind, Cell):
        kind = _CELLS[arguments.choice("cell", kind, tuple(_CELLS))]
    hidden = arguments.integer("hidden_size", settings.hidden_size, 1)
    both = arguments.flag("bidirectional", settings.bidirectional)
    layers: list[Any] = []
    for _ in range(arguments.integer("layers", settings.layers, 1, 1000)):
        below = layers[-1].outputs if layers else inputs
        parts = [kind.init(below, hidden, rng=rng, dtype=settings.dtype) for _ in range(1 + both)]
        layers.append(Bidirectional(*parts) if both else parts[0])
    stack = Stack(layers, settings.dropout)  # checks dropout, of one layer too
    layer = layers[0] if len(layers) == 1 else stack
    readout = Readout.init(
        layer.outputs, outputs, rng=rng, dtype=settings.dtype, activation=activation
    )
    return Network(layer, readout)


def outputs_of(network: Network, sequences: Sequence[Array], settings: Any) -> list[Array]:
    """The outputs of each sequence: of all "steps", (T_i, O), their "mean" or the "last", (O,)."""
    which = settings.output
    found: list[Any] = [None] * len(sequences)
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    for start in range(0, len(order), _TOGETHER):
        some = order[start : start + _TOGETHER]
        x, lengths = pad([sequences[i] for i in some])
        o, _ = predict(network, x, lengths=lengths, device=settings.device)
        for b, i in enumerate(some):
            own = o[: lengths[b], b]
            found[i] = own if which == "steps" else own[-1] if which == "last" else own.mean(0)
    return found


def trained(
    network: Network, x: Sequence[Array], y: Sequence[Array], loss: Loss, settings: Any, seed: int
) -> Fit:
    """Train a network on sequences and the targets of their steps, or of each of them."""
    epochs = arguments.integer("epochs", settings.epochs, 1)
    batch = arguments.integer("batch", settings.batch, 1)
    verbose = arguments.flag("verbose", settings.verbose)
    held, share = None, _share(settings.validation_fraction)
    if settings.patience is not None:
        count = _held_out(share, len(x))
        order = np.random.default_rng(seed).permutation(len(x)).tolist()
        (xs, ys), (x, y) = (
            ([x[i] for i in part], [y[i] for i in part]) for part in (order[:count], order[count:])
        )
        held = _stepwise(xs, ys, settings.output)
    given, targets, options = _stepwise(x, y, settings.output)
    return fit(
        network, given, targets, loss, **options, optimizer=Adam(settings.lr, clip=settings.clip),
        epochs=epochs, batch=min(batch, len(x)), validation=held, patience=settings.patience,
        memory=settings.memory, seed=seed, progress=verbose or None, device=settings.device,
    )  # fmt: skip


def _stepwise(x: Sequence[Array], y: Sequence[Array], which: str) -> tuple[Any, Any, dict]:
    """Data as `fit` takes them: x, targets for every step, and the weights of steps.

    They are lists; or, if all sequences have one length, arrays, which need no padding.
    """
    steps, weights = [len(one) for one in x], None
    if which != "steps":
        y = [np.broadcast_to(one, (T, *np.shape(one))) for one, T in zip(y, steps, strict=True)]
    if which == "last":
        weights = [np.arange(T) == T - 1 for T in steps]
    if len(set(steps)) > 1:
        return x, y, {"weights": weights}
    along = {"weights": None if weights is None else np.stack(weights, axis=1)}
    return np.stack(x, axis=1), np.stack(y, axis=1), along


def _share(given: Any) -> float:
    """The setting validation_fraction, checked."""
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 < given < 1:
        raise ValueError(
            f"validation_fraction must be a number between 0 and 1, not {arguments.shown(given)}"
        )
    return given


def _held_out(share: float, count: int) -> int:
    """How many of the sequences are held out for validation."""
    held = max(1, round(share * count))
    if held >= count:
        raise ValueError(
            f"X must hold more than {held} sequences, not {count}: with patience, {held} are held "
            "out for validation"
        )
    return held
