"""The simulator in which these tests run kernels ends whatever happens during a launch."""

import threading

import numpy as np
import pytest
from fastbptt.kernels.cuda import runtime
from fastbptt.kernels.cuda.runtime import cuda

if not runtime.SIMULATED:
    pytest.skip("the kernels run on a GPU", allow_module_level=True)

from fastbptt.kernels.cuda import simulator


def count(out):
    """A kernel whose threads wait for each other once."""
    cuda.syncthreads()
    out[cuda.threadIdx.x] += 1


def test_every_thread_of_a_launch_runs():
    out = np.zeros(5)
    runtime.launch(count, (1, 1), 5, (out,))
    assert np.all(out == 1)


@pytest.mark.parametrize("when", ["before", "after"])
def test_ctrl_c_around_the_end_of_a_launch_does_not_hang(monkeypatch, when):
    class Interrupting:
        """A lock whose first real wait is interrupted, before or after it got the lock."""

        def __init__(self):
            self.lock, self.waits = threading.Lock(), 0
            self.release = self.lock.release

        def acquire(self):
            self.waits += 1
            if self.waits == 2 and when == "before":
                raise KeyboardInterrupt
            self.lock.acquire()
            if self.waits == 2:
                raise KeyboardInterrupt

    made = simulator._Launch.__init__

    def interrupted(launch):
        made(launch)
        launch.done = Interrupting()
        launch.done.acquire()

    monkeypatch.setattr(simulator._Launch, "__init__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runtime.launch(count, (1, 1), 5, (np.zeros(5),))
    monkeypatch.undo()
    test_every_thread_of_a_launch_runs()


@pytest.mark.parametrize("some", [0, 1, 3])
def test_a_launch_that_gets_too_few_threads_says_so_and_leaves_none(monkeypatch, some):
    start, started = threading.Thread.start, []

    def grudging(thread):
        if len(started) == some:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", grudging)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        runtime.launch(count, (1, 1), 5, (np.zeros(5),))
    for thread in started:
        thread.join()
    monkeypatch.undo()
    test_every_thread_of_a_launch_runs()
