"""RNN, GRU and LSTM: modules with the constructors, parameters and results of torch.nn's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ..memory.policies import Memory
from . import functional, spec


class Module(torch.nn.RNNBase):  # type: ignore[misc]
    """What RNN, GRU and LSTM share; torch.nn.RNNBase holds the parameters."""

    _memory = "full"  # also that of a module whose class has been changed
    _dropout = "0.0"  # the attribute `dropout` as text: see spec.encode

    def __init__(self, mode: str, *args: Any, memory: Memory = "full", **kwargs: Any) -> None:
        super().__init__(mode, *args, **kwargs)
        self.memory = memory
        if self.proj_size:
            raise ValueError(
                f"proj_size must be 0, not {self.proj_size}: use torch.nn.LSTM, or a "
                "torch.nn.Linear after the module"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be below 1, not {self.dropout}")

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "dropout":
            super().__setattr__("_dropout", str(float(value)))

    @property
    def memory(self) -> str:
        """What the gradient may take, as text; what fastbptt.forward takes may be assigned."""
        return self._memory

    @memory.setter
    def memory(self, memory: Memory) -> None:
        self._memory = spec.memory_text(memory)

    def flatten_parameters(self) -> None:
        """Do nothing: no parameter needs to be next to another."""

    def extra_repr(self) -> str:
        """The constructor's arguments that are not the defaults."""
        return super().extra_repr() + (f", memory={self._memory}" * (self._memory != "full"))

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Any = None,
        *,
        lengths: Any = None,
        resets: Any = None,
        memory: Memory | None = None,
    ) -> tuple[Any, Any]:
        """Return the output and the final state, in the form of torch.nn's module.

        Parameters
        ----------
        input : (T, B, I), (B, T, I) if batch_first, (T, I), or a PackedSequence
        hx : the state before the first step, or None for zeros
        lengths : (B,) integers: sequence b has only the steps t < lengths[b]
        resets : booleans in the shape of the input without features, or (T,): where sequences
            begin anew, from zero
        memory : in place of the module's own, for this call
        """
        text = self._memory if memory is None else spec.memory_text(memory)
        if isinstance(input, PackedSequence):
            return self._packed(input, hx, lengths, resets, text)
        if not isinstance(input, Tensor):
            raise TypeError(f"input must be a tensor or PackedSequence, not {type(input).__name__}")
        single = input.dim() == 2
        if single:
            input = input.unsqueeze(1)
            hx = _each(lambda part: part.unsqueeze(1), hx)
            if lengths is not None:
                lengths = torch.as_tensor(lengths).reshape(1)
        elif self.batch_first:
            input = input.transpose(0, 1)
            if resets is not None:
                resets = torch.as_tensor(resets)
                resets = resets.T if resets.dim() == 2 else resets
        h, state = self._run(input, hx, lengths, resets, text)
        if single:
            return h.squeeze(1), _each(lambda part: part.squeeze(1), state)
        return h.transpose(0, 1) if self.batch_first else h, state

    def _run(
        self, x: Tensor, hx: Any, lengths: Any, resets: Any, memory: str
    ) -> tuple[Tensor, Any]:
        dropout = self._dropout if self.training and self.num_layers > 1 else "0.0"
        directions = 1 + self.bidirectional
        weights = [getattr(self, name) for name in self._flat_weights_names]
        device = weights[0].device
        text = spec.encode(self.mode, self.num_layers, directions, dropout, memory, device)
        seed = functional.drawn() if dropout != "0.0" else None
        return functional.call(
            text, self.num_layers * directions, x, hx, weights, lengths, resets, seed
        )

    def _packed(
        self, input: PackedSequence, hx: Any, lengths: Any, resets: Any, memory: str
    ) -> tuple[PackedSequence, Any]:
        """The sequences are taken in the order in which they are packed, longest first."""
        if lengths is not None or resets is not None:
            raise ValueError("lengths and resets must be None for a PackedSequence: it has its own")
        data, sizes, order, back = input
        if data.dim() != 2:
            raise ValueError(f"input must be packed of (T, B, I), not {tuple(data.shape)} of data")
        live = torch.arange(int(sizes[0])) < sizes[:, None]  # (T, B), as they are packed
        rows = live.flatten().nonzero().squeeze(1).to(data.device)
        # PyTorch's own functions for this take a step at a time, and longer than a fast layer.
        x = data.new_zeros(live.numel(), data.shape[1]).index_copy_(0, rows, data)
        if order is not None:
            hx = _each(lambda part: part.index_select(1, order), hx)
        h, state = self._run(x.unflatten(0, live.shape), hx, live.sum(0), None, memory)
        if back is not None:
            state = _each(lambda part: part.index_select(1, back), state)
        h = h.flatten(0, 1).index_select(0, rows)
        return PackedSequence(h, sizes, order, back), state


def _each(change: Any, state: Any) -> Any:
    """`change` of each tensor of a state that is a tensor, a pair, or None."""
    if isinstance(state, (tuple, list)):
        return tuple(change(part) if isinstance(part, Tensor) else part for part in state)
    return change(state) if isinstance(state, Tensor) else state


class RNN(Module):
    """torch.nn.RNN, computed by fastbptt.

    Parameters
    ----------
    *args, **kwargs : those of torch.nn.RNN
    memory : what the gradient may take, as in fastbptt.forward

    A call also takes `lengths`, `resets` and `memory`: see `forward`.

    Raises
    ------
    ValueError, TypeError : as torch.nn.RNN does, and for a wrong `memory`
    """

    def __init__(self, *args: Any, memory: Memory = "full", **kwargs: Any) -> None:
        args, nonlinearity = _nonlinearity(args, kwargs)
        super().__init__(f"RNN_{nonlinearity.upper()}", *args, memory=memory, **kwargs)
        self.nonlinearity = nonlinearity


def _nonlinearity(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], str]:
    if len(args) > 3:  # torch.nn.RNN has it where the others have `bias`
        args, name = (*args[:3], *args[4:]), args[3]
    else:
        name = kwargs.pop("nonlinearity", "tanh")
    if name not in ("tanh", "relu"):
        raise ValueError(f"nonlinearity must be 'tanh' or 'relu', not {name!r}")
    return args, name


class GRU(Module):
    """torch.nn.GRU, computed by fastbptt.

    Parameters
    ----------
    *args, **kwargs : those of torch.nn.GRU
    memory : what the gradient may take, as in fastbptt.forward

    A call also takes `lengths`, `resets` and `memory`: see `forward`.

    Raises
    ------
    ValueError, TypeError : as torch.nn.GRU does, and for a wrong `memory`
    """

    def __init__(self, *args: Any, memory: Memory = "full", **kwargs: Any) -> None:
        super().__init__("GRU", *args, memory=memory, **kwargs)


class LSTM(Module):
    """torch.nn.LSTM, computed by fastbptt.

    Parameters
    ----------
    *args, **kwargs : those of torch.nn.LSTM, without proj_size
    memory : what the gradient may take, as in fastbptt.forward

    A call also takes `lengths`, `resets` and `memory`: see `forward`.

    Raises
    ------
    ValueError, TypeError : as torch.nn.LSTM does, for a proj_size, and for a wrong `memory`
    """

    def __init__(self, *args: Any, memory: Memory = "full", **kwargs: Any) -> None:
        super().__init__("LSTM", *args, memory=memory, **kwargs)
