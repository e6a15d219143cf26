"""The pieces of a chunk's work on the way back, beside its sweep: see `reverse_pass`.

Tuples that they take:

- head, indices, source, gradients : those of `reverse_pass.build_reverse`
- a chunk : (t, n, row, first, parity), its first step, how many steps it has, its first row of x, y
  and weights, its first row of `states`, and its half of the scratch
- L, S, V : the chunks whose loss, whose sweep and whose readout gradient come next
- indexed : (rows, count, kept, reading), the indices of the chunk's rows that count, and the same
  in another order: first those that read the state before them, `reading` of them, then those reset
- indices : rows of the readout and of the deltas that count, a chunk's in each half. The latter
  have two halves more where there are resets, for `kept`. And the counts of all of these

`span` is chunk * B, the rows in a half of the scratch. `ends` says whether the weight gradients are
flushed after these rows.
"""

from ..cells.registry import CELLS
from ..flat import data, get, offset, put
from ..jit import inner
from .linear import accumulate, add_bias, multiply_part, multiply_rows, scatter
from .losses import add_losses, index_rows, loss_rows
from .resets import index_kept


@inner
def loss_piece(head, states, first, dh, dh_start, lengths, L, span, low, high):
    """The loss of rows low..high of chunk L and, in `dh`, its derivative by the states."""
    (readout, loss, factor, V_forth, V_back, c, o, y, targets, weights, values, _, _, _, _) = head
    t, _, row, _, parity = L
    _, _, B, H = states.shape
    O = o.shape[2]
    loss_rows(
        (readout, loss, factor), (V_forth, V_back, c), offset(states, (first + 1) * B * H),
        offset(o, parity * span * O), (y, targets, weights, row), offset(values, parity * span),
        (dh, dh_start), lengths, t, (B, H, O), low, high,
    )  # fmt: skip


@inner
def index_deltas(indices, half, span, marks, weights, t, n, B):
    """Index the rows of deltas of a chunk that count, in a half of the scratch.

    weights : empty
    """
    _, rows, counts = indices
    counts[2 + half] = index_rows(rows, half * span, marks, weights, 0, t, n, B)
    if marks.size > B:
        counts[4 + half] = index_kept(
            rows, (2 + half) * span, half * span, counts[2 + half], marks, t, n, B
        )


@inner
def indexed_deltas(indices, half, span):
    """What `index_deltas` has indexed."""
    _, rows, counts = indices
    own = offset(rows, half * span)
    if counts.size > 4:
        return own, counts[2 + half], offset(rows, (2 + half) * span), counts[4 + half]
    return own, counts[2 + half], own, counts[2 + half]


@inner
def index_piece(head, indices, lengths, L, S, V, span, B):
    """Index the rows of the next chunks that count, and add the losses of the chunk before."""
    _, _, _, _, _, _, o, _, _, weights, values, pair, _, _, _ = head
    rows_V, _, counts = indices
    t, n, _, _, parity = S
    index_deltas(indices, parity, span, lengths, weights[:0], t, n, B)
    if o.shape[2] > 0:
        half = V[4]
        add_losses(pair, values, half * span, rows_V, half * span, counts[half])
        t, n, row, _, parity = L
        counts[parity] = index_rows(rows_V, parity * span, lengths, weights, row, t, n, B)


@inner
def readout_gradient(head, indices, states, V, span, ends, low, high):
    """Rows low..high of the gradients of V and c."""
    _, _, _, _, _, _, o, _, _, _, _, _, grad, total, bias = head
    _, first, parity = V[2:]
    _, _, B, H = states.shape
    O = o.shape[2]
    rows, count = offset(indices[0], parity * span), indices[2][parity]
    do = offset(o, parity * span * O)
    accumulate(grad, total, ends, do, O, offset(states, (first + 1) * B * H), H, H, rows, count,
               low, high)  # fmt: skip
    add_bias(bias, do, O, rows, count, low, high)


