"""`fastbptt demo`: an exact gradient through a million steps, and training on real text."""

import platform
import sys
import threading
import time
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import demo_text as text

CHUNK = 32
"""Steps of a training chunk: the state is carried on from chunk to chunk, the gradient is not."""

EXACT_HIDDEN = 64
"""Units of the LSTM of the exact gradient."""


def add_command(commands):
    """Add `demo` to the command line."""
    parser = commands.add_parser(
        "demo",
        help="train on real text, with a progress bar and a picture",
        description="One exact gradient through a long text within a memory budget, then a "
        "character LSTM trained by truncated BPTT. The text is the standard library's source.",
    )
    whole = parser.number(int, 1)
    parser.add_argument("--seconds", type=parser.number(float, 0), default=40, help="of training")
    parser.add_argument("--hidden", type=whole, default=128, help="units of the trained LSTM")
    parser.add_argument("--streams", type=whole, default=32, help="parallel streams of training")
    parser.add_argument("--steps", type=whole, default=10**6, help="of the exact gradient")
    parser.add_argument("--budget", default="64MB", help="memory of the exact gradient")
    parser.add_argument("--seed", type=parser.number(int, 0), default=0)
    parser.add_argument("--out", type=Path, default=Path("demo.png"), help="where the picture goes")
    parser.set_defaults(run=lambda args: run(parser, args))


def run(parser, args):
    """Run the whole demo; returns the exit status."""
    import fastbptt as fb

    try:
        fb.plan(new_network(EXACT_HIDDEN, args.seed), args.steps, memory=args.budget)
    except ValueError as error:
        parser.error(f"argument --budget: {error}")
    try:
        import tqdm  # noqa: F401

        from .demo_picture import draw
    except ImportError as error:
        print(f"fastbptt demo needs {error.name}: pip install 'fastbptt[cli]'", file=sys.stderr)
        return 1
    if not args.out.resolve().parent.is_dir():
        print(f"fastbptt demo: no such folder: {args.out.resolve().parent}", file=sys.stderr)
        return 1
    files, held_files = text.split(text.stdlib_files())
    train_ids, held_ids = text.read(files), text.read(held_files)
    if len(held_ids) < 10 * args.streams:
        print("fastbptt demo: this Python has no standard library source", file=sys.stderr)
        return 1

    source = f"Python {platform.python_version()}'s standard library"
    print(f"Text: {source}, {(len(train_ids) + len(held_ids)) / 1e6:.1f} million characters")
    print(f"in {len(files) + len(held_files)} files, of which {len(held_files)} are held out.")
    exact = exact_gradient(train_ids[: args.steps + 1], args.budget, seed=args.seed)
    report_exact(exact)

    network = new_network(args.hidden, args.seed)
    learning = train(network, train_ids, held_ids, args.seconds, args.streams)
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


def new_network(hidden, seed):
    """Return a character LSTM with fresh weights."""
    import fastbptt as fb

    layer = fb.LSTM.init(text.CLASSES, hidden, rng=seed)
    readout = fb.Readout.init(hidden, text.CLASSES, rng=seed + 1, activation="softmax")
    return fb.Network(layer, readout)


@dataclass
class Exact:
    """What the exact gradient cost."""

    steps: int
    hidden: int
    budget: str
    seconds: float
    bits: float
    measured_bytes: int
    plan: object
    frontier: tuple
    between: list


def exact_gradient(ids, budget, hidden=EXACT_HIDDEN, seed=0):
    """One exact gradient of an LSTM through the whole text, its memory measured."""
    import fastbptt as fb

    x, y = ids[:-1], ids[1:]
    network = new_network(hidden, seed)
    steps = len(x)
    plan = fb.plan(network, steps, memory=budget)
    print(f"\nExact gradient of an LSTM with {hidden} units (float32)")
    print(f"through {steps:,} characters, within {budget}:", flush=True)
    warm_up(network)
    with Bar("steps", plan.forward_steps + plan.backward_steps) as bar:
        tracemalloc.start()
        try:
            start = time.perf_counter()
            result = fb.bptt(network, x, y, "cross_entropy", memory=budget, progress=bar.show)
            seconds = time.perf_counter() - start
            measured = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    frontier = fb.frontier(network, steps)
    budgets = np.geomspace(frontier[-1].peak_bytes, frontier[0].peak_bytes, 80).astype(int)
    between = [fb.plan(network, steps, memory=int(budget)) for budget in budgets[1:-1]]
    bits = result.loss / steps / np.log(2)
    return Exact(steps, hidden, budget, seconds, bits, measured, plan, frontier, between)


def warm_up(network):
    """Make each call once on two characters, so that no later one is timed while compiling."""
    import fastbptt as fb

    note = "  compiling the kernels (only the first run on a machine does) ..."
    notice = threading.Timer(1.5, print, [note], {"flush": True})
    notice.start()
    try:
        x = np.zeros((2, 1), np.uint8)
        fb.bptt(network, x, x, "cross_entropy", reduction="mean")
        fb.evaluate(network, x, x, loss="cross_entropy")
        fb.predict(network, x)
    finally:
        notice.cancel()


