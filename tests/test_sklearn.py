"""Estimators for scikit-learn: its own checks, forms of X and y, and its tools around them."""

import pickle

import numpy as np
import pytest
from checks import run_python
from test_own import LEAKY

import fastbptt as fb

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from fastbptt.sklearn import SequenceClassifier, SequenceRegressor

BOTH = [SequenceRegressor, SequenceClassifier]
SMALL = {"cell": "gru", "hidden_size": 5, "epochs": 2, "dtype": "float64", "random_state": 0}


def ragged(n=9, I=3):
    """Sequences of 1 to n steps, a number and a label of each."""
    rng = np.random.default_rng(0)
    X = [rng.standard_normal((1 + (5 * i) % n, I)) for i in range(n)]
    return X, np.array([x[-1, 0] for x in X]), np.array(["b", "c", "a"])[np.arange(n) % 3]


def fitted(kind, X, y, **options):
    return kind(**SMALL | options).fit(X, y)


def outputs(model, x):
    """The network's outputs, step by step, of one sequence."""
    return fb.predict(model.network_, x)[0]


@pytest.mark.parametrize(
    "estimator",
    [
        SequenceRegressor(cell="rnn", hidden_size=16, epochs=40, batch=50, lr=0.03),
        SequenceClassifier(cell="gru", hidden_size=16, epochs=15),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_scikit_learn_finds_nothing_wrong(estimator):
    check_estimator(estimator.set_params(dtype="float64", memory="full"), on_skip=None)


@pytest.mark.parametrize("kind", BOTH)
def test_lists_arrays_and_tables_are_the_same_sequences(kind):
    rng = np.random.default_rng(0)
    table, y = rng.standard_normal((8, 6)), np.arange(8) % 3
    forms = [table, table[:, :, None], [row[:, None] for row in table], table.tolist()]
    found = [fitted(kind, X, y).predict(X) for X in forms]
    for one in found[1:]:
        np.testing.assert_array_equal(one, found[0])
    model = fitted(kind, forms[1], y)
    assert model.n_features_in_ == 1 and fitted(kind, table, y).n_features_in_ == 6
    np.testing.assert_array_equal(model.predict(table), found[0])
    assert len(model.predict(table[:, :4])) == 8  # sequences may have another length


@pytest.mark.parametrize("options", [{}, {"layers": 2, "bidirectional": True}], ids=str)
@pytest.mark.parametrize("output", ["last", "mean", "steps"])
@pytest.mark.parametrize("kind", BOTH)
def test_predictions_are_the_networks_outputs(kind, output, options):
    X, numbers, labels = ragged()
    y = numbers if kind is SequenceRegressor else labels
    if output == "steps":
        y = [np.resize(one, len(x)) for one, x in zip(y, X, strict=True)]
    model = fitted(kind, X, y, output=output, **options)
    for x, found in zip(X, model.predict(X), strict=True):
        o = outputs(model, x)
        due = {"last": o[-1], "mean": o.mean(0), "steps": o}[output]
        if kind is SequenceRegressor:
            np.testing.assert_allclose(found, due[..., 0], rtol=1e-12)
        else:
            np.testing.assert_array_equal(found, model.classes_[due.argmax(-1)])
    if kind is SequenceClassifier:
        shares = model.predict_proba(X)
        assert list(model.classes_) == ["a", "b", "c"]
        for one in shares:
            np.testing.assert_allclose(one.sum(-1), 1, rtol=1e-12)


@pytest.mark.parametrize("outputs", [(), (1,), (2,)], ids=str)
@pytest.mark.parametrize("output", ["last", "steps"])
def test_predictions_have_the_shape_of_the_targets(output, outputs):
    X = np.random.default_rng(0).standard_normal((4, 6, 3))
    y = np.ones((4, *(6,) * (output == "steps"), *outputs))
    model = fitted(SequenceRegressor, X, y, output=output)
    assert model.predict(X).shape == y.shape
    if output == "steps":
        assert [one.shape for one in model.predict(list(X))] == [one.shape for one in y]


@pytest.mark.parametrize("kind", BOTH)
def test_every_step_is_learnt(kind):
    """The target of a step is the input before it, or its sign."""
    rng = np.random.default_rng(0)
    X = [rng.standard_normal((T, 1)) for T in rng.integers(5, 15, 60)]
    y = [np.append(0.0, x[:-1, 0]) for x in X]
    if kind is SequenceClassifier:
        y = [one > 0 for one in y]
    model = kind(cell="gru", hidden_size=16, output="steps", dtype="float64", random_state=0)
    model.set_params(epochs=40).fit(X[:50], y[:50])
    assert model.score(X[50:], y[50:]) > 0.9
    assert len(model.loss_curve_) == model.n_iter_ == 40
    assert model.loss_curve_[-1] < 0.5 * model.loss_curve_[0]


def test_what_follows_a_sequence_does_not_matter():
    X, y, _ = ragged()
    model = fitted(SequenceRegressor, X, y)
    for i, alone in enumerate(X):
        np.testing.assert_array_equal(model.predict([alone]), model.predict(X)[i : i + 1])


def test_patience_ends_training_and_keeps_the_best_network():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((40, 4)), rng.standard_normal(40)  # nothing to be learnt
    model = fitted(SequenceRegressor, X, y, epochs=60, patience=3, lr=0.03)
    held = model.validation_curve_
    assert len(held) == len(model.loss_curve_) == model.n_iter_ < 60
    assert int(np.argmin(held)) == model.n_iter_ - 4
    shorter = fitted(SequenceRegressor, X, y, epochs=model.n_iter_ - 3, patience=3, lr=0.03)
    np.testing.assert_array_equal(shorter.network_.flat(), model.network_.flat())
    assert fitted(SequenceRegressor, X, y).validation_curve_ == []


@pytest.mark.parametrize("kind", BOTH)
def test_a_model_is_cloned_pickled_and_drawn_anew_by_its_seed(kind):
    X, numbers, labels = ragged()
    y = numbers if kind is SequenceRegressor else labels
    model = fitted(kind, X, y)
    again = clone(model)
    with pytest.raises(NotFittedError):
        again.predict(X)
    for other in (again.fit(X, y), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other.network_.flat(), model.network_.flat())
    assert (fitted(kind, X, y, random_state=1).network_.flat() != model.network_.flat()).any()


def test_a_grid_of_lists_is_searched_in_processes_of_its_own():
    X, y, labels = ragged(12)
    grid = GridSearchCV(SequenceRegressor(**SMALL), {"hidden_size": [5, 6]}, cv=3, n_jobs=2)
    assert grid.fit(X, y).predict(X).shape == (12,)
    steps = [np.resize(one, len(x)) for one, x in zip(labels, X, strict=True)]
    own = SequenceClassifier(**SMALL, output="steps")
    grid = GridSearchCV(own, {"layers": [1]}, cv=KFold(3)).fit(X, steps)
    assert 0 <= grid.best_score_ <= 1


def test_a_pipeline_scales_a_table_and_makes_sequences_of_it():
    rng = np.random.default_rng(0)
    X, y = 100 * rng.standard_normal((20, 6)), np.arange(20.0)
    flat = make_pipeline(StandardScaler(), SequenceRegressor(**SMALL))
    deep = make_pipeline(FunctionTransformer(lambda X: X.reshape(-1, 3, 2)), flat[1])
    assert flat.fit(X, y).predict(X).shape == deep.fit(X, y).predict(X).shape == (20,)
    assert deep[1].network_.layer.inputs == 2


def test_a_cell_of_your_own_and_truncated_gradients_are_taken():
    X, y, _ = ragged()
    model = fitted(SequenceRegressor, X, y, cell=LEAKY, memory=fb.Truncated(2, 3), epochs=1)
    assert model.network_.layer.cell == LEAKY(*model.network_.layer.arrays()).cell
    assert clone(model).cell is LEAKY


X, NUMBERS, _ = ragged()
WRONG = {
    "one sequence": ({"X": X[0][:, 0]}, "X must be a list of .* Reshape your data"),
    "four axes": ({"X": np.ones((9, 2, 2, 2))}, "X must be a list of"),
    "rows of several lengths": ({"X": [x[:, 0] for x in X]}, r"different lengths.*\(T_i, 1\)"),
    "a sequence of one axis": ({"X": [*X[:8], np.ones(3)]}, r"X\[8\] must be a \(T_i, I\)"),
    "another number of features": ({"X": [*X[:8], np.ones((3, 2))]}, r"X\[8\] has 2 features.*3"),
    "no steps": ({"X": [*X[:8], np.ones((0, 3))]}, r"X\[8\] must have at least one step"),
    "no features": ({"X": np.ones((9, 4, 0))}, r"X\[0\] has 0 features.*at least 1"),
    "NaN": ({"X": [*X[:8], np.full((2, 3), np.nan)]}, r"X\[8\] contains NaN"),
    "no y": ({"y": None}, "requires y"),
    "fewer y": ({"y": NUMBERS[1:]}, "inconsistent numbers of samples"),
    "cell": ({"cell": "transformer"}, "cell must be one of 'rnn', 'gru', 'lstm'"),
    "hidden_size": ({"hidden_size": 0}, "hidden_size must be .*1"),
    "output": ({"output": "first"}, "output must be one of 'last'"),
    "epochs": ({"epochs": 0}, "epochs must be .*1"),
    "batch": ({"batch": 0}, "batch must be .*1"),
    "validation_fraction": ({"patience": 2, "validation_fraction": 1.5}, "validation_fraction"),
    "validation_fraction alone": ({"validation_fraction": 5}, "validation_fraction must be"),
    "dropout of one layer": ({"dropout": 1.0}, "dropout must .*1"),
    "nothing left": ({"X": X[:1], "y": [1.0], "patience": 2}, "held out"),
    "y of a sequence": ({"output": "steps"}, r"y\[0\] must be .*X\[0\].*steps"),
    "y of fewer steps": (
        {"output": "steps", "y": [np.ones(len(x) - (len(x) > 3)) for x in X]}, r"y\[\d\] must be",
    ),
    "y of fewer sequences": ({"output": "steps", "y": [[1.0]]}, "y must hold .* 9 sequences"),
    "y of several widths": (
        {"output": "steps", "y": [np.ones((len(x), 1 + (len(x) > 3))) for x in X]},
        r"y\[\d\] must have \(1,\) outputs",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said(what):
    changes, says = WRONG[what]
    given = {"X": X, "y": NUMBERS} | changes
    x, y = given.pop("X"), given.pop("y")
    with pytest.raises(ValueError, match=f"(?s){says}"):
        fitted(SequenceRegressor, x, y, **given)


def test_sequences_of_other_features_than_those_of_fit_are_refused():
    model = fitted(SequenceRegressor, X, NUMBERS)
    for other in (np.ones((2, 4)), X[0]):
        with pytest.raises(ValueError, match=r"3 features of fit.*X\[None\]"):
            model.predict(other)
    with pytest.raises(ValueError, match=r"X\[1\] has 2 features.*expecting 3"):
        model.predict([X[0], np.ones((4, 2))])
    table = fitted(SequenceRegressor, np.ones((4, 5)), np.ones(4))
    with pytest.raises(ValueError, match="4 features, but SequenceRegressor is expecting 5"):
        table.predict(np.ones((4, 4)))


def test_labels_of_several_columns_are_refused():
    y = [np.ones((len(x), 2), int) for x in X]
    with pytest.raises(ValueError, match=r"y\[0\] must be .* labels"):
        fitted(SequenceClassifier, X, y, output="steps")


def test_scikit_learn_is_imported_when_it_is_asked_for_and_missed_by_name():
    code = """
import sys, fastbptt
fastbptt.LSTM, fastbptt.to_onnx, fastbptt.to_rtneural
assert not {"sklearn", "onnx", "onnxruntime", "joblib", "scipy"} & set(sys.modules)
sys.modules["sklearn"] = None
try:
    import fastbptt.sklearn
except ImportError as error:
    print(error)
"""
    assert "fastbptt[sklearn]" in run_python(code)
