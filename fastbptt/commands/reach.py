"""`fastbptt reach`: how far back the gradient of a saved network reaches on given data."""

from __future__ import annotations

import argparse
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from ..kernels.loss_table import LOSSES
from ..layers.archive import DAMAGE
from ..layers.model import as_path
from . import options

DEFAULTS = {loss.readout: name for name, loss in LOSSES.items() if loss.readout}
"""The default loss of each readout's activation; squared error for the others."""


def add_command(commands: Any) -> None:
    """Add `reach` to the command line."""
    parser = commands.add_parser(
        "reach",
        help="how far back the gradient of a saved network reaches: which k2 to take",
        description="The mean norm of the derivative of a loss with respect to earlier states, by "
        "lag; its decay; and the k2 beyond which less than a given share of the gradient lies. "
        "Arrays have time as their first axis, as for fastbptt.bptt.",
    )
    whole = parser.number(int, 1)
    parser.add_argument("network", metavar="NETWORK.npz", help="written by network.save(path)")
    parser.add_argument("x", metavar="X.npy", help="(T, B, I), (T, I), or integer tokens")
    parser.add_argument("y", metavar="Y.npy", help="targets: (T, B, O), (T, O), or classes")
    text = "default: the usual one for the readout's activation"
    parser.add_argument("--loss", choices=list(LOSSES), help=text)
    parser.add_argument("--share", type=float, default=0.01, help="that may be lost; default: 0.01")
    parser.add_argument("--max-lag", type=whole, help="default: 1000, or half of x if less")
    parser.add_argument("--samples", type=whole, default=64, help="losses to draw; default: 64")
    parser.add_argument("--seed", type=parser.number(int, 0), default=0)
    parser.add_argument("--out", type=options.new_file, metavar="PICTURE.png", help="draw it")
    parser.set_defaults(run=lambda args: run(parser, args))


def run(parser: Any, args: argparse.Namespace) -> int:
    """Print the table, and draw it if asked to."""
    import fastbptt as fb

    try:
        network = fb.load(args.network)
        if not isinstance(network, fb.Network) or network.readout is None:
            raise ValueError(f"{args.network!r} must hold a Network with a readout")
        x, y = (array_of(path) for path in (args.x, args.y))
        loss: Any = args.loss or DEFAULTS.get(network.readout.activation, "squared_error")
        if args.out is not None and not options.has_extras("reach --out", "matplotlib"):
            return 1
        reach = fb.gradient_reach(
            network, x, y, loss, share=args.share, max_lag=args.max_lag, samples=args.samples,
            seed=args.seed,
        )  # fmt: skip
    except (OSError, ValueError, TypeError) as error:
        parser.error(str(error))
    print(reach)
    if args.out is not None:
        from .reach_picture import draw

        draw(args.out, reach, f"{Path(args.network).name} on {Path(args.x).name}, {loss}")
        print(f"Picture: {args.out}")
    return 0


def array_of(path: str) -> Any:
    """The array of an .npy file, memory-mapped."""
    try:
        with np.errstate(over="ignore"):  # sizes that overflow end in an error below
            array = np.load(as_path(path), mmap_mode="r", allow_pickle=False)
    except (*DAMAGE, SyntaxError, TokenError, MemoryError):
        raise ValueError(f"{path!r} must be a whole .npy file of numbers") from None
    if not isinstance(array, np.ndarray):
        array.close()  # an archive
        raise ValueError(f"{path!r} must be an .npy file of one array")
    return array
