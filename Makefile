# Two commands on a fresh Linux machine with Python 3.11 or newer: make demo, make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two CPU ranks, or the GPUs found: 1, 2, 4 or 8, which share the demo's batch of 32 evenly.
RANKS := $(shell n=$$(nvidia-smi -L 2>/dev/null | grep -c '^GPU '); \
	if [ $$n -eq 0 ]; then echo 2; elif [ $$n -ge 8 ]; then echo 8; \
	elif [ $$n -ge 4 ]; then echo 4; elif [ $$n -ge 2 ]; then echo 2; else echo 1; fi)

# Whole files to each worker, so that what a file shares is made once; a third works on while others
# wait for processes or for what another makes.
WORKERS := -n 3 --dist loadscope --no-loadscope-reorder

INSTALL = $(BIN)/pip install --quiet --editable '.[dev]'

# What has been installed without network counts as well.
HERE = $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))
PARTS ?= A B C D E F

# Keep what Python compiles, even where the environment forbids it: else each of the tests' processes compiles anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo test quick torture lint gpu-check gpu-pack clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "pcamx needs Python 3.11 or newer; name one: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(INSTALL) || $(INSTALL)  # a large download that was cut off begins anew
	touch $@

# Draws films with known lesions and a plate that tempts, trains the three stages, measures them, also
# on twins of the validation films that lack the lesion or the plate.
demo: install
	rm -rf runs/demo
	$(BIN)/pcamx phantom runs/demo/phantom --train 800 --valid 200 --size 128 --temptation plate --twins
	$(BIN)/pcamx prepare runs/demo/phantom/MURA-v1.1 --marks runs/demo/phantom/marks --out runs/demo/store
	$(BIN)/pcamx prepare runs/demo/phantom/twins --marks runs/demo/phantom/twins/marks --out runs/demo/twins
	PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 $(BIN)/deepspeed --num_gpus $(RANKS) --log_level error \
		launch/train.py --stage all --config configs/demo.yaml
	$(BIN)/pcamx evaluate runs/demo --twins runs/demo/twins

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(WORKERS)

# Some of every room's tests, for every few lines that are written.
quick: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(WORKERS) -m "not gpu and not slow"

# An hour of kills, stops, full and read-only disks, flipped bits and fuzzed files; goes on where it was stopped.
torture: install
	OMP_NUM_THREADS=1 $(BIN)/python -m bench.torture

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# One hour of a GPU, part by part (bench/gpu/jobs.py); what has passed is not repeated.
gpu-check:
	PYTHONPATH="$(CURDIR)" $(HERE) -m bench.gpu --parts $(PARTS)

# Wheels for a GPU machine without network, into build/gpu-pack.
gpu-pack: install
	$(BIN)/python -m bench.gpu.pack

clean:
	rm -rf $(VENV) runs build *.egg-info
