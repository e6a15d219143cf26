"""Readouts and losses of a span of time, as programs: see `losses`.

Arguments that the programs share, arrays of the layer's dtype unless said:

- mailbox, threads : the team (see `workers`), and how many of its threads may help
- kind : (readout, loss, factor): their numbers in `loss_table`, and by which the derivatives are
  multiplied, 1 / count for a mean
- weight : (V packed for V s, V packed for V^T do, c (O,))
- h : (n, B, H), the outputs of the layer
- scratch : (o (n, B, O); values (n*B,) float64, w E of each row; rows (n*B,) int64, the indices of
  the rows that count)
- given : (y (n, B, O), targets (n, B) int64, weights (n, B, 1) or (n, B, O) float64). Empty are the
  one of y and targets that the loss does not read, and weights that are all 1
- total : (2,) float64, the sum of the losses and its rounding error
- lengths : (B,) int64
- t : time of row 0
"""

from functools import cache

from ..flat import data, get, put
from ..jit import inner
from .linear import accumulate, add_bias, project_rows
from .losses import add_losses, apply_readout, index_rows, loss_rows
from .workers import fork, job, named_job, program

_ROWS = 48  # in a piece


@named_job("loss")
def _loss(kind, weight, h, scratch, given, dh, lengths, t, low, high):
    n, B, H = h.shape
    o, values, _ = scratch
    y, targets, weights = given
    for piece in range(low, high):
        loss_rows(
            kind, weight, data(h), data(o), (y, targets, weights, 0), data(values), (dh, 0),
            lengths, t, (B, H, o.shape[2]), piece * _ROWS, min(n * B, (piece + 1) * _ROWS),
        )  # fmt: skip


@inner
def _add_loss(mailbox, threads, kind, weight, h, scratch, given, dh, total, lengths, t):
    """Add the loss of the outputs h to `total`; return how many rows count."""
    n, B, _ = h.shape
    function, data_ = job("loss", (kind, weight, h, scratch, given, dh, lengths, t))
    fork(mailbox, threads, -(-n * B // _ROWS), function, data_)
    _, values, rows = scratch
    count = index_rows(rows, 0, lengths, given[2], 0, t, n, B)
    add_losses(total, values, 0, rows, 0, count)
    return count


@cache
def build_loss():
    """The loss of a span, a program."""

    @program("loss of a span")
    def loss(mailbox, threads, kind, weight, h, scratch, given, nothing, total, lengths, t):
        """Add the loss of the outputs h to `total`.

        The arguments are those of the module's docstring, and `nothing`, an empty array in place of
        dh. The V for V^T do is not read.
        """
        _add_loss(mailbox, threads, kind, weight, h, scratch, given, nothing, total, lengths, t)

    return loss


@named_job("readout gradient")
def _readout_gradient(o, h, rows, count, grad, total, bias, ends, block, low, high):
    O, H = o.shape[2], h.shape[2]
    for piece in range(low, high):
        first, last = piece * block, min(O, (piece + 1) * block)
        accumulate(grad, total, ends, data(o), O, data(h), H, H, data(rows), count, first, last)
        add_bias(bias, data(o), O, data(rows), count, first, last)


@cache
def build_loss_and_derivative():
    """The loss of a span, its derivative by h, and the readout's gradient; a program."""

    @program("loss and derivative of a span")
    def loss(mailbox, threads, kind, weight, h, scratch, given, dh, total, lengths, t, gradient):
        """Add the loss of the outputs h to `total`, and to the gradients of V and c.

        Arguments besides those of the module's docstring:

        dh : (n, B, H), becomes dE/dh
        gradient : (flush_steps, at whose multiples the gradient of V is flushed to float64; that
            gradient since the last flush (O, H); that before it (O, H) float64, or empty where it
            is not flushed; the gradient of c (O,) float64)
        """
        count = _add_loss(mailbox, threads, kind, weight, h, scratch, given, dh, total, lengths, t)
        o, _, rows = scratch
        flush_steps, grad, grad_total, bias = gradient
        block = 24
        function, data_ = job(
            "readout gradient",
            (o, h, rows, count, grad, grad_total, bias, t % flush_steps == 0, block),
        )
        fork(mailbox, threads, -(-o.shape[2] // block), function, data_)

    return loss


@named_job("outputs")
def _outputs(readout, V, c, h, ids, o, lengths, t, low, high):
    n, B, H = h.shape
    O = o.shape[2]
    for piece in range(low, high):
        first, last = piece * _ROWS, min(n * B, (piece + 1) * _ROWS)
        project_rows(data(o), O, data(h), H, data(ids), False, (data(V), H, O), c, first, last)
        for r in range(first, last):
            if t + r // B < get(lengths, r % B):
                apply_readout(data(o), r * O, O, readout)
            else:
                for j in range(r * O, (r + 1) * O):
                    put(o, j, 0)


@inner
def read_out(mailbox, threads, readout, V, c, h, ids, o, lengths, t):
    """o = readout(V h + c): see `build_outputs`."""
    function, data_ = job("outputs", (readout, V, c, h, ids, o, lengths, t))
    fork(mailbox, threads, -(-h.shape[0] * h.shape[1] // _ROWS), function, data_)


@cache
def build_outputs():
    """The readout of a span, a program."""

    @program("outputs of a span")
    def outputs(mailbox, threads, readout, V, c, h, ids, o, lengths, t):
        """o = readout(V h + c), 0 past a sequence's length.

        readout : its number in `loss_table`
        V, c : of `weight` in the module's docstring
        o : (n, B, O)
        ids : an empty int64 array (0, 0)
        """
        read_out(mailbox, threads, readout, V, c, h, ids, o, lengths, t)

    return outputs
