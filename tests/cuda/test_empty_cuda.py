"""On a GPU too every call has an answer where there is nothing to do."""

from test_empty import (  # noqa: F401 - these run here
    sizes,
    test_bptt_in_every_mode,
    test_forward_and_backward,
    test_run_predict_and_evaluate,
)
