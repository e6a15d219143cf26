"""What is timed, against whom, and the results kept. Run as `python -m bench.compare`."""
