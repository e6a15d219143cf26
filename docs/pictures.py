"""Takes the pictures of the kept results into the site, by the names that pages give them.

A page says ../bench/results/x.png, which a reader of the repository sees too; MkDocs only knows
what lies in docs/.
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
    """Say where it is in the site."""
    return markdown.replace(f"../{RESULTS.as_posix()}/", "results/")
