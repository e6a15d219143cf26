"""Benchmarks against other libraries, and their stored results: `python -m bench.compare`."""
