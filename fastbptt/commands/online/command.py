"""`fastbptt online`: predict a stream row by row, and learn from each row as it comes."""

from __future__ import annotations

import argparse
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from .. import options
from ..building import CELLS, make_layer
from .rows import Rows, Scale


def add_command(commands: Any) -> None:
    """Add `online` to the command line."""
    parser = commands.add_parser(
        "online",
        help="predict a stream row by row, and learn from each row as it comes",
        description="Reads rows of numbers, predicts columns of the row to come, and learns by "
        "truncated BPTT or RTRL. Columns are scaled by their mean and deviation so far; an empty "
        "field is left out. The error is that of the scaled numbers: 1 is what the mean alone "
        "leaves.",
    )
    whole = parser.number(int, 1)
    parser.add_argument("data", metavar="DATA", help="a CSV file, an .npy file, or - for stdin")
    parser.add_argument("--target", nargs="+", metavar="COLUMN", help="to predict; default: all")
    parser.add_argument("--ahead", type=whole, default=1, help="rows; default: 1")
    group = parser.add_argument_group("network")
    names = [name.lower() for name in CELLS]
    group.add_argument("--cell", choices=names, default="lstm", help="default: lstm")
    group.add_argument("-H", "--hidden", type=whole, default=32, help="units; default: 32")
    group.add_argument("--layers", type=parser.number(int, 1, 1000), default=1)
    group.add_argument("--network", metavar="NETWORK.npz", help="to begin with, of network.save()")
    group.add_argument("--save", type=options.new_file, metavar="NETWORK.npz", help="at the end")
    group = parser.add_argument_group("learning")
    text = "truncated (default), rtrl: exact, an update a row, or snap: each unit's own influence"
    group.add_argument("--gradient", choices=("truncated", "rtrl", "snap"), help=text)
    group.add_argument("--k1", type=whole, help="rows between updates; default: 16")
    group.add_argument("--k2", type=whole, help="rows to go back over; default: 64")
    group.add_argument("--weights", choices=("replay", "stale", "stored"))
    text = "of Adam; default: 0.003"
    group.add_argument("--rate", type=parser.number(float, 0), default=3e-3, help=text)
    group.add_argument("--seed", type=parser.number(int, 0), default=0)
    group = parser.add_argument_group("output")
    group.add_argument("--every", type=whole, default=1000, help="rows a line; default: 1000")
    group.add_argument("--rows", type=whole, help="to stop after; default: at the end")
    group.add_argument("--predictions", type=options.new_file, metavar="FILE.csv")
    group.add_argument("--out", type=options.new_file, metavar="PICTURE.png", help="draw the error")
    parser.set_defaults(run=lambda args: run(parser, args))


def run(parser: Any, args: argparse.Namespace) -> int:
    """Read, predict and learn; print the error, and draw it if asked to."""
    if args.out is not None and not options.has_extras("online --out", "matplotlib"):
        return 1
    gradient = _gradient(parser, args)
    try:
        rows = Rows(args.data)
        try:
            return _run(args, gradient, rows)
        finally:
            rows.close()
    except (ValueError, TypeError) as error:
        parser.error(str(error))
        raise AssertionError from None  # error does not return


def _gradient(parser: Any, args: argparse.Namespace) -> Any:
    """The gradient to learn by; k1, k2 and weights are those of truncated ones alone."""
    import fastbptt as fb

    if args.gradient in ("rtrl", "snap"):
        for name in ("k1", "k2", "weights"):
            if getattr(args, name) is not None:
                parser.error(f"argument --{name}: not with --gradient {args.gradient}")
        return fb.RTRL() if args.gradient == "rtrl" else fb.SnAp1()
    k1 = args.k1 or 16
    k2 = args.k2 or max(64, k1)
    if k2 < k1:
        parser.error(f"argument --k2: must be at least --k1, {k1}, not {k2}")
    return fb.Truncated(k1, k2, weights=args.weights or "replay")


def _run(args: argparse.Namespace, gradient: Any, rows: Rows) -> int:
    targets = _targets(rows.names, args.target)
    stream = Stream(args, gradient, len(rows.names), targets)
    what = ", ".join(rows.names[n] for n in targets[:8]) + ", ..." * (len(targets) > 8)
    print(f"Predicts {what} of the row {args.ahead} ahead.")
    print(f"{'rows':>10}  {'error':>8}  {'last row':>8}", flush=True)
    file = None
    if args.predictions is not None:
        file = open(args.predictions, "w", encoding="utf-8")  # noqa: SIM115
        file.write(",".join(rows.names[n] for n in targets) + "\n")
    try:
        for row in _until_interrupted(iter(rows), args.rows):
            predicted = stream.push(row)
            if file is not None:
                _write(file, predicted)
            if stream.count % args.every == 0:
                _print(stream.line())
    finally:
        if file is not None:
            file.close()
    stream.finish()
    if stream.count % args.every:
        _print(stream.line())
    if not stream.lines:
        raise ValueError(f"{args.data!r} must hold more than {args.ahead} rows")
    if args.save is not None:
        stream.network.save(args.save)
        print(f"Network: {args.save}")
    if args.out is not None:
        from .picture import draw

        title = "stdin" if args.data == "-" else Path(args.data).name
        draw(args.out, stream.lines, f"{title}: {what}")
        print(f"Picture: {args.out}")
    return 0


