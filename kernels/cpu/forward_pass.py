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
from ..flat import data, itemsize, offset
from ..jit import inner
from . import sweeps
from .linear import project_part, project_rows
from .products import PANEL_BYTES
from .split import cut, live_steps, next_cut, piece_rows_of, threads_for
from .workers import fork, gang, job, named_job


def build_forward(CELL):
    """The forward pass of a layer of that cell."""
    cell = CELLS[CELL]
    GATES, BLOCKS, DRIVES = cell.gates, cell.blocks, cell.drives
    sweep = sweeps.build_forward(CELL)

    GANG, CHUNK, RUNS = (f"forward {what} {CELL}" for what in ("gang", "chunk", "runs"))

    @named_job(GANG)
    def members_job(mailbox, cache, h, z, recurrent, place, at, panel, rank, size):
        z_start, _, row, _ = place
        _, _, B, H = cache[0].shape
        left, right = sweeps.share_of_units(H, panel, rank, size)
        sweep(mailbox, offset(z, z_start), cache, h, row, recurrent, at, (0, B, left, right),
              (rank, size))  # fmt: skip

    @named_job(RUNS)
    def runs_job(mailbox, cache, h, z, source, recurrent, span, tokens, cached, runs, low, high):
        states, _, lengths = cache
        x, ids, U, b = source
        start, stop, chunk, first = span
        _, _, B, H = states.shape
        I = x.shape[2]
        for run in range(low, high):
            begin = cut(lengths, start, stop - start, B, runs, run)
            end = cut(lengths, start, stop - start, B, runs, run + 1)
            t = start if end > begin else stop
            while t < stop:
                following = next_cut(t, stop, chunk)
                row, n = (t - start) * B, following - t
                live = live_steps(lengths, t, n, begin, end)
                project_part(
                    data(z), BLOCKS * H, offset(x, row * I), I, offset(ids, row), tokens,
                    (data(U), I - DRIVES, GATES * H), b, live, B, begin, end,
                )  # fmt: skip
                sweep(mailbox, data(z), cache, h, row, recurrent,
                      (t, n, first + t - start, cached), (begin, end, 0, H), (0, 1))  # fmt: skip
                t = following

    @named_job(CHUNK)
    def chunk_job(mailbox, cache, h, z, source, recurrent, place, at, pieces, low, high):
        states, _, lengths = cache
        x, ids, U, b = source
        z_start, z_next, row, next_row = place
        t, n, _, _ = at
        swept, piece_rows, more_rows = pieces
        _, _, B, H = states.shape
        I = x.shape[2]
        for piece in range(low, high):
            if piece < swept:
                begin = cut(lengths, t, n, B, swept, piece)
                end = cut(lengths, t, n, B, swept, piece + 1)
                sweep(mailbox, offset(z, z_start), cache, h, row, recurrent, at,
                      (begin, end, 0, H), (0, 1))  # fmt: skip
            else:
                begin = (piece - swept) * piece_rows
                project_rows(
                    offset(z, z_next), BLOCKS * H, offset(x, next_row * I), I,
                    offset(ids, next_row), ids.size > 0, (data(U), I - DRIVES, GATES * H), b,
                    begin, min(more_rows, begin + piece_rows),
                )  # fmt: skip

    @inner
    def forward(team, chunk, half, span, cache, h, z, source, recurrent):
        """Steps start..stop of a layer.

        team : (mailbox, threads, sweeps, members): the team (see `workers`) and how many of its
            threads may help, the runs of sequences into which a sweep is cut, and the threads of a
            gang, or 1 for none
        chunk : steps of a chunk
        half : the half of `z` that may be used, and this thread does all; or -1 for both
        span : (start, stop, first, cached): the span, the row of `states` before step `start`, and
            whether all states and residuals are stored, see `sweeps.build_forward`
        cache : (states (S, rows, B, H), residuals (rows, B, R*H), marks: see `sweeps`)
        h : (n, B, H), takes the outputs, or empty
        z : (chunk, B, 2*blocks*H) scratch
        source : (x (n, B, I), ids (n, B) int64, U packed, or a table (I, G*H) for tokens, b in the
            order of the cell (blocks*H,)); ids are empty unless x is tokens
        recurrent : see `sweeps.build_forward`
        """
        mailbox, threads, sweeps_, members = team
        start, stop, first, cached = span
        states, x, ids = cache[0], source[0], source[1]
        _, _, B, H = states.shape
        width, I, tokens = GATES * H, x.shape[2], ids.size > 0
        if half >= 0:
            own = offset(z, half * (z.size // 2))
            t = start
            while t < stop:
                following = next_cut(t, stop, chunk)
                row, n = (t - start) * B, following - t
                live = live_steps(cache[2], t, n, 0, B)
                project_part(
                    own, BLOCKS * H, offset(x, row * I), I, offset(ids, row), tokens,
                    (data(source[2]), I - DRIVES, width), source[3], live, B, 0, B,
                )  # fmt: skip
                sweep(mailbox, own, cache, h, row, recurrent,
                      (t, n, first + t - start, cached), (0, B, 0, H), (0, 1))  # fmt: skip
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
            place = (parity * half, (1 - parity) * half, (t - start) * B,
                     (following - start) * B)  # fmt: skip
            at = (t, n, first + t - start, cached)
            swept = sweeps_ if n > 0 else 0
            if swept > 0 and members > 1:
                function, arguments = job(GANG, (mailbox, cache, h, z, recurrent, place, at, panel))
                gang(mailbox, members, function, arguments)
                swept = 0
            work = B * width * (n * H + more * I)
            function, arguments = job(
                CHUNK,
                (mailbox, cache, h, z, source, recurrent, place, at,
                 (swept, piece_rows, more_rows)),
            )  # fmt: skip
            fork(mailbox, threads_for(work, threads), swept + -(-more_rows // piece_rows), function,
                 arguments)  # fmt: skip
            t, n, following = following, more, end
            parity = 1 - parity

    return forward
