"""SequenceRegressor and SequenceClassifier: recurrent networks as scikit-learn's estimators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import check_array, check_consistent_length, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d

from .. import arguments
from ..arrays import Array
from ..engine.losses import Loss
from ..layers.custom import Cell
from ..layers.network import ReadoutActivation
from ..memory.policies import Memory
from . import sequences, training

if TYPE_CHECKING:
    from typing_extensions import Self

_OUTPUTS = ("last", "mean", "steps")


@dataclass(eq=False, repr=False, kw_only=True)
class _Estimator(BaseEstimator):  # type: ignore[misc]
    """What both have in common; the fields are scikit-learn's parameters."""

    hidden_size: int = 32
    cell: Literal["rnn", "gru", "lstm"] | Cell = "lstm"
    layers: int = 1
    bidirectional: bool = False
    dropout: float = 0.0
    output: Literal["last", "mean", "steps"] = "last"
    epochs: int = 100
    batch: int = 32
    lr: float | Callable[[int], float] = 1e-2
    clip: float | None = 1.0
    patience: int | None = None
    validation_fraction: float = 0.1
    memory: Memory = "auto"
    dtype: str = "float32"
    random_state: Any = None
    device: str | None = None
    verbose: bool = False

    _loss: ClassVar[tuple[Loss, ReadoutActivation]] = ("squared_error", "identity")

    def fit(self, X: Any, y: Any) -> Self:
        """Train a new network.

        Parameters
        ----------
        X : list of (T_i, I) arrays; (n, T, I); or (n, T), n sequences of one feature
        y : the targets. With output "last" or "mean" one for each sequence: (n,), or for a
            regressor (n, O). With "steps" one for each step: a list of (T_i,), or for a regressor
            also (T_i, O); or as one array, (n, T) or (n, T, O)

        Returns
        -------
        the estimator

        Raises
        ------
        ValueError, TypeError : a parameter, X or y of the wrong value, shape or type
        """
        name = type(self).__name__
        if y is None:
            raise ValueError(f"{name} requires y to be passed, but the target y is None")
        arguments.choice("output", self.output, _OUTPUTS)
        dtype = arguments.dtype(self.dtype)
        x = sequences.read_x(self, X, dtype, reset=True)
        self._is_table = sequences.is_table(X)
        if self.output != "steps":
            check_consistent_length(x, y)
        targets, outputs = self._read_y(y, x)
        random = check_random_state(self.random_state)
        seeds = random.randint(2**31 - 1, size=2).tolist()
        loss, activation = self._loss
        network = training.build(self, x[0].shape[1], outputs, activation, seeds[0])
        found = training.trained(network, x, targets, loss, self, seeds[1])
        self.network_ = found.network
        self.loss_curve_ = [epoch.loss for epoch in found.history]
        self.validation_curve_ = [
            epoch.validation for epoch in found.history if self.patience is not None
        ]
        self.n_iter_ = len(found.history)
        return self

    def _read_y(self, y: Any, x: Sequence[Array]) -> tuple[Any, int]:
        """The targets of each sequence or step, checked, and how many outputs they need."""
        raise NotImplementedError

    def _outputs(self, X: Any) -> list[Array]:
        """What the network says of each sequence."""
        check_is_fitted(self, "network_")
        x = sequences.read_x(self, X, self.network_.dtype, reset=False)
        return training.outputs_of(self.network_, x, self)

    def _joined(self, found: list[Array], X: Any) -> Any:
        """The results of sequences, as one array unless sequences have results of each step.

        Of those there is a list where X is one.
        """
        if self.output == "steps" and isinstance(X, (list, tuple)):
            return found
        return np.stack(found)

    def _flat(self, found: Any) -> Any:
        """Targets or predictions in a form that scikit-learn scores."""
        return np.concatenate(list(found)) if self.output == "steps" else found

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


