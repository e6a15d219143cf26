"""fb.fit: the updates are those of a loop by hand, the best weights come back."""

import numpy as np
import pytest
from helpers import make_problem

import fastbptt as fb
from fastbptt.display import bar


def problem(cell="rnn-tanh", **options):
    return make_problem(cell, (12, 4, 3, 5, 2), **options)


def fit(q, x=None, y=None, **options):
    options = {"optimizer": fb.Adam(0.05, clip=1.0), "epochs": 3, "progress": None, **options}
    return fb.fit(q.network, q.x if x is None else x, q.y if y is None else y, q.loss, **options)


def by_hand(q, pieces, epochs=3, optimizer=None, **options):
    """A loop over (arguments, whether the state is carried on) pieces; the loss of each."""
    network = q.network.with_flat(q.network.flat())
    optimizer, losses = optimizer or fb.Adam(0.05, clip=1.0), []
    for _ in range(epochs):
        state = None
        for arguments, carry in pieces:
            given = {"loss": q.loss, "reduction": "mean", **options, **arguments}
            r = fb.bptt(network, state=state, **given)
            optimizer.step(network, r.grad)
            state = r.state if carry else None
            losses.append(r.loss)
    return network, losses


def same(one, other):
    return np.array_equal(one.flat(), other.flat())


@pytest.mark.parametrize("cell", ["rnn-tanh", "gru", "lstm"])
def test_an_epoch_of_all_sequences_is_one_gradient_and_one_step(cell):
    q = problem(cell)
    before, optimizer = q.network.flat(), fb.Adam(0.05, clip=1.0)
    found = fit(q, optimizer=optimizer)
    network, losses = by_hand(q, [({"x": q.x, "y": q.y}, False)])
    assert [epoch.loss for epoch in found.history] == losses == sorted(losses)[::-1]
    assert same(found.network, network)
    assert np.array_equal(q.network.flat(), before) and optimizer.steps == 0
    assert found.stopped == "epochs" and found.path is None and found.optimizer.steps == 3


def test_windows_carry_the_state_and_keep_to_lengths_and_resets():
    q = problem()
    lengths, resets = np.array([12, 7, 0, 10]), np.random.default_rng(0).random((12, 4)) < 0.2
    found = fit(q, window=5, lengths=lengths, resets=resets)
    pieces = []
    for start, stop in ((0, 5), (5, 10), (10, 12)):
        left = np.clip(lengths - start, 0, stop - start)
        cut = {"x": q.x[start:stop], "y": q.y[start:stop], "resets": resets[start:stop]}
        pieces.append(({**cut, "lengths": left}, start < 10))
    network, losses = by_hand(q, pieces)
    assert same(found._last, network)
    counts = [4 * 5 - 5, 2 + 5 + 5, 2]
    for epoch, mine in zip(found.history, np.reshape(losses, (3, 3)), strict=True):
        assert epoch.loss == pytest.approx(np.average(mine, weights=counts), rel=1e-12)


def test_one_long_sequence_is_read_window_by_window_from_any_array():
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    q = problem()
    x, y = q.x[:, 0], q.y[:, 0]
    due = fit(q, x, y, window=5).network
    with h5py.File("memory.h5", "w", driver="core", backing_store=False) as file:
        assert same(fit(q, file.create_dataset("x", data=x), y, window=5).network, due)
        three = file.create_dataset("all", data=q.x)
        options = {"window": 5, "batch": 3, "seed": 0}
        assert same(fit(q, three, **options).network, fit(q, **options).network)


