"""On a GPU too a cache is read and never written."""

from test_cache import (  # noqa: F401 - these run here
    test_of_threads_that_would_consume_a_cache_exactly_one_does,
    test_one_that_was_interrupted_leaves_the_cache_as_it_was,
    test_threads_at_once_on_one_cache_get_the_bits_they_get_alone,
    test_weights_changed_after_forward_do_not_count,
    test_what_is_at_work_on_a_cache_outlives_its_consumption,
)
