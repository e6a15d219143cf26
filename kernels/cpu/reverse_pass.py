"""A layer's reverse pass over a span of time as one kernel call: see `forward_pass`."""

from ..cells.registry import CELLS
from ..flat import itemsize, offset
from ..jit import inner
from . import sweeps
from .products import PANEL_BYTES
from .reverse_pieces import (
    build_below,
    build_gradients,
    index_piece,
    indexed_deltas,
    loss_piece,
    readout_gradient,
)
from .split import block_of, cut, live_steps, piece_rows_of, previous_cut, threads_for
from .workers import fork, gang, job, named_job


def build_reverse(CELL):
    """The reverse pass over a span in the step cache, loss and weight gradients included."""
    cell = CELLS[CELL]
    GATES, DELTAS = cell.gates, cell.delta_blocks
    sweep = sweeps.build_reverse(CELL)
    input_gradient, recurrent_gradient = build_gradients(CELL)
    below_rows, below_part = build_below(CELL)
    GANG, CHUNK = (f"reverse {what} {CELL}" for what in ("gang", "chunk"))

    @named_job(GANG)
    def members_job(mailbox, cache, back, recurrent, places, S, current, panel, rank, size):
        t, n, _, first, _ = S
        _, _, B, H = cache[0].shape
        left, right = sweeps.share_of_units(H, panel, rank, size)
        sweep(mailbox, cache, back, places, recurrent, (t, n, first, current), (0, B, left, right),
              (rank, size))  # fmt: skip

    @named_job(CHUNK)
    def chunk_job(
        mailbox, cache, back, source, recurrent, gradients, lossy, places, chunks, how, low, high
    ):
        states, _, lengths = cache
        _, dh, delta = back
        head, indices = lossy
        L, S, V, P = chunks
        flush_steps, current, span, together, block, piece_rows, counts = how
        x, dx = source[0], source[3]
        dh_start, d_start, p_start, v_start, v_p_start = places
        _, _, B, H = states.shape
        width, I, O = GATES * H, x.shape[2], head[6].shape[2]
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
                        loss_piece(head, states, first, dh, dh_start, lengths, S, span,
                              m * B + begin, n * B if whole else m * B + end)  # fmt: skip
                sweep(mailbox, cache, back, (dh_start, d_start, v_start, row), recurrent,
                      (t, n, first, current), (begin, end, 0, H), (0, 1))  # fmt: skip
                if together and dx.size > 0:
                    live = live_steps(lengths, t, n, begin, end)
                    below_part(source, offset(dx, row * I), offset(delta, d_start), H, n, B, begin,
                               end, live)  # fmt: skip
                continue
            index -= swept
            if index == 0:
                index_piece(head, indices, lengths, L, S, V, span, B)
                continue
            index -= 1
            if index < lost:
                begin = index * piece_rows
                loss_piece(head, states, L[3], dh, L[4] * span * H, lengths, L, span, begin,
                      min(L[1] * B, begin + piece_rows))  # fmt: skip
                continue
            index -= lost
            if index < V_pieces:
                readout_gradient(head, indices, states, V, span, V[0] % flush_steps == 0,
                                  index * block, min(O, (index + 1) * block))  # fmt: skip
                continue
            index -= V_pieces
            t, n, row, first, parity = P
            ends = t % flush_steps == 0
            indexed = indexed_deltas(indices, parity, span)
            if index < W_pieces:
                input_gradient(source, delta, p_start, indexed, row, H, ends, index * block,
                               min(width, (index + 1) * block))  # fmt: skip
                continue
            index -= W_pieces
            if index < W_pieces:
                recurrent_gradient(recurrent, gradients, source, states, delta,
                                   (p_start, v_p_start), indexed, first, ends, index * block,
                                   min(width, (index + 1) * block))  # fmt: skip
                continue
            begin = (index - W_pieces) * piece_rows
            live = live_steps(lengths, t, n, 0, B)
            below_rows(source, offset(dx, row * I), offset(delta, p_start), H, begin,
                       min(n * B, begin + piece_rows), live * B)  # fmt: skip

    @inner
    def reverse(
        team, chunk, flush_steps, span, cache, back, source, recurrent, gradients, head, indices
    ):
        """Steps stop back to start of a layer.

        team, chunk : see `forward_pass.build_forward`
        flush_steps : at its multiples weight gradients are flushed to float64
        span : (start, stop, first, current, whole): the span, the row of `states` before step
            `start`, the half of `carry` that holds the derivatives by the state after the span, and
            whether `delta` takes the deltas of the whole span
        cache : (states (S, rows, B, H), residuals (rows, B, R*H), marks: see `sweeps`)
        back : (carry (S, 2, B, H), dh, delta). dh: (n, B, H) derivatives by the outputs; scratch
            (2*chunk, B, H) where there is a loss; or zeros (chunk, B, H). delta: (n, B, D*H) if
            `whole`, else scratch (chunk, B, 2*D*H)
        source : (x (n, B, I), ids (n, B), U packed, dx (n, B, I) or empty, gradient of U (G*H, I),
            its float64 total or empty, float64 sums of the deltas (D*H,)). For tokens the gradient
            adds to the total, (I, G*H)
        recurrent : see `sweeps.build_reverse`; v has 2*chunk + 1 steps
        gradients : (gradient of W (G*H, H), its float64 total or empty)
        head : (readout, loss, factor, V packed for V s, V packed for V^T do, c (O,), o scratch
            (2*chunk, B, O), y (n, B, O), targets (n, B) int64, weights (n, B, 1 or O) or empty,
            values scratch (2*chunk*B,), loss pair (2,), gradient of V (O, H), its total or empty,
            total of c's (O,)): see `losses.loss_rows`; there is no loss if o is empty
        indices : (rows, rows, counts): int64 scratch, (2*chunk*B,) twice and (4,); with resets
            (2*chunk*B,), (4*chunk*B,) and (6,)
        """
        mailbox, threads, sweeps_, members = team
        start, stop, first, current, whole = span
        states, dh = cache[0], back[1]
        x, dx, O = source[0], source[3], head[6].shape[2]
        B, H = states.shape[2:]
        width, step, I = GATES * H, DELTAS * H, x.shape[2]
        panel = PANEL_BYTES // itemsize(states)
        rows = chunk * B  # in a half of the scratch
        block = block_of(width, threads)
        together = sweeps_ >= threads
        every_step = dh.shape[0] >= stop - start  # dh has a row for each step
        indices[2][:] = 0
        L = (stop, 0, 0, 0, 0)  # a chunk: see `reverse_pieces`
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
            dh_start = row * H if every_step else 0
            places = (
                parity * rows * H if O > 0 else dh_start,
                row * step if whole else parity * rows * step,
                P[2] * step if whole else P[4] * rows * step,
                parity * rows * H,
                P[4] * rows * H,
            )
            swept = sweeps_ if n > 0 else 0
            if swept > 0 and members > 1:
                function, arguments = job(
                    GANG,
                    (mailbox, cache, back, recurrent, (places[0], places[1], places[3], row), S,
                     current, panel),
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
                (mailbox, cache, back, source, recurrent, gradients, (head, indices), places,
                 (L, S, V, P), (flush_steps, current, rows, together, block, piece_rows,
                  (swept, lost, V_pieces, W_pieces))),
            )  # fmt: skip
            work = B * width * (n * H + P[1] * (2 * I + H)) + 3 * O * H * B * L[1]
            fork(mailbox, threads_for(work, threads), total, function, arguments)
            current ^= n & 1

    return reverse
