"""The naive reference: NumPy float64, one time step after another, nothing of fastbptt imported.

A layer is a dict: {"cell": "rnn", "activation": "tanh", "U": ..., "W": ..., "b": ...} or
{"cell": "lstm", "U": ..., "W": ..., "b": ...}, and so on; a stack is {"cell": "stack", "layers":
[...]}, with a tuple "masks" where there is dropout, and {"cell": "bidirectional", "forward": ...,
"backward": ...} is both directions. A readout is {"V": ..., "c": ..., "activation": ...}; a
gradient has the same arrays in the same places. Time goes first: x is (T, B, I) or integer tokens
(T, B), and everything has its batch axis. The state is (B, H), for an LSTM a pair of them, for
layers of layers a tuple of theirs. The cells are in oracle_cells.py.
"""

import numpy as np
from oracle_cells import CELLS
from oracle_losses import loss_and_derivative, readout_forward


def as_arrays(state):
    return tuple(state) if isinstance(state, tuple) else (state,)


def as_state(arrays):
    return arrays if len(arrays) > 1 else arrays[0]


def zero_state(layer, B):
    parts = layers_of(layer)
    if parts is not None:
        return tuple(zero_state(part, B) for part in parts)
    H = layer["W"].shape[1]
    return as_state(tuple(np.zeros((B, H)) for _ in range(CELLS[layer["cell"]].states)))


def layers_of(layer):
    """The layers that a layer is made of, or None."""
    if layer["cell"] == "bidirectional":
        return layer["forward"], layer["backward"]
    return layer["layers"] if layer["cell"] == "stack" else None


def inputs_of(layer):
    parts = layers_of(layer)
    return layer["U"].shape[1] if parts is None else inputs_of(parts[0])


def input_at(layer, x, t, live):
    """x[t] as floats, one-hot for tokens, zero where the sequence has ended."""
    if not np.issubdtype(x.dtype, np.integer):
        return np.where(live, x[t], 0.0)
    one_hot = np.zeros((x.shape[1], layer["U"].shape[1]))
    for b in range(x.shape[1]):
        if live[b, 0]:
            one_hot[b, x[t, b]] = 1
    return one_hot


def forward(layer, x, state=None, lengths=None):
    """h (T, B, H), the final state, and a cache for `backward`."""
    if layer["cell"] == "stack":
        return forward_stack(layer, x, state, lengths)
    if layer["cell"] == "bidirectional":
        return forward_bidirectional(layer, x, state, lengths)
    cell = CELLS[layer["cell"]]
    T, B = x.shape[:2]
    lengths = np.full(B, T) if lengths is None else lengths
    now = as_arrays(zero_state(layer, B) if state is None else state)
    h = np.zeros((T, B, layer["W"].shape[1]))
    steps = []
    for t in range(T):
        live = (t < lengths)[:, None]
        x_t = input_at(layer, x, t, live)
        after, saved = cell.step(layer, x_t, now)
        steps.append((live, x_t, now, after, saved))
        now = tuple(np.where(live, new, old) for new, old in zip(after, now, strict=True))
        h[t] = np.where(live, now[0], 0.0)
    return h, as_state(now), steps


def forward_stack(layer, x, state, lengths):
    h, final, caches = x, [], []
    for index, part in enumerate(layer["layers"]):
        if index:
            h = h * mask_above(layer, index - 1)
        h, last, cache = forward(part, h, None if state is None else state[index], lengths)
        final.append(last)
        caches.append(cache)
    return h, tuple(final), caches


def mask_above(layer, index):
    """What dropout multiplies the states of a stack's layer `index` by, (T, B, H)."""
    return layer["masks"][index] if "masks" in layer else 1.0


def forward_bidirectional(layer, x, state, lengths):
    lengths = np.full(x.shape[1], len(x)) if lengths is None else lengths
    first, second = (None, None) if state is None else state
    h, final, cache = forward(layer["forward"], x, first, lengths)
    back, last, other = forward(layer["backward"], reversed_in_time(x, lengths), second, lengths)
    joined = np.concatenate([h, reversed_in_time(back, lengths)], axis=2)
    return joined, (final, last), (cache, other, lengths, h.shape[2])


def reversed_in_time(array, lengths):
    """Reverse the order of steps within the length of each sequence."""
    array = array.copy()
    for b, length in enumerate(lengths):
        array[:length, b] = array[:length, b][::-1]
    return array


def mapped(function, *trees):
    """The function of the arrays at each place of dicts, lists and tuples of them."""
    first = trees[0]
    if isinstance(first, dict):
        return {name: mapped(function, *(tree[name] for tree in trees)) for name in first}
    if isinstance(first, (list, tuple)):
        return type(first)(mapped(function, *parts) for parts in zip(*trees, strict=True))
    return function(*trees)


def flat(tree):
    """The arrays of a gradient or state, in order."""
    if isinstance(tree, (dict, list, tuple)):
        parts = tree.values() if isinstance(tree, dict) else tree
        return [array for part in parts for array in flat(part)]
    return [tree]


def zero_gradient(p):
    if isinstance(p, np.ndarray):
        return np.zeros(p.shape)
    if isinstance(p, list):
        return [zero_gradient(part) for part in p]
    own = {name: part for name, part in p.items() if isinstance(part, (np.ndarray, list, dict))}
    return {name: zero_gradient(part) for name, part in own.items()}


