"""The words that signatures use, for annotations in a caller's own code.

Each is defined by the module whose word it is; here they stand together.
"""

from .arguments import File, Path, Seed
from .arrays import Array, ArrayLike, DType, DTypeLike, Shape
from .calls.progress import Progress
from .engine.lanes import ProgressCallback
from .engine.losses import Loss, LossFunction, LossName, Reduction
from .layers.composite import AnyLayer, Layer, State, StateLike
from .layers.network import ReadoutActivation
from .layers.recurrent import Activation
from .memory.plan import Policy
from .memory.policies import Memory
from .memory.schedules import Action

__all__ = [
    "Action",
    "Activation",
    "AnyLayer",
    "Array",
    "ArrayLike",
    "DType",
    "DTypeLike",
    "File",
    "Layer",
    "Loss",
    "LossFunction",
    "LossName",
    "Memory",
    "Path",
    "Policy",
    "Progress",
    "ProgressCallback",
    "ReadoutActivation",
    "Reduction",
    "Seed",
    "Shape",
    "State",
    "StateLike",
]
