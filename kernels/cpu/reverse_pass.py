"""A layer's way back over a stretch of time as one kernel call: see `forward_pass`."""

from ..cells.registry import CELLS, title
from ..flat import data, itemsize
from ..jit import inner
from . import sweeps
from .linear import accumulate, add_bias, multiply_part, multiply_rows, scatter
from .losses import add_losses, list_rows, loss_rows
from .products import PANEL_BYTES
from .split import block_of, cut, live_steps, piece_rows_of, previous_cut, threads_for
from .workers import fork, gang, job, named_job, program


@inner
def _lose(head, states, first, dh, dh_start, lengths, L, span, low, high):
    """The loss of rows low..high of chunk L and, in `dh`, its derivative by the states."""
    (readout, loss, factor, V_forth, V_back, c, o, y, targets, weights, values, _, _, _,
     _) = head  # fmt: skip
    t, _, row, _, parity = L
    _, _, B, H = states.shape
    O = o.shape[2]
    loss_rows(
        readout, loss, factor, V_forth, V_back, c, data(states), (first + 1) * B * H, o,
        parity * span * O, y, targets, weights, row, values, parity * span, dh, dh_start, lengths,
        t, B, H, O, low, high,
    )  # fmt: skip


@inner
def _count(head, lists, lengths, L, S, V, span, B):
    """List the rows of the chunks that are next, and add the losses of the chunk before."""
    _, _, _, _, _, _, o, _, _, weights, values, pair, _, _, _ = head
    rows_V, rows_P, marks = lists
    t, n, _, _, parity = S
    marks[2 + parity] = list_rows(rows_P, parity * span, lengths, weights[:0], 0, t, n, B)
    if o.shape[2] > 0:
        own = V[4]
        add_losses(pair, values, own * span, rows_V, own * span, marks[own])
        t, n, row, _, parity = L
        marks[parity] = list_rows(rows_V, parity * span, lengths, weights, row, t, n, B)


@inner
def _readout_gradient(head, lists, states, V, span, ends, low, high):
    """Rows low..high of the gradients of V and c."""
    _, _, _, _, _, _, o, _, _, _, _, _, grad, total, bias = head
    _, first, parity = V[2:]
    _, _, B, H = states.shape
    O = o.shape[2]
    listed = data(lists[0]), parity * span, lists[2][parity]
    accumulate(grad, total, ends, data(o), parity * span * O, O, data(states),
               (first + 1) * B * H, H, *listed, low, high)  # fmt: skip
    add_bias(bias, data(o), parity * span * O, O, *listed, low, high)