def backward(layer, steps, dh, dstate=None, start=0, stop=None):
    """Gradient by the steps [start, stop), the state before `start` being an independent variable.

    `steps` is the cache of `forward`, `dh` (T, B, H), `dstate` the gradient of the state after
    `stop`. Returns a dict: layer, x, state (of the state before `start`), deltas.
    """
    if layer["cell"] == "stack":
        return backward_stack(layer, steps, dh, dstate, start, stop)
    if layer["cell"] == "bidirectional":
        assert start == 0 and stop in (None, len(dh))
        return backward_bidirectional(layer, steps, dh, dstate)
    cell = CELLS[layer["cell"]]
    T, B = dh.shape[:2]
    stop = T if stop is None else stop
    grad = zero_gradient(layer)
    dx = np.zeros((T, B, layer["U"].shape[1]))
    deltas = np.zeros((T, B, layer["U"].shape[0]))
    dnow = as_arrays(zero_state(layer, B) if dstate is None else dstate)
    for t in reversed(range(start, stop)):
        live, x_t, before, after, saved = steps[t]
        dafter = [np.where(live, d, 0.0) for d in dnow]
        dafter[0] = dafter[0] + np.where(live, dh[t], 0.0)
        delta, dbefore, others = cell.reverse(layer, before, after, saved, tuple(dafter))
        dnow = tuple(np.where(live, new, old) for new, old in zip(dbefore, dnow, strict=True))
        grad["U"] += delta.T @ x_t
        grad["b"] += delta.sum(axis=0)
        for name, value in others.items():
            grad[name] += value
        dx[t] = delta @ layer["U"]
        deltas[t] = delta
    return {"layer": grad, "x": dx, "state": as_state(dnow), "deltas": deltas}


def backward_stack(layer, caches, dh, dstate, start, stop):
    found = []
    for index in reversed(range(len(caches))):
        own = None if dstate is None else dstate[index]
        g = backward(layer["layers"][index], caches[index], dh, own, start, stop)
        found.insert(0, g)
        dh = g["x"] * mask_above(layer, index - 1) if index else None
    return {
        "layer": {"layers": [g["layer"] for g in found]},
        "x": found[0]["x"],
        "state": tuple(g["state"] for g in found),
        "deltas": tuple(g["deltas"] for g in found),
    }


def backward_bidirectional(layer, caches, dh, dstate):
    cache, other, lengths, width = caches
    first, second = (None, None) if dstate is None else dstate
    g = backward(layer["forward"], cache, dh[:, :, :width], first)
    r = backward(layer["backward"], other, reversed_in_time(dh[:, :, width:], lengths), second)
    return {
        "layer": {"forward": g["layer"], "backward": r["layer"]},
        "x": g["x"] + reversed_in_time(r["x"], lengths),
        "state": (g["state"], r["state"]),
        "deltas": (g["deltas"], reversed_in_time(r["deltas"], lengths)),
    }


def windows(T, k1, k2):
    """(s, a, b) of every window: losses of [a, b), run back to s."""
    found = []
    for j in range(1, -(-T // k1) + 1):
        a, b = (j - 1) * k1, min(j * k1, T)
        found.append((0 if k2 >= T else max(0, a - (k2 - k1)), a, b))
    return found


def predict(layer, readout, x, state=None, lengths=None):
    h, state, _ = forward(layer, x, state, lengths)
    o = np.zeros((*x.shape[:2], len(readout["c"])))
    for t in range(len(x)):
        o[t] = readout_forward(readout, h[t])[1]
    return o, state


def bptt(layer, readout, x, y, loss="squared_error", *, weights=None, lengths=None, state=None,
         reduction="sum", truncation=None, recount=False):  # fmt: skip
    """Loss and gradients; a dict: loss, layer, readout, x, state (final), grad_state.

    `truncation` is (k1, k2) or None. `recount=True` is the well-known wrong recipe: every window
    adds all the losses that it runs over, so the overlaps are counted again.
    """
    T, B = x.shape[:2]
    h, final, steps = forward(layer, x, state, lengths)
    lengths = np.full(B, T) if lengths is None else lengths
    weights = np.ones((T, B)) if weights is None else weights
    if weights.ndim == 1:
        weights = np.repeat(weights[:, None], B, axis=1)

    total, counted = 0.0, 0
    dh = np.zeros_like(h)
    dreadout = zero_gradient(readout)
    for t in range(T):
        for b in range(B):
            share = weights[t, b]
            if t >= lengths[b] or not np.any(share):
                continue
            s = h[t, b][None]
            a, o = readout_forward(readout, s)
            each, share = (share, 1.0) if share.ndim else (1.0, share)
            E, da = loss_and_derivative(loss, readout, a, o, y[t, b][None], each)
            da = share * da
            total += share * E[0]
            counted += 1
            dreadout["V"] += da.T @ s
            dreadout["c"] += da[0]
            dh[t, b] = (da @ readout["V"])[0]

    grad = zero_gradient(layer)
    dx = np.zeros((T, B, inputs_of(layer)))
    dstate = zero_state(layer, B)
    for s, a, b in [(0, 0, T)] if truncation is None else windows(T, *truncation):
        dh_window = np.zeros_like(dh)
        first = s if recount else a
        dh_window[first:b] = dh[first:b]
        g = backward(layer, steps, dh_window, start=s, stop=b)
        grad = mapped(np.add, grad, g["layer"])
        dx += g["x"]
        if s == 0:
            dstate = mapped(np.add, dstate, g["state"])

    scale = 1.0 if reduction == "sum" else 1.0 / max(counted, 1)
    grad, dreadout, dx, dstate = mapped(lambda a: scale * a, (grad, dreadout, dx, dstate))
    return {
        "loss": total * scale,
        "layer": grad,
        "readout": dreadout,
        "x": dx,
        "state": final,
        "grad_state": dstate,
    }
