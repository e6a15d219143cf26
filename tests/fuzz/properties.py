"""What must hold of every case: against the oracle, and of the calls among themselves."""

import helpers
import numpy as np
import oracle
from checks import OBJECTS, measured
from fastbptt.kernels.cpu import memory as shared_memory

import fastbptt as fb

from . import answers, outside
from .answers import Answers, near, near_bptt
from .cases import parts_of


def check(case):
    """Run every call of the case; an AssertionError, or any error, says what does not hold."""
    fb.set_num_threads(case.threads[0])
    given = arrays_given(case)
    before = [array.tobytes() for array in given]
    due = Answers(case)
    states(case, due)
    gradients(case, due)
    pairs(case)
    outputs(case, due)
    exact = training(case, due)
    schedules(case, due, exact)
    plans(case)
    files(case, exact)
    outside.check(case)
    changed = [
        k for k, (a, old) in enumerate(zip(given, before, strict=True)) if a.tobytes() != old
    ]
    assert not changed, f"inputs {changed} were modified"


def arrays_given(case):
    found = [*case.network.arrays(), case.x, case.y, case.dh, case.scoring.get("weights")]
    found += helpers.flatten(case.options["state"]) + helpers.flatten(case.dstate)
    lengths = case.options.get("lengths")
    found += [lengths] if isinstance(lengths, np.ndarray) else []
    return [array for array in found if array is not None]


def in_full(case, value):
    """A result with its batch axis, if the case has none."""
    if not case.squeeze:
        return value
    return tuple(a[:, None] for a in helpers.flatten(value))


def state_in_full(case, state):
    return tuple(a[None] for a in helpers.flatten(state)) if case.squeeze else state


def ends_of(case):
    lengths = case.clean.lengths
    return np.full(case.B, case.T) if lengths is None else lengths


def small(case):
    """The least norm that an error of a state is compared with: 0.05 per unit, an ulp of 1 then."""
    return 0.05 * (case.B * case.layer.outputs) ** 0.5


def same(one, other, what):
    pairs = zip(helpers.flatten(one), helpers.flatten(other), strict=True)
    for a, b in pairs:
        assert a.dtype == b.dtype and a.shape == b.shape, f"{what}: {a.shape}, not {b.shape}"
        assert np.array_equal(a, b, equal_nan=True), f"{what}: other bits"


def states(case, due):
    """run is the oracle's without dropout; keep="last" is its last row, bit for bit."""
    tolerance = helpers.STATES[case.dtype]
    h, last = fb.run(case.layer, case.x, **case.options)
    expected, final = due.run()
    near(in_full(case, h), expected, tolerance, "h of run", small(case))
    near(state_in_full(case, last), final, tolerance, "state of run", small(case))
    ended, state = fb.run(case.layer, case.x, keep="last", **case.options)
    same(state, last, "state with keep='last'")
    ends = ends_of(case)
    some = np.flatnonzero(ends)
    whole, rows = (h[:, None], ended[None]) if case.squeeze else (h, ended)
    same(rows[some], whole[ends[some] - 1, some], "keep='last'")
    assert not whole[np.arange(case.T)[:, None] >= ends].any(), "h past an end"


def gradients(case, due):
    """forward and backward are the oracle's; what is asked for changes no bit of the rest."""
    h, last, cache = fb.forward(case.layer, case.x, **case.options, **case.dropping)
    expected, final = due.forward()
    near(in_full(case, h), expected, helpers.STATES[case.dtype], "h of forward", small(case))
    near(state_in_full(case, last), final, helpers.STATES[case.dtype], "its state", small(case))
    g = fb.backward(cache, case.dh, case.dstate, deltas=True, keep=True)
    some = fb.backward(cache, case.dh, case.dstate, input_grad=False, keep=True)
    again = fb.backward(cache, case.dh, case.dstate)
    same((g.layer, g.state), (some.layer, some.state), "backward without input_grad")
    same((g.layer, g.state, g.x), (again.layer, again.state, again.x), "backward again")
    assert some.x is None and again.deltas is None and (g.x is None) == case.tokens
    try:
        fb.backward(cache, case.dh)
    except ValueError as error:
        assert "cache" in str(error)
    else:
        raise AssertionError("a consumed cache was taken")
    expected, tolerance = due.backward(), helpers.GRADIENTS[case.dtype]
    assert type(g.layer) is type(case.layer)
    floor = 0.01 * answers.norm(helpers.flatten(g.layer)) + 1e-30
    near(g.layer, expected["layer"], tolerance, "gradient of the layer by backward", floor)
    near(state_in_full(case, g.state), expected["state"], tolerance, "g.state", floor)
    near(in_full(case, g.deltas), expected["deltas"], tolerance, "deltas", floor)
    if not case.tokens:
        near(in_full(case, g.x), expected["x"], tolerance, "g.x", floor)


def pairs(case):
    """forward and backward have the same bits under every exact policy, and by any threads."""

    def both(memory):
        given = {**case.options, **case.dropping}
        h, last, cache = fb.forward(case.layer, case.x, memory=memory, **given)
        g, again = (
            fb.backward(cache, case.dh, case.dstate, deltas=True, keep=k) for k in (True, False)
        )
        results = [(one.layer, one.state, one.x, one.deltas) for one in (g, again)]
        same(*results, f"backward again, {memory}")
        return h, last, *results[0]

    full = both("full")
    for memory, threads in zip(case.memories, case.threads, strict=False):
        fb.set_num_threads(threads)
        found = both(memory)
        if fb.plan(case.layer, case.T, case.B, memory=memory).exact:
            same(found, full, f"forward and backward, {memory}, {threads} threads")
        same(found[:2], full[:2], f"forward, {memory}")
    fb.set_num_threads(case.threads[0])


