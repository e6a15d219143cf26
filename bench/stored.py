"""The results that are stored in bench/results: one JSON file a benchmark."""

import json
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"


def load(name):
    """Return the contents of the result of that name."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))


def save(path, result):
    """Write a result as JSON; its folder is made where it does not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
