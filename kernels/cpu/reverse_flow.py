"""A layer's way back where one thread does the sweep: its products flow behind it.

A sweep of few sequences keeps one thread busy. The gradients of a chunk are left to the other
threads as a job that nobody waits for, while the sweep goes on with the next chunk, and after the
last one with whatever the schedule does next: the next leaf, the next window. They are finished
before those of the next chunk are left in their place, so that all add in the same order.

A chunk's scratch is the half `half` of it, in turn for all layers of a lane. What the gradients
read of the step cache is copied at the end of a span, since the schedule may fill it anew.
"""

from ..cells.registry import CELLS
from ..flat import data, offset, put
from ..jit import inner
from . import sweeps
from .addresses import address, copy_bytes, view, words, words_of
from .losses import add_losses, index_rows
from .reverse_pieces import (
    build_below,
    build_gradients,
    index_deltas,
    indexed_deltas,
    loss_piece,
    readout_gradient,
)
from .slots import LANE, LAYER, LEFT
from .split import block_of, live_steps, piece_rows_of, previous_cut, threads_for
from .workers import finish, leave


def build_left(CELL, arrays):
    """The gradients of a chunk: a job whose data are the slots LEFT.

    arrays : makes (source, gradients, head, indices, v) of the slots
    """
    cell = CELLS[CELL]
    GATES, DELTAS = cell.gates, cell.delta_blocks
    input_gradient, recurrent_gradient = build_gradients(CELL)
    below_rows, _ = build_below(CELL)

    def left(like, low, high):
        own = words_of(like)
        lane, layer = words(own[LEFT.lane_at]), words(own[LEFT.layer_at])
        B, H, n, t = lane[LANE.batch], layer[LAYER.hidden], own[LEFT.steps], own[LEFT.start]
        chunk, half = lane[LANE.chunk], own[LEFT.half]
        span = chunk * B
        source, gradients, head, indices, recurrent = arrays(like, lane, layer, own, n)
        states = view(like, own[LEFT.states_at], (1, n + 1, B, H))
        delta = view(like, own[LEFT.delta_at], (n, B, DELTAS * H))
        width, O, block = GATES * H, head[6].shape[2], own[LEFT.block]
        ends = t % lane[LANE.flush_steps] == 0
        indexed = indexed_deltas(indices, half, span)
        for piece in range(low, high):
            index = piece
            if index < own[LEFT.v_pieces]:
                readout_gradient(head, indices, states, (t, n, 0, 0, half), span, ends,
                                 index * block, min(O, (index + 1) * block))  # fmt: skip
                continue
            index -= own[LEFT.v_pieces]
            if index < own[LEFT.w_pieces]:
                input_gradient(source, delta, 0, indexed, 0, H, ends, index * block,
                               min(width, (index + 1) * block))  # fmt: skip
                continue
            index -= own[LEFT.w_pieces]
            if index < own[LEFT.w_pieces]:
                recurrent_gradient(recurrent, gradients, source, states, delta,
                                   (0, half * span * H), indexed, 0, ends, index * block,
                                   min(width, (index + 1) * block))  # fmt: skip
                continue
            begin = (index - own[LEFT.w_pieces]) * own[LEFT.piece_rows]
            below_rows(source, data(source[3]), data(delta), H, begin,
                       min(n * B, begin + own[LEFT.piece_rows]), own[LEFT.live_rows])  # fmt: skip

    return left


