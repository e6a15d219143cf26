"""fb.fit: Ctrl-C, losses that are not finite, files to go on from, and wrong arguments."""

import numpy as np
import pytest
from test_fit import fit, problem, same

import fastbptt as fb


def interrupt(at):
    def callback(epoch, network):
        if epoch.number == at:
            raise KeyboardInterrupt

    return callback


def test_ctrl_c_returns_the_best_so_far_and_says_so(capsys, tmp_path):
    q, path = problem(), tmp_path / "training.npz"
    found = fit(q, epochs=9, callbacks=interrupt(3), path=path)
    assert found.stopped == "interrupted" and same(found.network, fit(q, epochs=3).network)
    said = capsys.readouterr().err
    assert "interrupted in epoch 4: the best weights so far, those of epoch 3, are kept" in said
    assert str(path) in said and same(fb.load(path).network, found.network)
    assert same(fit(q, epochs=9, path=path).network, fit(q, epochs=9).network)


def test_ctrl_c_in_the_first_epoch_keeps_the_weights_of_that_moment(capsys):
    q, calls = problem(), []

    def progress(done, total):
        calls.append(done)
        if len(calls) == 2:
            raise KeyboardInterrupt

    found = fit(q, window=4, progress=progress)
    assert not found.history and not same(found.network, q.network)
    assert "the weights of this moment are kept" in capsys.readouterr().err


@pytest.mark.parametrize("path", [None, "training.npz"])
def test_a_loss_that_is_not_finite_names_where_and_keeps_the_last_good_weights(path, tmp_path):
    q = problem()
    path = path and tmp_path / path
    rates = [0.1, 0.1, 1e200]
    options = {"optimizer": fb.SGD(lambda step: rates[min(step, 2)]), "epochs": 5, "path": path}
    with pytest.raises(fb.NotFiniteError, match="loss is inf in epoch 4, after step 3, at a"):
        fit(q, **options)
    with pytest.raises(FloatingPointError, match="learning rate of 1e\\+200") as caught:
        fit(q, **options)  # goes on from the file, and ends in the same way
    good = fit(q, optimizer=fb.SGD(0.1), epochs=2)
    assert same(caught.value.network, good._last)
    assert len(caught.value.fit.history) == 3
    if path:
        assert same(fb.load(path).network, good._last)


def test_a_gradient_or_weights_that_are_not_finite_are_seen_too():
    q = problem()

    def loss(h, y, start):
        return 0.0, np.full_like(h, np.inf)

    with pytest.raises(fb.NotFiniteError, match="gradient is not finite in epoch 1, after step 0"):
        fb.fit(q.network, q.x, None, loss, optimizer=fb.SGD(), epochs=1, reduction="sum",
               progress=None)  # fmt: skip
    with pytest.raises(fb.NotFiniteError, match="the validation data is inf in epoch 1"):
        fit(q, optimizer=fb.SGD(1e200), validation=0.25)


@pytest.mark.parametrize("rate", [0.05, lambda step: 0.05 / (1 + step)])
@pytest.mark.parametrize("options", [{}, {"batch": 3, "window": 5, "validation": 0.25}])
def test_a_training_goes_on_from_its_file_with_the_same_bits(options, rate, tmp_path):
    q, path = problem("rnn-tanh/rnn-tanh", dropout=0.3), tmp_path / "training.npz"
    options = {"optimizer": fb.Adam(rate, clip=1.0), "seed": 3, **options}
    whole = fit(q, epochs=5, **options)
    first = fit(q, epochs=2, path=path, **options)
    assert first.path == str(path) and len(first.history) == 2
    found = fit(q, epochs=5, path=path, **options)
    assert same(found.network, whole.network) and same(found._last, whole._last)
    assert [e[:5] for e in found.history] == [e[:5] for e in whole.history]
    again = fit(q, epochs=5, path=path, **options)  # done: nothing is run
    assert again.history == found.history and same(again.network, found.network)
    loaded = fb.load(path)
    assert loaded.history == found.history and loaded.optimizer.steps == found.optimizer.steps


def test_the_file_of_another_training_is_an_error_that_says_what_differs(tmp_path):
    q, path = problem(), tmp_path / "training.npz"
    fit(q, path=path, seed=0, batch=2)
    before = path.read_bytes()
    larger = problem("gru")
    for own, options, what in [
        (q, {"batch": 3}, "another batch: 2, not 3"),
        (q, {"window": 3}, "another window"),
        (q, {"x": 2 * q.x}, "other data: x, y, weights"),
        (q, {"validation": (q.x, q.y)}, "other validation data"),
        (q, {"optimizer": fb.Adam(0.1)}, "another optimizer"),
        (q, {"optimizer": fb.SGD()}, "another optimizer"),
        (q, {"memory": fb.Truncated(2, 3)}, "another memory"),
        (q, {"seed": 1}, "seed=0, not 1"),
        (larger, {}, "another network"),
    ]:
        with pytest.raises(ValueError, match=what):
            fit(own, **{"path": path, "batch": 2, "seed": 0, **options})
    options = {"optimizer": fb.SGD(1e-3), "epochs": 1, "reduction": "sum", "progress": None}
    options["path"] = tmp_path / "own.npz"
    fb.fit(q.network, q.x, None, _energy, **options)
    with pytest.raises(ValueError, match=r"another loss: the function _energy, not the .*<lambda>"):
        fb.fit(q.network, q.x, None, lambda *a: _energy(*a), **options)
    q.network.save(tmp_path / "network.npz")
    with pytest.raises(ValueError, match="holds a Network"):
        fit(q, path=tmp_path / "network.npz")
    assert path.read_bytes() == before


def _energy(h, y, start):
    return float((h * h).sum()), 2 * h


