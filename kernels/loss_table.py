"""The losses and the readouts' activations by name.

A new loss has an entry here, a function in `cpu.losses` and a function in `cuda.rowwise`. Reading
this module loads no Numba.
"""

from typing import Literal, NamedTuple, TypeAlias

LossName: TypeAlias = Literal["squared_error", "cross_entropy", "binary_cross_entropy"]


class Loss(NamedTuple):
    """What the package has to know of a loss.

    number : stands for it in compiled code
    readout : the activation that the readout must have, or None if any will do
    classes : whether y holds integer classes (T, B), not floats (T, B, O)
    """

    number: int
    readout: str | None = None
    classes: bool = False


LOSSES: dict[LossName, Loss] = {
    "squared_error": Loss(0),
    "cross_entropy": Loss(1, readout="softmax", classes=True),
    "binary_cross_entropy": Loss(2, readout="sigmoid"),
}

GIVEN = "given derivative"
"""In place of a loss's name: y holds dE/do, and E is known already. No caller may ask for it."""

NUMBERS = {name: loss.number for name, loss in LOSSES.items()} | {GIVEN: 3}
"""The number of a loss in compiled code."""

READOUTS = {"identity": 0, "sigmoid": 1, "tanh": 2, "softmax": 3}
"""The number of a readout's activation in compiled code."""
