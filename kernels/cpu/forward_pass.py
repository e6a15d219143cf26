"""A layer's passes over a span of time, forward and in reverse, as one kernel call each.

Time is cut into chunks, at multiples of `chunk`, whose scratch stays in the cache. With as many
runs of sequences as threads, each thread does all for its own sequences. Only the weight gradients,
which add over all sequences, wait for the next job:

    forward:  project(k), sweep(k)
    reverse:  loss(k), sweep(k), input gradient(k) | weight gradients(k-1)

Otherwise the sweep, which is sequential, keeps few threads busy. A job does it beside the products
of the chunks before and after, in small pieces for any thread that is free. Where the weight is
large, a gang of all threads does the sweep first, each thread a share of the units:

    forward:  sweep(k) | project(k+1)
    reverse:  sweep(k-1) | loss(k), readout gradients(k-1), weight and input gradients(k-2)

The scratch of chunk k is the half k & 1 (its parity).
"""

from ..cells.registry import CELLS
from ..flat import itemsize
from ..jit import inner
from . import sweeps
from .linear import project_part, project_rows
from .products import PANEL_BYTES
from .split import cut, live_steps, next_cut, piece_rows_of, threads_for
from .workers import fork, gang, job, named_job


def build_forward(CELL):
    """The forward pass of a layer of that cell."""
    GATES, BLOCKS = CELLS[CELL].gates, CELLS[CELL].blocks
    sweep = sweeps.build_forward(CELL)

    GANG, CHUNK, RUNS = (f"forward {what} {CELL}" for what in ("gang", "chunk", "runs"))

    @named_job(GANG)
    def members_job(mailbox, cache, h, z, recurrent, place, at, panel, rank, size):
        states, residuals, lengths = cache
        z_start, _, h_start, _ = place
        t, n, first, rows, cached = at
        _, _, B, H = states.shape
        left, right = sweeps.share_of_units(H, panel, rank, size)
        sweep(
            mailbox, z, z_start, states, residuals, h, h_start, lengths, recurrent, t, n, B, H,
            first, rows, cached, 0, B, left, right, rank, size
        )  # fmt: skip

    @named_job(RUNS)
    def runs_job(mailbox, cache, h, z, source, recurrent, span, tokens, cached, runs, low, high):
        states, residuals, lengths = cache
        x, ids, U, b = source
        start, stop, chunk, first = span
        _, rows, B, H = states.shape
        I = x.shape[2]
        for run in range(low, high):
            begin = cut(lengths, start, stop - start, B, runs, run)
            end = cut(lengths, start, stop - start, B, runs, run + 1)
            t = start if end > begin else stop
            while t < stop:
                following = next_cut(t, stop, chunk)
                row, n = (t - start) * B, following - t
                live = live_steps(lengths, t, n, begin, end)
                project_part(z, 0, BLOCKS * H, x, row * I, ids, row, tokens, U, b, I, GATES * H,
                             live, B, begin, end)  # fmt: skip
                sweep(mailbox, z, 0, states, residuals, h, row * H, lengths, recurrent, t, n, B, H,
                      first + t - start, rows, cached, begin, end, 0, H, 0, 1)  # fmt: skip
                t = following

    @named_job(CHUNK)
    def chunk_job(
        mailbox, cache, h, z, source, recurrent, place, at, tokens, more_rows, I, swept, piece_rows,
        low, high,
    ):  # fmt: skip
        states, residuals, lengths = cache
        x, ids, U, b = source
        z_start, z_next, h_start, row = place
        t, n, first, rows, cached = at
        _, _, B, H = states.shape
        for piece in range(low, high):
            if piece < swept:
                sweep(
                    mailbox, z, z_start, states, residuals, h, h_start, lengths, recurrent, t, n, B,
                    H, first, rows, cached, cut(lengths, t, n, B, swept, piece),
                    cut(lengths, t, n, B, swept, piece + 1), 0, H, 0, 1,
                )  # fmt: skip
            else:
                begin = (piece - swept) * piece_rows
                project_rows(z, z_next, BLOCKS * H, x, row * I, ids, row, tokens, U, b, I,
                             GATES * H, begin, min(more_rows, begin + piece_rows))  # fmt: skip

    @inner
    def forward(
        mailbox, threads, sweeps_, members, chunk, half, start, stop, first, cached, cache, h, z,
        source, recurrent,
    ):  # fmt: skip
        """Steps start..stop of a layer.

        mailbox, threads : the team (see `workers`), and how many of its threads may help
        sweeps_ : runs of sequences into which a sweep is cut
        members : threads of a gang, or 1 for none
        chunk : steps of a chunk
        half : the half of `z` that may be used, and this thread does all; or -1 for both
        start, stop : the span
        first : row of `states` before step `start`
        cached : whether all states and residuals are stored, see `sweeps.build_forward`
        cache : (states (S, rows, B, H), residuals (rows, B, R*H), lengths (B,) int64)
        h : (n, B, H), takes the outputs, or empty
        z : (chunk, B, 2*blocks*H) scratch
        source : (x (n, B, I), ids (n, B) int64, U packed, or a table (I, G*H) for tokens, b in the
            order of the cell (blocks*H,)); ids are empty unless x is tokens
        recurrent : see `sweeps.build_forward`
        """
        states, x, ids = cache[0], source[0], source[1]
        _, rows, B, H = states.shape
        width, I, tokens = GATES * H, x.shape[2], ids.size > 0
        if half >= 0:
            z_start = half * (z.size // 2)
            t = start
            while t < stop:
                following = next_cut(t, stop, chunk)
                row, n = (t - start) * B, following - t
                live = live_steps(cache[2], t, n, 0, B)
                project_part(z, z_start, BLOCKS * H, x, row * I, ids, row, tokens, source[2],
                             source[3], I, width, live, B, 0, B)  # fmt: skip
                sweep(mailbox, z, z_start, states, cache[1], h, row * H, cache[2], recurrent, t, n,
                      B, H, first + t - start, rows, cached, 0, B, 0, H, 0, 1)  # fmt: skip
                t = following
            return
        if sweeps_ >= threads:
            function, arguments = job(
                RUNS,
                (mailbox, cache, h, z, source, recurrent, (start, stop, chunk, first), tokens,
                 cached, sweeps_),
            )  # fmt: skip
            work = (stop - start) * B * width * (H + I)
            fork(mailbox, threads_for(work, threads), sweeps_, function, arguments)
            return
        panel = PANEL_BYTES // itemsize(states)
        half = chunk * B * BLOCKS * H
        t, n, following = start, 0, start  # sweep t..t+n, project the chunk that follows
        parity = 0
        while t < stop:
            end = next_cut(following, stop, chunk)
            more = end - following
            more_rows = live_steps(cache[2], following, more, 0, B) * B
            piece_rows = piece_rows_of(more_rows, threads)
            place = (parity * half, (1 - parity) * half, (t - start) * B * H,
                     (following - start) * B)  # fmt: skip
            at = (t, n, first + t - start, rows, cached)
            swept = sweeps_ if n > 0 else 0
            if swept > 0 and members > 1:
                function, arguments = job(GANG, (mailbox, cache, h, z, recurrent, place, at, panel))
                gang(mailbox, members, function, arguments)
                swept = 0
            work = B * width * (n * H + more * I)
            function, arguments = job(
                CHUNK,
                (mailbox, cache, h, z, source, recurrent, place, at, tokens, more_rows, I, swept,
                 piece_rows),
            )  # fmt: skip
            fork(mailbox, threads_for(work, threads), swept + -(-more_rows // piece_rows), function,
                 arguments)  # fmt: skip
            t, n, following = following, more, end
            parity = 1 - parity

    return forward
