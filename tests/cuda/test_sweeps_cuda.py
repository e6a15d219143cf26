"""Every layout of a sweep gives the same numbers: block and grid, and wherever W is stored."""

import numpy as np
import pytest
from fastbptt.kernels.cells.registry import CELLS
from fastbptt.kernels.cuda import layout, weights
from helpers import assert_close, make_problem

import fastbptt as fb

NAMES = ["rnn-tanh", "lstm-peephole", "gru", "gru-before"]


@pytest.fixture
def laid_out(monkeypatch, card):
    """Choose sweeps' layouts by a function of the shape, and record them."""

    def prefer(wanted):
        seen = []

        def choose(card, cell, hidden, batch, item, reverse):
            found = [
                shape
                for shape in layout._candidates(card, cell, hidden, batch, item, reverse)
                if wanted(shape)
            ]
            seen.append(found[len(found) // 2])
            return seen[-1], 1.0

        monkeypatch.setattr(weights, "choose", choose)
        return seen

    return prefer


def results(p, device):
    h, state, cache = fb.forward(p.layer, p.x, p.state, lengths=p.lengths, device=device)
    g = fb.backward(cache, p.dh, p.dstate, deltas=True)
    last = fb.run(p.layer, p.x, p.state, keep="last", lengths=p.lengths, device=device)
    return h, state, g.x, g.state, tuple(g.layer.arrays()), g.deltas, last


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("cell", NAMES)
def test_units_of_a_slice_may_be_spread_over_blocks(cell, parts, dtype, laid_out):
    p = make_problem(cell, (6, 3, 2, 5, 2), dtype)
    expected = results(p, "cpu")
    seen = laid_out(lambda shape: shape.parts == parts and shape.rows == 2)
    tolerance = 1e-10 if dtype == "float64" else 2e-5
    assert_close(results(p, "cuda"), expected, tolerance)
    assert {shape.parts for shape in seen} == {parts}


@pytest.mark.parametrize("lanes", [1, 2, 4])
@pytest.mark.parametrize("wide", [1, 2, 4])
def test_a_product_may_be_shared_out_in_any_way(lanes, wide, laid_out):
    p = make_problem("lstm", (4, 2, 2, 7, 2), "float64")
    expected = results(p, "cpu")
    seen = laid_out(lambda shape: (shape.first.lanes, shape.first.wide) == (lanes, wide))
    assert_close(results(p, "cuda"), expected, 1e-10)
    assert seen


@pytest.mark.parametrize("place", ["registers", "shared memory", "global memory"])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("cell", NAMES)
def test_weights_may_be_anywhere(cell, parts, place, laid_out, card, monkeypatch):
    p = make_problem(cell, (4, 2, 2, 9, 2), "float64")
    expected = results(p, "cpu")
    in_registers = place == "registers"
    shared = place == "shared memory"

    def placed(card, tiles, rows, threads, item):
        return [
            tile._replace(registers=tile.quads * in_registers, shared=tile.quads * shared)
            for tile in tiles
        ]

    monkeypatch.setattr(layout, "_placed", placed)
    seen = laid_out(lambda shape: shape.parts == parts and shape.rows == 1)
    assert_close(results(p, "cuda"), expected, 1e-10)
    tile = seen[0].first
    assert (tile.registers > 0, tile.shared > 0) == (in_registers, shared) and tile.quads > 1


@pytest.mark.parametrize("pieces", [2, 4])
@pytest.mark.parametrize("cell", NAMES)
def test_a_row_too_long_for_shared_memory_comes_in_pieces(cell, pieces, monkeypatch, card):
    p = make_problem(cell, (3, 3, 2, 9, 2), "float64")
    expected = results(p, "cpu")
    seen = []

    def choose(card, cell, hidden, batch, item, reverse):
        found = layout._candidates(card, cell, hidden, batch, item, reverse, pieces)
        seen.extend(shape for shape in found if shape.rows == 2)
        return seen[-1], 1.0

    monkeypatch.setattr(weights, "choose", choose)
    assert_close(results(p, "cuda"), expected, 1e-10)
    assert all(shape.parts == 2 and shape.first.pieces == pieces for shape in seen)


def test_more_slices_than_a_card_has_room_for_run_one_after_the_other(laid_out, card):
    p = make_problem("gru", (3, 9, 2, 5, 2), "float64")
    expected = results(p, "cpu")
    seen = laid_out(lambda shape: shape.parts == 2 and shape.rows == 1)
    assert_close(results(p, "cuda"), expected, 1e-10)
    assert (seen and card.processors // 2 < p.B) or card.processors > 2


@pytest.mark.parametrize("name", ["T4", "A100", "H100", "B200"])
@pytest.mark.parametrize("H", [1, 7, 64, 300, 1024, 5000])
@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm", "gru-after", "gru-before"])
def test_every_size_has_a_layout_that_fits_the_card(cell, H, name):
    from fastbptt.kernels.cuda.gpus import KNOWN

    card = KNOWN[name]
    for B in (1, 17, 4096):
        for item in (4, 8):
            for reverse in (False, True):
                shape, cycles = layout.choose(card, cell, H, B, item, reverse)
                assert shape.units * shape.parts >= H and shape.units * (shape.parts - 1) < H
                assert shape.units * shape.rows <= shape.threads <= card.threads
                assert shape.parts <= card.processors and shape.threads % card.warp == 0
                assert shape.shared_bytes(item) <= card.shared and cycles > 0
                gates = CELLS[cell].gates - CELLS[cell].second
                width = (gates * H, shape.units) if reverse else (H, gates * shape.units)
                assert (shape.first.inner, shape.first.columns) == width
                assert (
                    shape.first.row * shape.first.pieces >= shape.first.inner
                    and shape.first.total >= width[1]
                )


def test_packed_weights_lie_where_a_kernel_looks_for_them():
    tile = layout.Tile(inner=7, columns=6, width=2, lanes=2, wide=4, registers=1, shared=1)
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((2, 5, 7))  # gates, H, inner; 2 blocks of 3 units
    threads = 6
    packed = layout.pack(np, weight, tile, 2, 3, threads)
    packed = packed.reshape(2, tile.quads, tile.wide, threads, tile.width)
    for part, i, m, thread, c in np.ndindex(packed.shape):
        group, lane = divmod(thread, tile.lanes)
        column, k = group * tile.wide + m, (i * tile.lanes + lane) * tile.width + c
        gate, unit = divmod(column, 3)
        inside = thread < tile.threads and gate < 2 and part * 3 + unit < 5 and k < 7
        expected = weight[gate, part * 3 + unit, k] if inside else 0
        assert packed[part, i, m, thread, c] == expected
