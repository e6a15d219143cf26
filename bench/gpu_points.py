"""What bench.gpu times: the most valuable points first, as long as its minutes last."""

import time
from itertools import product

import numpy as np
from fastbptt.kernels.cuda import gpus
from fastbptt.kernels.cuda.layout import choose

CELLS = {"LSTM": "lstm", "GRU": "gru-after", "RNN": "rnn-tanh"}
SIZES = tuple(product((64, 128, 256, 512, 1024), (1, 16, 64)))  # H, B
PUBLISHED = "LSTM", 1024, 16, 768  # of which FlashRNN's authors have published times
OTHERS = tuple(product((32, 192), (1, 16, 64)))
LONG = 100_000


def points(dtypes):
    """All (cell, T, B, H, dtype) to be timed, the most valuable first."""
    found = []
    for dtype in dtypes:
        found += [(name, 1000, B, H, dtype) for name in CELLS for H, B in SIZES]
        found.insert(len(found) - 2 * len(SIZES), (*PUBLISHED, dtype))
    for T, sizes in ((LONG, SIZES), (1000, OTHERS), (LONG, OTHERS)):
        found += [(name, T, B, H, d) for d, name, (H, B) in product(dtypes, CELLS, sizes)]
    return found


def modelled(point, gpu, clock):
    """Seconds of forward, and of forward and backward, that the model of a sweep expects."""
    name, T, B, H, dtype = point
    item = np.dtype(dtype).itemsize
    cycles = [choose(gpu, CELLS[name], H, B, item, reverse)[1] for reverse in (False, True)]
    return T * (2 * cycles[0] + cycles[1]) / clock


class Budget:
    """The seconds that are left, and which points fit into them."""

    def __init__(self, minutes, spare=5.0):
        self.end = time.monotonic() + 60 * minutes - spare
        self.factor = 30.0  # seconds a point took over those of one modelled run, at most so far
        self.taken = []

    def left(self):
        return self.end - time.monotonic()

    def allows(self, point):
        """Whether a point should end in time, by what those before it took."""
        return self.factor * self._modelled(point) < self.left()

    def took(self, point, seconds):
        """Learn from a point how far runs, peers and rounds exceed the model."""
        self.taken.append(seconds / self._modelled(point))
        self.factor = 1.5 * max(self.taken[-10:])

    @staticmethod
    def _modelled(point):
        ordinal = gpus.current()
        return modelled(point, gpus.card(ordinal), gpus.clock(ordinal))
