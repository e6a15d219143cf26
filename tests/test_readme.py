"""The README: its examples run and print what it says, and what it names exists.

A block marked `text` right below a block marked `python` is what the latter prints, to the letter.
The sizes there are such that it does not depend on the vector width.
"""

import contextlib
import io
import re
import sys
from pathlib import Path

import pytest

import fastbptt as fb

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.compile(r"^```python\n(.*?)^```$(?:\n+^```text\n(.*?)^```$)?", re.M | re.S)
RESULTS = "bench/results/compare.json"


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """Run all python blocks in order in one namespace: (line, printed, what it should be)."""
    namespace, found = {}, []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("empty"))
        for match in EXAMPLES.finditer(README):
            line = README.count("\n", 0, match.start(1))
            code = compile("\n" * line + match[1], "README.md", "exec")  # so tracebacks fit
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(code, namespace)
            found.append((line, out.getvalue(), match[2] or ""))
    return found


def test_every_example_runs_and_prints_what_the_readme_says(examples):
    assert len(examples) == README.count("```python") > 3
    assert sum(bool(due) for _, _, due in examples) == README.count("```text")
    for line, printed, due in examples:
        assert printed.splitlines() == due.splitlines(), f"README.md, example at line {line}"


def test_the_frontier_in_the_readme_is_what_is_printed_today():
    network = fb.Network(fb.LSTM.init(64, 256), fb.Readout.init(256, 64))
    assert f"```text\n{fb.frontier(network, 1_000_000, 32)}\n```\n" in README


def test_every_make_target_named_is_in_the_makefile():
    named = set(re.findall(r"(?:^|`)make (\w+)", README, re.M))
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert {"demo", "test"} <= named <= targets


def test_every_module_run_by_name_exists():
    for name in re.findall(r"python -m ([\w.]+)", README):
        path = ROOT / name.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), name


def test_every_file_named_exists():
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", README)
    paths = re.findall(r"`((?:fastbptt|kernels|tests|bench)/[\w./]*)`", README)
    assert links
    assert not [name for name in {*links, *paths} - {RESULTS} if not (ROOT / name).exists()]


def test_every_public_name_used_exists():
    assert set(re.findall(r"\bfb\.(\w+)", README)) <= set(fb.__all__)


def test_figures_of_speed_come_with_the_results_they_are_from():
    figures = re.search(r"<!-- speed:begin -->(.*)<!-- speed:end -->", README, re.S)[1]
    assert RESULTS in README
    assert not figures.strip() or (ROOT / RESULTS).is_file()


def test_the_speed_table_is_that_of_the_kept_results():
    sys.path.insert(0, str(ROOT))  # bench/ is not installed
    try:
        from bench.readme import with_speed
    finally:
        sys.path.remove(str(ROOT))
    assert with_speed(README) == README
