"""Random calls of the whole public surface against the oracle: `python -m tests.fuzz --help`.

A case is drawn from a seed and a number, and nothing else: `--seed S --case N` is the same case on
every machine. `cases` draws it, `answers` asks the oracle, `properties` are what must hold.
pytest does not collect this folder: `make fuzz` and CI run it.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # oracle.py and helpers.py
