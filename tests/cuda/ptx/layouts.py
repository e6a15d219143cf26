"""Sweeps drawn from a seed, whatever the model of their cost would choose, and the oracle's answer.

A case is drawn from a seed and a number, and nothing else: `--case SEED:NUMBER` is the same again.
"""

import contextlib
import random
from typing import NamedTuple

import numpy as np
import oracle
import oracle_resets
from fastbptt.kernels.cuda import layout, weights
from helpers import (
    CELLS,
    GRADIENTS,
    STATES,
    array_names,
    assert_bptt_close,
    assert_close,
    like_state,
    make_problem,
    plain,
    rounded,
    wide,
)

import fastbptt as fb

SIZES = [
    (1, 1),
    (1, 5),
    (5, 3),
    (7, 1),
    (9, 2),
    (17, 3),
    (17, 17),
    (33, 1),
    (33, 5),
    (64, 2),
]  # H, B
PLACES = ["own", "registers", "shared", "global", "mixed"]
MOST_THREADS = 512  # of a launch: the clocks of its threads take the square of it
MOST_REGISTERS = 128  # for the weights of a thread: what is unrolled takes a while to compile


class Case(NamedTuple):
    """A sweep forward and in reverse."""

    seed: int
    number: int
    cell: str
    dtype: str
    H: int
    B: int
    parts: int
    rows: int
    place: str  # of the recurrent weights
    pieces: int
    given: str  # "floats", "tokens" or "resets"
    words: bool = False  # blocks exchange words instead of having barriers

    def __str__(self):
        return f"{self.seed}:{self.number} " + " ".join(map(str, self[2:]))


def drawn(seed, number):
    """The case of that number; one after the other they go through all cells."""
    rng = random.Random(f"{seed}:{number}")
    cells = random.Random(seed).sample(CELLS, len(CELLS))
    H, B = rng.choice(SIZES)
    parts = min(rng.choice((1, 2, 2, 4)), H)
    pieces = rng.choice((1, 1, 1, 2, 3)) if parts > 1 else 1
    rows = rng.choice([rows for rows in (1, 2, 4, 8) if rows == 1 or rows < 2 * B])
    return Case(
        seed, number, cells[number % len(cells)], rng.choice(("float32", "float64")), H, B, parts,
        rows, "own" if pieces > 1 else rng.choice(PLACES), pieces,
        rng.choice(("floats", "floats", "tokens", "resets")), rng.random() < 0.3,
    )  # fmt: skip


def _placed(tile, place):
    """The tile with its weights where the case wants them."""
    quads = tile.quads if tile.inner else 0
    share = -(-quads // 3)
    registers, shared = {
        "registers": (quads, 0), "shared": (0, quads), "global": (0, 0),
        "mixed": (share, min(share, quads - share)),
    }[place]  # fmt: skip
    return tile._replace(registers=registers, shared=shared)


def _fits(shape, case, card, item):
    tiles = shape.first, shape.second
    slices = min(-(-case.B // shape.rows), card.processors // shape.parts or 1)
    slices = slices if shape.parts > 1 else 1
    return (
        shape.threads * shape.parts * slices <= MOST_THREADS
        and shape.shared_bytes(item) <= card.shared
        and all(tile.local_size * item // 4 <= MOST_REGISTERS for tile in tiles)
    )


@contextlib.contextmanager
def laid_out(case):
    """Have sweeps laid out as the case says; gives the shapes, by whether they are in reverse."""
    rng, chosen = random.Random(f"{case.seed}:{case.number} shapes"), {}
    own = layout._placed, weights.choose

    def placed(card, tiles, rows, threads, item):
        if case.place == "own":
            return own[0](card, tiles, rows, threads, item)
        return [_placed(tile, case.place) for tile in tiles]

    def choose(card, cell, hidden, batch, item, reverse):
        if reverse in chosen:
            return chosen[reverse], 1.0
        found = [
            shape
            for shape in layout._candidates(card, cell, hidden, batch, item, reverse, case.pieces)
            if _fits(shape, case, card, item)
        ]
        wanted = [s for s in found if (s.parts, s.rows) == (case.parts, case.rows)]
        wanted = wanted or [s for s in found if s.parts == case.parts] or found
        shape = rng.choice(wanted)
        chosen[reverse] = shape._replace(words=case.words and item == 4 and shape.parts > 1)
        return chosen[reverse], 1.0

    layout._placed, weights.choose = placed, choose
    try:
        yield chosen
    finally:
        layout._placed, weights.choose = own


def check(case):
    """Run the case and compare it with the oracle. Returns the shapes; raises AssertionError."""
    T = 10 if case.H > 9 else 12  # some more steps than are fetched ahead
    sizes, tokens = (T, case.B, 2, case.H, 2), case.given == "tokens"
    p = make_problem(case.cell, sizes, case.dtype, tokens=tokens, seed=case.number)
    with laid_out(case) as chosen:
        (_with_resets if case.given == "resets" else _without)(p)
    return list(chosen.values())


def _without(p):
    h, state, cache = fb.forward(p.layer, p.x, p.state, lengths=p.lengths)
    g = fb.backward(cache, p.dh, p.dstate, deltas=True)
    last = fb.run(p.layer, p.x, p.state, keep="last", lengths=p.lengths)[-1]
    layer = plain(p.layer)
    due_h, due_state, steps = oracle.forward(layer, wide(p.x), wide(p.state), p.lengths)
    due = oracle.backward(layer, steps, wide(p.dh), wide(p.dstate))
    few = 0.01 * h.size**0.5
    assert_close((h, state, last), (due_h, due_state, due_state), STATES[p.dtype], "states", few)
    names = array_names(p.layer)
    own = tuple(np.asarray(getattr(g.layer, name)) for name in names), g.state, g.deltas
    due_own = tuple(due["layer"][name] for name in names), due["state"], due["deltas"]
    floor = 0.01 * np.linalg.norm(due["deltas"])
    assert_close(own, due_own, GRADIENTS[p.dtype], "gradients", floor)
    if p.x.dtype.kind == "f":
        assert_close(g.x, due["x"], GRADIENTS[p.dtype], "gradient of x", floor)


def _with_resets(p):
    resets = p.rng.random((p.T, p.B)) < 0.2
    resets[0, ::2] = resets[-1, :2] = True
    own = like_state(p.layer, lambda width: rounded(p.rng, (width,), p.dtype, 0.5))
    network = fb.Network(p.layer, p.readout, own)
    r = fb.bptt(network, p.x, p.y, resets=resets, state=p.state, lengths=p.lengths, input_grad=True)
    due = oracle_resets.bptt(
        plain(p.layer), plain(p.readout), wide(p.x), wide(p.y), p.loss, resets, lengths=p.lengths,
        state=wide(p.state), own=oracle.mapped(lambda part: part[None], wide(own)),
    )  # fmt: skip
    assert_bptt_close(r, due, p)
    whole = np.concatenate([np.ravel(part) for part in oracle.flat(due["layer"])])
    down = oracle.mapped(lambda part: part[0], due["own"])
    floor = 0.01 * np.linalg.norm(whole)
    assert_close(r.grad.state, down, GRADIENTS[p.dtype], "gradient of the own state", floor)
