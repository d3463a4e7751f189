# Two commands for a newcomer: `make quickstart` trains a spiking network on real digits, `make test` runs the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Written last, so an interrupted installation is simply taken up again; renewed when the requirements change.
READY := $(VENV)/.ready
# Processes that share the tests, four at most: each takes one thread and up to 6 GB.
WORKERS ?= logical
SHARED := -n $(WORKERS) --maxprocesses 4 --dist worksteal

.PHONY: quickstart test slow gpu lint types docs clean

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $(READY)

quickstart: $(READY)
	$(BIN)/fulgurite fit --config configs/stbp/mnist5k.yaml

test: $(READY)
	$(BIN)/python -m pytest $(SHARED)

slow: $(READY)
	$(BIN)/python -m pytest $(SHARED) -m 'slow and not gpu'

# On a machine with a card, at most eight minutes; another call does what is missing.
gpu: $(READY)
	$(BIN)/python benchmarks/gpu.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

docs: $(READY)
	$(BIN)/sphinx-build --fail-on-warning --nitpicky -b html docs docs/_build/html

clean:
	rm -rf $(VENV) runs docs/_build
