"""The cache of compiled kernels on disk, in place of Numba's own.

Numba's has an index file for each function. Two processes may overwrite each other's, and errors of
the system or of a damaged file are raised. Here each kernel and signature has a file of its own,
named by all that its code depends on: see `disk`.
"""

import hashlib
import pickle
import re
import sys

import llvmlite
import numba
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from . import disk, turns
from .source import SOURCE_KEY, source_key

_VERSIONS = SOURCE_KEY, numba.__version__, llvmlite.__version__, sys.implementation.cache_tag


class KernelCache:
    """The interface of a Numba cache, for one function, whose name says what it computes."""

    cache_path = None

    def __init__(self, function):
        self._name, self._label = function.__qualname__, function.__name__
        self._turn = None

    def _file(self, signature, codegen):
        parts = repr((_VERSIONS, self._name, signature, codegen.magic_tuple()))
        label = re.sub(r"\W", "", self._label)
        return f"fastbptt-{label}-{hashlib.sha256(parts.encode()).hexdigest()[:32]}.nbc"

    def load_overload(self, sig, target_context):
        """The compiled code for that signature, or None: then `save_overload` or `give_up` follows.

        Where another process compiles it, this one waits for it.
        """
        target_context.refresh()
        name, places = self._file(sig, target_context.codegen()), disk.folders()
        found = self._read(name, places, target_context)
        if found is None and turns.begin(name, places):
            found = self._read(name, places, target_context)
        if found is None:
            self._turn = name, places
        else:
            turns.end(name, places)
        return found

    def _read(self, name, places, target_context):
        content = disk.read(name, places)
        if content is None:
            return None
        try:
            return CompileResult._rebuild(target_context, *pickle.loads(content))
        except Exception:  # a whole file, but of another build of Numba of the same version
            return None

    def save_overload(self, sig, data):
        """Keep compiled code, if it can be used again and is that of the sources."""
        lasting = not (data.lifted or data.library.has_dynamic_globals)
        if lasting and source_key() == SOURCE_KEY:  # else edited after they were read
            disk.write(self._file(sig, data.codegen), dumps(data._reduce()), disk.folders())
        self.give_up()

    def give_up(self):
        """Let other processes compile what this one was to compile."""
        if self._turn is not None:
            turns.end(*self._turn)
            self._turn = None

    def enable(self):
        """Nothing: the cache is always enabled."""

    disable = flush = enable
