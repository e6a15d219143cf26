"""RTRL: full BPTT's gradient for any block and cutting, and along the path that was really run."""

import numpy as np
import pytest
from helpers import make_problem
from jax_process import in_jax

import fastbptt as fb

pytestmark = pytest.mark.usefixtures("poisoned_empty")
CELLS = ["rnn-tanh", "gru", "lstm", "gru-before/rnn-tanh/lstm-peephole"]
EXACT = 1e-12  # of the norm, in float64
T, B = 23, 2
CUTS = [[T], [1] * T, [1, 4, 0, 7, 2, 9]]


def problem(cell="rnn-tanh", **options):
    """A problem whose network has an initial state of its own."""
    q = make_problem(cell, (T, B, 3, 5, 2), **options)
    q.own = fb.Network(q.layer, q.network.readout, first_row(q.state))
    q.resets = q.rng.random((T, B)) < 0.15
    q.resets[0, 1] = True
    return q


def first_row(state):
    return tuple(map(first_row, state)) if isinstance(state, tuple) else state[0]


def flat(value):
    """All numbers of a network, a state or None."""
    if value is None:
        return np.zeros(0)
    if isinstance(value, (fb.Network, fb.Stack)):
        value = tuple(value.arrays())
    if isinstance(value, tuple):
        return np.concatenate([flat(part) for part in value])
    return np.ravel(value)


def assert_close(a, b, tolerance=EXACT):
    a, b = flat(a), flat(b)
    assert a.shape == b.shape
    assert np.linalg.norm(a - b) <= tolerance * max(np.linalg.norm(b), 1e-3)


def pushed(learner, x, y, cuts, **options):
    """(loss, gradient as a vector, outputs) of all pieces."""
    loss, grad, outputs, t = 0.0, 0.0, [], 0
    for n in cuts:
        part = slice(t, t + n)
        own = {name: value[part] for name, value in options.items()}
        u = learner.push(x[part], None if y is None else y[part], **own)
        assert u.steps == n and (u.grad is None) == (n == 0)
        loss, grad, t = loss + u.loss, grad + flat(u.grad) if n else grad, t + n
        outputs.append(u.outputs)
    return loss, grad, np.concatenate(outputs)


@pytest.mark.parametrize("cell", CELLS)
def test_bptt_is_full_bptt(cell):
    q = problem(cell)
    some = {"weights": q.rng.random((T, B)), "lengths": [17, T]}
    for network in (q.network, q.own):
        for options in ({}, {"state": q.state, "resets": q.resets} | some,
                        {"resets": q.resets, "reduction": "mean"}):  # fmt: skip
            due = fb.bptt(network, q.x, q.y, **options)
            for block in (None, 1, 4):
                r = fb.bptt(network, q.x, q.y, memory=fb.RTRL(block), **options)
                assert abs(r.loss - due.loss) <= EXACT * abs(due.loss) and r.grad_x is None
                for name in ("grad", "state", "grad_state"):
                    assert_close(getattr(r, name), getattr(due, name))
                assert r.plan == fb.plan(network, T, B, memory=fb.RTRL(block), **options)


def test_bptt_takes_tokens_dropout_and_losses_of_ones_own():
    q = problem("rnn-tanh", tokens=True, loss="cross_entropy", readout="softmax")
    due, r = (fb.bptt(q.network, q.x, q.y, q.loss, memory=m) for m in ("full", fb.RTRL(3)))
    assert_close(r.grad, due.grad)
    q = problem("rnn-tanh/rnn-tanh", dropout=0.5)
    for loss in ("squared_error", lambda h, y, t: (float((h**3).sum()), 3 * h * h),
                 fb.OutputLoss(lambda o, y, t: (float((o**2).sum()), 2 * o))):  # fmt: skip
        due, r = (
            fb.bptt(q.network, q.x, q.y, loss, memory=m, seed=3) for m in ("full", fb.RTRL(6))
        )
        assert_close(r.grad, due.grad)
        assert_close(r.grad_state, due.grad_state)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("given", [False, True])
def test_updates_of_any_pieces_add_up_to_full_bptt(cell, given):
    q = problem(cell)
    state = q.state if given else None
    options = {"resets": q.resets, "weights": q.rng.random((T, B))}
    due = fb.bptt(q.own, q.x, q.y, state=state, **options)
    for block in (None, 1, 3):
        for cuts in CUTS:
            learner = fb.Online(q.own, B, gradient=fb.RTRL(block), state=state)
            for _ in range(2):  # `reset` begins again
                loss, grad, outputs = pushed(learner, q.x, q.y, cuts, **options)
                assert_close(grad, due.grad)
                assert abs(loss - due.loss) <= EXACT * due.loss
                assert_close(learner.state, due.state)
                o = fb.predict(q.own, q.x, state, resets=q.resets)[0]
                assert outputs.tobytes() == o.tobytes()
                assert learner.finish().steps == 0 and learner.time == T
                learner.reset()


def test_float32_and_more_rows_than_go_back_together():
    """So many states that their rows go back in several groups, and blocks of several panels."""
    q = make_problem("rnn-tanh", (9, 2, 3, 70, 2), "float32")
    due = fb.bptt(q.network, q.x, q.y)
    assert_close(fb.bptt(q.network, q.x, q.y, memory=fb.RTRL(4)).grad, due.grad, 2e-5)
    q = make_problem("rnn-tanh", (600, 1, 3, 70, 2))
    memory = fb.RTRL(500)
    assert 500 * 70 * 8 * 70 > 1 << 20  # bytes of deltas
    due, r = (fb.bptt(q.network, q.x, q.y, memory=m) for m in ("full", memory))
    assert_close(r.grad, due.grad)


