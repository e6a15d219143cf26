"""Adds the pictures of the stored results to the site.

A page refers to ../bench/results/x.png, so that it works in the repository, too; MkDocs only knows
files in docs/.
"""

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

RESULTS = Path("bench/results")


def on_files(files: Files, config: Any) -> Files:
    """Add each picture as results/x.png."""
    for path in sorted(RESULTS.glob("*.png")):
        files.append(File.generated(config, f"results/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the paths of the repository by those of the site."""
    return markdown.replace(f"../{RESULTS.as_posix()}/", "results/")
