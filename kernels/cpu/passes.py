"""A layer's way over a stretch of time, forward and back, as one kernel call.

Time is cut into chunks whose scratch stays in cache, at multiples of `chunk`. With as many runs of
sequences as threads, each thread does all for its own sequences; only the weight gradients, which
add over all of them, wait for the next job:

    forward:  project(k), sweep(k)
    reverse:  loss(k), sweep(k), input gradient(k) | weight gradients(k-1)

Otherwise the sweep, which is sequential, keeps few threads busy. A job does it beside the products
of the chunks before and after, in small pieces for whoever is free. Where the weight is large, a
gang of all threads does the sweep first, each a share of the units:

    forward:  sweep(k) | project(k+1)
    reverse:  sweep(k-1) | loss(k), readout gradients(k-1), weight and input gradients(k-2)

The scratch of chunk k lies at parity k & 1.
"""

from .. import cells
from ..access import data, get, itemsize
from ..jit import inner
from . import sweeps
from .linear import (
    accumulate,
    multiply_part,
    multiply_rows,
    project_part,
    project_rows,
    scatter,
)
from .losses import add_losses, list_rows, loss_rows
from .products import PANEL_BYTES, PANEL_COLUMNS
from .team import barrier_seconds
from .workers import fork, gang, job, named_job, program

_SMALL = 30_000  # multiply-adds of a job that take as long as handing them over
_ROWS = 24  # the least rows in a piece of a product
_LARGE = 100_000  # bytes of a weight, for each sequence, below which no barrier in a step pays,
_GANG = 1e12  # and for each second that a barrier takes: the others have products to do meanwhile
_FEW = 4  # sequences that a sweep does in little more time than one


@inner
def _cut(lengths, t, n, B, parts, part):
    """The first sequence of a part, when steps t..t+n of all are shared out evenly."""
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


