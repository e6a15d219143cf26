"""What bench.jax_calls measures: the same layer by lax.scan, and a call that Numba compiles."""

import numpy as np
from jax_process import in_jax

import fastbptt as fb


@in_jax
def test_the_layer_of_the_benchmark_is_ours_and_its_calls_come_back():
    from bench import jax_calls

    layer, x = fb.LSTM.init(3, 4, rng=0), np.ones((5, 2, 3), "float32")
    np.testing.assert_allclose(jax_calls.layer_of(layer, x), fb.run(layer, x)[0], atol=1e-6)
    assert jax_calls.time_point(3, 1, 2, 4, 1)["ratio"] > 0
    found = jax_calls.empty_calls(1)  # which checks what comes back
    assert set(found) == {"jit alone", "typed FFI", "pure_callback"}
