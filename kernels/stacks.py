"""Threads whose stack has a known size, whatever `threading.stack_size` says at the time."""

import os
import threading

_AMPLE = 16 << 20  # bytes: LLVM recurses deeply
_lock = threading.RLock()  # a signal handler may start a thread meanwhile


def start(thread, stack):
    """Start a thread with a stack of `stack` bytes; return whether the system allowed it."""
    with _lock:
        before = threading.stack_size(stack)
        try:
            thread.start()
        except (RuntimeError, MemoryError):  # too many, no memory, or the interpreter ends
            return False
        finally:
            threading.stack_size(before)
    return True


def on_ample_stack(function):
    """Run a function that recurses deeply on a large stack.

    The main thread has one. The size of another thread's stack cannot be read, and may be 64 KiB.
    """

    def run(*args, **kwargs):
        if threading.current_thread() is threading.main_thread():
            return function(*args, **kwargs)
        outcome = []

        def work():
            try:
                outcome.append((function(*args, **kwargs), None))
            except BaseException as error:
                outcome.append((None, error))

        # Not a daemon: if the interpreter stops one in the middle of LLVM, the thread keeps LLVM's
        # lock, and the interpreter's last finalizers wait for it for ever.
        thread = threading.Thread(target=work, name="fastbptt compiler", daemon=False)
        if not start(thread, _AMPLE):
            return function(*args, **kwargs)
        thread.join()
        result, error = outcome.pop()
        if error is not None:
            raise error
        return result

    return run


def _forget():
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
