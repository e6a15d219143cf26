"""The oracle's answers to a case in float64, and how close a result must be."""

import helpers
import numpy as np
import oracle
import oracle_dropout

from .palette import for_oracle


class Answers:
    """The oracle's answers to one case, each computed on demand."""

    def __init__(self, case, shift=0.0):
        self.case, clean = case, case.clean
        layer = for_oracle(case.layer)
        self.dropped = for_oracle(case.layer, masks_of(case))  # by forward and bptt
        self.readout = None if case.readout is None else for_oracle(case.readout)
        for tree in (layer, self.dropped):
            shift_biases(tree, shift)
        self.layer = layer
        self.x, self.y, self.dh = map(wide, (clean.x, clean.y, clean.dh))
        self.state, self.dstate = wide(clean.state), wide(clean.dstate)
        self.lengths = clean.lengths
        self.weights = None if clean.weights is None else clean.weights.astype(float)

    def run(self):
        """(h, the final state) without dropout."""
        return oracle.forward(self.layer, self.x, self.state, self.lengths)[:2]

    def forward(self):
        """(h, the final state) with it."""
        return oracle.forward(self.dropped, self.x, self.state, self.lengths)[:2]

    def predict(self):
        o, state = oracle.predict(self.layer, self.readout, self.x, self.state, self.lengths)
        ends = np.full(self.case.B, self.case.T) if self.lengths is None else self.lengths
        return np.where((np.arange(self.case.T)[:, None] < ends)[..., None], o, 0), state

    def backward(self):
        steps = oracle.forward(self.dropped, self.x, self.state, self.lengths)[2]
        return oracle.backward(self.dropped, steps, self.dh, self.dstate)

    def evaluate(self):
        return self._bptt(self.layer, None, self.weights)["loss"]

    def bptt(self, windows=None):
        return self._bptt(self.dropped, windows, self.weights)

    def without_signs(self, windows=None):
        """The same with the sizes of the weights: what cancels is seen beside it."""
        if self.weights is None or (self.weights >= 0).all():
            return None
        return self._bptt(self.dropped, windows, abs(self.weights))

    def _bptt(self, layer, windows, weights):
        case = self.case
        if callable(case.loss):
            return self._of_states(layer, windows)
        return oracle.bptt(
            layer, self.readout, self.x, self.y, case.loss, weights=weights, truncation=windows,
            lengths=self.lengths, state=self.state, reduction=case.scoring["reduction"],
        )  # fmt: skip

    def _of_states(self, layer, windows):
        """The gradient of a callable loss, window after window."""
        case = self.case
        h, final, steps = oracle.forward(layer, self.x, self.state, self.lengths)
        ends = np.full(case.B, case.T) if self.lengths is None else self.lengths
        live = (np.arange(case.T)[:, None] < ends)[..., None]
        value, dh = case.loss(np.where(live, h, 0), self.y if self.y is None else self.y * live, 0)
        total = None
        for s, a, b in [(0, 0, case.T)] if windows is None else oracle.windows(case.T, *windows):
            own = np.zeros_like(h)
            own[a:b] = (dh * live)[a:b]
            g = oracle.backward(layer, steps, own, start=s, stop=b)
            if s:
                g["state"] = oracle.mapped(np.zeros_like, g["state"])
            total = g if total is None else oracle.mapped(np.add, total, g)
        if total is None:  # no window: no time
            total = oracle.backward(layer, steps, dh)
        readout = None if self.readout is None else oracle.zero_gradient(self.readout)
        return {
            "loss": value, "layer": total["layer"], "readout": readout, "x": total["x"],
            "state": final, "grad_state": total["state"],
        }  # fmt: skip


def wide(value):
    return helpers.wide(value)


def masks_of(case):
    """What dropout multiplies the states between the layers of a stack by."""
    layer = case.layer
    if not getattr(layer, "dropout", 0) or case.T * case.B == 0:
        return None
    seed, t0 = case.dropping["seed"], case.dropping["t0"]
    return [
        oracle_dropout.mask(seed, k, layer.dropout, t0, (case.T, case.B, part.outputs), case.dtype)
        for k, part in enumerate(layer.layers[:-1])
    ]


def shift_biases(tree, shift):
    """Add to every bias of the oracle's layer."""
    if isinstance(tree, dict):
        for name, part in tree.items():
            if name == "b":
                tree[name] = part + shift
            elif isinstance(part, (dict, list)):
                shift_biases(part, shift)
    elif isinstance(tree, list):
        for part in tree:
            shift_biases(part, shift)


def norm(arrays):
    return np.sqrt(sum(np.square(np.asarray(a, float)).sum() for a in arrays))


def near(actual, expected, tolerance, what, floor=0.0):
    """Assert the same shapes and a small norm of the difference beside the norm, or the floor."""
    ours, theirs = helpers.flatten(actual), oracle.flat(expected)
    assert len(ours) == len(theirs), f"{what}: {len(ours)} arrays, not {len(theirs)}"
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == np.shape(other), f"{what}: {one.shape}, not {np.shape(other)}"
        error, scale = norm([np.asarray(one, float) - other]), max(floor, norm([other]))
        assert error <= tolerance * scale, f"{what}: error {error:.3g} beside {scale:.3g}"


def near_bptt(case, r, expected, uncancelled):
    """Assert that all that fb.bptt returned is the oracle's.

    An array may cancel to almost nothing: none is asked to be closer than the tolerance times a
    hundredth of the whole gradient's norm.
    """
    tolerance = helpers.GRADIENTS[case.dtype]
    beside = uncancelled or expected
    whole = [beside["layer"]] + ([] if beside["readout"] is None else [beside["readout"]])
    floor = 0.01 * norm(oracle.flat(whole)) + 1e-30
    assert isinstance(r.loss, float)
    error = abs(r.loss - expected["loss"])
    scale = max(abs(expected["loss"]), abs(beside["loss"]), loss_floor(case))
    assert error <= helpers.LOSSES[case.dtype] * scale, f"loss {r.loss}, not {expected['loss']}"
    near(r.grad.layer, expected["layer"], tolerance, "gradient of the layer", floor)
    if case.readout is not None:
        near(r.grad.readout, expected["readout"], tolerance, "gradient of the readout", floor)
    else:
        assert r.grad.readout is None
    few = 0.05 * (case.B * case.layer.outputs) ** 0.5
    near(r.state, expected["state"], helpers.STATES[case.dtype], "final state", few)
    near(r.grad_state, expected["grad_state"], tolerance, "gradient of the state", floor)
    assert (r.grad_x is not None) == case.input_grad
    if case.input_grad:
        near(r.grad_x, expected["x"], tolerance, "gradient of x", floor)


def loss_floor(case):
    """A callable loss has both signs: its size is that of one term a state."""
    return 0.01 * case.T * case.B * case.layer.outputs if callable(case.loss) else 0.0
