"""What several commands take: the sizes of a network, a file to write, the extras that draw."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import arguments
from ..drawing import UNDRAWN
from ..kernels import optional
from ..memory import human
from . import info, peers

if TYPE_CHECKING:
    from ..layers import Network

CELLS = {"rnn": "RNN", "gru": "GRU", "lstm": "LSTM"}


def check_environment(parser: Any, runs: bool) -> None:
    """End with a line if a variable that the package reads is not what it must be.

    `runs`: whether the device that it names must be there.
    """
    try:
        from .. import devices
        from ..kernels.cpu import team

        team.get_num_threads()
        name, source = devices.named(None)
    except ValueError as error:
        parser.error(str(error))
    if runs and name is not None:
        try:
            devices.device(name, source)
        except devices.DeviceError as error:
            parser.error(str(error))


def check_room(parser: Any, what: str, needed: int) -> None:
    """End with a line if so many bytes are more than there are."""
    there = info.available_bytes()
    if needed > arguments.MOST or (there is not None and needed > there):
        of = "" if there is None else f", of {human(there)} available"
        parser.error(f"{what} would take {human(needed)}{of}")


def add_network(
    parser: Any, *, batch: int, inputs: int, hidden: int, outputs: int, cell: str = "lstm"
) -> None:
    """Add the sizes of a network, with these defaults."""
    whole, few = parser.number(int, 1), parser.number(int, 1, 1000)
    group = parser.add_argument_group("network")
    group.add_argument("--cell", choices=CELLS, default=cell, help=f"default: {cell}")
    for flag, name, default in (
        ("-B", "batch", batch),
        ("-I", "inputs", inputs),
        ("-H", "hidden", hidden),
        ("-O", "outputs", outputs),
    ):
        text = f"default: {default}"
        group.add_argument(flag, f"--{name}", type=whole, default=default, help=text)
    group.add_argument("--layers", type=few, default=1, help="in a stack; default: 1")
    group.add_argument("--bidirectional", action="store_true", help="both directions of time")
    group.add_argument("--dtype", choices=("float32", "float64"), default="float32")


def network(args: argparse.Namespace, seed: Any = None) -> Network:
    """Return a network of those sizes with fresh weights, or with `UNDRAWN` ones.

    Raises ValueError for sizes whose bytes do not fit into 64 bits.
    """
    import fastbptt as fb

    rng = seed if seed is UNDRAWN else np.random.default_rng(seed)
    layer = peers.make_layer(
        CELLS[args.cell], args.inputs, args.hidden, args.layers, args.bidirectional, rng, args.dtype
    )
    readout = fb.Readout.init(layer.outputs, args.outputs, rng=rng, dtype=args.dtype)
    return fb.Network(layer, readout)


def new_file(text: str) -> Path:
    """Return the path, which must be one that can be written: what a run ends with is kept."""
    path = Path(text)
    try:
        if path.is_fifo():
            raise argparse.ArgumentTypeError(f"is a pipe: {text!r}")
        if not path.resolve().parent.is_dir():
            raise argparse.ArgumentTypeError(f"no such folder: {path.resolve().parent}")
        if path.is_dir():
            raise argparse.ArgumentTypeError(f"is a folder: {text!r}")
        there = path.exists()
        with open(path, "ab"):  # only trying tells whether it can be written
            pass
        if not there:
            path.unlink()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot be written: {error.strerror}: {text!r}") from None
    return path


def has_extras(command: str, *packages: str) -> bool:
    """Whether the packages can be imported; if not, say what to install."""
    for package in packages:
        try:
            optional.load(package, f"fastbptt {command} needs", "pip install 'fastbptt[cli]'")
        except ImportError as error:
            print(error, file=sys.stderr)
            return False
    return True


def between(network: Network, steps: int, batch: int, rows: Any, count: int = 80) -> list[Any]:
    """Return the plans of budgets between the least and full caching, for a curve."""
    import fastbptt as fb

    least, most = rows[-1].peak_bytes, rows[0].peak_bytes
    curve = np.geomspace(float(least), float(most), count)[1:-1].tolist()
    budgets = {min(max(least, int(budget)), arguments.MOST) for budget in curve}
    return [fb.plan(network, steps, batch, memory=budget) for budget in sorted(budgets)]
