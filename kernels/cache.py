"""The cache of compiled kernels on disk, in the place of Numba's own.

Numba's keeps an index file for each function, which two processes may write over each other, and
raises whatever the system or a damaged file makes of it. Here each kernel and signature has a file
of its own, named by all that its code depends on: see `disk`.
"""

import hashlib
import pickle
import re
import sys

import llvmlite
import numba
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from . import disk
from .source import SOURCE_KEY, source_key

_VERSIONS = SOURCE_KEY, numba.__version__, llvmlite.__version__, sys.implementation.cache_tag


class KernelCache:
    """What Numba asks of the cache of one function, whose name says what it computes."""

    cache_path = None

    def __init__(self, function):
        self._name, self._label = function.__qualname__, function.__name__

    def _file(self, signature, codegen):
        parts = repr((_VERSIONS, self._name, signature, codegen.magic_tuple()))
        label = re.sub(r"\W", "", self._label)
        return f"fastbptt-{label}-{hashlib.sha256(parts.encode()).hexdigest()[:32]}.nbc"

    def load_overload(self, sig, target_context):
        """The compiled code for that signature, or None."""
        target_context.refresh()
        content = disk.read(self._file(sig, target_context.codegen()), disk.folders())
        if content is None:
            return None
        try:
            return CompileResult._rebuild(target_context, *pickle.loads(content))
        except Exception:  # whole, but of a build of Numba that only bears the same version
            return None

    def save_overload(self, sig, data):
        """Keep compiled code, if it can be used again and is that of the sources."""
        if data.lifted or data.library.has_dynamic_globals:
            return
        if source_key() != SOURCE_KEY:  # they were edited while they were read
            return
        disk.write(self._file(sig, data.codegen), dumps(data._reduce()), disk.folders())

    def enable(self):
        """Nothing: it always is."""

    disable = flush = enable
