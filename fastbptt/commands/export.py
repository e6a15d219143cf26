"""`fastbptt export`: a saved network or layer as a file of another program."""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from functools import partial
from typing import Any

from ..layers.model import as_path, written
from ..memory.plan import human
from . import options


def add_command(commands: Any) -> None:
    """Add `export` to the command line."""
    parser = commands.add_parser(
        "export",
        help="write a saved network as ONNX, or as JSON for RTNeural",
        description="Write a network or layer for programs that run it without this package. What "
        "a format has no layer for is an error, and then no file is written.",
    )
    text = "written by network.save(path), or the file of a training"
    parser.add_argument("network", metavar="NETWORK.npz", help=text)
    text = "inputs x and the states, outputs likewise, in float32"
    parser.add_argument("--onnx", type=options.new_file, metavar="FILE.onnx", help=text)
    text = "an LSTM or GRU, or a stack of them, and its readout"
    parser.add_argument("--rtneural", type=options.new_file, metavar="FILE.json", help=text)
    parser.set_defaults(run=lambda args: run(parser, args), needs_device=False)


def run(parser: Any, args: argparse.Namespace) -> int:
    """Write the files that are asked for."""
    import fastbptt as fb

    formats: dict[str, Callable[..., None]] = {"onnx": fb.to_onnx, "rtneural": fb.to_rtneural}
    paths = {name: getattr(args, name) for name in formats if getattr(args, name) is not None}
    if not paths:
        parser.error("--onnx or --rtneural must name a file to write")
    try:
        places = [as_path(path).resolve() for path in (args.network, *paths.values())]
        if len(set(places)) < len(places):
            raise ValueError("NETWORK.npz, --onnx and --rtneural must be different files")
        network = fb.load(args.network)
        network = getattr(network, "network", network)  # of a training or a learner
        files = {name: io.BytesIO() for name in paths}
        for name, file in files.items():
            formats[name](network, file)
    except (OSError, ValueError, TypeError) as error:
        parser.error(str(error))
    for name, file in files.items():
        written(paths[name], partial(_copy, file.getvalue()))
        print(f"{paths[name]}: {human(len(file.getvalue()))}")
    return 0


def _copy(data: bytes, file: Any) -> None:
    file.write(data)