def test_every_batch_is_of_other_sequences_and_all_are_seen_once_an_epoch():
    q = problem()
    seen = []

    def loss(h, y, start):
        if start == 0:
            seen.append(np.ravel(y[0]).tolist())
        return 0.0, np.zeros_like(h)

    numbers = np.broadcast_to(np.arange(4.0), (12, 4)).copy()
    options = {"epochs": 3, "batch": 3, "progress": None, "reduction": "sum", "memory": "full"}
    fb.fit(q.network, q.x, numbers, loss, optimizer=fb.SGD(), seed=5, **options)
    epochs = [seen[i] + seen[i + 1] for i in (0, 2, 4)]
    assert all(sorted(epoch) == [0, 1, 2, 3] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_lists_are_padded_batch_by_batch_and_train_as_lengths_do():
    q = problem()
    lengths = np.array([12, 7, 1, 10])
    x, y, weights = (
        [a[:n, b] for b, n in enumerate(lengths)] for a in (q.x, q.y, np.arange(48).reshape(12, 4))
    )
    whole = {"lengths": lengths, "weights": np.arange(48).reshape(12, 4)}
    for options in ({}, {"batch": 3, "seed": 1}, {"batch": 1, "window": 4, "seed": 1}):
        lists = fit(q, x, y, weights=weights, **options)
        arrays = fit(q, **whole, **options)
        assert np.abs(lists.network.flat() - arrays.network.flat()).max() < 1e-12
        assert lists.history[-1].loss == pytest.approx(arrays.history[-1].loss, rel=1e-12)


def test_the_best_weights_are_those_of_the_least_validation_loss():
    q = problem()
    held = q.x[::-1].copy(), q.y
    kept = []
    found = fit(
        q, epochs=30, validation=held, optimizer=fb.Adam(0.1),
        callbacks=lambda epoch, network: kept.append(network.flat()),
    )  # fmt: skip
    scores = [epoch.validation for epoch in found.history]
    best = int(np.argmin(scores))
    assert 0 < best < 29, "the data must be overfitted"
    assert np.array_equal(found.network.flat(), kept[best]) and found.best.number == best + 1
    assert scores[best] == fb.evaluate(found.network, *held, reduction="mean")
    patient = fit(q, epochs=30, validation=held, optimizer=fb.Adam(0.1), patience=3)
    assert patient.stopped == "patience" and len(patient.history) == best + 4
    assert same(patient.network, found.network)


def test_a_share_for_validation_is_the_last_sequences_or_the_last_steps():
    q = problem()
    pair = fit(q, q.x[:, :3], q.y[:, :3], validation=(q.x[:, 3:], q.y[:, 3:]))
    assert same(fit(q, validation=0.25).network, pair.network)
    x, y = list(q.x.swapaxes(0, 1)), list(q.y.swapaxes(0, 1))
    lists = fit(q, x, y, validation=0.25)
    assert lists.history[-1].validation == pytest.approx(pair.history[-1].validation, rel=1e-12)
    one = fit(q, q.x[:, 0], q.y[:, 0], validation=0.25)
    parts = [q.x[:9, 0], q.y[:9, 0]], (q.x[9:, 0], q.y[9:, 0])
    assert same(one.network, fit(q, *parts[0], validation=parts[1]).network)
    weighted = (q.x, q.y, {"lengths": [5, 5, 0, 1], "weights": np.ones((12, 4))})
    due = fb.evaluate(pair.network, q.x, q.y, reduction="mean", lengths=[5, 5, 0, 1])
    found = fit(q, q.x[:, :3], q.y[:, :3], validation=weighted)
    assert found.history[-1].validation == pytest.approx(due, rel=1e-12)


@pytest.mark.parametrize("memory", ["full", "124kB", fb.Checkpointed(segment=3)])
def test_every_exact_memory_policy_trains_to_the_same_bits(memory):
    q = problem()
    assert same(fit(q, memory=memory).network, fit(q).network)


def test_truncated_gradients_dropout_and_tokens_train_as_bptt_has_them():
    q = problem()
    policy = fb.Truncated(3, 5)
    due, _ = by_hand(q, [({"x": q.x, "y": q.y}, False)], memory=policy)
    assert same(fit(q, memory=policy).network, due)
    q = problem("rnn-tanh/rnn-tanh", dropout=0.5)
    options = {"batch": 2, "window": 5}
    one, other = fit(q, seed=1, **options), fit(q, seed=2, **options)
    assert same(one.network, fit(q, seed=1, **options).network)
    assert not same(one.network, other.network)
    q = problem(tokens=True, loss="cross_entropy", readout="softmax")
    losses = [epoch.loss for epoch in fit(q, epochs=20).history]
    assert losses[-1] < losses[0]


def test_the_initial_state_is_trained_too():
    q = problem()
    q.network = fb.Network(q.layer, q.readout, np.zeros(5))
    found = fit(q, window=6)
    assert np.abs(found.network.state).min() > 0
    assert not q.network.state.any()


def test_the_rate_of_each_epoch_is_in_the_history_and_in_the_table():
    q = problem()
    found = fit(q, optimizer=fb.SGD(lambda step: 0.1 / (1 + step)), window=6, epochs=2)
    assert [epoch.lr for epoch in found.history] == [0.05, 0.025]
    assert [epoch.steps for epoch in found.history] == [2, 4]
    assert str(found).splitlines()[0].split() == ["epoch", "loss", "lr", "steps", "seconds"]
    assert str(found).count("best") == 1
    assert "<table>" in found._repr_html_() and repr(found).startswith("Fit(best ")


def test_a_long_history_is_shortened_in_the_table_but_has_its_best():
    found = fit(problem(), epochs=60, optimizer=fb.Adam(0.3))
    lines = str(found).splitlines()
    assert len(lines) <= 21 and lines[-1].split()[0] == "60"
    assert f" {found.best.number} " in str(found) and "best" in str(found)


def test_a_callback_may_end_the_training_and_progress_is_told():
    q = problem()
    told = []
    found = fit(
        q, epochs=9, batch=2, progress=lambda done, total: told.append((done, total)),
        callbacks=[lambda epoch, network: None, lambda epoch, network: epoch.number == 2],
    )  # fmt: skip
    assert found.stopped == "callback" and len(found.history) == 2
    assert told == [(24 * i, 9 * 48) for i in (1, 2, 3, 4)]


def test_the_bar_shows_the_loss_with_and_without_tqdm(monkeypatch, capsys):
    q = problem()
    fit(q, progress=True)
    assert "100%" in (text := capsys.readouterr().err) and "loss" in text
    monkeypatch.setitem(__import__("sys").modules, "tqdm", None)
    monkeypatch.setattr(bar, "_PAUSE", 0)
    fit(q, progress=True)
    assert capsys.readouterr().err.splitlines()[-1].startswith("  100% 144/144 positions, epoch 3")


def test_the_learning_curve_is_drawn(tmp_path):
    pytest.importorskip("matplotlib", reason="it draws the picture")
    found = fit(problem(), optimizer=fb.SGD(lambda step: 0.1 / (1 + step)), validation=0.25)
    found.draw(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
