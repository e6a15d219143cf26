"""Readouts and losses of a span of time, as programs: see `losses`.

Arguments that the programs share, arrays of the layer's dtype unless said:

- mailbox, threads : the team (see `workers`), and how many of its threads may help
- readout, loss : their numbers in `loss_table`
- factor : by which the derivatives are multiplied, 1 / count for a mean
- V, V_back : the readout's weight packed for V s, and for V^T do
- c : (O,)
- h : (n, B, H), the outputs of the layer
- o : (n, B, O), scratch or result
- y : (n, B, O), targets : (n, B) int64; the one that the loss does not read is empty
- weights : (n, B) float64, or empty for all 1
- values : (n*B,) float64 scratch, w E of each row
- rows : (n*B,) int64 scratch, the indices of the rows that count
- total : (2,) float64, the sum of the losses and its rounding error
- lengths : (B,) int64
- t : time of row 0
"""

from functools import cache

from ..flat import data, get, put
from .linear import accumulate, add_bias, project_rows
from .losses import add_losses, apply_readout, index_rows, loss_rows
from .workers import fork, job, named_job, program

_ROWS = 48  # in a piece


@named_job("loss")
def _loss(
    readout, loss, factor, V, V_back, c, h, o, y, targets, weights, values, dh, lengths, t, B, H, O,
    low, high,
):  # fmt: skip
    rows = h.shape[0] * B
    for piece in range(low, high):
        loss_rows(
            readout, loss, factor, V, V_back, c, data(h), 0, o, 0, y, targets, weights, 0, values,
            0, dh, 0, lengths, t, B, H, O, piece * _ROWS, min(rows, (piece + 1) * _ROWS),
        )  # fmt: skip


@cache
def build_loss():
    """The loss of a span, a program."""

    @program("loss of a span")
    def loss(
        mailbox, threads, readout, loss, factor, V, c, h, o, y, targets, weights, values, rows,
        total, nothing, lengths, t
    ):  # fmt: skip
        """Add the loss of the outputs h to `total`.

        The arguments are those of the module's docstring, and `nothing`, an empty array in place of
        dh.
        """
        n, B, H = h.shape
        function, data_ = job(
            "loss",
            (readout, loss, factor, V, V, c, h, o, y, targets, weights, values, nothing, lengths, t,
             B, H, o.shape[2]),
        )  # fmt: skip
        fork(mailbox, threads, -(-n * B // _ROWS), function, data_)
        count = index_rows(rows, 0, lengths, weights, 0, t, n, B)
        add_losses(total, values, 0, rows, 0, count)

    return loss


@named_job("readout gradient")
def _readout_gradient(o, h, O, H, rows, count, grad, total, bias, ends, block, low, high):
    for piece in range(low, high):
        first, last = piece * block, min(O, (piece + 1) * block)
        accumulate(
            grad, total, ends, data(o), 0, O, data(h), 0, H, data(rows), 0, count, first, last
        )
        add_bias(bias, data(o), 0, O, data(rows), 0, count, first, last)


@cache
def build_loss_and_derivative():
    """The loss of a span, its derivative by h, and the readout's gradient; a program."""

    @program("loss and derivative of a span")
    def loss(
        mailbox, threads, readout, loss, factor, V, V_back, c, h, o, y, targets, weights, values,
        rows, total, dh, lengths, t, flush_steps, grad, grad_total, bias
    ):  # fmt: skip
        """Add the loss of the outputs h to `total`, and to the gradients of V and c.

        Arguments besides those of the module's docstring:

        dh : (n, B, H), becomes dE/dh
        flush_steps : the gradient of V is flushed to float64 at its multiples
        grad : (O, H), the gradient of V since the last flush
        grad_total : (O, H) float64, that before it, or empty where it is not flushed
        bias : (O,) float64, the gradient of c
        """
        n, B, H = h.shape
        O = o.shape[2]
        function, data_ = job(
            "loss",
            (readout, loss, factor, V, V_back, c, h, o, y, targets, weights, values, dh, lengths, t,
             B, H, O),
        )  # fmt: skip
        fork(mailbox, threads, -(-n * B // _ROWS), function, data_)
        count = index_rows(rows, 0, lengths, weights, 0, t, n, B)
        add_losses(total, values, 0, rows, 0, count)
        block = 24
        function, data_ = job(
            "readout gradient",
            (o, h, O, H, rows, count, grad, grad_total, bias, t % flush_steps == 0, block),
        )
        fork(mailbox, threads, -(-O // block), function, data_)

    return loss


@named_job("outputs")
def _outputs(readout, V, c, h, ids, o, lengths, t, B, H, O, low, high):
    rows = h.shape[0] * B
    for piece in range(low, high):
        first, last = piece * _ROWS, min(rows, (piece + 1) * _ROWS)
        project_rows(o, 0, O, data(h), 0, ids, 0, False, V, c, H, O, first, last)
        for r in range(first, last):
            if t + r // B < get(lengths, r % B):
                apply_readout(data(o), r * O, O, readout)
            else:
                for j in range(r * O, (r + 1) * O):
                    put(o, j, 0)


@cache
def build_outputs():
    """The readout of a span, a program."""

    @program("outputs of a span")
    def outputs(mailbox, threads, readout, V, c, h, ids, o, lengths, t):
        """o = readout(V h + c), 0 past a sequence's length.

        The arguments are those of the module's docstring, and `ids`, an empty int64 array (0, 0).
        """
        n, B, H = h.shape
        function, data_ = job("outputs", (readout, V, c, h, ids, o, lengths, t, B, H, o.shape[2]))
        fork(mailbox, threads, -(-n * B // _ROWS), function, data_)

    return outputs
