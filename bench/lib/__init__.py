"""What the benches share: timing, records, ways to load, loops; each command stands one folder up.

`operations/` holds the cases of `bench.kernels`.
"""
