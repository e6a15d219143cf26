"""fit: minibatches or windows in order, validation, the best weights, and going on from a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import arguments
from ..arguments import Path
from ..arrays import ArrayLike, home, module_of, on_its_gpu
from ..calls import inputs, loss_inputs, planning
from ..calls.progress import Progress
from ..engine.losses import Loss, Reduction
from ..layers.composite import AnyLayer, needs_future
from ..layers.network import Network
from ..memory.policies import Memory
from . import files
from .base import Optimiser, number
from .data import Arrays, Lists, checked
from .loop import Callback, Training, copied
from .result import Fit


def fit(
    network: Network[AnyLayer],
    x: ArrayLike | Sequence[ArrayLike],
    y: Any,
    loss: Loss = "squared_error",
    *,
    optimizer: Optimiser,
    epochs: int,
    reduction: Reduction = "mean",
    batch: int | None = None,
    window: int | None = None,
    validation: Any = None,
    patience: int | None = None,
    memory: Memory = "auto",
    weights: Any = None,
    lengths: ArrayLike | int | None = None,
    resets: Any = None,
    seed: int | None = None,
    path: Path | None = None,
    progress: Progress = True,
    callbacks: Callback | Sequence[Callback] = (),
    device: str | None = None,
) -> Fit[AnyLayer]:
    """Train a network: some epochs of updates, the best weights of which are returned.

    Each update is a gradient of `bptt`, exact unless `memory` is Truncated, and a step of the
    optimiser. Ctrl-C ends the training, and what was best so far is returned.

    Parameters
    ----------
    network : Network, which is not modified
    x : as of `bptt`: sequences beside each other (T, B, I), or tokens (T, B), or one without B. Or
        a list of sequences of different lengths, (T_b, I) or (T_b,), which are padded batch by
        batch
    y : targets, as of `bptt`; a list if x is one
    loss : as of `bptt`
    optimizer : Adam or SGD, which is not modified; its lr may be a function of the number of steps
    epochs : the number of passes over the data; with the file at `path`, those of earlier calls
        included
    reduction : "mean" or "sum", of each update and in the history. A loss of your own needs "sum"
    batch : sequences of an update, drawn anew in each epoch; None: all of them
    window : steps of an update: windows follow each other in time, the state is carried from one to
        the next, and no gradient goes back beyond a window. None: all steps
    validation : None; a number between 0 and 1, the share of the sequences that is held out: the
        last ones, or of one sequence its last steps; a pair (x, y) in the forms of x and y; or
        (x, y, options) with a dict of weights, lengths and resets
    patience : end when so many epochs have brought no better loss: of the validation data, or
        without them of the training data. None: never
    memory : as of `bptt`
    weights, lengths, resets : as of `bptt`; weights and resets are lists if x is one, whose
        sequences have lengths of their own
    seed : of the order of sequences and of dropout; None draws one
    path : a file that is written after every epoch, from which the same call goes on with the same
        bits. One of a training with other sizes, data or settings is an error; `epochs`,
        `patience`, `callbacks` and `device` may differ
    progress : True for a bar with the loss (lines where tqdm is not installed), None for none, or a
        callable `(done, total)` of positions
    callbacks : a function `f(epoch, network)` or several, called after each epoch with its entry of
        the history and the network as it is then, which goes on changing; if one returns True, the
        training ends
    device : as of `bptt`

    Returns
    -------
    Fit with .network, .history, .optimizer, .path and .stopped, and a method .draw(path)

    Raises
    ------
    ValueError, TypeError : an argument of the wrong shape, dtype or value, before any work
    NotFiniteError : the loss or its gradient is not finite. Its .network has the last weights whose
        loss was, which are at `path`, too; its .fit the epochs before
    MemoryLimitError : the budget is too small for any exact schedule
    OSError : the file at `path` cannot be read or written
    """
    network = inputs.network(network)
    if not isinstance(optimizer, Optimiser):
        raise TypeError(
            f"optimizer must be a fastbptt.Adam or SGD, not {arguments.describe(optimizer)}"
        )
    optimizer.rate()
    epochs = arguments.integer("epochs", epochs, 0)
    batch, window, patience = (
        None if value is None else arguments.integer(name, value, 1)
        for name, value in (("batch", batch), ("window", window), ("patience", patience))
    )
    if seed is not None:
        seed = arguments.integer("seed", seed, 0)
    if window is not None and needs_future(network.layer):
        raise ValueError(
            "window must be None for a network with a Bidirectional layer, which reads a sequence "
            f"from its end, too, not {window}"
        )
    loss_inputs.check_name(loss)
    common = (loss, reduction)
    data = checked(network, x, y, *common, weights, lengths, resets, device)
    held = _validation(network, validation, data, common, device)
    if isinstance(held, tuple):
        data, held = held
    if batch is not None and batch > data.count:
        raise ValueError(f"batch must be at most {data.count}, the sequences, not {batch}")
    steps = data.steps if window is None else min(window, data.steps)
    plan = planning.plan(network, steps, batch or data.count, memory=memory, device=device)
    place = files.Place.of(path)
    call = {"loss": loss, "memory": memory, "reduction": reduction, "device": device}
    settings, start = {}, None
    if place is not None:
        kind = "exact" if plan.exact else plan.memory
        others = {"reduction": reduction, "batch": batch, "window": window, "memory": kind}
        settings = files.settings(network, optimizer, data, held, loss, others)
        start = place.read(settings, seed)
    if start is None:
        own = seed if seed is not None else int(np.random.default_rng().integers(2**62))
        with on_its_gpu(network.arrays()[0]):
            first, last, best = (copied(network) for _ in range(3))
        kept = optimizer._copied()
        start = Fit(first, (), kept, None, "epochs")._with(last, best, own, settings)
    start.optimizer.lr = optimizer.lr  # files hold no functions
    functions = _functions(callbacks)
    with on_its_gpu(network.arrays()[0]):
        _move(start, network)
        training = Training(start, data, held, call, batch, window, place)
        return training.run(epochs, patience, functions, progress)


def _move(start: Fit[Any], network: Network[Any]) -> None:
    """Have the networks of a Fit, which may be from a file, lie where the given one does."""
    xp = module_of(network.arrays()[0])

    def there(own: Network[Any]) -> Network[Any]:
        if all(module_of(array) is xp for array in own.arrays()):
            return own
        return own._moved(lambda array: xp.asarray(home(array)))

    start.network = there(start.network)
    start._last, start._best = there(start._last), there(start._best)


def _validation(
    network: Network, given: Any, data: Arrays | Lists, common: tuple[Any, Any], device: str | None
) -> Any:
    """The validation data, None; or for a share the pair of what is left and what is held out."""
    if given is None:
        return None
    if isinstance(given, (tuple, list)):
        if len(given) not in (2, 3):
            raise ValueError(
                f"validation must be (x, y) or (x, y, options), not {len(given)} entries"
            )
        options = given[2] if len(given) == 3 else {}
        known = ("weights", "lengths", "resets")
        if not isinstance(options, dict) or not set(options) <= set(known):
            raise TypeError(
                f"validation must have a dict of {', '.join(known)} as its third entry, "
                f"not {arguments.describe(options)}"
            )
        weights, lengths, resets = (options.get(name) for name in known)
        x, y, (loss, reduction) = given[0], given[1], common
        try:
            return checked(network, x, y, loss, reduction, weights, lengths, resets, device)
        except (TypeError, ValueError) as error:
            raise type(error)(f"validation: {error}") from None
    share = number("validation", given)
    if not 0 < share < 1:
        raise ValueError(f"validation must lie between 0 and 1, or be data, not {given}")
    return data.split(share)


def _functions(callbacks: Any) -> Sequence[Callback]:
    found = (callbacks,) if callable(callbacks) else callbacks
    if not isinstance(found, (tuple, list)) or not all(map(callable, found)):
        raise TypeError(
            f"callbacks must be a function or a list of them, not {arguments.describe(callbacks)}"
        )
    return found
