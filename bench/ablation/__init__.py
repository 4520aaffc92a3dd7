"""`python -m bench.ablation GRID`: every cell of a grid over its seeds, and the tables of it."""
