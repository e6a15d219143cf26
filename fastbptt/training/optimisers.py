"""Optimisers: Adam and gradient descent; and the clipping of gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

from .. import arguments
from ..arrays import module_of, on_its_gpu
from ..layers.model import Model
from . import rows
from .base import Optimiser, Rate, number, positive

AnyModel = TypeVar("AnyModel", bound=Model)


@dataclass(eq=False, repr=False)
class Adam(Optimiser):
    """Adam (Kingma and Ba 2015), or AdamW (Loshchilov and Hutter 2019), as in torch.optim.

    Parameters
    ----------
    lr : the learning rate, 0 or more; or a function of the number of steps done, 0 at first
    betas : how much of the running means of the gradient and of its square is kept in a step,
        0 <= beta < 1
    eps : added to the root of the second mean, 0 or more
    weight_decay : 0 or more: so much of the weights is added to the gradient
    decoupled : AdamW: in place of that, weights are multiplied by 1 - lr*weight_decay
    clip : None, or the norm to which a longer gradient is scaled before all else: see `clip_norm`

    `step(network, grad)` changes the network's arrays in place; `.steps` is how often it has. In
    float32 all is in float32. After its first step it allocates no arrays. Threads take turns.

    Raises
    ------
    ValueError, TypeError : an argument of the wrong value or type
    """

    lr: Rate = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    decoupled: bool = False
    clip: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.betas = float(self.betas[0]), float(self.betas[1])

    @property
    def _kept(self) -> int:
        return 2

    def _check(self) -> None:
        super()._check()
        number("eps", self.eps)
        arguments.flag("decoupled", self.decoupled)
        if not isinstance(self.betas, (tuple, list)) or len(self.betas) != 2:
            raise TypeError(
                f"betas must be a pair of numbers, not {arguments.describe(self.betas)}"
            )
        for index, beta in enumerate(self.betas):
            if not number(f"betas[{index}]", beta) < 1:
                raise ValueError(f"betas[{index}] must lie in 0 <= beta < 1, not {beta}")

    def _apply(self, table: Any, means: Any, rate: float, scale: float) -> None:
        beta1, beta2 = self.betas
        if not beta1:  # then the mean is the gradient alone, with nothing left of larger ones
            for first, _ in means:
                first.fill(0)
        t = self._steps + 1
        decay = float(self.weight_decay)
        keep = 1.0 - rate * decay if self.decoupled else 1.0
        rate = rate / (1.0 - beta1**t)
        root = 1.0 / math.sqrt(1.0 - beta2**t)
        decay = 0.0 if self.decoupled else decay
        table.adam(scale, rate, decay, keep, (beta1, beta2), root, float(self.eps))


@dataclass(eq=False, repr=False)
class SGD(Optimiser):
    """Gradient descent, with momentum (Polyak 1964) or Nesterov's, as in torch.optim.

    Parameters
    ----------
    lr : the learning rate, 0 or more; or a function of the number of steps done, 0 at first
    momentum : how much of the velocity is kept in a step, 0 or more
    nesterov : whether a step goes along the gradient after the velocity, which needs momentum
    weight_decay : 0 or more: so much of the weights is added to the gradient
    clip : None, or the norm to which a longer gradient is scaled before all else: see `clip_norm`

    `step(network, grad)` changes the network's arrays in place; `.steps` is how often it has. In
    float32 all is in float32. After its first step it allocates no arrays. Threads take turns.

    Raises
    ------
    ValueError, TypeError : an argument of the wrong value or type
    """

    lr: Rate = 1e-2
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    clip: float | None = None

    @property
    def _kept(self) -> int:
        return int(self.momentum > 0)

    def _check(self) -> None:
        super()._check()
        number("momentum", self.momentum)
        arguments.flag("nesterov", self.nesterov)
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov must be False without momentum, not True")

    def _apply(self, table: Any, means: Any, rate: float, scale: float) -> None:
        momentum = float(self.momentum)
        now, ahead = (1.0, momentum) if self.nesterov else (0.0, 1.0)
        table.sgd(scale, rate, float(self.weight_decay), momentum, now, ahead)


def clip_norm(grad: AnyModel, norm: float) -> AnyModel:
    """Return a gradient scaled to a norm, where it is longer (Pascanu et al. 2013).

    Parameters
    ----------
    grad : Network, layer or readout of gradients, as calls return them
    norm : the most that the norm of all its numbers together may be, more than 0

    Returns
    -------
    a new model of the same kind: grad times min(1, norm / (its norm + 1e-6)), as
    torch.nn.utils.clip_grad_norm_ has it; the norm is summed in float64

    Raises
    ------
    ValueError, TypeError : an argument of the wrong value or type
    """
    if not isinstance(grad, Model):
        raise TypeError(
            f"grad must be a Network, a layer or a readout, not {arguments.describe(grad)}"
        )
    norm = positive("norm", norm)
    with on_its_gpu(grad.arrays()[0]):
        out = [module_of(a).zeros(a.shape, a.dtype) for a in grad.arrays()]
        pairs = list(zip(out, grad.arrays(), strict=True))
        table = rows.rows_for(pairs)
        table.take(pairs, [()] * len(pairs))
        table.scale(rows.clipping(table.norm(), norm))
    return grad._rebuilt(iter(out))
