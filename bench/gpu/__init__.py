"""`python -m bench.gpu`: an hour of a GPU turned into one page, part by part, resumable."""
