"""`fastbptt train`: train a network on the arrays of a file."""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ..kernels.loss_table import LOSSES
from ..layers.archive import DAMAGE
from ..layers.model import as_path
from . import options
from .building import CELLS, make_layer

_OPTIONAL = ("weights", "lengths", "resets")


def add_command(commands: Any) -> None:
    """Add `train` to the command line."""
    parser = commands.add_parser(
        "train",
        help="train a network on the arrays of an .npz file",
        description="Trains on the arrays x and y of a file of numpy.savez, as fastbptt.fit does: "
        "x (T, B, I), (T, I) or integer tokens, y targets or integer classes; weights, lengths and "
        "resets, too, if the file has them. Writes the network, a table and a picture of the "
        "losses.",
    )
    whole, few = parser.number(int, 1), parser.number(int, 1, 1000)
    positive = parser.number(float, 0)
    parser.add_argument("data", metavar="DATA.npz", help="written by numpy.savez")
    for name in ("x", "y", *_OPTIONAL):
        text = f"name of the array; default: {name}"
        parser.add_argument(f"--{name}", metavar="NAME", help=text)
    group = parser.add_argument_group("network")
    cells = [name.lower() for name in CELLS]
    group.add_argument("--cell", choices=cells, default="lstm", help="default: lstm")
    group.add_argument("-H", "--hidden", type=whole, default=64, help="units; default: 64")
    group.add_argument("--layers", type=few, default=1, help="in a stack; default: 1")
    group.add_argument("--bidirectional", action="store_true", help="both directions of time")
    group = parser.add_argument_group("training")
    text = "default: cross_entropy for integer targets, else squared_error"
    group.add_argument("--loss", choices=list(LOSSES), help=text)
    group.add_argument("--epochs", type=whole, default=20, help="default: 20")
    group.add_argument("--batch", type=whole, help="sequences an update; default: all")
    group.add_argument("--window", type=whole, help="steps an update; default: all")
    text = "share of the sequences, or of the steps of one, that is held out; default: 0.2"
    group.add_argument("--validation", type=parser.number(float, 0, 1), default=0.2, help=text)
    group.add_argument("--patience", type=whole, help="epochs without a better loss before the end")
    group.add_argument("--optimizer", choices=("adam", "sgd"), default="adam")
    group.add_argument("--lr", type=positive, help="default: 0.001 for adam, 0.01 for sgd")
    text = "norm to which longer gradients are scaled; default: 1, and 0 for none"
    group.add_argument("--clip", type=positive, default=1.0, help=text)
    group.add_argument("--memory", default="auto", help='"auto", "full", or a budget such as 64MB')
    group.add_argument("--seed", type=parser.number(int, 0), default=0)
    group = parser.add_argument_group("files to write")
    text = "the network; default: trained.npz. The table and the picture are beside it"
    group.add_argument("--out", type=options.new_file, default="trained.npz", help=text)
    group.add_argument("--no-picture", action="store_true", help="then matplotlib is not needed")
    text = "kept up to date; the same command goes on from it"
    group.add_argument("--resume", metavar="TRAINING.npz", help=text)
    parser.set_defaults(run=lambda args: run(parser, args))


def run(parser: Any, args: argparse.Namespace) -> int:
    """Train and write the files; returns the exit status."""
    import fastbptt as fb

    out = Path(args.out)
    table, picture = out.with_suffix(".csv"), out.with_suffix(".png")
    if out in (table, picture):
        parser.error(f"argument --out: must not end in {out.suffix}, as the others do")
    if not args.no_picture and not options.has_extras("train", "matplotlib"):
        return 1
    try:
        data = _arrays(args)
        y, loss = data["y"], _loss(args, data["y"])
        network = _network(args, data["x"], y, loss)
        data = {**data, **_converted(network, loss, x=data["x"], y=y)}
        clip, kind = args.clip or None, fb.Adam if args.optimizer == "adam" else fb.SGD
        optimizer = kind(clip=clip) if args.lr is None else kind(lr=args.lr, clip=clip)
        print(f"{args.data}: x {_shape(data['x'])}, y {_shape(y)}; {loss}")
        print(network, flush=True)
        fit = fb.fit(
            network, **data, loss=loss, optimizer=optimizer, epochs=args.epochs, batch=args.batch,
            window=args.window, validation=args.validation or None, patience=args.patience,
            memory=options.memory(args.memory), seed=args.seed, path=args.resume,
        )  # fmt: skip
    except fb.NotFiniteError as error:
        error.network.save(out)
        print(f"fastbptt train: {error}, saved as {str(out)!r}", file=sys.stderr)
        return 1
    except (ValueError, TypeError) as error:
        parser.error(str(error))
    print(fit)
    fit.network.save(out)
    print(f"Network: {out}")
    with open(table, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "loss", "validation", "lr", "steps", "seconds"])
        writer.writerows(fit.history)
    print(f"Table: {table}")
    if not args.no_picture:
        fit.draw(picture, f"{Path(args.data).name}: {network.layer!r}")
        print(f"Picture: {picture}")
    return 130 if fit.stopped == "interrupted" else 0