def outputs(case, due):
    """predict is the oracle's."""
    if case.readout is None:
        return
    o, last = fb.predict(case.network, case.x, **case.options)
    expected, final = due.predict()
    beside = 0.01 * (case.B * case.O) ** 0.5
    near(in_full(case, o), expected, helpers.STATES[case.dtype], "o", beside)
    near(state_in_full(case, last), final, helpers.STATES[case.dtype], "its state", small(case))


def bptt(case, memory="full", **more):
    given = {"input_grad": case.input_grad, **case.scoring, **case.dropping, **case.options}
    return fb.bptt(case.network, case.x, case.y, case.loss, memory=memory, **given, **more)


class InFull:
    """A result of bptt as the oracle has it, with its batch axis."""

    def __init__(self, case, r):
        self.loss, self.grad = r.loss, r.grad
        self.state, self.grad_state = (
            state_in_full(case, state) for state in (r.state, r.grad_state)
        )
        self.grad_x = None if r.grad_x is None else in_full(case, r.grad_x)


def training(case, due):
    """bptt is the oracle's; evaluate is its loss where nothing is dropped."""
    r = bptt(case)
    near_bptt(case, InFull(case, r), due.bptt(), due.without_signs())
    value = fb.evaluate(case.network, case.x, case.y, case.loss, **case.scoring, **case.options)
    uncancelled = due.without_signs() or {"loss": 0.0}
    expected = due.evaluate()
    scale = max(abs(expected), abs(uncancelled["loss"]), answers.loss_floor(case))
    assert abs(value - expected) <= helpers.LOSSES[case.dtype] * scale, f"evaluate: {value}"
    return r


def schedules(case, due, exact):
    """Every exact schedule and number of threads has the same bits; windows are the oracle's."""
    for memory, threads in zip(case.memories, case.threads, strict=False):
        fb.set_num_threads(threads)
        r = bptt(case, memory)
        if isinstance(memory, fb.Truncated):
            windows = memory.k1, memory.k2
            expected = due.bptt(windows)
            near_bptt(case, InFull(case, r), expected, due.without_signs(windows))
            alone = r
        elif callable(case.loss):  # its value is added in other spans: the same to rounding
            near_bptt(case, InFull(case, r), due.bptt(), due.without_signs())
            alone = r
        else:
            alone = exact
        for count in case.threads:
            fb.set_num_threads(count)
            same_result(bptt(case, memory), alone, f"{memory}, {count} threads")


def same_result(one, other, what):
    assert one.loss == other.loss or one.loss != one.loss, f"{what}: {one.loss}, not {other.loss}"
    for name in ("grad", "grad_x", "grad_state", "state"):
        same(getattr(one, name), getattr(other, name), f"{name}, {what}")


def plans(case):
    """A plan is what is carried out, bounds the peak, and takes no more steps for more memory."""
    size = (case.T,) if case.squeeze else (case.T, case.B)
    budgets = sorted(memory for memory in case.memories if isinstance(memory, int))
    for memory in ["full", *case.memories]:
        plan = fb.plan(case.network, *size, memory=memory, input_grad=case.input_grad)
        shared_memory._held.clear()  # what earlier calls have worked in would not be counted
        given = {"input_grad": case.input_grad, **case.scoring, **case.dropping, **case.options}
        r, peak = measured(case.network, case.x, case.y, case.loss, memory=memory, **given)
        assert r.plan == plan, f"{memory}: {r.plan} was carried out, not {plan}"
        if not callable(case.loss):  # what a callable allocates is in no plan
            bound = plan.peak_bytes + OBJECTS
            assert peak <= bound, f"{memory}: {peak} bytes, planned {plan.peak_bytes}"
        if isinstance(memory, int) and memory > 1:
            assert plan.peak_bytes <= memory
    steps = [fb.plan(case.network, *size, memory=budget).forward_steps for budget in budgets]
    assert steps == sorted(steps, reverse=True), f"{budgets}: {steps} steps"
    for row in fb.frontier(case.network, *size).checkpointed:
        plan = fb.plan(case.network, *size, memory=row.peak_bytes)
        assert plan.forward_steps <= row.forward_steps and plan.peak_bytes <= row.peak_bytes
    assert fb.explain(case.network, *size)


def files(case, exact):
    """A network that was saved and loaded gives the same bits."""
    if case.number % 5:
        return
    path = case.folder / "network.npz"
    case.network.save(path)
    loaded = fb.load(path)
    assert repr(loaded) == repr(case.network)
    other = type(case)(**{**vars(case), "network": loaded})
    if not callable(case.loss):
        same_result(bptt(other), exact, "loaded from a file")


def is_near_a_kink(case):
    """Whether relu's kink is so close that the oracle's gradient is ambiguous."""
    if not any(getattr(part, "activation", "") == "relu" for part in parts_of(case.layer)):
        return False
    due = [Answers(case, shift) for shift in (1e-6, -1e-6)]
    one, other = ((each.backward()["layer"], each.run()) for each in due)
    try:
        near(tuple(oracle.flat(one)), other, 2e-4, "")
    except AssertionError:
        return True
    return False