@pytest.mark.parametrize(
    "options, message",
    [
        ({"optimizer": None}, "optimizer must be a fastbptt.Adam or SGD"),
        ({"optimizer": fb.Adam}, "optimizer must be a fastbptt.Adam or SGD"),
        ({"epochs": -1}, "epochs must be at least 0"),
        ({"epochs": 1.5}, "epochs must be an integer"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"batch": 5}, "batch must be at most 4"),
        ({"window": 0}, "window must be at least 1"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"reduction": "max"}, "reduction must be one of"),
        ({"memory": "1kB"}, "memory"),
        ({"validation": 1.0}, "validation must lie between 0 and 1"),
        ({"validation": (1, 2, 3, 4)}, r"validation must be \(x, y\)"),
        ({"validation": (np.zeros((3, 3)), np.zeros((4, 2)))}, "validation: y must have shape"),
        ({"validation": (1, 2, {"batch": 3})}, "validation must have a dict of weights"),
        ({"lengths": [1, 2]}, "lengths must have shape"),
        ({"lengths": [0, 0, 0, 0]}, "x must have a position that counts"),
        ({"weights": np.zeros((12, 4))}, "x must have a position that counts"),
        (
            {"validation": (np.zeros((0, 4, 3)), np.zeros((0, 4, 2)))},
            "validation must have a pos.*",
        ),
        ({"lengths": [12, 12, 12, 0], "validation": 0.25}, "validation must have a position.*"),
        ({"resets": np.zeros(3, bool)}, "resets must have shape"),
        ({"callbacks": 3}, "callbacks must be a function"),
        ({"progress": 3}, "progress must be True or a callable"),
        ({"path": 3}, "path must be a string"),
        ({"x": []}, "x must hold at least one sequence"),
        ({"x": [np.zeros((3, 3))], "y": np.zeros((3, 1, 2))}, "y must be a list like x"),
        ({"x": [np.zeros((3, 3))], "y": [np.zeros((4, 2))]}, r"y\[0\] must have 3 steps"),
        ({"x": [np.zeros((3, 1, 3))], "y": [np.zeros((3, 2))]}, r"x\[0\] must be of one sequence"),
        ({"x": [np.zeros((3, 3))], "y": []}, "y must hold 1 arrays"),
        ({"x": [np.zeros((3, 3)), np.zeros((3, 4))], "y": [np.zeros((3, 2))] * 2}, r"x\[1\] must"),
        ({"x": [np.zeros((3, 3))], "y": [np.zeros((3, 2))], "lengths": [3]}, "lengths must be"),
        ({"x": [np.zeros((3, 3))], "y": [np.zeros((3, 2))], "validation": 0.5}, "nothing to split"),
    ],
)
def test_wrong_arguments_are_errors_before_any_work(options, message):
    q = problem()
    before, calls = q.network.flat(), []
    options = {"callbacks": lambda *_: calls.append(1), **options}
    with pytest.raises((ValueError, TypeError), match=f"^{message}|{message}$"):
        fit(q, **options)
    assert not calls and np.array_equal(q.network.flat(), before)


def test_a_window_is_refused_where_a_layer_reads_from_the_end():
    with pytest.raises(ValueError, match="window must be None for a network with a Bidirectional"):
        fit(problem("rnn-tanh|rnn-tanh"), window=3)


def test_own_losses_need_a_sum_and_may_have_no_targets():
    q = problem()

    def energy(h, y, start):
        assert y is None
        return float((h * h).sum()), 2 * h

    with pytest.raises(ValueError, match='reduction must be "sum"'):
        fb.fit(q.network, q.x, None, energy, optimizer=fb.SGD(), epochs=1)
    found = fb.fit(q.network, q.x, None, energy, optimizer=fb.SGD(1e-3), epochs=5, batch=2,
                   reduction="sum", progress=None, seed=0)  # fmt: skip
    assert found.history[-1].loss < found.history[0].loss


def test_no_epochs_return_the_weights_as_they_are():
    q = problem()
    found = fit(q, epochs=0)
    assert same(found.network, q.network) and found.history == () and found.best is None


@pytest.mark.parametrize("batch, window", [(None, None), (2, 5)])
def test_an_id_that_does_not_exist_is_named_by_its_place_in_all_the_data(batch, window):
    q = problem()
    network = fb.Network(q.layer, fb.Readout.init(q.layer.outputs, 2, rng=0, dtype="float64",
                                                  activation="softmax"))  # fmt: skip
    x, y = np.zeros((12, 4), np.int64), np.zeros((12, 4), np.int64)
    options = {"optimizer": fb.SGD(), "epochs": 1, "progress": None, "seed": 1}
    options |= {"loss": "cross_entropy", "batch": batch, "window": window}
    for name, array in (("x", x), ("y", y)):
        array[7, 3] = 9
        with pytest.raises(ValueError, match=f"^{name} must hold classes .*t=7, b=3 it is 9"):
            fb.fit(network, x, y, **options)
        lists = [list(a.T) for a in (x, y)]
        with pytest.raises(ValueError, match=rf"^{name}\[3\] must hold .* at t=7 it is 9"):
            fb.fit(network, *lists, **options)
        good = np.zeros_like(x)
        with pytest.raises(ValueError, match=f"^validation: {name} must hold .* t=7, b=3 it is 9"):
            fb.fit(network, good, good, validation=(x, y), **options)
        array[7, 3] = 0


def test_a_losss_own_error_is_left_as_it_is():
    q, own = problem(), ValueError("mine")

    def loss(h, y, start):
        raise own

    with pytest.raises(ValueError, match=r"^mine$") as raised:
        fb.fit(q.network, q.x, None, loss, optimizer=fb.SGD(), epochs=1, reduction="sum",
               progress=None)  # fmt: skip
    assert raised.value is own and not own.__suppress_context__