def report_exact(exact):
    """Print what the exact gradient cost."""
    plan = exact.plan
    print(
        f"  time     {exact.seconds:.1f} s, {exact.seconds / exact.steps * 1e6:.2f} us a character"
    )
    print(f"  steps    {plan.forward_steps:,} forward, time factor {plan.time_factor:.2f}")
    print(
        f"  memory   {exact.measured_bytes / 1e6:.1f} MB peak measured (tracemalloc), "
        f"{plan.peak_bytes / 1e6:.1f} MB planned"
    )
    print(f"           {exact.frontier[0].peak_bytes / 1e6:,.0f} MB if every step were cached")
    print(
        f"  loss     {exact.bits:.3f} bits per character, untrained "
        f"(a uniform guess: {np.log2(text.CLASSES):.3f})"
    )


class Adam:
    """Kingma and Ba (2015), on arrays updated in place, the gradient's norm clipped."""

    def __init__(self, arrays, clip=1.0):
        self.arrays, self.clip, self.updates = arrays, clip, 0
        self.means = [np.zeros_like(a) for a in arrays]
        self.squares = [np.zeros_like(a) for a in arrays]

    def update(self, gradients, rate):
        """Take one step of size `rate`."""
        self.updates += 1
        norm = np.sqrt(sum(float(np.vdot(g, g)) for g in gradients))
        scale = min(1.0, self.clip / (norm + 1e-12))
        rate = rate * np.sqrt(1 - 0.999**self.updates) / (1 - 0.9**self.updates)
        for a, g, mean, square in zip(
            self.arrays, gradients, self.means, self.squares, strict=True
        ):
            g = g * a.dtype.type(scale)
            mean += 0.1 * (g - mean)
            square += 0.001 * (g * g - square)
            a -= rate * mean / (np.sqrt(square) + 1e-8)


class Learning:
    """What the training showed: (seconds, bits per character) on either text, and the baselines."""

    def __init__(self):
        self.training, self.held_out, self.baselines = [], [], {}
        self.characters = self.updates = self.seconds = 0


def train(network, train_ids, held_ids, seconds, B, rate=1e-2):
    """Train by truncated BPTT for that many seconds, the weights updated in place.

    The text is cut into B streams that run side by side. Every chunk of `CHUNK` steps starts from
    the state the one before it ended in, and its gradient stops there.
    """
    import fastbptt as fb

    hidden = network.layer.hidden
    print(f"\nTraining an LSTM with {hidden} units by truncated BPTT: {B} streams,")
    print(f"{CHUNK} steps a chunk, Adam, {seconds:g} s:", flush=True)
    x, y = text.streams(train_ids, B)
    held_x, held_y = text.streams(held_ids, B)
    adam, learning = Adam(network.arrays()), Learning()
    state, at, recent = None, 0, np.log2(text.CLASSES)
    start = time.perf_counter()
    with Bar("s", seconds) as bar:
        while (elapsed := time.perf_counter() - start) < seconds or not learning.updates:
            if elapsed >= len(learning.held_out) * seconds / 12:
                bits = held_out_bits(network, held_x[:500], held_y[:500])
                learning.held_out.append((elapsed, bits))
            part = slice(at, at + CHUNK)
            r = fb.bptt(network, x[part], y[part], "cross_entropy", state=state, reduction="mean")
            fade = 0.5 + 0.5 * np.cos(np.pi * min(1.0, elapsed / max(seconds, 1e-9)))
            adam.update(r.grad.arrays(), rate * (0.02 + 0.98 * fade))
            state, at = r.state, at + CHUNK
            if at + CHUNK > len(x):
                state, at = None, 0
            recent += (r.loss / np.log(2) - recent) * max(0.03, 1 / (1 + learning.updates))
            learning.training.append((elapsed, recent))
            learning.updates += 1
            learning.characters += x[part].size
            bar.show(min(elapsed, seconds), seconds, f"{recent:.2f} bits per character")
    learning.seconds = time.perf_counter() - start
    learning.held_out.append((learning.seconds, held_out_bits(network, held_x, held_y)))
    return learning


def held_out_bits(network, x, y):
    """Bits per character of the network on other text, from a zero state."""
    import fastbptt as fb

    return fb.evaluate(network, x, y, loss="cross_entropy", reduction="mean") / np.log(2)


def report_learning(learning):
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


def sample(network, prompt, count, temperature, seed=0):
    """Return the prompt and `count` characters drawn one at a time, each fed back in."""
    import fastbptt as fb

    rng = np.random.default_rng(seed)
    ids = list(text.encode(prompt.encode()))
    o, state = fb.predict(network, np.array(ids))
    for _ in range(count):
        p = o[-1].astype(np.float64) ** (1 / temperature)
        ids.append(rng.choice(len(p), p=p / p.sum()))
        o, state = fb.predict(network, np.array(ids[-1:]), state)
    return text.decode(ids)


class Bar:
    """A progress bar on stderr; where that is no terminal, a line every few seconds."""

    def __init__(self, unit, total):
        from tqdm import tqdm

        shape = "{n:,.0f}/{total:,.0f} {unit} [{elapsed}<{remaining}{postfix}]"
        self._bar = tqdm(
            total=total,
            unit=unit,
            bar_format="  {percentage:3.0f}% |{bar:30}| " + shape,
            mininterval=0.1 if sys.stderr.isatty() else 5,
            leave=True,
        )

    def show(self, done, total, note=""):
        """Show that much of the total as done."""
        self._bar.total = total
        if note:
            self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(done - self._bar.n)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self._bar.update(self._bar.total - self._bar.n)
        self._bar.close()