def _until_interrupted(rows: Iterator[Any], most: int | None) -> Iterator[Any]:
    """The rows; Ctrl-C ends a stream, which may have no other end."""
    count = 0
    try:
        for row in rows:
            yield row
            count += 1
            if count == most:
                return
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)


def _targets(names: list[str], wanted: list[str] | None) -> list[int]:
    if wanted is None:
        return list(range(len(names)))
    found = []
    for text in wanted:
        if text in names:
            found.append(names.index(text))
        elif text.isdecimal() and int(text) < len(names):
            found.append(int(text))
        else:
            raise ValueError(f"--target must be one of {', '.join(names[:20])}, not {text!r}")
    return found


def _write(file: TextIO, values: np.ndarray) -> None:
    file.write(",".join(f"{value:.6g}" for value in values) + "\n")


def _print(line: tuple[int, float, float] | None) -> None:
    if line is not None:
        count, error, last = line
        print(f"{count:>10,}  {error:>8.4f}  {last:>8.4f}", flush=True)


class Stream:
    """Predicts a stream, and learns from it.

    count : rows so far; lines : (rows, error, that of the last row as a prediction) so far
    """

    def __init__(self, args: argparse.Namespace, gradient: Any, columns: int, targets: list[int]):
        import fastbptt as fb

        self.targets, self.ahead, self.count = targets, args.ahead, 0
        if args.network is None:
            rng = np.random.default_rng(args.seed)
            layer = make_layer(
                args.cell.upper(), columns, args.hidden, args.layers, False, rng, "float32"
            )
            readout = fb.Readout.init(args.hidden, len(targets), rng=rng)
            self.network = fb.Network(layer, readout)
        else:
            self.network = _read(args.network, columns, len(targets))
        self.learner = fb.Online(self.network, gradient=gradient)
        self.adam = fb.Adam(args.rate, clip=1.0)
        self.scale = Scale(columns)
        self.waiting: deque[np.ndarray] = deque()  # rows whose target has not come yet
        self.lines: list[tuple[int, float, float]] = []
        self._begin_line()

    def _begin_line(self) -> None:
        self.error = self.last = 0.0
        self.scored = 0

    def push(self, row: np.ndarray) -> np.ndarray:
        """Learn from a row; returns what was predicted for it, NaN where nothing could be."""
        self.count += 1
        scaled = self.scale.scaled(row)
        predicted = np.full(len(self.targets), np.nan)
        if len(self.waiting) == self.ahead:
            x, y = self.waiting.popleft(), scaled[self.targets]
            there = np.isfinite(y)
            dtype = self.network.dtype
            update = self.learner.push(
                np.where(np.isfinite(x), x, 0).astype(dtype),
                np.where(there, y, 0).astype(dtype),
                weights=there.astype(float),
            )
            assert update.outputs is not None
            self._score(update.outputs, y, x[self.targets], there)
            mean, size = self.scale.mean[self.targets], self.scale.deviation[self.targets]
            predicted = update.outputs * size + mean
            self._learn(update)
        self.scale.add(row)
        self.waiting.append(scaled)
        return predicted

    def finish(self) -> None:
        """Learn from what is still due."""
        self._learn(self.learner.finish())

    def _learn(self, update: Any) -> None:
        if update.grad is not None:
            self.adam.step(self.network, update.grad)

    def _score(self, found: np.ndarray, y: np.ndarray, last: np.ndarray, there: Any) -> None:
        last = np.where(np.isfinite(last), last, 0)
        self.error += float(((found - y)[there] ** 2).sum())
        self.last += float(((last - y)[there] ** 2).sum())
        self.scored += int(there.sum())

    def line(self) -> tuple[int, float, float] | None:
        """The mean errors since the line before; None where nothing was predicted."""
        if not self.scored:
            return None
        self.lines.append((self.count, self.error / self.scored, self.last / self.scored))
        self._begin_line()
        return self.lines[-1]


def _read(path: str, columns: int, outputs: int) -> Any:
    import fastbptt as fb

    network = fb.load(path)
    if not isinstance(network, fb.Network) or network.readout is None:
        raise ValueError(f"{path!r} must hold a Network with a readout")
    sizes = network.layer.inputs, network.readout.outputs
    if sizes != (columns, outputs):
        raise ValueError(
            f"{path!r} must have {columns} inputs and {outputs} outputs, not {sizes[0]} and "
            f"{sizes[1]}"
        )
    return network
