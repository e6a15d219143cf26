"""Options and checks that commands share: the network, files to write, optional packages."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import arguments
from ..kernels import optional
from ..layers.drawing import UNDRAWN
from ..memory.plan import human
from . import info
from .building import CELLS, make_layer

if TYPE_CHECKING:
    from ..layers.network import Network


def check_environment(parser: Any, needs_device: bool) -> None:
    """Exit with an error if an environment variable of the package has a wrong value.

    With `needs_device`, the device that FASTBPTT_DEVICE names must exist too.
    """
    try:
        from ..backends import devices
        from ..kernels.cpu import team, tile

        tile.vector_bytes()
        team.get_num_threads()
        name, source = devices.named(None)
    except ValueError as error:
        parser.error(str(error))
    if needs_device and name is not None:
        try:
            devices.device(name, source)
        except devices.DeviceError as error:
            parser.error(str(error))


def check_memory(parser: Any, what: str, needed: int) -> None:
    """Exit with an error if `needed` bytes are more than this process may allocate."""
    available = info.available_bytes()
    if needed > arguments.MOST or (available is not None and needed > available):
        of = "" if available is None else f", of {human(available)} available"
        parser.error(f"{what} would take {human(needed)}{of}")


def add_network(
    parser: Any, *, batch: int, inputs: int, hidden: int, outputs: int, cell: str = "lstm"
) -> None:
    """Add the options of a network, with these defaults."""
    whole, few = parser.number(int, 1), parser.number(int, 1, 1000)
    group = parser.add_argument_group("network")
    group.add_argument(
        "--cell", choices=[name.lower() for name in CELLS], default=cell, help=f"default: {cell}"
    )
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
    """Return a network of the sizes in `args`, its weights drawn with `seed`.

    With the seed `UNDRAWN` the weights take no memory. Raises ValueError where the number of bytes
    does not fit into 64 bits.
    """
    import fastbptt as fb

    rng = seed if seed is UNDRAWN else np.random.default_rng(seed)
    cell = args.cell.upper()
    layer = make_layer(
        cell, args.inputs, args.hidden, args.layers, args.bidirectional, rng, args.dtype
    )
    readout = fb.Readout.init(layer.outputs, args.outputs, rng=rng, dtype=args.dtype)
    return fb.Network(layer, readout)


def memory(text: str) -> str:
    """Return a memory policy as `bptt` takes it; a number alone is of bytes."""
    return f"{text}B" if text.isdecimal() else text


def new_file(text: str) -> Path:
    """Return the path of a file to write; an argument type, so no work is lost to a bad path."""
    path = Path(text)
    try:
        if path.is_fifo():
            raise argparse.ArgumentTypeError(f"is a pipe: {text!r}")
        if not path.resolve().parent.is_dir():
            raise argparse.ArgumentTypeError(f"no such folder: {path.resolve().parent}")
        if path.is_dir():
            raise argparse.ArgumentTypeError(f"is a folder: {text!r}")
        existed = path.exists()
        with open(path, "ab"):  # the only sure test of whether it can be written
            pass
        if not existed:
            path.unlink()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot be written: {error.strerror}: {text!r}") from None
    return path


def has_extras(command: str, *packages: str) -> bool:
    """Whether the packages can be imported; if not, print what to install."""
    for package in packages:
        try:
            optional.load(package, f"fastbptt {command} needs", "pip install 'fastbptt[cli]'")
        except ImportError as error:
            print(error, file=sys.stderr)
            return False
    return True


def between(network: Network, steps: int, batch: int, rows: Any, count: int = 80) -> list[Any]:
    """Return plans for budgets between the smallest and full caching, for a curve."""
    import fastbptt as fb

    least, most = rows[-1].peak_bytes, rows[0].peak_bytes
    curve = np.geomspace(float(least), float(most), count)[1:-1].tolist()
    budgets = {min(max(least, int(budget)), arguments.MOST) for budget in curve}
    return [fb.plan(network, steps, batch, memory=budget) for budget in sorted(budgets)]


def speeds(network: Network, rows: Any, tokens: bool = False) -> Any:
    """Return the measured Speeds of the plans of a frontier; x is floats, or `tokens`."""
    from ..calls import device_choice, planning

    steps, batch = rows[0].steps, rows[0].batch
    device = device_choice.of_plan(None, network.layer, steps, batch)
    return planning.speeds(network, rows, device, tokens)
