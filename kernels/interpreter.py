"""Which interpreter of a process kernels work in: raises when it is imported in another one."""


def _refuse_subinterpreters():
    """Raise in any interpreter of the process but the first, where Numba crashes or hangs."""
    try:
        try:
            import _interpreters as interpreters
        except ImportError:  # Python 3.12 and before
            import _xxsubinterpreters as interpreters
    except ImportError:
        return
    if interpreters.get_current() != interpreters.get_main():
        raise RuntimeError(
            "fastbptt works in the main interpreter of a process only, not in a subinterpreter: "
            "Numba, which compiles its kernels, does not support them"
        )


_refuse_subinterpreters()
