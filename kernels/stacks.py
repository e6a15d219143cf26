"""Threads whose stack has a known size, whatever `threading.stack_size` says at the time."""

import os
import threading

_AMPLE = 16 << 20  # bytes: LLVM recurses deeply
_lock = threading.RLock()  # a signal's handler may come in between


def start(thread, stack):
    """Start a thread with a stack of so many bytes; return whether the system allowed one more."""
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
    """Let a function that recurses deeply run where the stack is large.

    The main thread has such a stack. Another's size cannot be asked for, and may be 64 KiB.
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

        # No daemon: one that the interpreter stops in the middle of LLVM keeps LLVM's lock, for
        # which the interpreter's last finalizers would wait for ever.
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
