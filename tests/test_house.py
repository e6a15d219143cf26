"""How the package is built: folders, imports, sizes and names, read from its sources."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest

import fastbptt as fb

ROOT = Path(__file__).parent.parent
_spec = importlib.util.spec_from_file_location("folders", ROOT / "docs" / "folders.py")
folders = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(folders)

MODULES = folders.modules()
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}
ORDER = list(folders.FOLDERS)  # from top to bottom
TOP = {"__init__", "__main__", "arguments", "arrays", "jax", "lazy", "typing"}
SOURCES = ["fastbptt", "kernels", "tests", "bench", "docs", "examples"]
MOST_LINES, MOST_ARGUMENTS = 350, 12
LONG_SIGNATURES = {
    # The contract fixes these, or they take what those take.
    "fastbptt.calls.gradient.bptt",
    "fastbptt.distributed.gradient.bptt",
    "fastbptt.calls.planning.plan",
    "fastbptt.calls.reach.gradient_reach",
    "fastbptt.training.fitting.fit",
    # A launch passes arrays and numbers, one parameter each.
    "fastbptt.kernels.cuda.sweeps.forward",
    "fastbptt.kernels.cuda.sweeps.reverse",
}
POLICIES = {"Full", "Checkpointed", "Truncated"}
BACKENDS = {"CPU", "CUDA"}
GONE = {"Call", "Passage", "_Held", "Along", "Turned"}


def test_all_modules_are_found():
    assert {"fastbptt", "fastbptt.arrays", "fastbptt.kernels.cpu.team"} <= MODULES.keys()
    assert {folders.folder_of(name) for name in MODULES} == set(ORDER)


def test_no_folder_imports_one_above_it():
    upward = [
        f"{name} imports {target}"
        for name, targets in folders.graph().items()
        for target in targets
        if ORDER.index(folders.folder_of(target)) < ORDER.index(folders.folder_of(name))
    ]
    assert not upward


def test_no_imports_form_a_circle():
    graph = folders.graph()
    assert sum(map(len, graph.values())) > len(graph)
    size = None
    while size != len(graph):  # drop all that imports nothing, or that nothing imports
        size = len(graph)
        imported = set().union(*graph.values())
        graph = {n: targets & graph.keys() for n, targets in graph.items() if n in imported}
        graph = {n: targets for n, targets in graph.items() if targets}
    assert not graph, "these import each other"


def absolute_imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module


def test_only_commands_import_the_public_names_as_users_do():
    """All other imports within the package are relative, which is what the graph is made of."""
    users = {
        folders.folder_of(name)
        for name, tree in TREES.items()
        if any(module.partition(".")[0] == "fastbptt" for module in absolute_imports(tree))
    }
    assert users == {"commands"}
    names = {n for tree in TREES.values() for n in absolute_imports(tree)}
    assert not {n for n in names if n.startswith("fastbptt.")}


def test_the_top_of_the_package_holds_only_what_belongs_there():
    assert {path.stem for path in (ROOT / "fastbptt").glob("*.py")} == TOP


def test_no_module_or_folder_at_the_top_has_a_public_name():
    entries = {path.stem for path in (ROOT / "fastbptt").iterdir()}
    assert not entries & set(fb.__all__)


@pytest.mark.parametrize("folder", SOURCES)
def test_no_source_file_is_too_long(folder):
    lines = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in sorted((ROOT / folder).rglob("*.py"))
    }
    assert lines
    assert not {path: count for path, count in lines.items() if count > MOST_LINES}


def test_only_what_people_import_has_code_in_its_init():
    files = [path for path in MODULES.values() if path.stem == "__init__"]
    names = ("fastbptt", "fastbptt.distributed", "fastbptt.sklearn", "fastbptt.torch")
    public = [MODULES[name] for name in names]
    assert [p for p in files if p.read_text()] == public


def argument_count(function):
    given = function.args
    named = len(given.posonlyargs) + len(given.args) + len(given.kwonlyargs)
    return named + (given.vararg is not None) + (given.kwarg is not None)


def test_only_few_signatures_are_long_and_are_named():
    long = {
        f"{name}.{getattr(node, 'name', 'lambda')}"
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        if argument_count(node) > MOST_ARGUMENTS
    }
    assert long == LONG_SIGNATURES


def names_in(node):
    """All names and attributes in a piece of code."""
    found = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    return found | {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}


def class_tests(tree):
    """The names in every test of a class: isinstance, issubclass, `type(a) is B`, `case B()`."""
    for node in ast.walk(tree):
        called = isinstance(node, ast.Call) and names_in(node.func) & {"isinstance", "issubclass"}
        compared = isinstance(node, ast.Compare) and "type" in names_in(node)
        if called or compared or isinstance(node, ast.MatchClass):
            yield node, names_in(node)


@pytest.mark.parametrize("classes, home", [(POLICIES, "memory"), (BACKENDS, "backends")])
def test_nothing_outside_its_folder_asks_for_the_class_of_a(classes, home):
    defined = {
        node.name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if folders.folder_of(name) == home and isinstance(node, ast.ClassDef)
    }
    assert classes <= defined
    asked = [
        f"{name}:{node.lineno}"
        for name, tree in TREES.items()
        if folders.folder_of(name) != home
        for node, names in class_tests(tree)
        if names & classes
    ]
    assert not asked


def test_former_names_are_gone():
    left = [
        f"{name}: {word}"
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        for word in GONE & {getattr(node, key, None) for key in ("id", "attr", "name", "arg")}
    ]
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        code = re.findall(r"`([^`]+)`", page.read_text(encoding="utf-8"))
        words = {word for text in code for word in re.findall(r"\w+", text)}
        left += [f"{page.name}: {word}" for word in GONE & words]
    assert not left


def test_the_table_of_folders_is_current():
    text = folders.PAGE.read_text(encoding="utf-8")
    assert re.search(r"<!-- folders -->\n.*?\n<!-- end -->", text, re.DOTALL), "no markers"
    assert folders.page() == text, "run `python docs/folders.py`"
