"""The table of the folders in inside.md, made from the imports: `python docs/folders.py`.

A folder imports only those below it. `tests/test_house.py` checks that, and that the table is
current.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "inside.md"
# From top to bottom: none imports one above it.
FOLDERS = {
    "face": "`__init__`, `__main__`, `jax`, `typing`: the names people use",
    "torch": "the modules and the operator for PyTorch",
    "sklearn": "the estimators for scikit-learn",
    "distributed": "`bptt` over many processes: MPI, torch.distributed",
    "commands": "the command line, a file or a folder a command",
    "training": "optimisers and `fit`",
    "online": "sequences that never end: learners, piece by piece",
    "calls": "public functions: check, allocate and choose",
    "engine": "runs schedules; checks no arguments",
    "export": "networks as files of other programs",
    "layers": "what a user builds: layers, networks, their files",
    "backends": "a device is a file and its footprint",
    "display": "bars and pictures: what people look at",
    "memory": "policies, plans, schedules: numbers, no arrays",
    "root": "`arguments`, `arrays`, `lazy`: checks and types that all of these use",
    "kernels": "compiled: cells, CPU, CUDA",
}
_FACE = ("fastbptt", "fastbptt.__main__", "fastbptt.jax", "fastbptt.typing")


def modules() -> dict[str, Path]:
    """Every module of the package, by its name when installed."""
    found = {}
    for top, name in ((ROOT / "fastbptt", "fastbptt"), (ROOT / "kernels", "fastbptt.kernels")):
        for path in sorted(top.rglob("*.py")):
            parts = path.relative_to(top).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found[".".join((name, *parts))] = path
    return found


def folder_of(module: str) -> str:
    """The folder of FOLDERS that a module belongs to."""
    if module in _FACE:
        return "face"
    part = module.split(".")[1]
    return part if part in FOLDERS else "root"


def imports(module: str, path: Path, known: dict[str, Path]) -> Iterator[tuple[str, bool]]:
    """The modules of the package that a module imports, and whether when it is loaded.

    Imports for type checkers alone count, too, and those inside functions, which run later.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = package.split(".")
        base = base[: len(base) - node.level + 1]
        target = ".".join([*base, *([node.module] if node.module else [])])
        for alias in node.names:
            full = f"{target}.{alias.name}"
            yield (full if full in known else target), id(node) not in inside


def graph() -> dict[str, set[str]]:
    """For each module the modules that it imports, when it is loaded or later."""
    known = modules()
    return {
        name: {target for target, _ in imports(name, path, known)} - {name}
        for name, path in known.items()
    }


def picture() -> str:
    """The table: the folders, how many modules each has, and which folders it imports."""
    arrows: dict[str, set[str]] = {name: set() for name in FOLDERS}
    count = dict.fromkeys(FOLDERS, 0)
    for module, targets in graph().items():
        own = folder_of(module)
        path = modules()[module]
        count[own] += path.stem != "__init__" or module == "fastbptt"
        arrows[own] |= {folder_of(target) for target in targets} - {own}
    lines = ["| folder | modules | what it is | imports |", "|---|---|---|---|"]
    for name, what in FOLDERS.items():
        below = ", ".join(other for other in FOLDERS if other in arrows[name])
        lines.append(f"| {name} | {count[name]} | {what} | {below or 'nothing of the package'} |")
    return "\n".join(lines)


_PLACE = re.compile(r"(<!-- folders -->\n).*?(\n<!-- end -->)", re.DOTALL)


def page() -> str:
    """inside.md with a current table."""
    text = PAGE.read_text(encoding="utf-8")
    return _PLACE.sub(lambda match: match[1] + picture() + match[2], text)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