class _Missing(ValueError):
    """The file lacks an array."""


def _arrays(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `fit` that are in the file."""
    path, found = as_path(args.data), {}
    try:
        with np.load(path, allow_pickle=False) as file:
            if not hasattr(file, "files"):
                raise ValueError("it is an .npy file of one array")
            for name in ("x", "y", *_OPTIONAL):
                own = getattr(args, name) or name
                if own in file.files:
                    found[name] = file[own]
                elif name not in _OPTIONAL or getattr(args, name):
                    held = ", ".join(file.files) or "none"
                    raise _Missing(f"argument --{name}: no array {own!r}, only {held}")
    except _Missing:
        raise
    except (*DAMAGE, SyntaxError):
        raise ValueError(f"{str(path)!r} must be a whole .npz file of numbers") from None
    return found


def _loss(args: argparse.Namespace, y: Any) -> Any:
    return args.loss or ("cross_entropy" if y.dtype.kind in "iu" else "squared_error")


def _network(args: argparse.Namespace, x: Any, y: Any, loss: Any) -> Any:
    """A network of the sizes of the data."""
    import fastbptt as fb

    tokens, classes = x.dtype.kind in "iu", LOSSES[loss].classes
    for name, array, integers in (("x", x, tokens), ("y", y, classes)):
        least = 1 if integers else 2
        if array.ndim not in (least, least + 1) or not array.size:
            axes = "(T,) or (T, B)" if integers else "(T, I) or (T, B, I)"
            raise ValueError(f"{name} must have shape {axes}, with numbers, not {array.shape}")
        if integers and (array.dtype.kind not in "iu" or array.min() < 0):
            raise ValueError(f"{name} must hold integers of 0 or more, not {array.dtype}")
    inputs = int(x.max()) + 1 if tokens else x.shape[-1]
    outputs = int(y.max()) + 1 if classes else y.shape[-1]
    dtype = "float64" if np.float64 in (x.dtype, y.dtype) else "float32"
    numbers = 4 * args.hidden * (inputs + args.hidden) * args.layers + args.hidden * outputs
    if numbers > 1 << 40:
        raise ValueError(f"the network must have fewer weights than {numbers:,}")
    rng = np.random.default_rng(args.seed)
    cell = args.cell.upper()
    layer = make_layer(cell, inputs, args.hidden, args.layers, args.bidirectional, rng, dtype)
    activation: Any = LOSSES[loss].readout or "identity"
    readout = fb.Readout.init(layer.outputs, outputs, rng=rng, dtype=dtype, activation=activation)
    return fb.Network(layer, readout)


def _converted(network: Any, loss: Any, **arrays: Any) -> dict[str, Any]:
    """Numbers of another type as those of the network, where that loses nothing."""
    classes = {"x": arrays["x"].dtype.kind in "iu", "y": LOSSES[loss].classes}
    found = {}
    for name, array in arrays.items():
        if not classes[name] and array.dtype.kind in "biuf":
            own = array.astype(network.dtype)
            same = (own == array) | (own != own) & (array != array)
            found[name] = own if same.all() else array
    return found


def _shape(array: Any) -> str:
    return f"{array.dtype} {array.shape}"
