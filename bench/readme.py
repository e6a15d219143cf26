"""Update README.md and docs/: the output of their examples, and the stored results.

python -m bench.readme
"""

import contextlib
import io
import os
import re
import tempfile

from .figures import block
from .stored import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_EXAMPLE = re.compile(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", re.S)
_BLOCK = re.compile(r"(<!-- ([\w:./]+):begin -->\n).*?(<!-- \2:end -->)", re.S)


def with_outputs(text):
    """Return the page with the current output of its examples."""
    namespace = {}

    def run(match):
        code, output = match.groups()
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, namespace)  # the page is part of this repository
        example = f"```python\n{code}```\n"
        return example if output is None else f"{example}\n```text\n{printed.getvalue()}```\n"

    return _EXAMPLE.sub(run, text)


def with_figures(text):
    """Return the page with its blocks filled from the stored results."""
    return _BLOCK.sub(lambda match: match[1] + block(match[2]) + match[3], text)


def main():
    """Rewrite the pages."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # for the files that examples write
        try:
            _rewrite()
        finally:
            os.chdir(ROOT)


def _rewrite():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        page.write_text(with_figures(with_outputs(text)), encoding="utf-8")


if __name__ == "__main__":
    main()