def sweep_parts(threads, B):
    """Into how many runs of sequences a sweep is cut."""
    return max(1, min(threads, B // _FEW))


def gang_size(threads, gates, H, B, itemsize):
    """How many threads share out the units of a sweep; 1: none do."""
    columns = PANEL_COLUMNS[itemsize]
    size = B * gates * H * H * itemsize
    if sweep_parts(threads, B) == threads or H % columns or columns == H or size < _LARGE:
        return 1
    return min(threads, H // columns, 16) if size > _GANG * barrier_seconds() else 1


@inner
def _piece_rows(rows, threads):
    """Rows in a piece: enough pieces for all threads, each of whole tiles of 6 rows."""
    wanted = -(-rows // (4 * threads))
    return max(_ROWS, -(-wanted // 6) * 6)


@inner
def _block(outputs, threads):
    """Rows of a weight's gradient in a piece."""
    return 24 if outputs <= 24 * 4 * threads else 48


@inner
def _next(t, stop, chunk):
    return min(stop, (t // chunk + 1) * chunk)


@inner
def _previous(t, start, chunk):
    return max(start, (t - 1) // chunk * chunk)


@inner
def _threads(work, threads):
    return threads if work > _SMALL else 1


def build_forward(CELL):
    """The forward pass of a layer of that cell."""
    GATES = cells.CELLS[CELL].gates
    sweep = sweeps.build_forward(CELL)

    GANG, CHUNK, RUNS = (f"forward {what} {CELL}" for what in ("gang", "chunk", "runs"))

    @named_job(GANG)
    def members_job(mail, leaf, h, z, recurrent, place, at, panel, rank, size):
        states, kept, lengths = leaf
        W, parts = recurrent
        z_start, _, h_start, _ = place
        t, n, first, rows, cached = at
        _, _, B, H = states.shape
        left, right = sweeps.share_of_units(H, panel, rank, size)
        sweep(mail, z, z_start, states, kept, h, h_start, lengths, W, parts, t, n, B, H, first,
              rows, cached, 0, B, left, right, rank, size)  # fmt: skip

    @named_job(RUNS)
    def runs_job(mail, leaf, h, z, source, recurrent, span, tokens, cached, runs, low, high):
        states, kept, lengths = leaf
        x, ids, U, b = source
        W, parts = recurrent
        start, stop, chunk, first = span
        _, rows, B, H = states.shape
        I = x.shape[2]
        for run in range(low, high):
            begin = _cut(lengths, start, stop - start, B, runs, run)
            end = _cut(lengths, start, stop - start, B, runs, run + 1)
            t = start if end > begin else stop
            while t < stop:
                following = _next(t, stop, chunk)
                row, n = (t - start) * B, following - t
                project_part(z, 0, x, row * I, ids, row, tokens, U, b, I, GATES * H, n, B, begin,
                             end)  # fmt: skip
                sweep(mail, z, 0, states, kept, h, row * H, lengths, W, parts, t, n, B, H,
                      first + t - start, rows, cached, begin, end, 0, H, 0, 1)  # fmt: skip
                t = following

    @named_job(CHUNK)
    def chunk_job(
        mail, leaf, h, z, source, recurrent, place, at, tokens, more_rows, I, swept, piece_rows,
        low, high,
    ):  # fmt: skip
        states, kept, lengths = leaf
        x, ids, U, b = source
        W, parts = recurrent
        z_start, z_next, h_start, row = place
        t, n, first, rows, cached = at
        _, _, B, H = states.shape
        for piece in range(low, high):
            if piece < swept:
                sweep(mail, z, z_start, states, kept, h, h_start, lengths, W, parts, t, n, B, H,
                      first, rows, cached, _cut(lengths, t, n, B, swept, piece),
                      _cut(lengths, t, n, B, swept, piece + 1), 0, H, 0, 1)  # fmt: skip
            else:
                begin = (piece - swept) * piece_rows
                project_rows(z, z_next, x, row * I, ids, row, tokens, U, b, I, GATES * H, begin,
                             min(more_rows, begin + piece_rows))  # fmt: skip

    @program(f"forward {CELL}")
    def forward(
        mail, threads, sweeps_, members, chunk, start, stop, first, cached, leaf, h, z, source,
        recurrent,
    ):  # fmt: skip
        """Steps start..stop from row `first` of `states`; see `sweeps.build_forward`.

        leaf: (states, kept, lengths); `h` (n, B, H) or empty; `z` (chunk, B, 2*G*H) scratch;
        source: (x (n, B, I), ids (n, B), U packed, b), where ids are empty unless x is tokens;
        recurrent: (W packed, chains).
        """
        states, x, ids = leaf[0], source[0], source[1]
        _, rows, B, H = states.shape
        width, I, tokens = GATES * H, x.shape[2], ids.size > 0
        if sweeps_ >= threads:
            function, arguments = job(
                RUNS,
                (mail, leaf, h, z, source, recurrent, (start, stop, chunk, first), tokens, cached,
                 sweeps_),
            )  # fmt: skip
            work = (stop - start) * B * width * (H + I)
            fork(mail, _threads(work, threads), sweeps_, function, arguments)
            return
        panel = PANEL_BYTES // itemsize(states)
        half = chunk * B * width
        t, n, following = start, 0, start  # sweep t..t+n, project the chunk that follows
        parity = 0
        while t < stop:
            end = _next(following, stop, chunk)
            more = end - following
            piece_rows = _piece_rows(more * B, threads)
            place = (parity * half, (1 - parity) * half, (t - start) * B * H,
                     (following - start) * B)  # fmt: skip
            at = (t, n, first + t - start, rows, cached)
            swept = sweeps_ if n > 0 else 0
            if swept > 0 and members > 1:
                function, arguments = job(GANG, (mail, leaf, h, z, recurrent, place, at, panel))
                gang(mail, members, function, arguments)
                swept = 0
            work = B * width * (n * H + more * I)
            function, arguments = job(
                CHUNK,
                (mail, leaf, h, z, source, recurrent, place, at, tokens, more * B, I, swept,
                 piece_rows),
            )  # fmt: skip
            fork(mail, _threads(work, threads), swept + -(-more * B // piece_rows), function,
                 arguments)  # fmt: skip
            t, n, following = following, more, end
            parity = 1 - parity

    return forward


def build_reverse(CELL):
    """The way back over a stretch that a leaf has cached, loss and weight gradients included."""
    GATES = cells.CELLS[CELL].gates
    sweep = sweeps.build_reverse(CELL)
    GANG, CHUNK = (f"reverse {what} {CELL}" for what in ("gang", "chunk"))

    @named_job(GANG)
    def members_job(mail, leaf, back, recurrent, places, S, current, panel, rank, size):
        states, kept, lengths = leaf
        carry, dh, delta = back
        t, n, _, first, _ = S
        dh_start, d_start = places
        W, parts = recurrent[:2]
        _, rows, B, H = states.shape
        left, right = sweeps.share_of_units(H, panel, rank, size)
        sweep(mail, states, kept, dh, dh_start, carry, delta, d_start, lengths, W, parts, t, n, B,
              H, first, rows, current, 0, B, left, right, rank, size)  # fmt: skip

    @named_job(CHUNK)
    def chunk_job(
        mail, panel_steps, leaf, back, source, recurrent, head, lists, places, L, S, V, P, current,
        span, together, counts, block, piece_rows, low, high,
    ):  # fmt: skip
        states, kept, lengths = leaf
        carry, dh, delta = back
        x, ids, U_back, dx, grad_U, total_U, bias = source
        W_back, parts, grad_W, total_W = recurrent
        (readout, loss, factor, V_forth, V_back, c, o, y, targets, weights, values, pair, grad_V,
         total_V, bias_c) = head  # fmt: skip
        rows_V, rows_P, marks = lists
        dh_start, d_start, p_start = places
        _, rows, B, H = states.shape
        width, I, O = GATES * H, x.shape[2], o.shape[2]
        swept, lost, V_pieces, U_pieces, W_pieces = counts
        for piece in range(low, high):
            index = piece
            if index < swept:
                t, n, row, first, parity = S
                begin = _cut(lengths, t, n, B, swept, index)
                end = _cut(lengths, t, n, B, swept, index + 1)
                if together and O > 0:
                    whole = end - begin == B
                    for m in range(1 if whole else n):
                        loss_rows(
                            readout, loss, factor, V_forth, V_back, c, data(states),
                            (first + 1) * B * H, o, parity * span * O, y, targets, weights, row,
                            values, parity * span, dh, dh_start, lengths, t, B, H, O,
                            m * B + begin, n * B if whole else m * B + end,
                        )  # fmt: skip
                sweep(mail, states, kept, dh, dh_start, carry, delta, d_start, lengths, W_back,
                      parts, t, n, B, H, first, rows, current, begin, end, 0, H, 0, 1)  # fmt: skip
                if together and dx.size > 0:
                    multiply_part(dx, row * I, delta, d_start, U_back, width, I, n, B, begin, end)
                continue
            index -= swept
            if index == 0:  # what the next job needs to know
                t, n, _, _, parity = S
                marks[2 + parity] = list_rows(
                    rows_P, parity * span, lengths, weights[:0], 0, t, n, B
                )
                if O > 0:
                    own = V[4]
                    add_losses(pair, values, own * span, rows_V, own * span, marks[own])
                    t, n, row, _, parity = L
                    marks[parity] = list_rows(rows_V, parity * span, lengths, weights, row, t, n, B)
                continue
            index -= 1
            if index < lost:
                t, n, row, first, parity = L
                begin = index * piece_rows
                loss_rows(
                    readout, loss, factor, V_forth, V_back, c, data(states), (first + 1) * B * H, o,
                    parity * span * O, y, targets, weights, row, values, parity * span, dh,
                    parity * span * H, lengths, t, B, H, O, begin, min(n * B, begin + piece_rows),
                )  # fmt: skip
                continue
            index -= lost
            if index < V_pieces:
                t, _, _, first, parity = V
                accumulate(
                    grad_V, total_V, bias_c, t % panel_steps == 0, data(o), parity * span * O, O,
                    data(states), (first + 1) * B * H, H, data(rows_V), parity * span,
                    marks[parity], index * block, min(O, (index + 1) * block),
                )  # fmt: skip
                continue
            index -= V_pieces
            t, n, row, first, parity = P
            if index < U_pieces:
                begin, end = index * block, min(width, (index + 1) * block)
                if ids.size > 0:
                    scatter(total_U, bias, data(delta), p_start, width, ids, row, data(rows_P),
                            parity * span, marks[2 + parity], begin, end)  # fmt: skip
                else:
                    accumulate(
                        grad_U, total_U, bias, t % panel_steps == 0, data(delta), p_start, width,
                        data(x), row * I, I, data(rows_P), parity * span, marks[2 + parity], begin,
                        end,
                    )  # fmt: skip
                continue
            index -= U_pieces
            if index < W_pieces:
                accumulate(
                    grad_W, total_W, bias[:0], t % panel_steps == 0, data(delta), p_start, width,
                    data(states), first * B * H, H, data(rows_P), parity * span,
                    marks[2 + parity], index * block, min(width, (index + 1) * block),
                )  # fmt: skip
                continue
            begin = (index - W_pieces) * piece_rows
            multiply_rows(dx, row * I, delta, p_start, U_back, width, I, begin,
                          min(n * B, begin + piece_rows))  # fmt: skip

    @program(f"reverse {CELL}")
    def reverse(
        mail, threads, sweeps_, members, chunk, panel_steps, start, stop, first, current, whole,
        leaf, back, source, recurrent, head, lists,
    ):  # fmt: skip
        """Steps stop back to start, of which `start` is row `first` of the leaf.

        leaf: (states, kept, lengths)
        back: (carry, dh, delta); dh (n, B, H), scratch (2 * chunk, B, H) where there is a loss, or
            zeros (chunk, B, H); delta (n, B, G*H) if `whole`, else scratch (chunk, B, 2*G*H)
        source: (x, ids, U packed, dx, gradient of U, its total, total of b's); no dx if it is empty
        recurrent: (W packed, chains, gradient of W, its total)
        head: (readout, loss, factor, V packed for V s, for V^T do, c, o scratch (2 * chunk, B, O),
            y, targets, weights, values scratch (2 * chunk * B), loss pair, gradient of V, its
            total, total of c's); no loss if o is empty
        lists: (rows, rows, marks): scratch, integers (2 * chunk * B) twice and four counts
        """
        states, dh = leaf[0], back[1]
        x, dx, O = source[0], source[3], head[6].shape[2]
        B, H = states.shape[2:]
        width, I = GATES * H, x.shape[2]
        panel = PANEL_BYTES // itemsize(states)
        span = chunk * B
        block = _block(width, threads)
        together = sweeps_ >= threads
        listed = dh.shape[0] >= stop - start  # dh holds a row for each step
        lists[2][:] = 0
        L = (stop, 0, 0, 0, 0)  # time, steps, row, row of the leaf and parity of a chunk
        S = P = L
        while P[0] > start:
            end = L[0]
            t = _previous(end, start, chunk)
            P, S = S, L
            L = (t, end - t, (t - start) * B, first + t - start, 1 - L[4])
            if together:
                P, S = S, L
            V = P if together else S
            t, n, row, _, parity = S
            dh_start = row * H if listed else 0
            places = (
                parity * span * H if O > 0 else dh_start,
                row * width if whole else parity * span * width,
                P[2] * width if whole else P[4] * span * width,
            )
            swept = sweeps_ if n > 0 else 0
            if swept > 0 and members > 1:
                function, arguments = job(
                    GANG, (mail, leaf, back, recurrent, places[:2], S, current, panel)
                )
                gang(mail, members, function, arguments)
                swept = 0
            piece_rows = _piece_rows(max(L[1], P[1]) * B, threads)
            lost = 0 if together or O == 0 else -(-L[1] * B // piece_rows)
            V_pieces = -(-O // block) if V[1] > 0 else 0
            W_pieces = -(-width // block) if P[1] > 0 else 0
            X_pieces = 0 if together or dx.size == 0 else -(-P[1] * B // piece_rows)
            total = swept + 1 + lost + V_pieces + 2 * W_pieces + X_pieces
            function, arguments = job(
                CHUNK,
                (mail, panel_steps, leaf, back, source, recurrent, head, lists, places, L, S, V, P,
                 current, span, together, (swept, lost, V_pieces, W_pieces, W_pieces), block,
                 piece_rows),
            )  # fmt: skip
            work = B * width * (n * H + P[1] * (2 * I + H)) + 3 * O * H * B * L[1]
            fork(mail, _threads(work, threads), total, function, arguments)
            current ^= n & 1

    return reverse
