"""Uses of the package as a type checker sees them: checked by `make lint`, never run.

A line that must be rejected says so; mypy complains if it is not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from typing_extensions import assert_type

import fastbptt as fb
from fastbptt.typing import Array, State

x = np.zeros((5, 2, 3), np.float32)
y = np.zeros((5, 2, 1), np.float32)
lstm = fb.LSTM.init(3, 4, rng=0)
network = fb.Network(lstm, fb.Readout.init(4, 1))


def a_gradient_has_the_type_of_what_it_is_the_gradient_of() -> None:
    r = fb.bptt(network, x, y, memory="1MB", progress=print)
    assert_type(r.grad, fb.Network[fb.LSTM])
    assert_type(r.grad.layer.p, Array | None)
    assert_type(r.grad_x, Array | None)
    assert_type(r.plan.peak_bytes, int)
    h, final, cache = fb.forward(lstm, x, memory=fb.Checkpointed("1MB"))
    assert_type(cache.plan.peak_bytes, int)
    assert_type(final, State)
    assert_type(h, Array)
    assert_type(fb.backward(cache, h).layer, fb.LSTM)
    stack = fb.Stack([lstm, fb.GRU.init(4, 2), fb.Bidirectional(*[fb.RNN.init(2, 2)] * 2)])
    assert_type(fb.bptt(fb.Network(stack, None), x, None, quadratic).grad.layer, fb.Stack)


def quadratic(h: Array, y: Any, start: int) -> tuple[float, Array]:
    return float(np.sum(h * h)), 2 * h


def losses_of_ones_own_are_of_the_states_or_of_the_outputs() -> None:
    assert_type(fb.evaluate(network, x, y, fb.OutputLoss(quadratic)), float)
    fb.gradient_reach(network, x, y, fb.OutputLoss(quadratic))
    fb.OutputLoss("squared_error")  # type: ignore[arg-type]


def lists_become_arrays_and_back() -> None:
    padded, lengths = fb.pad([x[:, 0], x[:3, 0]])
    assert_type(fb.unpad(padded, lengths), list[Array])
    packed, resets, lengths, where = fb.pack([x[:, 0]], batch=2)
    assert_type(fb.unpack(packed, where), list[Array])
    assert_type(resets, Array)


def weights_are_drawn_in_many_ways() -> None:
    fb.RNN.init(3, 4, recurrent="identity")
    fb.LSTM.init(3, 4, recurrent="orthogonal", forget_bias=1.0)
    assert_type(fb.GRU.init(3, 4, chrono=(2, 100)), fb.GRU)
    fb.RNN.init(3, 4, recurrent="chrono")  # type: ignore[arg-type]


def models_copy_and_load() -> None:
    assert_type(network.flat(), Array)
    assert_type(network.with_flat(network.flat()), fb.Network[fb.LSTM])
    assert_type(lstm.replace_arrays(lstm.arrays()), fb.LSTM)
    assert_type(network.to("cpu"), fb.Network[fb.LSTM])
    network.save("network.npz")
    again: fb.Network[fb.LSTM] = fb.load("network.npz")
    assert_type(fb.evaluate(again, x, y), float)


def states_go_back_in() -> None:
    state: State | None = None
    for _ in range(3):
        o, state = fb.predict(network, x, state)
        assert_type(o, Array)
    fb.run(lstm, x, state, keep="last")


def memory_is_a_word_a_number_or_a_policy() -> None:
    for memory in ("full", 10**6, fb.Checkpointed("64MB"), fb.Checkpointed(segment=10)):
        fb.plan(network, 100, memory=memory)
    fb.plan(network, 100, memory=fb.Truncated(5, 10))
    fb.plan(network, 100, memory=1.5)  # type: ignore[arg-type]


def training_returns_a_network_of_the_same_kind() -> None:
    fit = fb.fit(network, x, y, optimizer=fb.Adam(lambda step: 0.1 / (1 + step)), epochs=2)
    assert_type(fit.network, fb.Network[fb.LSTM])
    assert_type(fit.history[0].loss, float)
    assert_type(fb.clip_norm(network, 1.0), fb.Network[fb.LSTM])
    fb.SGD(0.1, momentum=0.9).step(lstm, lstm)
    fb.fit(network, x, y, optimizer="adam", epochs=2)  # type: ignore[arg-type]


def wrong_words_are_seen() -> None:
    fb.bptt(network, x, y, "squared")  # type: ignore[arg-type]
    fb.bptt(network, x, y, reduction="max")  # type: ignore[arg-type]
    fb.bptt(lstm, x, y)  # type: ignore[arg-type]
    fb.run(network, x)  # type: ignore[arg-type]
    fb.RNN.init(3, 4, activation="softmax")  # type: ignore[arg-type]
