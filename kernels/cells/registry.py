"""All recurrent cells: each file of this folder enters its own in CELLS when it is read."""

import sys
from importlib import import_module
from pkgutil import iter_modules

from .spec import CELLS, Cell, forward, gate, reverse, title, ungate

__all__ = ["CELLS", "Cell", "forward", "gate", "reverse", "title", "ungate"]

for _module in iter_modules(sys.modules[__package__].__path__):
    import_module(f"{__package__}.{_module.name}")