def test_the_bits_do_not_depend_on_threads():
    q = make_problem("rnn-tanh", (40, 2, 3, 70, 2))
    found = []
    for threads in (1, 2):
        fb.set_num_threads(threads)
        found.append(flat(fb.bptt(q.network, q.x, q.y, memory=fb.RTRL(16)).grad).tobytes())
    assert found[0] == found[1]


def dense_recursion(network, x, y):
    """The gradient of an Elman network of one sequence by the classic recursion of J."""
    U, W, b, V, c = network.arrays()
    H = len(b)
    s, J, grad, readout = np.zeros(H), np.zeros((H, U.size + W.size + H)), 0.0, 0.0
    for x_t, y_t in zip(x, y, strict=True):
        reads = np.kron(np.eye(H), x_t), np.kron(np.eye(H), s), np.eye(H)
        s = np.tanh(U @ x_t + W @ s + b)
        J = (1 - s * s)[:, None] * (W @ J + np.concatenate(reads, axis=1))
        do = 2 * (V @ s + c - y_t)
        grad, readout = grad + V.T @ do @ J, readout + np.append(np.outer(do, s), do)
    return np.concatenate([grad, readout])


def test_it_is_the_dense_recursion():
    q = make_problem("rnn-tanh", (T, 1, 3, 5, 2))
    due = dense_recursion(q.network, q.x[:, 0], q.y[:, 0])
    for block in (1, 4):
        learner = fb.Online(q.network, gradient=fb.RTRL(block))
        assert_close(pushed(learner, q.x[:, 0], q.y[:, 0], [3, 1, 19])[1], due)


@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm"])
def test_the_path_that_was_really_run_counts_when_the_network_changes(cell):
    """Each update is the derivative by one common shift of the weights of all steps so far."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    for seed in range(30):
        q = make_problem(cell, (9, 1, 2, 3, 2), seed=seed)
        size = q.network.flat().size
        moved = [q.network.flat() + q.rng.normal(0, 0.2, size) for _ in range(9)]
        networks = [q.network.with_flat(numbers) for numbers in moved]
        block = int(q.rng.integers(1, 8))
        learner = fb.Online(networks[0], gradient=fb.RTRL(block))
        t = 0
        while t < 9:
            n = min(9 - t, int(q.rng.integers(1, 4)))
            learner.network = networks[t]
            for k in range(t, t + n):
                networks[k] = networks[t]
            grad = learner.push(q.x[t : t + n, 0], q.y[t : t + n, 0]).grad
            assert_close(grad, along_the_path(torch, cell, networks[: t + n], q, t))
            t += n


def along_the_path(torch, cell, networks, q, start):
    """The gradient of the losses from `start` on, step k having been run by networks[k]."""
    like = [torch.zeros(a.shape, dtype=torch.float64, requires_grad=True)
            for a in networks[0].arrays()]  # fmt: skip
    s, c_state, loss = torch.zeros(3).double(), torch.zeros(3).double(), 0.0
    for t, network in enumerate(networks):
        own = [torch.from_numpy(a) + zero for a, zero in zip(network.arrays(), like, strict=True)]
        U, W, b, V, c = own
        a = U @ torch.from_numpy(q.x[t, 0]) + W @ s + b
        if cell == "lstm":
            i, f, g, o = a.chunk(4)
            c_state = torch.sigmoid(f) * c_state + torch.sigmoid(i) * torch.tanh(g)
            s = torch.sigmoid(o) * torch.tanh(c_state)
        else:
            s = torch.tanh(a)
        if t >= start:
            loss = loss + ((V @ s + c - torch.from_numpy(q.y[t, 0])) ** 2).sum()
    return np.concatenate([g.numpy().ravel() for g in torch.autograd.grad(loss, like)])


@in_jax
def test_it_is_the_forward_mode_of_jax():
    import jax
    import jax.numpy as jnp

    q = make_problem("gru", (T, 1, 3, 5, 2))

    def loss(arrays):
        U, W, b, bn, V, c = arrays

        def step(s, x_y):
            x, y = x_y
            a, w = U @ x + b, W @ s
            r, z = (jax.nn.sigmoid(a[k : k + 5] + w[k : k + 5]) for k in (0, 5))
            n = jnp.tanh(a[10:] + r * (w[10:] + bn))
            s = (1 - z) * n + z * s
            return s, ((V @ s + c - y) ** 2).sum()

        return jax.lax.scan(step, jnp.zeros(5), (q.x[:, 0], q.y[:, 0]))[1].sum()

    due = jax.jit(jax.jacfwd(loss))([jnp.asarray(a) for a in q.network.arrays()])
    r = fb.bptt(q.network, q.x, q.y, memory=fb.RTRL())
    assert_close(r.grad, np.concatenate([np.ravel(g) for g in due]))


def test_a_cell_of_ones_own_is_differentiated_like_any_other():
    cell = fb.Cell("rtrl_leaky", 1, lambda a, s: (s[0] / 2 + np.tanh(a[0]),))
    network = fb.Network(
        cell.init(3, 5, rng=0, dtype="float64"), fb.Readout.init(5, 2, rng=1, dtype="float64")
    )
    x, y = np.random.default_rng(2).standard_normal((2, 20, 2, 3))
    due = fb.bptt(network, x, y[..., :2])
    found = fb.bptt(network, x, y[..., :2], memory=fb.RTRL(6))
    np.testing.assert_allclose(found.grad.flat(), due.grad.flat(), rtol=1e-12, atol=1e-12)
    one_way = fb.bptt(network, x[:1], y[:1, :, :2], memory=fb.SnAp1())  # exact through one step
    np.testing.assert_allclose(
        one_way.grad.flat(), fb.bptt(network, x[:1], y[:1, :, :2]).grad.flat(), rtol=1e-12
    )
