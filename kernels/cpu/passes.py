"""A layer's way over a stretch of time, forward and back, as one kernel call.

Time is cut into chunks whose scratch stays in cache, at multiples of `chunk`. A job does the sweep
of one chunk, which is sequential and keeps few threads busy, beside the products of the chunks
before and after it, which any thread can do: the sweep's parts come first, then the rest in small
pieces to whoever is free. Where the weight outgrows a core's own cache, a gang of all threads does
the sweep first, each a share of the units.

    forward:  project(k+1) | sweep(k)
    reverse:  loss(k) | sweep(k-1), gradients of the readout(k-1) | gradients(k-2)

The scratch of chunk k lies at parity k & 1.
"""

from .. import cells
from ..access import data, get, itemsize
from ..jit import inner
from ..maths import like
from . import sweeps
from .linear import accumulate, multiply_rows, project_rows, scatter
from .losses import add_losses, list_rows, loss_rows
from .products import PANEL_BYTES, PANEL_COLUMNS
from .workers import fork, gang, job, named_job, program

_SMALL = 30_000  # multiply-adds of a job that take as long as handing them over
_ROWS = 24  # the least rows in a piece of a product
_GANG = 100_000  # bytes of a weight, for each sequence, from which a barrier in each step pays
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
    few = sweep_parts(threads, B) < threads
    if few and B * gates * H * H * itemsize > _GANG and H % columns == 0:
        return min(threads, H // columns, 16)
    return 1


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
    GATES, STATES, KEPT, *_ = cells.CELLS[CELL]
    sweep = sweeps.build_forward(CELL)

    GANG, CHUNK = f"forward gang {CELL}", f"forward chunk {CELL}"

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
    GATES, STATES, KEPT, *_ = cells.CELLS[CELL]
    sweep = sweeps.build_reverse(CELL)
    GANG, CHUNK = f"reverse gang {CELL}", f"reverse chunk {CELL}"

    @named_job(GANG)
    def members_job(mail, leaf, back, recurrent, place, at, panel, rank, size):
        states, kept, lengths = leaf
        carry, dh, delta = back
        W, parts = recurrent[:2]
        dh_start, d_start = place
        t, n, first, current = at
        _, rows, B, H = states.shape
        left, right = sweeps.share_of_units(H, panel, rank, size)
        sweep(mail, states, kept, dh, dh_start, carry, delta, d_start, lengths, W, parts, t, n, B,
              H, first, rows, current, 0, B, left, right, rank, size)  # fmt: skip

    @named_job(CHUNK)
    def chunk_job(
        mail, leaf, back, source, recurrent, head, lists, place, at, loss_at, grad_at, pieces,
        low, high,
    ):  # fmt: skip
        states, kept, lengths = leaf
        carry, dh, delta = back
        x, ids, U, dx, grad_U, total_U, bias = source
        W, parts, grad_W, total_W = recurrent
        (readout, loss, factor, V, V_back, c, o, y, targets, weights, values, pair, grad_V, total_V,
         bias_c) = head  # fmt: skip
        rows_V, rows_P, marks = lists
        _, rows, B, H = states.shape
        width, I, O = GATES * H, x.shape[2], o.shape[2]
        dh_start, d_start = place
        t, n, first, current = at
        loss_t, loss_n, loss_row, loss_first, parity, span, V_ends = loss_at
        p_n, p_row, p_first, p_start, P_ends = grad_at
        swept, listing, lost, V_pieces, U_pieces, W_pieces, X_pieces, block, piece_rows = pieces
        here, other = parity * span, (1 - parity) * span  # rows of chunk k, and of k-1
        for piece in range(low, high):
            index = piece
            if index < swept:
                sweep(mail, states, kept, dh, dh_start, carry, delta, d_start, lengths, W, parts, t,
                      n, B, H, first, rows, current, _cut(lengths, t, n, B, swept, index),
                      _cut(lengths, t, n, B, swept, index + 1), 0, H, 0, 1)  # fmt: skip
                continue
            index -= swept
            if index < listing:
                marks[2 + 1 - parity] = list_rows(rows_P, other, lengths, weights[:0], 0, t, n, B)
                if O > 0:
                    add_losses(pair, values, other, rows_V, other, marks[1 - parity])
                    marks[parity] = list_rows(
                        rows_V, here, lengths, weights, loss_row, loss_t, loss_n, B
                    )
                continue
            index -= listing
            if index < lost:
                begin = index * piece_rows
                loss_rows(
                    readout, loss, factor, V, V_back, c, data(states), loss_first * B * H, o,
                    here * O, y, targets, weights, loss_row, values, here, dh, here * H, lengths,
                    loss_t, B, H, O, begin, min(loss_n * B, begin + piece_rows),
                )  # fmt: skip
                continue
            index -= lost
            if index < V_pieces:
                accumulate(
                    grad_V, total_V, bias_c, V_ends, o, other * O, O, states, (first + 1) * B * H,
                    H, rows_V, other, marks[1 - parity], index * block,
                    min(O, (index + 1) * block),
                )  # fmt: skip
                continue
            index -= V_pieces
            if index < U_pieces:
                begin, end = index * block, min(width, (index + 1) * block)
                if ids.size > 0:
                    scatter(total_U, bias, delta, p_start, width, ids, p_row, rows_P, here,
                            marks[2 + parity], begin, end)  # fmt: skip
                else:
                    accumulate(
                        grad_U, total_U, bias, P_ends, delta, p_start, width, x, p_row * I, I,
                        rows_P, here, marks[2 + parity], begin, end,
                    )  # fmt: skip
                continue
            index -= U_pieces
            if index < W_pieces:
                accumulate(
                    grad_W, total_W, bias[:0], P_ends, delta, p_start, width, states,
                    p_first * B * H, H, rows_P, here, marks[2 + parity], index * block,
                    min(width, (index + 1) * block),
                )  # fmt: skip
                continue
            begin = (index - W_pieces) * piece_rows
            multiply_rows(dx, p_row * I, delta, p_start, U, width, I, begin,
                          min(p_n * B, begin + piece_rows))  # fmt: skip

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
        states, kept, lengths = leaf
        delta = back[2]
        x, ids, _, dx = source[:4]
        total_W = recurrent[3]
        o = head[6]
        _, rows, B, H = states.shape
        width, I, O = GATES * H, x.shape[2], o.shape[2]
        carried = total_W.size > 0
        panel = PANEL_BYTES // itemsize(states)
        span = chunk * B
        block = _block(width, threads)
        la = lb = sa = sb = pa = pb = stop  # chunks of the loss, the sweep and the gradients
        parity = 0
        lists[2][:] = 0
        while pa > start:
            pa, pb, sa, sb, lb = sa, sb, la, lb, la
            la = _previous(lb, start, chunk)
            parity = 1 - parity
            there = (sa - start) * B * H if back[1].shape[0] >= stop - start else 0
            place = (
                (1 - parity) * span * H if O > 0 else there,
                (sa - start) * B * width if whole else (1 - parity) * span * width,
            )
            at = (sa, sb - sa, first + sa - start, current)
            loss_at = (la, lb - la, (la - start) * B, first + la - start + 1, parity, span,
                       carried and sa % panel_steps == 0)  # fmt: skip
            grad_at = (
                pb - pa, (pa - start) * B, first + pa - start,
                (pa - start) * B * width if whole else parity * span * width,
                carried and pa % panel_steps == 0,
            )  # fmt: skip
            swept = sweeps_ if sb > sa else 0
            if swept > 0 and members > 1:
                function, arguments = job(GANG, (mail, leaf, back, recurrent, place, at, panel))
                gang(mail, members, function, arguments)
                swept = 0
            piece_rows = _piece_rows(max(lb - la, pb - pa) * B, threads)
            lost = -(-(lb - la) * B // piece_rows) if O > 0 else 0
            V_pieces = -(-O // block) if sb > sa else 0
            W_pieces = -(-width // block) if pb > pa else 0
            X_pieces = -(-(pb - pa) * B // piece_rows) if dx.size > 0 else 0
            pieces = (swept, 1, lost, V_pieces, W_pieces, W_pieces, X_pieces, block, piece_rows)
            total = swept + 1 + lost + V_pieces + 2 * W_pieces + X_pieces
            work = B * width * ((sb - sa) * H + (pb - pa) * (2 * I + H)) + 3 * O * H * B * (lb - la)
            function, arguments = job(
                CHUNK,
                (mail, leaf, back, source, recurrent, head, lists, place, at, loss_at, grad_at,
                 pieces),
            )  # fmt: skip
            fork(mail, _threads(work, threads), total, function, arguments)
            current ^= (sb - sa) & 1

    return reverse