class SequenceRegressor(RegressorMixin, _Estimator):  # type: ignore[misc]
    """A recurrent network that predicts numbers, of each sequence or of each step.

    Parameters
    ----------
    hidden_size : H, the units of each layer (in each direction)
    cell : "rnn", "gru" or "lstm", or a fastbptt.Cell of your own
    layers : on top of each other
    bidirectional : whether each layer runs in both directions of time
    dropout : between layers, in training: fastbptt.Stack
    output : what the targets belong to: to the "last" step of a sequence; to each sequence as the
        "mean" of its steps' outputs, each of which is trained to be the target; or to its "steps"
    epochs : the most passes over the data
    batch : sequences in a minibatch
    lr : the learning rate of Adam, or a function of the number of steps
    clip : the largest norm of a gradient; None clips none
    patience : epochs without a lower loss of validation until training stops; None trains for all
        epochs, on all sequences
    validation_fraction : the share of the sequences that is held out for that, if patience is given
    memory : of the gradient, as in fastbptt.bptt: "auto", "64MB", fastbptt.Truncated(k1, k2) ...
    dtype : "float32" or "float64"
    random_state : a seed or RandomState: of the weights, the minibatches and the dropout
    device : as in fastbptt.bptt
    verbose : whether to show a bar

    Attributes
    ----------
    network_ : the fastbptt.Network, with the weights of the best epoch: of the least loss of
        validation, or without patience of training
    loss_curve_ : the mean training loss of each epoch
    validation_curve_ : the loss of validation after each epoch; empty without patience
    n_iter_ : the number of epochs
    n_features_in_ : I; or T where X was (n, T)
    """

    def _read_y(self, y: Any, x: Sequence[Array]) -> tuple[Any, int]:
        dtype = arguments.dtype(self.dtype)
        if self.output == "steps":
            steps = sequences.read_steps(y, x, dtype=dtype)
            self._shape = steps[0].shape[1:]
            targets: Any = [one.reshape(len(one), -1) for one in steps]
        else:
            values = check_array(y, dtype=dtype, ensure_2d=False, input_name="y")
            self._shape = values.shape[1:]
            targets = values.reshape(len(values), -1)
        return targets, targets[0].shape[-1]

    def predict(self, X: Any) -> Any:
        """Predict the targets.

        Parameters
        ----------
        X : as in `fit`

        Returns
        -------
        (n,) or (n, O) array, as y was; with output "steps" (n, T) or (n, T, O), or a list of (T_i,)
        or (T_i, O) where X is a list

        Raises
        ------
        ValueError, TypeError : X of another form or number of features
        NotFittedError : before `fit`
        """
        found = [one.reshape((*one.shape[:-1], *self._shape)) for one in self._outputs(X)]
        return self._joined([one.astype(np.float64) for one in found], X)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return R^2 of the predictions; with output "steps", of all steps alike."""
        own = self._flat(y), self._flat(self.predict(X))
        return float(r2_score(*own, sample_weight=sample_weight))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class SequenceClassifier(ClassifierMixin, _Estimator):  # type: ignore[misc]
    """A recurrent network that predicts classes, of each sequence or of each step.

    Parameters
    ----------
    hidden_size, cell, layers, bidirectional, dropout, output, epochs, batch, lr, clip, patience,
        validation_fraction, memory, dtype, random_state, device, verbose : as in SequenceRegressor

    Attributes
    ----------
    classes_ : the labels, in the order of the columns of `predict_proba`
    network_, loss_curve_, validation_curve_, n_iter_, n_features_in_ : as in SequenceRegressor
    """

    _loss: ClassVar[tuple[Loss, ReadoutActivation]] = ("cross_entropy", "softmax")

    def _read_y(self, y: Any, x: Sequence[Array]) -> tuple[Any, int]:
        if self.output == "steps":
            steps = sequences.read_steps(y, x, dtype=None)
            for i, one in enumerate(steps):
                if one.ndim != 1:
                    raise ValueError(f"y[{i}] must be ({len(one)},) labels, not {one.shape}")
            labels = np.concatenate(steps)
        else:
            given = check_array(y, dtype=None, ensure_2d=False, input_name="y")
            labels = column_or_1d(given, warn=True)
        check_classification_targets(labels)
        self.classes_, ids = np.unique(labels, return_inverse=True)
        targets: Any = ids
        if self.output == "steps":
            targets = np.split(ids, np.cumsum([len(one) for one in steps])[:-1])
        return targets, len(self.classes_)

    def predict_proba(self, X: Any) -> Any:
        """Predict the probability of each class.

        Parameters
        ----------
        X : as in `fit`

        Returns
        -------
        (n, classes) array; with output "steps" (n, T, classes), or a list of (T_i, classes) where X
        is a list

        Raises
        ------
        ValueError, TypeError : X of another form or number of features
        NotFittedError : before `fit`
        """
        return self._joined(self._outputs(X), X)

    def predict(self, X: Any) -> Any:
        """Predict the most likely class.

        Parameters
        ----------
        X : as in `fit`

        Returns
        -------
        (n,) array; with output "steps" (n, T), or a list of (T_i,) where X is a list

        Raises
        ------
        ValueError, TypeError : X of another form or number of features
        NotFittedError : before `fit`
        """
        return self._joined([self.classes_[one.argmax(-1)] for one in self._outputs(X)], X)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the share of right classes; with output "steps", of all steps alike."""
        own = self._flat(y), self._flat(self.predict(X))
        return float(accuracy_score(*own, sample_weight=sample_weight))