def build_gradients(CELL):
    """The pieces (of U's gradient, of W's gradient) of a layer of that cell."""
    cell = CELLS[CELL]
    GATES, DELTAS, DRIVES = cell.gates, cell.delta_blocks, cell.drives
    SPLIT, FIRST = int(cell.split), cell.gates - cell.second

    @inner
    def input_gradient(source, delta, d_start, indexed, row, H, ends, low, high):
        """Rows low..high of the gradient of U, and the sums of those blocks of deltas."""
        x, ids, _, _, grad, total, bias = source
        rows, count, _, _ = indexed
        I, step, width = x.shape[2], DELTAS * H, GATES * H
        if ids.size > 0:
            scatter(
                total, width, offset(delta, d_start), step, offset(ids, row), rows, count, low, high
            )
        else:
            # Where the last gate is split its input part comes first, and the others a block later.
            last = width - H * SPLIT
            for part in range(1 + SPLIT):
                begin, end = (low, min(high, last)) if part == 0 else (max(low, last), high)
                shift = H * SPLIT if part == 0 else -last
                if begin < end:
                    accumulate(grad, total, ends, offset(delta, d_start + shift), step,
                               offset(x, row * I), I, I - DRIVES, rows, count, begin,
                               end)  # fmt: skip
        add_bias(bias, offset(delta, d_start), step, rows, count, low, high)

    @inner
    def recurrent_gradient(
        recurrent, gradients, source, states, delta, starts, indexed, first, ends, low, high
    ):
        """Rows low..high of the gradient of W, and the sums of the blocks that are not U's."""
        v, restart_sums = recurrent[5], recurrent[7]
        grad, total = gradients
        d_start, v_start = starts
        rows, count, kept, reading = indexed
        _, _, B, H = states.shape
        step, width, last = DELTAS * H, GATES * H, FIRST * H
        begin, end = low, min(high, last)
        if begin < end:
            accumulate(grad, total, ends, offset(delta, d_start + SPLIT * H), step,
                       offset(states, first * B * H), H, H, kept, reading, begin,
                       end)  # fmt: skip
            if restart_sums.size > 0:
                add_bias(offset(restart_sums, restart_sums.size - last),
                         offset(delta, d_start + SPLIT * H), step, offset(kept, reading),
                         count - reading, begin, end)  # fmt: skip
        begin = max(low, last)
        if begin < high:
            accumulate(grad, total, ends, offset(delta, d_start), step, offset(v, v_start), H, H,
                       rows, count, begin, high)  # fmt: skip
        if DELTAS > GATES:  # a share of the other blocks, however many they are
            begin = width + low * (DELTAS - GATES) // GATES
            end = width + high * (DELTAS - GATES) // GATES
            add_bias(source[6], offset(delta, d_start), step, rows, count, begin, end)

    return input_gradient, recurrent_gradient


def build_below(CELL):
    """The pieces of a layer's derivative by x: (some rows, some sequences of n steps)."""
    cell = CELLS[CELL]
    GATES, DELTAS, DRIVES = cell.gates, cell.delta_blocks, cell.drives

    @inner
    def driven(dx, I, delta, H, low, high):
        """That by the drives of rows low..high: a drive acts on all units."""
        for k in range(DRIVES):
            for r in range(low, high):
                start = (r * DELTAS + DELTAS - DRIVES + k) * H
                total = get(delta, start)
                for j in range(1, H):
                    total += get(delta, start + j)
                put(dx, r * I + I - DRIVES + k, total)

    @inner
    def below_rows(source, dx, delta, H, low, high, end):
        """Rows low..high, of which those from `end` on are 0."""
        I = source[0].shape[2]
        U = data(source[2]), GATES * H, I - DRIVES
        multiply_rows(dx, I, delta, DELTAS * H, U, low, high, end)
        driven(dx, I, delta, H, low, min(high, end))

    @inner
    def below_part(source, dx, delta, H, n, B, low, high, live):
        """Sequences low..high of n steps, of which those from `live` on are 0."""
        I = source[0].shape[2]
        U = data(source[2]), GATES * H, I - DRIVES
        multiply_part(dx, I, delta, DELTAS * H, U, n, B, low, high, live)
        for m in range(live if DRIVES > 0 else 0):
            driven(dx, I, delta, H, m * B + low, m * B + high)

    return below_rows, below_part
