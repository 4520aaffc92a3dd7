"""Benches: run from the project's folder, as `python -m bench.kernels`. Never installed."""
