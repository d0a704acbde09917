# Each target sets up what it needs: a machine with Python >= 3.11 and make is enough.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
OUT ?= runs/char_lm
WORKERS ?= 2
FLOOR := $(shell sed -n 's/^dependencies = .*torch>=\([0-9.]*\).*/\1/p' pyproject.toml)

.DEFAULT_GOAL := help
.PHONY: help train test test-fast test-floor test-gpu test-long test-optimizers drills check docs bench bench-gpu clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

train: .venv/.run  ## train the character model of examples/char_lm into runs/char_lm
	$(BIN)/optimscheduler train examples/char_lm/train.yaml --out $(OUT) $(ARGS)

test: check-static .venv/.dev  ## everything: style, types, structure, doctests, all tests, those of models in both layouts, coverage
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m "not long" --doctest-modules src tests \
		--cov --cov-branch --cov-report=term
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadgroup -m "not slow and not long" --layout loose tests \
		--ignore tests/schedules --ignore tests/benchmarks --ignore tests/faults --ignore tests/other_hands --ignore tests/hosts

test-fast: .venv/.dev  ## the tests that take no time
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadgroup -m "not slow and not long"

test-floor: .venv-floor/.dev  ## the fast tests of the core with the oldest torch that is supported
	.venv-floor/bin/python -m pytest -q -n $(WORKERS) --dist loadgroup -m "not slow and not long" tests \
		--ignore tests/run --ignore tests/schedules --ignore tests/faults

test-gpu:  ## the tests of a CUDA device, with the torch of PYTHON
	PYTHONPATH=src:. $(PYTHON) -m pytest -q tests/gpu

test-optimizers: .venv-optimizers/.dev  ## optimizers of other packages against plain loops, in an environment of their own
	.venv-optimizers/bin/python -m pytest -q -n $(WORKERS) tests/optimizers

test-long: .venv/.dev  ## minutes of real training: the main job, killed and resumed
	$(BIN)/python -m pytest -m "long" --timeout 3600

drills: .venv/.dev  ## break everything on purpose, and write the table of docs/reliability.md
	$(BIN)/python -m tests.faults.drills $(ARGS)

check: check-static test-fast .venv/.dev  ## style, types, structure, doctests, fast tests
	$(BIN)/python -m pytest -q --doctest-modules src

.PHONY: check-static
check-static: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/.docs  ## build the documentation into site/
	$(BIN)/mkdocs build --strict --quiet

bench: .venv-bench/.peers  ## every figure of the table, against other libraries, on an idle machine
	.venv-bench/bin/python -m benchmarks.run $(ARGS)

bench-gpu:  ## the rows of a CUDA machine, with the torch of PYTHON
	PYTHONPATH=src $(PYTHON) -m benchmarks.run --gpu $(ARGS)

clean:  ## remove what the targets made, trained runs excepted
	rm -rf .venv .venv-bench .venv-floor .venv-optimizers site .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.run: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) -e '.[run]'
	@touch $@

.venv/.dev: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) -e '.[dev]'
	@touch $@

.venv-floor/.dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-floor
	grep -v '^torch==' constraints.txt > .venv-floor/constraints.txt
	.venv-floor/bin/python -m pip --disable-pip-version-check install --quiet \
		-c .venv-floor/constraints.txt 'torch==$(FLOOR).*' -e '.[dev]'
	@touch $@

.venv-optimizers/.dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-optimizers
	.venv-optimizers/bin/python -m pip --disable-pip-version-check install --quiet -c constraints.txt \
		-e '.[test-optimizers]'
	@touch $@

.venv/.docs: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) -e '.[docs]'
	@touch $@

.venv-bench/.peers: benchmarks/requirements.txt pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip --disable-pip-version-check install --quiet -c constraints.txt \
		-e '.[run]' torch -r benchmarks/requirements.txt
	@touch $@
