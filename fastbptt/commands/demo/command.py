"""`fastbptt demo`: an exact gradient through a million steps, and training on real text."""

from __future__ import annotations

import argparse
import platform
import sys
import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import options
from ..bar import Bar
from ..measuring import peak
from . import text as text
from .training import CHUNK, Learning, new_network, sample, train

if TYPE_CHECKING:
    from ...arrays import Array
    from ...calls.gradient import Result
    from ...layers.network import Network
    from ...memory.plan import Frontier, Plan

EXACT_HIDDEN = 64
"""Units of the LSTM of the exact gradient."""


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
        fb.plan(new_network(EXACT_HIDDEN, args.seed), args.steps, memory=args.budget)
    except ValueError as error:
        parser.error(f"argument --budget: {error}")
    numbers = 4 * args.hidden * (args.hidden + text.CLASSES + 1)
    options.check_room(parser, "weights, their gradient and Adam's two means", 4 * 4 * numbers)
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


@dataclass
class ExactRun:
    """What the exact gradient took within one budget."""

    plan: Plan
    seconds: float
    measured_bytes: int


@dataclass
class Exact:
    """The exact gradient within several budgets, the first as asked; `same`: to the bit."""

    steps: int
    runs: list[ExactRun]
    bits: float
    same: bool
    frontier: Frontier
    between: list[Plan]


def exact_gradient(ids: Array, budget: str, hidden: int = EXACT_HIDDEN, seed: int = 0) -> Exact:
    """The exact gradient of an LSTM through the whole text, its memory measured.

    After the budget asked for, the least with one and with two recomputes, where these are less.
    """
    import fastbptt as fb

    x, y = ids[:-1], ids[1:]
    network = new_network(hidden, seed)
    steps = len(x)
    frontier = fb.frontier(network, steps)
    plans = [fb.plan(network, steps, memory=budget)]
    least = [row.peak_bytes for row in frontier[1:3] if row.peak_bytes < plans[0].peak_bytes]
    plans += [fb.plan(network, steps, memory=size) for size in least]
    print(f"\nExact gradient of an LSTM with {hidden} units (float32)")
    print(f"through {steps:,} characters, within {budget} and the least budgets:", flush=True)
    warm_up(network)
    runs: list[ExactRun] = []
    results = []
    work = [plan.forward_steps + plan.backward_steps for plan in plans]
    with Bar("steps", sum(work)) as bar:

        def within(plan: Plan, before: int) -> Result:
            def show(done: int, _: int) -> None:
                bar.show(before + done, sum(work))

            return fb.bptt(network, x, y, "cross_entropy", memory=plan.memory, progress=show)

        for index, plan in enumerate(plans):
            start = time.perf_counter()
            result, most = peak(partial(within, plan, sum(work[:index])))
            seconds = time.perf_counter() - start
            runs.append(ExactRun(plan, seconds, most))
            results.append([np.array(result.loss), *result.grad.arrays()])
    same = all(
        np.array_equal(one, other)
        for arrays in results[1:]
        for one, other in zip(arrays, results[0], strict=True)
    )
    bits = float(results[0][0]) / steps / np.log(2)
    return Exact(steps, runs, bits, same, frontier, options.between(network, steps, 1, frontier))


def warm_up(network: Network) -> None:
    """Make each call once, so that no later one is timed, or its memory measured, while compiling.

    Some kernels are for two characters, some for more than a panel.
    """
    import fastbptt as fb

    from ...memory.blocking import flush_steps

    note = "  compiling the kernels (only the first run on a machine does) ..."
    notice = threading.Timer(1.5, print, [note], {"flush": True})
    notice.start()
    try:
        for steps in (flush_steps(1) + 1, 2):
            x = np.zeros((steps, 1), np.uint8)
            fb.bptt(network, x, x, "cross_entropy", reduction="mean")
        fb.evaluate(network, x, x, loss="cross_entropy")
        fb.predict(network, x)
    finally:
        notice.cancel()


def report_exact(exact: Exact) -> None:
    """Print what the exact gradient took."""
    print("    peak measured     planned  forward steps  time factor    time  us a character")
    for run in exact.runs:
        plan = run.plan
        print(
            f"  {run.measured_bytes / 1e6:12.2f} MB {plan.peak_bytes / 1e6:8.2f} MB "
            f"{plan.forward_steps:14,} {plan.time_factor:12.2f} {run.seconds:6.1f} s "
            f"{run.seconds / exact.steps * 1e6:15.2f}"
        )
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
    """Print bits per character on held-out text beside the baselines'."""
    bits = learning.held_out[-1][1]
    rate = learning.characters / max(learning.seconds, 1e-9)
    print(f"  {learning.updates:,} updates, {learning.characters / 1e6:.1f} million characters,")
    print(f"  {rate / 1e3:,.0f} thousand a second. Bits per character on held-out text:")
    for name, value in {"LSTM": bits, **learning.baselines}.items():
        print(f"    {name:14} {value:6.3f}")
    order1 = learning.baselines["order-1 model"]
    verdict = "below" if bits < order1 else "NOT below"
    print(f"  The LSTM is {verdict} the order-1 model ({bits - order1:+.2f} bits per character).")