def build_reverse(CELL):
    """The way back over a stretch that a leaf has cached, loss and weight gradients included."""
    cell = CELLS[CELL]
    GATES, DELTAS = cell.gates, cell.delta_blocks
    SPLIT, FIRST = int(cell.split), cell.gates - cell.second
    sweep = sweeps.build_reverse(CELL)
    GANG, CHUNK = (f"reverse {what} {CELL}" for what in ("gang", "chunk"))

    @inner
    def input_gradient(source, delta, d_start, listed, row, H, ends, low, high):
        """Rows low..high of the gradient of U, and the sums of those blocks of deltas."""
        x, ids, _, _, grad, total, bias = source
        rows, r_start, count = listed
        I, step, width = x.shape[2], DELTAS * H, GATES * H
        if ids.size > 0:
            scatter(total, width, data(delta), d_start, step, ids, row, rows, r_start, count, low,
                    high)  # fmt: skip
        else:
            # Where the last gate is split its input part comes first, and the others a block later.
            last = width - H * SPLIT
            for part in range(1 + SPLIT):
                begin, end = (low, min(high, last)) if part == 0 else (max(low, last), high)
                shift = H * SPLIT if part == 0 else -last
                if begin < end:
                    accumulate(grad, total, ends, data(delta), d_start + shift, step, data(x),
                               row * I, I, rows, r_start, count, begin, end)  # fmt: skip
        add_bias(bias, data(delta), d_start, step, rows, r_start, count, low, high)

    @inner
    def recurrent_gradient(recurrent, gradients, source, states, delta, starts, listed, first, ends,
                           low, high):  # fmt: skip
        """Rows low..high of the gradient of W, and the sums of the blocks that are not U's."""
        v = recurrent[5]
        grad, total = gradients
        d_start, v_start = starts
        rows, r_start, count = listed
        _, _, B, H = states.shape
        step, width, last = DELTAS * H, GATES * H, FIRST * H
        begin, end = low, min(high, last)
        if begin < end:
            accumulate(grad, total, ends, data(delta), d_start + SPLIT * H, step, data(states),
                       first * B * H, H, rows, r_start, count, begin, end)  # fmt: skip
        begin = max(low, last)
        if begin < high:
            accumulate(grad, total, ends, data(delta), d_start, step, data(v), v_start, H, rows,
                       r_start, count, begin, high)  # fmt: skip
        if DELTAS > GATES:
            begin, end = min(step, width + low), min(step, width + high)
            add_bias(source[6], data(delta), d_start, step, rows, r_start, count, begin, end)

    @named_job(GANG)
    def members_job(mailbox, cache, back, recurrent, places, S, current, panel, rank, size):
        states, residuals, lengths = cache
        carry, dh, delta = back
        t, n, _, first, _ = S
        dh_start, d_start, v_start = places
        _, rows, B, H = states.shape
        left, right = sweeps.share_of_units(H, panel, rank, size)
        sweep(
            mailbox,
            states,
            residuals,
            dh,
            dh_start,
            carry,
            delta,
            d_start,
            lengths,
            recurrent,
            v_start,
            t,
            n,
            B,
            H,
            first,
            rows,
            current,
            0,
            B,
            left,
            right,
            rank,
            size,
        )

    @named_job(CHUNK)
    def chunk_job(
        mailbox,
        flush_steps,
        cache,
        back,
        source,
        recurrent,
        gradients,
        head,
        lists,
        places,
        L,
        S,
        V,
        P,
        current,
        span,
        together,
        counts,
        block,
        piece_rows,
        low,
        high,
    ):
        states, residuals, lengths = cache
        carry, dh, delta = back
        x, U_back, dx = source[0], source[2], source[3]
        dh_start, d_start, p_start, v_start, v_p_start = places
        _, rows, B, H = states.shape
        width, step, I, O = GATES * H, DELTAS * H, x.shape[2], head[6].shape[2]
        swept, lost, V_pieces, W_pieces = counts
        for piece in range(low, high):
            index = piece
            if index < swept:
                t, n, row, first, parity = S
                begin = cut(lengths, t, n, B, swept, index)
                end = cut(lengths, t, n, B, swept, index + 1)
                if together and O > 0:
                    whole = end - begin == B
                    for m in range(1 if whole else n):
                        _lose(head, states, first, dh, dh_start, lengths, S, span,
                              m * B + begin, n * B if whole else m * B + end)  # fmt: skip
                sweep(
                    mailbox,
                    states,
                    residuals,
                    dh,
                    dh_start,
                    carry,
                    delta,
                    d_start,
                    lengths,
                    recurrent,
                    v_start,
                    t,
                    n,
                    B,
                    H,
                    first,
                    rows,
                    current,
                    begin,
                    end,
                    0,
                    H,
                    0,
                    1,
                )
                if together and dx.size > 0:
                    live = live_steps(lengths, t, n, begin, end)
                    multiply_part(dx, row * I, delta, d_start, step, U_back, width, I, n, B, begin,
                                  end, live)  # fmt: skip
                continue
            index -= swept
            if index == 0:
                _count(head, lists, lengths, L, S, V, span, B)
                continue
            index -= 1
            if index < lost:
                begin = index * piece_rows
                _lose(head, states, L[3], dh, L[4] * span * H, lengths, L, span, begin,
                      min(L[1] * B, begin + piece_rows))  # fmt: skip
                continue
            index -= lost
            if index < V_pieces:
                _readout_gradient(head, lists, states, V, span, V[0] % flush_steps == 0,
                                  index * block, min(O, (index + 1) * block))  # fmt: skip
                continue
            index -= V_pieces
            t, n, row, first, parity = P
            ends = t % flush_steps == 0
            listed = data(lists[1]), parity * span, lists[2][2 + parity]
            if index < W_pieces:
                input_gradient(source, delta, p_start, listed, row, H, ends, index * block,
                               min(width, (index + 1) * block))  # fmt: skip
                continue
            index -= W_pieces
            if index < W_pieces:
                recurrent_gradient(recurrent, gradients, source, states, delta,
                                   (p_start, v_p_start), listed, first, ends, index * block,
                                   min(width, (index + 1) * block))  # fmt: skip
                continue
            begin = (index - W_pieces) * piece_rows
            live = live_steps(lengths, t, n, 0, B)
            multiply_rows(dx, row * I, delta, p_start, step, U_back, width, I, begin,
                          min(n * B, begin + piece_rows), live * B)  # fmt: skip

    @program(f"reverse {CELL}", f"the {title(CELL)} kernels")
    def reverse(
        mailbox, threads, sweeps_, members, chunk, flush_steps, start, stop, first, current, whole,
        cache, back, source, recurrent, gradients, head, lists,
    ):  # fmt: skip
        """Steps stop back to start, of which `start` is row `first` of the leaf.

        leaf: (states, kept, lengths)
        back: (carry, dh, delta); dh (n, B, H), scratch (2 * chunk, B, H) where there is a loss, or
            zeros (chunk, B, H); delta (n, B, deltas*H) if `whole`, else scratch (chunk, B,
            2*deltas*H)
        source: (x, ids, U packed, dx, gradient of U, its total, total of the deltas); no dx if it
            is empty
        recurrent: see `sweeps.build_reverse`; the room for what a second product multiplied is
            (2 * chunk + 1, B, H)
        gradients: (gradient of W, its total)
        head: (readout, loss, factor, V packed for V s, for V^T do, c, o scratch (2 * chunk, B, O),
            y, targets, weights, values scratch (2 * chunk * B), loss pair, gradient of V, its
            total, total of c's); no loss if o is empty
        lists: (rows, rows, marks): scratch, integers (2 * chunk * B) twice and four counts
        """
        states, dh = cache[0], back[1]
        x, dx, O = source[0], source[3], head[6].shape[2]
        B, H = states.shape[2:]
        width, step, I = GATES * H, DELTAS * H, x.shape[2]
        panel = PANEL_BYTES // itemsize(states)
        span = chunk * B
        block = block_of(width, threads)
        together = sweeps_ >= threads
        listed = dh.shape[0] >= stop - start  # dh holds a row for each step
        lists[2][:] = 0
        L = (stop, 0, 0, 0, 0)  # time, steps, row, row of the leaf and parity of a chunk
        S = P = L
        while P[0] > start:
            end = L[0]
            t = previous_cut(end, start, chunk)
            P, S = S, L
            L = (t, end - t, (t - start) * B, first + t - start, 1 - L[4])
            if together:
                P, S = S, L
            V = P if together else S
            t, n, row, _, parity = S
            dh_start = row * H if listed else 0
            places = (
                parity * span * H if O > 0 else dh_start,
                row * step if whole else parity * span * step,
                P[2] * step if whole else P[4] * span * step,
                parity * span * H,
                P[4] * span * H,
            )
            swept = sweeps_ if n > 0 else 0
            if swept > 0 and members > 1:
                function, arguments = job(
                    GANG,
                    (mailbox, cache, back, recurrent, (places[0], places[1], places[3]), S, current,
                     panel),
                )  # fmt: skip
                gang(mailbox, members, function, arguments)
                swept = 0
            piece_rows = piece_rows_of(max(L[1], P[1]) * B, threads)
            lost = 0 if together or O == 0 else -(-L[1] * B // piece_rows)
            V_pieces = -(-O // block) if V[1] > 0 else 0
            W_pieces = -(-width // block) if P[1] > 0 else 0
            X_pieces = 0 if together or dx.size == 0 else -(-P[1] * B // piece_rows)
            total = swept + 1 + lost + V_pieces + 2 * W_pieces + X_pieces
            function, arguments = job(
                CHUNK,
                (
                    mailbox,
                    flush_steps,
                    cache,
                    back,
                    source,
                    recurrent,
                    gradients,
                    head,
                    lists,
                    places,
                    L,
                    S,
                    V,
                    P,
                    current,
                    span,
                    together,
                    (swept, lost, V_pieces, W_pieces),
                    block,
                    piece_rows,
                ),
            )
            work = B * width * (n * H + P[1] * (2 * I + H)) + 3 * O * H * B * L[1]
            fork(mailbox, threads_for(work, threads), total, function, arguments)
            current ^= n & 1

    return reverse
