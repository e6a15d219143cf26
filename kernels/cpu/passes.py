"""A layer's passes by their address: the arrays are made again from `slots`.

Each takes a null pointer of the dtype and then words: the addresses of a lane's and of a layer's
slots, those of what differs from span to span, and the span.
"""

from functools import cache

import numba
from numba import types

from ..cells.registry import CELLS, title
from ..flat import get
from ..jit import callback, inner
from . import dropout, forward_pass, reverse_pass
from .addresses import as_double, as_unsigned, doubles, view, words
from .shared import ready
from .slots import HEAD, LANE, LAYER


@inner
def _mailbox(lane):
    at = get(lane, LANE.mailbox_at)
    return view(words(at), at, (get(lane, LANE.mailbox_size),))


@inner
def _chunk_of(lane, layer, steps, recurrent):
    """Steps of a chunk: short ones in a short span, for less waiting at both of its ends."""
    chunk, batch = get(lane, LANE.chunk), get(lane, LANE.batch)
    if get(lane, LANE.parts) < get(lane, LANE.threads) and get(layer, LAYER.members) == 1:
        cost = batch * (recurrent + 2000)
        while chunk * 8 > steps and chunk * batch > 64 and chunk * cost > 1_000_000:
            chunk //= 2
    return chunk


def _build_forward(CELL):
    cell = CELLS[CELL]
    GATES, STATES, RESIDUALS, BLOCKS, SECOND = (
        cell.gates, cell.states, cell.residuals, cell.blocks, int(cell.second)
    )  # fmt: skip
    run = forward_pass.build_forward(CELL)

    def forward(like, lane_at, layer_at, x_at, h_at, start, stop, first, cached):
        lane, layer = words(lane_at), words(layer_at)
        n, B, H = stop - start, get(lane, LANE.batch), get(layer, LAYER.hidden)
        I, tokens = get(layer, LAYER.inputs), get(layer, LAYER.tokens)
        dense = 1 - tokens
        if cached:
            rows = get(layer, LAYER.rows)
            states = view(like, get(layer, LAYER.states_at), (STATES, rows, B, H))
            residuals = view(like, get(layer, LAYER.residuals_at), (rows - 1, B, RESIDUALS * H))
        else:
            states = view(like, get(layer, LAYER.live_at), (STATES, 2, B, H))
            residuals = view(like, get(layer, LAYER.spare_at), (1, B, RESIDUALS * H))
        chunk = get(lane, LANE.chunk)
        width = (GATES - SECOND) * H
        given = n if h_at else 0
        source = (
            view(like, x_at, (n * dense, B, I * dense)),
            view(lane, x_at, (n * tokens, B)),
            view(like, get(layer, LAYER.u_at), (1,)),
            view(like, get(layer, LAYER.bias_at), (BLOCKS * H,)),
        )
        run(
            _mailbox(lane), get(lane, LANE.threads), get(lane, LANE.parts),
            get(layer, LAYER.members), _chunk_of(lane, layer, n, GATES * H * H), start, stop, first,
            cached != 0,
            (states, residuals, view(lane, get(lane, LANE.lengths_at), (B,))),
            view(like, h_at, (given, B, H)),
            view(like, get(layer, LAYER.z_at), (chunk, B, 2 * BLOCKS * H)),
            source,
            _recurrent(like, layer, get(layer, LAYER.w_at), get(layer, LAYER.w_chains),
                       get(layer, LAYER.second_at), width, H, B),
        )  # fmt: skip

    return forward


@inner
def _recurrent(like, layer, w_at, chains, second_at, width, H, B):
    return (
        view(like, w_at, (1,)),
        chains,
        view(like, second_at, (1,)),
        get(layer, LAYER.second_chains),
        view(like, get(layer, LAYER.params_at), (1,)),
        view(like, get(layer, LAYER.v_at), (get(layer, LAYER.v_rows), B, H)),
    )


@inner
def _head(like, head, counts, n, B, H, span, start):
    """The head of `reverse_pass.build_reverse` from `start` on; an empty one if none `counts`."""
    O = get(head, HEAD.outputs) * counts
    y_at = get(head, HEAD.y_at) + start * get(head, HEAD.y_step)
    targets_at = get(head, HEAD.targets_at) + start * get(head, HEAD.targets_step)
    weights_at = get(head, HEAD.weights_at) + start * get(head, HEAD.weights_step)
    total_at = get(head, HEAD.dv_total_at)
    weighted = n if get(head, HEAD.weights_at) else 0
    summed = O if total_at else 0
    number = doubles(weights_at)
    return (
        get(head, HEAD.readout), get(head, HEAD.loss), as_double(get(head, HEAD.factor)),
        view(like, get(head, HEAD.v_at), (1,)), view(like, get(head, HEAD.v_back_at), (1,)),
        view(like, get(head, HEAD.c_at), (O,)),
        view(like, get(head, HEAD.o_at), (2 * span, B, O)),
        view(like, y_at, (n if get(head, HEAD.y_at) else 0, B, O)),
        view(head, targets_at, (n if get(head, HEAD.targets_at) else 0, B)),
        view(number, weights_at, (weighted, B)),
        view(number, get(head, HEAD.values_at), (2 * span * B,)),
        view(number, get(head, HEAD.total_at), (2,)),
        view(like, get(head, HEAD.dv_at), (O, H)),
        view(number, total_at, (summed, H)),
        view(number, get(head, HEAD.dc_at), (O,)),
    )  # fmt: skip


