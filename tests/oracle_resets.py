"""The reference for `resets`: each piece between two of them by itself, by the naive oracle."""

import numpy as np
import oracle
from oracle_losses import loss_and_derivative, readout_forward


def pieces_of(resets, lengths):
    """(b, start, stop, whether it begins at a reset) of every piece, empty ones left out."""
    found = []
    for b, length in enumerate(lengths):
        cuts = [t for t in range(length) if resets[t, b]]
        starts = sorted({0, *cuts})
        for start, stop in zip(starts, [*starts[1:], length], strict=True):
            if stop > start:
                found.append((b, start, stop, start in cuts))
    return found


def of_row(state, b):
    return oracle.mapped(lambda part: part[b : b + 1], state)


def forward(layer, x, resets, state=None, own=None, lengths=None):
    """h, the final state, and for each piece (b, start, stop, fresh, its cache).

    own : the state (1, H) that resets set, and that begins a sequence without a `state`
    fresh : whether the piece begins from `own`
    """
    T, B = x.shape[:2]
    lengths = np.full(B, T) if lengths is None else lengths
    own = oracle.zero_state(layer, 1) if own is None else own
    if state is None:
        final = oracle.mapped(lambda part: np.repeat(part, B, axis=0), own)
    else:
        final = oracle.mapped(np.copy, state)
    h, found = None, []
    for b, start, stop, cut in pieces_of(resets, lengths):
        fresh = cut or state is None
        begin = own if fresh else of_row(state, b)
        own_h, last, cache = oracle.forward(layer, x[start:stop, b : b + 1], begin)
        h = np.zeros((T, B, own_h.shape[2])) if h is None else h
        h[start:stop, b] = own_h[:, 0]
        for whole, part in zip(oracle.flat(final), oracle.flat(last), strict=True):
            whole[b] = part[0]
        found.append((b, start, stop, fresh, cut, cache))
    return h, final, found


def backward(layer, found, dh, width, B, windows=None):
    """The gradients of sum <dh, h>, in windows (s, a, b) if there are any."""
    T = len(dh)
    grad, dx = oracle.zero_gradient(layer), np.zeros((T, B, width))
    dstate, down = oracle.zero_state(layer, B), oracle.zero_state(layer, 1)
    for s, first, last in windows or [(0, 0, T)]:
        for b, start, stop, fresh, cut, cache in found:
            begin, end = max(s, start), min(last, stop)
            if end <= begin:
                continue
            given = np.zeros((stop - start, 1, dh.shape[2]))
            inside = slice(max(first, start), end)
            given[max(first, start) - start : end - start, 0] = dh[inside, b]
            g = oracle.backward(layer, cache, given, start=begin - start, stop=end - start)
            grad = oracle.mapped(np.add, grad, g["layer"])
            dx[start:stop, b] += g["x"][:, 0]
            if begin > start:
                continue
            if fresh:
                down = oracle.mapped(np.add, down, g["state"])
            if start == 0 and not cut:
                for whole, part in zip(oracle.flat(dstate), oracle.flat(g["state"]), strict=True):
                    whole[b] += part[0]
    return grad, dx, dstate, down


def bptt(layer, readout, x, y, loss, resets, *, state=None, own=None, lengths=None, weights=None,
         reduction="sum", truncation=None):  # fmt: skip
    """As `oracle.bptt`, and `own`: the gradient by that state, (1, H)."""
    T, B = x.shape[:2]
    h, final, found = forward(layer, x, resets, state, own, lengths)
    lengths = np.full(B, T) if lengths is None else lengths
    weights = np.ones((T, B)) if weights is None else weights
    total, counted, dh, dreadout = 0.0, 0, np.zeros_like(h), oracle.zero_gradient(readout)
    for t, b in np.argwhere(weights * (np.arange(T)[:, None] < lengths)):
        s = h[t, b][None]
        a, o = readout_forward(readout, s)
        E, da = loss_and_derivative(loss, readout, a, o, y[t, b][None])
        total, counted = total + weights[t, b] * E[0], counted + 1
        da = weights[t, b] * da
        dreadout["V"] += da.T @ s
        dreadout["c"] += da[0]
        dh[t, b] = (da @ readout["V"])[0]
    windows = None if truncation is None else oracle.windows(T, *truncation)
    grad, dx, dstate, down = backward(layer, found, dh, oracle.inputs_of(layer), B, windows)
    scale = 1.0 if reduction == "sum" else 1.0 / max(counted, 1)
    grad, dreadout, dx, dstate, down = oracle.mapped(
        lambda a: scale * a, (grad, dreadout, dx, dstate, down)
    )
    return {"loss": total * scale, "layer": grad, "readout": dreadout, "x": dx, "state": final,
            "grad_state": dstate, "own": down}  # fmt: skip
