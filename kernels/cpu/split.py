"""How the work of a pass is divided: runs of sequences, shares of units, pieces of rows."""

from ..flat import get
from ..jit import inner
from .products import PANEL_COLUMNS
from .team import barrier_seconds

_SMALL = 30_000  # multiply-adds that take as long as starting a job
_ROWS = 24  # the least rows in a piece of a product
_LARGE = 100_000  # bytes of a weight times sequences, below which a barrier a step never pays
_GANG = 1e12  # the same for each second that a barrier takes: other threads have products to do
_BLOCK = 24  # rows of a weight's gradient in a piece
_LEAST_ROWS = 16  # of a part: products of fewer are slower
_STEP = 2000  # multiply-adds that take as long as the rest of a step
_TASK = 250_000  # multiply-adds of a part: some hundred times as long as taking it
_LEAF = 300_000  # multiply-adds of the steps of two leaves that one thread does alone
_FEW = 4  # sequences that a sweep does in little more time than one


@inner
def cut(lengths, t, n, B, parts, part):
    """The first sequence of a part, where steps t..t+n of all sequences are divided evenly."""
    if part == 0 or part == parts:
        return part // parts * B
    total = 0
    for b in range(B):
        total += max(0, min(n, get(lengths, b) - t))
    done = 0
    for b in range(B):
        if done * parts >= total * part:
            return b
        done += max(0, min(n, get(lengths, b) - t))
    return B


@inner
def live_steps(lengths, t, n, low, high):
    """How many of the steps t..t+n are within the length of some sequence of low..high."""
    longest = t
    for b in range(low, high):
        longest = max(longest, get(lengths, b))
    return min(n, longest - t)


def sweep_parts(threads, B):
    """Into how many runs of sequences a sweep is cut."""
    return max(1, min(threads, B // _FEW))


def flows(batch):
    """Whether gradients may flow behind the sweep: where one thread does all of it."""
    return sweep_parts(2, batch) == 1


def wave_least(threads, batch, layers, outputs):
    """The least steps of a part where layers go side by side (see `wavefront`), or 0.

    layers : (gates, hidden, inputs) of each; no inputs for tokens
    outputs : of the readout
    """
    gates, hidden, _ = layers[-1]
    if threads == 1 or len(layers) == 1 or sweep_parts(threads, batch) > 1:
        return 0
    if 4 * outputs > gates * hidden:
        return 0  # such a readout is shared among threads
    # A product of many rows takes a quarter of the time of one in each step.
    work = [_STEP + gates * hidden * (hidden + inputs // 4) for gates, hidden, inputs in layers]
    if 4 * max(work) > 3 * sum(work):
        return 0  # the others are done in no time; it has products for other threads
    return max(1, _LEAST_ROWS // batch, _TASK // (batch * max(work)))


def runs_ahead(batch, layers, outputs):
    """Whether a leaf may be run while the one before it is gone back over: see `leaves`.

    layers : (gates, hidden, inputs) of each; outputs : of the readout
    """
    gates, hidden, inputs = layers[-1]
    if len(layers) > 1 or batch == 0 or not flows(batch):
        return False
    # A large readout is shared among threads, and so is a large product of the inputs.
    return 4 * outputs <= gates * hidden and inputs <= 4 * hidden


def leaf_least(batch, gates, hidden, inputs):
    """The least steps of two leaves beside each other that are worth a second thread."""
    return -(-_LEAF // (batch * gates * hidden * (hidden + inputs)))


def gang_size(threads, cell, H, B, itemsize):
    """How many threads divide the units of a sweep among them; 1: no gang."""
    if cell.second:
        return 1  # it would take two barriers a step
    columns = PANEL_COLUMNS[itemsize]
    size = B * cell.gates * H * H * itemsize
    if sweep_parts(threads, B) == threads or H % columns or columns == H or size < _LARGE:
        return 1
    return min(threads, H // columns, 16) if size > _GANG * barrier_seconds() else 1


@inner
def piece_rows_of(rows, threads):
    """Rows in a piece: enough pieces for all threads, each of whole tiles of 6 rows."""
    wanted = -(-rows // (4 * threads))
    return max(_ROWS, -(-wanted // 6) * 6)


def pieces_of(outputs):
    """The most pieces that the rows of a weight's gradient are in."""
    return -(-outputs // _BLOCK)


@inner
def block_of(outputs, threads):
    """Rows of a weight's gradient in a piece."""
    if outputs <= 4 * threads * _BLOCK:
        return _BLOCK
    return 2 * _BLOCK if outputs <= 16 * threads * _BLOCK else 4 * _BLOCK


@inner
def next_cut(t, stop, chunk):
    """The end of the chunk that begins at t."""
    return min(stop, (t // chunk + 1) * chunk)


@inner
def previous_cut(t, start, chunk):
    """The first step of the chunk that ends at t."""
    return max(start, (t - 1) // chunk * chunk)


@inner
def threads_for(work, threads):
    """Threads for a job of so many multiply-adds."""
    return threads if work > _SMALL else 1