def _build_reverse(CELL):
    cell = CELLS[CELL]
    GATES, STATES, RESIDUALS, DELTAS, SECOND = (
        cell.gates, cell.states, cell.residuals, cell.delta_blocks, int(cell.second)
    )  # fmt: skip
    run = reverse_pass.build_reverse(CELL)

    def reverse(
        like, lane_at, layer_at, head_at, x_at, dx_at, dh_at, dh_steps, counts, start, stop, first,
        delta_at, whole,
    ):  # fmt: skip
        lane, layer, head = words(lane_at), words(layer_at), words(head_at)
        n, B, H = stop - start, get(lane, LANE.batch), get(layer, LAYER.hidden)
        I, tokens, rows = (
            get(layer, LAYER.inputs), get(layer, LAYER.tokens), get(layer, LAYER.rows)
        )  # fmt: skip
        dense, chunk = 1 - tokens, get(lane, LANE.chunk)
        number = doubles(0)
        total_at, dw_total_at = get(layer, LAYER.du_total_at), get(layer, LAYER.dw_total_at)
        wide = GATES * H
        if tokens:
            total = view(number, total_at, (I, wide))
        else:
            total = view(number, total_at, (wide if total_at else 0, I))
        source = (
            view(like, x_at, (n * dense, B, I * dense)),
            view(lane, x_at, (n * tokens, B)),
            view(like, get(layer, LAYER.u_back_at), (1,)),
            view(like, dx_at, (n if dx_at else 0, B, I)),
            view(like, get(layer, LAYER.du_at), (wide * dense, I)),
            total,
            view(number, get(layer, LAYER.dsum_at), (DELTAS * H,)),
        )
        gradients = (
            view(like, get(layer, LAYER.dw_at), (wide, H)),
            view(number, dw_total_at, (wide if dw_total_at else 0, H)),
        )
        indices = (
            view(lane, get(lane, LANE.rows_at), (2 * chunk * B,)),
            view(lane, get(lane, LANE.p_rows_at), (2 * chunk * B,)),
            view(lane, get(lane, LANE.counts_at), (4,)),
        )
        # Scratch for two chunks, or an array of the span.
        delta = view(like, delta_at, (n if whole else 2 * chunk, B, DELTAS * H))
        cached = (
            view(like, get(layer, LAYER.states_at), (STATES, rows, B, H)),
            view(like, get(layer, LAYER.residuals_at), (rows - 1, B, RESIDUALS * H)),
            view(lane, get(lane, LANE.lengths_at), (B,)),
        )
        back = (
            view(like, get(layer, LAYER.carry_at), (STATES, 2, B, H)),
            view(like, dh_at, (dh_steps, B, H)),
            delta,
        )
        run(
            _mailbox(lane), get(lane, LANE.threads), get(lane, LANE.parts),
            get(layer, LAYER.members), _chunk_of(lane, layer, n, wide * H),
            get(lane, LANE.flush_steps), start, stop, first, get(lane, LANE.current), whole != 0,
            cached, back, source,
            _recurrent(like, layer, get(layer, LAYER.w_back_at), get(layer, LAYER.w_back_chains),
                       get(layer, LAYER.second_back_at), (GATES - SECOND) * H, H, B),
            gradients, _head(like, head, counts, n, B, H, chunk, start), indices,
        )  # fmt: skip

    return reverse


def _build_drop():
    def drop(like, lane_at, layer_at, out_at, values_at, start, n):
        lane, layer = words(lane_at), words(layer_at)
        B, H = get(lane, LANE.batch), get(layer, LAYER.hidden)
        dropout.drop(
            _mailbox(lane), get(lane, LANE.threads), view(like, out_at, (n, B, H)),
            view(like, values_at, (n, B, H)), as_unsigned(get(layer, LAYER.mask_key)),
            as_unsigned(get(layer, LAYER.mask_threshold)),
            as_double(get(layer, LAYER.mask_scale)), get(layer, LAYER.mask_start) + start,
        )  # fmt: skip

    return drop


def _compiled(build, dtype, arguments, what="kernels of all cells"):
    kinds = types.CPointer(numba.from_dtype(dtype)), *(types.intp,) * arguments
    return callback(build, types.void(*kinds), what)


@cache
def passes(cell, dtype):
    """The compiled functions (forward, reverse) of a layer of that cell."""
    ready(dtype)
    what = f"the {title(cell)} kernels"
    return (
        _compiled(_build_forward(cell), dtype, 8, what),
        _compiled(_build_reverse(cell), dtype, 13, what),
    )


@cache
def drop(dtype):
    """The compiled function of a layer's dropout."""
    return _compiled(_build_drop(), dtype, 6)
