"""README and documentation: examples print what the page says, and all that is named exists.

A block marked `text` right below a block marked `python` is its exact output. The sizes in examples
are chosen so that the output does not depend on the vector width.
"""

import contextlib
import io
import re
import sys
from pathlib import Path

import pytest
from jax_process import in_jax

import fastbptt as fb
from fastbptt.commands.cli import main

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = re.compile(r"^```python\n(.*?)^```$(?:\n+^```text\n(.*?)^```$)?", re.M | re.S)

sys.path.insert(0, str(ROOT))  # bench/ is not installed
try:
    from bench.readme import with_figures
finally:
    sys.path.remove(str(ROOT))


@pytest.fixture(params=PAGES, ids=lambda page: page.name)
def page(request):
    """A page's path; `read` gives its text."""
    return request.param


def read(page):
    return page.read_text(encoding="utf-8")


@pytest.fixture
def two_cpus(monkeypatch, set_threads):
    """The machine of the pages: plans count what each CPU's thread works in."""
    set_threads(2)
    monkeypatch.setattr("fastbptt.kernels.cpu.team.available_cpus", lambda: 2)


def run_examples(page):
    text, namespace, found = read(page), {}, 0
    for match in EXAMPLES.finditer(text):
        line = text.count("\n", 0, match.start(1))
        code = compile("\n" * line + match[1], page.name, "exec")  # so tracebacks fit
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(code, namespace)
        found += 1
        expected = match[2] or ""
        assert out.getvalue().splitlines() == expected.splitlines(), f"{page.name}, line {line}"
    assert found == text.count("```python")
    assert sum(bool(output) for _, output in EXAMPLES.findall(text)) == text.count("```text")


@in_jax
def run_examples_in_jax(page):
    run_examples(page)


def test_every_example_runs_and_prints_what_the_page_says(page, tmp_path, monkeypatch, two_cpus):
    package = {"pytorch.md": "torch", "sklearn.md": "sklearn"}.get(page.name)
    if package:
        pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.chdir(tmp_path)
    run = run_examples_in_jax if "import jax\n" in read(page) else run_examples
    run(page=page)


def test_there_are_examples_to_run():
    counts = {page.name: read(page).count("```python") for page in PAGES}
    assert counts["README.md"] > 2
    assert counts["index.md"] > 2
    assert sum(map(bool, counts.values())) >= 6


def test_the_frontier_in_the_readme_is_what_is_printed_today(two_cpus):
    network = fb.Network(fb.LSTM.init(64, 256), fb.Readout.init(256, 64))
    assert f"```text\n{fb.frontier(network, 1_000_000, 32)}\n```\n" in read(ROOT / "README.md")


def test_every_make_target_named_is_in_the_makefile(page):
    named = set(re.findall(r"(?:^|`)make (\w+)", read(page), re.M))
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert named <= targets
    if page.name == "README.md":
        assert {"demo", "test", "docs"} <= named


def test_every_module_run_by_name_exists(page):
    for name in re.findall(r"python -m (?!mpi4py)([\w.]+)", read(page)):
        path = ROOT / name.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), name


def test_every_file_named_exists(page):
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", read(page))
    top = "fastbptt|kernels|tests|bench|examples|docs"
    paths = re.findall(rf"`((?:{top})/[\w./]*)`", read(page))
    missing = [name for name in links if not (page.parent / name).exists()]
    missing += [name for name in paths if not (ROOT / name).exists()]
    assert not missing


def test_every_public_name_used_exists(page):
    assert set(re.findall(r"\bfb\.(\w+)", read(page))) <= {*fb.__all__, "distributed"}


def test_every_command_named_exists(page):
    from fastbptt.commands import cli

    named = set(re.findall(r"(?:^|`)fastbptt ([a-z]+)", read(page), re.M))
    help_text = io.StringIO()
    with contextlib.redirect_stdout(help_text), pytest.raises(SystemExit):
        cli.main(["--help"])
    assert all(re.search(rf"^\s+{name}\s", help_text.getvalue(), re.M) for name in named)


def test_every_plan_asked_for_on_the_command_line_is_there(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib", reason="it draws the pictures")
    monkeypatch.chdir(tmp_path)
    lines = re.findall(r"^fastbptt (plan [^#\n]*)", "\n".join(map(read, PAGES)), re.M)
    assert len(lines) > 2
    for line in lines:
        assert main(line.split()) == 0, capsys.readouterr().err


def test_figures_are_those_of_the_stored_results(page):
    assert with_figures(read(page)) == read(page), "python -m bench.readme brings it up to date"


def test_the_first_screen_has_the_figures_and_the_pages_have_the_tables():
    blocks = {page.name: re.findall(r"<!-- ([\w:./]+):begin -->\n(.+?)<!--", read(page), re.S)
              for page in PAGES}  # fmt: skip
    first_screen = read(ROOT / "README.md").split("\n## ")[0]
    assert [name for name, _ in blocks["README.md"]] == ["headlines"]
    assert blocks["README.md"][0][1] in first_screen
    assert {"speed", "budget", "roofline"} <= {name for name, _ in blocks["performance.md"]}


def test_every_public_name_has_its_place_in_the_api_page():
    shown = set(re.findall(r"^::: fastbptt\.(\w+)$", read(ROOT / "docs" / "api.md"), re.M))
    assert set(fb.__all__) <= shown
