"""Networks of the estimators' settings: made, trained, and run on lists of sequences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .. import arguments
from ..arrays import Array
from ..calls.gradient import bptt, evaluate
from ..calls.layerwise import predict
from ..calls.sequences import pad
from ..layers.composite import Bidirectional, Stack
from ..layers.custom import Cell
from ..layers.network import Network, Readout
from ..layers.recurrent import GRU, LSTM, RNN

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
    layer = layers[0] if len(layers) == 1 else Stack(layers, settings.dropout)
    readout = Readout.init(
        layer.outputs, outputs, rng=rng, dtype=settings.dtype, activation=activation
    )
    return Network(layer, readout)


def outputs_of(network: Network, sequences: Sequence[Array], which: str) -> list[Array]:
    """The outputs of each sequence: of all "steps", (T_i, O), their "mean" or the "last", (O,)."""
    found: list[Any] = [None] * len(sequences)
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    for start in range(0, len(order), _TOGETHER):
        some = order[start : start + _TOGETHER]
        x, lengths = pad([sequences[i] for i in some])
        o, _ = predict(network, x, lengths=lengths)
        for b, i in enumerate(some):
            own = o[: lengths[b], b]
            found[i] = own if which == "steps" else own[-1] if which == "last" else own.mean(0)
    return found


class Stepwise:
    """Sequences and their targets, in minibatches that `bptt` takes.

    targets : of each step if `which` is "steps": (T_i, O) or (T_i,); else of each sequence, which
        only its "last" step has, or all of them alike for the "mean"
    """

    def __init__(self, sequences: Sequence[Array], targets: Any, which: str):
        self.sequences, self.targets, self.which = sequences, targets, which

    def __len__(self) -> int:
        return len(self.sequences)

    def part(self, chosen: Sequence[int]) -> Stepwise:
        """Some of the sequences."""
        picked = [self.targets[i] for i in chosen]
        return Stepwise([self.sequences[i] for i in chosen], picked, self.which)

    def batches(self, size: int, order: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Arguments of `bptt`, for `size` sequences at a time."""
        for start in range(0, len(order), size):
            part = self.part(order[start : start + size])
            x, lengths = pad(part.sequences)
            weights = None
            if self.which == "steps":
                y, _ = pad(part.targets)
            else:
                own = np.array(part.targets)
                y = np.broadcast_to(own, (len(x), *own.shape))
            if self.which == "last":
                weights = np.arange(len(x))[:, None] == lengths - 1
            yield {"x": x, "y": y, "lengths": lengths, "weights": weights}


def trained(network: Network, data: Stepwise, loss: str, settings: Any, seed: int) -> Any:
    """Train: the network, and the losses of each epoch, of training and of validation."""
    epochs = arguments.integer("epochs", settings.epochs, 1)
    batch = arguments.integer("batch", settings.batch, 1)
    rng = np.random.default_rng(seed)
    held = None
    if settings.patience is not None:
        arguments.integer("patience", settings.patience, 1)
        share = settings.validation_fraction
        if not isinstance(share, (int, float)) or not 0 < share < 1:
            raise ValueError(
                f"validation_fraction must be between 0 and 1, not {arguments.shown(share)}"
            )
        count = max(1, round(share * len(data)))
        if count >= len(data):
            raise ValueError(
                f"X must hold more than {count} sequences, {count} of which are held out for "
                f"validation, as patience asks, not {len(data)}"
            )
        order = rng.permutation(len(data)).tolist()
        data, held = data.part(order[count:]), data.part(order[:count])
    options = {"loss": loss, "memory": settings.memory, "reduction": "mean"}
    flat = network.flat()
    m, v, step = np.zeros_like(flat), np.zeros_like(flat), 0
    curve: list[float] = []
    validation: list[float] = []
    best, kept = np.inf, network
    for _ in range(epochs):
        total = 0.0
        for given in data.batches(batch, rng.permutation(len(data)).tolist()):
            r = bptt(network, seed=step, **given, **options)
            g = r.grad.flat()
            g *= min(1.0, settings.clip / (np.linalg.norm(g) + 1e-6)) if settings.clip else 1.0
            step += 1
            m += 0.1 * (g - m)
            v += 0.001 * (g * g - v)
            scale = settings.lr / (1 - 0.9**step)
            flat -= scale * m / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
            network = network.with_flat(flat)
            total += r.loss * len(given["lengths"])
        curve.append(total / len(data))
        if held is None:
            kept = network
            continue
        (given,) = held.batches(len(held), range(len(held)))
        validation.append(evaluate(network, **given, loss=loss, reduction="mean"))
        if validation[-1] < best:
            best, kept = validation[-1], network
        elif len(validation) - 1 - int(np.argmin(validation)) >= settings.patience:
            break
    return kept, curve, validation
