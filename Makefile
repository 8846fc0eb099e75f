# Every target makes what it needs; `make` alone lists them.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DEMO   ?= demo
WORK   ?= .cache/tiny-models

.DEFAULT_GOAL := help
.PHONY: help install demo test check fix bench fuzz tiny-models wheel clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

install: $(STAMP)  ## make the virtual environment with pinned dependencies

demo: $(STAMP)  ## ingest drawn scenes with tiny models, match, ask, build the reports
	@PATH="$(abspath $(BIN)):$$PATH" sh tests/demo.sh $(DEMO)

# A worker a core, and one thread of torch in each; a file's tests stay together, since they share what it makes.
test: $(STAMP)  ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist loadfile

check: $(STAMP)  ## formatting, lint and strict types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

fix: $(STAMP)  ## format and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP)  ## measure speed and memory as ratios, coverage of intervals; writes tests/bench/results/
	$(BIN)/python -m tests.bench

fuzz: $(STAMP)  ## break each field of small annotation files, one at a time: many minutes
	$(BIN)/python -m tests.fuzz.annotations

tiny-models: $(STAMP)  ## train the built-in models anew: hours on two cores; goes on where it was stopped
	$(BIN)/python -m kvstore.recipes.ingest.tiny --work $(WORK)

wheel: $(STAMP)  ## build the wheel, install it in a clean environment and try it there
	sh tests/wheel.sh $(BIN)/python

clean:  ## remove what the other targets made
	rm -rf $(VENV) dist build $(DEMO) .mypy_cache .ruff_cache .pytest_cache
