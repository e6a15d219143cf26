"""`fastbptt demo`: an exact gradient through a million steps, and training on real text."""

from __future__ import annotations

import argparse
import platform
import sys
from typing import Any

import numpy as np

from ...display import tables
from ...display.bar import Bar
from .. import options
from . import text
from .exact import HIDDEN, Exact, exact_gradient
from .training import CHUNK, Learning, new_network, sample, train


def add_command(commands: Any) -> None:
    """Add `demo` to the command line."""
    parser = commands.add_parser(
        "demo",
        help="train on real text, with a progress bar and a picture",
        description="One exact gradient through a long text within a memory budget, then a "
        "character LSTM trained by truncated BPTT. The text is the standard library's source.",
    )
    whole = parser.number(int, 1)
    parser.add_argument("--seconds", type=parser.number(float, 1), default=40, help="of training")
    parser.add_argument("--hidden", type=whole, default=128, help="units of the trained LSTM")
    parser.add_argument("--streams", type=whole, default=32, help="parallel streams of training")
    parser.add_argument("--steps", type=whole, default=10**6, help="of the exact gradient")
    parser.add_argument("--budget", default="64MB", help="memory of the exact gradient")
    parser.add_argument("--seed", type=parser.number(int, 0), default=0)
    parser.add_argument(
        "--out", type=options.new_file, default="demo.png", help="where the picture goes"
    )
    parser.set_defaults(run=lambda args: run(parser, args))


def run(parser: Any, args: argparse.Namespace) -> int:
    """Run the whole demo; returns the exit status."""
    import fastbptt as fb

    try:
        fb.plan(new_network(HIDDEN, args.seed), args.steps, memory=args.budget)
    except ValueError as error:
        parser.error(f"argument --budget: {error}")
    numbers = 4 * args.hidden * (args.hidden + text.CLASSES + 1)
    options.check_memory(parser, "weights, their gradient and Adam's two means", 4 * 4 * numbers)
    if not options.has_extras("demo", "matplotlib", "tqdm"):
        return 1
    from .picture import draw

    files, held_files = text.split(text.stdlib_files())
    train_ids, held_ids = text.read(files), text.read(held_files)
    if not len(held_ids):
        print("fastbptt demo: this Python has no standard library source", file=sys.stderr)
        return 1
    if args.streams > len(held_ids) // 100:
        parser.error(f"argument --streams: must be at most {len(held_ids) // 100} for this text")

    source = f"Python {platform.python_version()}'s standard library"
    print(f"Text: {source}, {(len(train_ids) + len(held_ids)) / 1e6:.1f} million characters")
    print(f"in {len(files) + len(held_files)} files, of which {len(held_files)} are held out.")
    exact = exact_gradient(train_ids[: args.steps + 1], args.budget, seed=args.seed)
    report_exact(exact)

    network = new_network(args.hidden, args.seed)
    print(f"\nTraining an LSTM with {args.hidden} units by truncated BPTT: {args.streams} streams,")
    print(f"{CHUNK} steps a chunk, Adam, {args.seconds:g} s:", flush=True)
    with Bar("s", args.seconds) as bar:
        learning = train(network, train_ids, held_ids, args.seconds, args.streams, show=bar.show)
    learning.baselines = {
        "order-0 model": text.order0_bits(train_ids, held_ids),
        "order-1 model": text.order1_bits(train_ids, held_ids),
        "gzip -9": text.gzip_bits(held_ids),
    }
    report_learning(learning)

    print("\nWhat the network writes after 'def ' (temperature 0.7):\n")
    print(sample(network, "def ", 400, temperature=0.7, seed=args.seed))
    draw(args.out, learning, exact, f"fastbptt on {source}")
    print(f"\nPicture: {args.out}")
    return 0


def report_exact(exact: Exact) -> None:
    """Print the memory and time of the exact gradient."""
    head = ("peak measured", "planned", "forward steps", "time", "predicted", "us a character")
    rows = [
        (
            f"{run.measured_bytes / 1e6:.2f} MB",
            f"{run.plan.peak_bytes / 1e6:.2f} MB",
            f"{run.plan.forward_steps:,}",
            f"{run.seconds:.1f} s",
            f"{run.plan.seconds or 0:.1f} s",
            f"{run.seconds / exact.steps * 1e6:.2f}",
        )
        for run in exact.runs
    ]
    print(tables.aligned([head, *rows], indent="  "))
    print("  Measured with Python's own objects, which no plan counts.")
    full = exact.frontier[0].peak_bytes / 1e6
    print(f"  With every step cached it would take {full:,.0f} MB.", end=" ")
    if len(exact.runs) > 1:
        verdict = "the same to the bit" if exact.same else "NOT the same: please report this"
        print(f"The gradients are {verdict}.", end="")
    print(
        f"\n  Loss: {exact.bits:.3f} bits per character, untrained "
        f"(a uniform guess: {np.log2(text.CLASSES):.3f})."
    )


def report_learning(learning: Learning) -> None:
    """Print bits per character on held-out text, and those of the baselines."""
    bits = learning.held_out[-1][1]
    scores = {"LSTM": bits, **learning.baselines}
    rate = learning.characters / max(learning.seconds, 1e-9)
    print(f"  {learning.updates:,} updates, {learning.characters / 1e6:.1f} million characters,")
    print(f"  {rate / 1e3:,.0f} thousand a second. Bits per character on held-out text:")
    rows = [(name, f"{value:.3f}") for name, value in scores.items()]
    print(tables.aligned(rows, left=(0,), indent="    "))
    order1 = learning.baselines["order-1 model"]
    verdict = "below" if bits < order1 else "NOT below"
    print(f"  The LSTM is {verdict} the order-1 model ({bits - order1:+.2f} bits per character).")
