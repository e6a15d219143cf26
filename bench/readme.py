"""Bring README.md and docs/ up to date: the output of their examples, and the stored results.

python -m bench.readme
"""

import contextlib
import io
import re

from .figures import ROOT, block

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_EXAMPLE = re.compile(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", re.S)
_BLOCK = re.compile(r"(<!-- ([\w:./]+):begin -->\n).*?(<!-- \2:end -->)", re.S)


def with_outputs(text):
    """The page with the output that its examples have today."""
    namespace = {}

    def run(match):
        code, due = match.groups()
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, namespace)  # a page of this repository
        example = f"```python\n{code}```\n"
        return example if due is None else f"{example}\n```text\n{printed.getvalue()}```\n"

    return _EXAMPLE.sub(run, text)


def with_figures(text):
    """The page with its blocks made from the stored results."""
    return _BLOCK.sub(lambda match: match[1] + block(match[2]) + match[3], text)


def main():
    """Rewrite the pages."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        page.write_text(with_figures(with_outputs(text)), encoding="utf-8")


if __name__ == "__main__":
    main()