def build_flow(CELL):
    """The reverse pass of a span whose gradients flow behind its sweep."""
    cell = CELLS[CELL]
    GATES, DELTAS = cell.gates, cell.delta_blocks
    sweep = sweeps.build_reverse(CELL)
    below_rows, _ = build_below(CELL)

    @inner
    def flow(
        team, slots, chunk, span, places, inline, cache, back, source, recurrent, head, indices
    ):
        """Steps stop back to start of a layer.

        team : (mailbox, threads): the team (see `workers`), and how many of its threads may help
        slots : (own, lane, layer): the slots LEFT of what is left to do, of the lane, of the layer
        chunk : steps of a chunk
        span : (start, stop, first, current, whole): as in `reverse_pass.build_reverse`, and so are
            cache, back, source, recurrent, head, indices
        places : the addresses of x, of dx and of delta, of the span's first step
        inline : whether dx is needed at once, by the layer below
        """
        mailbox, threads = team
        own, lane, layer = slots
        start, stop, first, current, whole = span
        states, _, lengths = cache
        dh = back[1]
        x, dx, O = source[0], source[3], head[6].shape[2]
        _, _, B, H = states.shape
        width, step, I = GATES * H, DELTAS * H, x.shape[2]
        tokens, item = layer[LAYER.tokens], lane[LANE.item]
        rows, block = lane[LANE.chunk] * B, block_of(width, threads)
        x_row = B * 8 if tokens else B * I * item
        end, wave = stop, lane[LANE.wave]  # a wave leaves them to a task of its own
        while end > start:
            t = previous_cut(end, start, chunk)
            n = end - t
            half = 1 - lane[LANE.half]
            put(lane, LANE.half, half)
            row, before = (t - start) * B, first + t - start
            dh_start = row * H
            if O > 0:
                dh_start = half * rows * H
                loss_piece(head, states, before, dh, dh_start, lengths, (t, n, row, before, half),
                           rows, 0, n * B)  # fmt: skip
                count = index_rows(indices[0], half * rows, lengths, head[9], row, t, n, B)
                indices[2][half] = count
                add_losses(head[11], head[10], half * rows, indices[0], half * rows, count)
            elif dh.shape[0] < stop - start:
                dh_start = 0
            index_deltas(indices, half, rows, lengths, head[9][:0], t, n, B)
            d_start = row * step if whole else half * rows * step
            sweep(mailbox, cache, back, (dh_start, d_start, half * rows * H, row), recurrent,
                  (t, n, before, current), (0, B, 0, H), (0, 1))  # fmt: skip
            current ^= n & 1
            live = live_steps(lengths, t, n, 0, B)
            if inline:
                below_rows(source, offset(dx, row * I), offset(back[2], d_start), H, 0, n * B,
                           live * B)  # fmt: skip
            finish(mailbox, own)
            states_at = address(states) + before * B * H * item
            x_at = places[0] + (t - start) * x_row
            if t == start and not wave:
                copy_bytes(layer[LAYER.states_copy_at], states_at, (n + 1) * B * H * item)
                states_at = layer[LAYER.states_copy_at]
                if layer[LAYER.x_copy_at]:
                    copy_bytes(layer[LAYER.x_copy_at], x_at, n * x_row)
                    x_at = layer[LAYER.x_copy_at]
            put(own, LEFT.layer_at, own[LEFT.next_layer_at])
            put(own, LEFT.head_at, own[LEFT.next_head_at])
            put(own, LEFT.counts, own[LEFT.next_counts])
            put(own, LEFT.states_at, states_at)
            put(own, LEFT.x_at, x_at)
            put(own, LEFT.delta_at, places[2] + d_start * item)
            put(own, LEFT.start, t)
            put(own, LEFT.steps, n)
            put(own, LEFT.half, half)
            put(own, LEFT.block, block)
            put(own, LEFT.live_rows, live * B)
            later = dx.size > 0 and not inline
            put(own, LEFT.dx_at, places[1] + row * I * item if later else 0)
            piece_rows = piece_rows_of(n * B, threads)
            put(own, LEFT.piece_rows, piece_rows)
            v_pieces, w_pieces = -(-O // block), -(-width // block)
            put(own, LEFT.v_pieces, v_pieces)
            put(own, LEFT.w_pieces, w_pieces)
            total = v_pieces + 2 * w_pieces + (-(-n * B // piece_rows) if later else 0)
            put(own, LEFT.pieces, total)
            if not wave:
                work = B * n * (width * (H + I) + O * H)
                leave(mailbox, own, threads_for(work, threads), total, layer[LAYER.left])
            end = t

    return flow
