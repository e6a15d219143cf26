"""Bring README.md up to date: what its examples print, and the speed table: python -m bench.readme.

The speed table comes from bench/results/compare.json alone.
"""

import contextlib
import io
import json
import re
import statistics
from pathlib import Path

ROOT = Path(__file__).parent.parent
COMPARE = ROOT / "bench" / "results" / "compare.json"
_EXAMPLE = re.compile(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", re.S)
_SPEED = re.compile(r"(<!-- speed:begin -->\n).*?(<!-- speed:end -->)", re.S)


def with_outputs(text):
    """The README with what its examples print today."""
    namespace = {}

    def run(match):
        code, due = match.groups()
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, namespace)  # our own README
        block = f"```python\n{code}```\n"
        return block if due is None else f"{block}\n```text\n{printed.getvalue()}```\n"

    return _EXAMPLE.sub(run, text)


def speed_table(result):
    """The speed table as text, from the contents of compare.json."""
    machine = result["machine"]
    rounds = f"{result['rounds']} interleaved rounds of {result.get('timed', 1)} runs"
    lines = [
        f"Forward and backward pass with all gradients, microseconds a time step, medians of "
        f"{rounds} on {machine['CPU']} ({machine['vectors']}), "
        f"{machine['threads']} threads, Python {machine['Python'].split()[0]}, "
        f"NumPy {machine['numpy']}, Numba {machine['numba']}, PyTorch {machine['torch']}, "
        f"JAX {machine['jax']} (`lax.scan`, jitted); {machine['date'][:10]}.",
        "",
        "| layer | dtype | T | B | I | H | fastbptt | PyTorch | JAX | fastest other / fastbptt |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    ratios = {}
    for point in result["points"]:
        taken = point["us_per_step"]
        cells = [point["cell"], point["dtype"], *(f"{point[axis]:,}" for axis in "TBIH")]
        cells += [_short(taken[name]) if name in taken else "" for name in _NAMES]
        cells.append(f"{point['ratio']:.2f}")
        lines.append("| " + " | ".join(cells) + " |")
        ratios.setdefault((point["cell"], point["dtype"]), []).append(point["ratio"])
    lines.append("")
    means = (f"{cell} {dtype} {statistics.geometric_mean(values):.1f}"
             for (cell, dtype), values in ratios.items())  # fmt: skip
    lines.append("Geometric means of the last column: " + ", ".join(means) + ".")
    return "\n".join(lines) + "\n"


def _short(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


_NAMES = ("fastbptt", "torch", "jax")


def with_speed(text):
    """The README with the speed table of the kept results."""
    if not COMPARE.exists():
        return text
    table = speed_table(json.loads(COMPARE.read_text(encoding="utf-8")))
    return _SPEED.sub(lambda match: match[1] + table + match[2], text)


def main():
    """Rewrite README.md."""
    path = ROOT / "README.md"
    path.write_text(with_speed(with_outputs(path.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
