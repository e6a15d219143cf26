"""bptt and evaluate: the loss of a network on a sequence, with and without the gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic

from . import arguments, inputs, losses, planning
from .held import gradients
from .inputs import Call
from .kernels import optional
from .layers import Network
from .memory import Plan
from .passage import Passage
from .room import room_for
from .spans import panel_steps
from .typing import AnyLayer, Array, Loss, Memory, Progress, ProgressCallback, Reduction, State


@dataclass(frozen=True, eq=False)
class Result(Generic[AnyLayer]):
    """What `bptt` returns.

    loss : float, added in float64
    grad : the gradient of the network, a Network
    state : the final state
    grad_state : dL/d(initial state)
    grad_x : dL/dx, or None
    plan : the Plan that was carried out
    """

    loss: float
    grad: Network[AnyLayer]
    state: State
    grad_state: State
    grad_x: Array | None
    plan: Plan


def evaluate(
    network: Network,
    x: Array,
    y: Any,
    loss: Loss = "squared_error",
    *,
    weights: Array | None = None,
    lengths: Array | int | None = None,
    state: State | None = None,
    reduction: Reduction = "sum",
    device: str | None = None,
) -> float:
    """Return the loss that `bptt` would return, as a float, without the gradient.

    Parameters are those of `bptt`. No state is kept over time.
    """
    call = Call(inputs.network(network).layer, x, state, lengths, device)
    with call.device, room_for(call.device):
        passage = Passage(call, call.spans(network.readout).short())
        top = passage.strands[-1][1]
        loss_sum = losses.loss_sum(
            network, call, y, loss, weights, reduction, passage.spans, top, several=False
        )
        for a, _, h in passage.outputs():
            loss_sum.add(h, a)
        passage.release()
        return loss_sum.value()


def bptt(
    network: Network[AnyLayer],
    x: Array,
    y: Any,
    loss: Loss = "squared_error",
    *,
    weights: Array | None = None,
    lengths: Array | int | None = None,
    state: State | None = None,
    memory: Memory = "full",
    reduction: Reduction = "sum",
    input_grad: bool = False,
    seed: int | None = None,
    t0: int = 0,
    device: str | None = None,
    progress: Progress = None,
) -> Result[AnyLayer]:
    """Return the loss of a network on a sequence and the gradient of it, by BPTT.

    Parameters
    ----------
    network : Network
    x : (T, B, I) array of the network's dtype, or integer tokens (T, B); B may be left out
    y : targets: (T, B, O) of the network's dtype, or for cross entropy (T, B) integer classes
    loss : "squared_error" (sum of ||o - y||^2), "cross_entropy" (softmax readout),
        "binary_cross_entropy" (sigmoid readout), or a callable `loss(h, y, start) -> (value, dh)`
        in place of the readout, called once for each position, a stretch at a time
    weights : (T,) or (T, B), scale each position's loss; positions of weight 0 are left out
    lengths : (B,) integers; sequence b counts only for t < lengths[b]
    state : the initial state, zero by default
    memory : "full", bytes such as "64MB" or an int, Full(), Checkpointed(...), Truncated(k1, k2)
    reduction : "sum", or "mean" over the positions that count
    input_grad : whether to compute dL/dx
    seed, t0 : for dropout: its seed and the time of x[0]
    device : None, "cpu", "cuda" or "cuda:1": see `forward`
    progress : True for a bar, or a callable `(done_steps, total_steps)`

    Returns
    -------
    Result with .loss .grad .state .grad_state .grad_x .plan

    Raises
    ------
    ValueError, TypeError : a wrong argument, before any work; a token or class that does not exist
    MemoryLimitError : a budget too small for any exact schedule
    """
    layer = inputs.network(network).layer
    call = Call(layer, x, state, lengths, device, seed=seed, t0=t0, drops=True)
    input_grad = arguments.flag("input_grad", input_grad)
    if input_grad and call.tokens:
        raise ValueError("input_grad must be False when x holds tokens, which have no gradient")
    plan, spans = planning.choose(network, call.T, call.B, memory, call.device)
    windows = input_grad and not plan.exact
    listed = call.tokens or loss == "cross_entropy" or weights is not None
    copied = windows or callable(loss) or not (call.direct and losses.direct(y))
    spans = call.cut(spans, listed, not copied)
    several = plan.backward_steps > panel_steps(call.B)
    least = partial(planning.least_bytes, network, call.T, call.B, call.device)
    with call.device, room_for(call.device, plan.peak_bytes, least):
        passage = Passage(call, spans, several)
        top = passage.strands[-1][1]
        loss_sum = losses.loss_sum(network, call, y, loss, weights, reduction, spans, top, several)
        grad_x = None
        if input_grad:
            grad_x = call.array(layer.inputs, zeros=call.held or not plan.exact)
        report, finish = _progress(progress)
        try:
            final, grad_state = gradients(passage, loss_sum, plan, grad_x, report)
        finally:
            finish()
        result = Result(
            loss=loss_sum.value(),
            grad=Network(call.grad_of(layer, passage.gradients()), call.moved(loss_sum.gradient())),
            state=call.pack(final),
            grad_state=call.pack(grad_state),
            grad_x=None if grad_x is None else call.out(grad_x),
            plan=plan,
        )
        passage.release()
        return result


def _progress(progress: Progress) -> tuple[ProgressCallback | None, Callable[[], object]]:
    """Return the callable to report to, or None, and what to call at the end."""
    if progress is None or progress is False:
        return None, lambda: None
    if progress is True:
        tqdm = optional.load("tqdm", "progress=True needs", "pip install 'fastbptt[cli]'")
        bar = tqdm.tqdm(unit="step", unit_scale=True)

        def report(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return report, bar.close
    if not callable(progress):
        raise TypeError(
            f"progress must be True or a callable (done, total), not {arguments.describe(progress)}"
        )
    return progress, lambda: None
