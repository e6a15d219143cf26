"""X and y in the forms that scikit-learn's users give them, as lists with one array a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data

from .. import arguments
from ..arrays import Array, DTypeLike

_FORMS = "a list of (T_i, I) arrays, an (n, T, I) array, or (n, T): n sequences of one feature"


def read_x(estimator: Any, X: Any, dtype: DTypeLike, reset: bool) -> list[Array]:
    """The sequences of X, each (T_i, I), checked.

    reset : X is to be fitted, and says how many features there are; else it must fit
    """
    axes = _axes(X)
    if axes == 1 or axes > 3:
        raise ValueError(
            f"X must be {_FORMS}, not {arguments.describe(X)}. Reshape your data: one sequence is "
            "X[None] if it is (T, I), and X.reshape(1, -1) if it has one feature"
        )
    if axes != 3:
        return _read_table(estimator, X, dtype, reset)
    if isinstance(X, (list, tuple)):
        sequences = [_read_one(f"X[{i}]", one, dtype) for i, one in enumerate(X)]
    else:
        sequences = list(_finite("X", X, dtype, ensure_2d=False, allow_nd=True))
    due = sequences[0].shape[1] if reset else estimator.network_.layer.inputs
    for i, one in enumerate(sequences):
        if not len(one):
            raise ValueError(f"X[{i}] must have at least one step, not none")
        if one.shape[1] != due or not due:
            raise ValueError(
                f"X[{i}] has {one.shape[1]} features, but {type(estimator).__name__} is expecting "
                f"{due or 'at least 1'} features as input: a sequence is (T_i, I)"
            )
    if reset:
        estimator.n_features_in_ = due
        vars(estimator).pop("feature_names_in_", None)
    return sequences


def _read_table(estimator: Any, X: Any, dtype: DTypeLike, reset: bool) -> list[Array]:
    """The rows of a 2-D X as sequences of one feature."""
    if isinstance(X, (list, tuple)):
        rows = {len(one) for one in X if hasattr(one, "__len__")}
        if len(rows) > 1:
            raise ValueError(
                f"X must be {_FORMS}, not a list of rows of different lengths: for one feature "
                "make each (T_i, 1)"
            )
    if not reset and estimator.network_.layer.inputs != 1:
        raise ValueError(
            f"X must be {_FORMS}, with the {estimator.network_.layer.inputs} features of fit, not "
            f"{arguments.describe(X)}: one sequence is X[None]"
        )
    with np.errstate(over="ignore"):  # an infinity is an error
        if reset or estimator._is_table:
            array = validate_data(estimator, X, dtype=dtype, reset=reset)
        else:  # what was fitted to (T_i, 1) knows no number of steps
            array = check_array(X, dtype=dtype, input_name="X", estimator=estimator)
    return list(array[:, :, None])


def is_table(X: Any) -> bool:
    """Whether X is 2-D, each row a sequence of one feature."""
    return _axes(X) != 3


def _axes(value: Any) -> int:
    """The axes of an array, a frame or nested lists; 0 where it does not tell."""
    shape = getattr(value, "shape", None)
    if shape is not None:
        return len(shape)
    if isinstance(value, (list, tuple)):
        return 1 + max(map(_axes, value), default=0)
    return 0


def _read_one(name: str, value: Any, dtype: DTypeLike) -> Array:
    if _axes(value) != 2:
        raise ValueError(
            f"{name} must be a (T_i, I) array like other sequences of X, not "
            f"{arguments.describe(value)}: for one feature make it (T_i, 1)"
        )
    return _finite(name, value, dtype, ensure_min_samples=0, ensure_min_features=0)


def _finite(name: str, value: Any, dtype: DTypeLike, **options: Any) -> Array:
    with np.errstate(over="ignore"):  # an infinity is an error
        found: Array = check_array(value, dtype=dtype, input_name=name, **options)
    return found


def read_steps(y: Any, sequences: Sequence[Array], **options: Any) -> list[Array]:
    """The targets of every step: for each sequence (T_i,) or (T_i, O), checked.

    options : those of scikit-learn's check_array
    """
    if not hasattr(y, "__len__") or len(y) != len(sequences):
        raise ValueError(
            f"y must hold targets for each step of {len(sequences)} sequences, not "
            f"{arguments.describe(y)}: a list of (T_i,) or (T_i, O), (n, T) or (n, T, O)"
        )
    found = []
    for i, (one, x) in enumerate(zip(y, sequences, strict=True)):
        if not 1 <= _axes(one) <= 2 or len(one) != len(x):
            raise ValueError(
                f"y[{i}] must be ({len(x)},) or ({len(x)}, O), a target for each step of "
                f'X[{i}], as output="steps" says, not {arguments.describe(one)}'
            )
        found.append(check_array(one, ensure_2d=False, input_name=f"y[{i}]", **options))
        if found[i].shape[1:] != found[0].shape[1:]:
            raise ValueError(
                f"y[{i}] must have {found[0].shape[1:]} outputs a step like y[0], "
                f"not {found[i].shape[1:]}"
            )
    return found
