# One command for each thing a person does with this checkout. `make help` lists them.
#
#   PYTHON=python3.12 make quickstart    another interpreter (3.11 or newer)

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
QUICKSTART_VENV ?= .venv-quickstart
BEAM_VENV ?= .venv-beam
BIN := $(VENV)/bin

# The reference implementation that the parity tests compare with, pinned so that their figures can be repeated. It
# is installed before everything else, so that whatever needs torch finds it there; a CPU build is all it takes.
TORCH ?= torch==2.13.0

WORKERS = -n auto --dist worksteal

NEW_ENOUGH = $(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("Python %d.%d is too old: \
name one from 3.11 on, for example: make $(MAKECMDGOALS) PYTHON=python3.12" % v[:2])'

.PHONY: help quickstart test test-slow test-all test-configs test-beam lint types imports docs clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*##/\1:/' | column -t -s: || true

quickstart: $(QUICKSTART_VENV)/.installed  ## the whole path on a real small model, into quickstart/
	$(QUICKSTART_VENV)/bin/alpacare quickstart $(ARGS)

test: $(VENV)/.installed  ## install what the tests need and run them, without the slow ones
	$(BIN)/python -m pytest $(WORKERS) -m "not slow" $(ARGS)

test-slow: $(VENV)/.installed  ## the slow tests, which `make test` leaves out
	$(BIN)/python -m pytest $(WORKERS) -m slow $(ARGS)

test-all: $(VENV)/.installed  ## all tests, and the share of lines that they run
	$(BIN)/python -m pytest $(WORKERS) --cov --cov-report=term $(ARGS)

test-configs: $(VENV)/.installed  ## compile every shipped TPU configuration whole, about a quarter of an hour
	$(BIN)/python -m pytest tests/plan -m tpu_compile $(ARGS)

# Apache Beam holds protobuf, numpy and others back, so it has an environment of its own.
test-beam: $(BEAM_VENV)/.installed  ## the tests of publishing through Apache Beam
	$(BEAM_VENV)/bin/python -m pytest tests/datagen/publish/with_beam.py $(ARGS)

lint: $(VENV)/.installed  ## formatting, lint and shell scripts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/shellcheck $(SHELL_SCRIPTS)

types: $(VENV)/.installed  ## static types
	$(BIN)/mypy

imports: $(VENV)/.installed  ## who may import whom
	$(BIN)/lint-imports

docs: $(VENV)/.docs  ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:  ## remove environments, caches and built pages
	rm -rf $(VENV) $(QUICKSTART_VENV) $(BEAM_VENV) site build dist .mypy_cache .ruff_cache .pytest_cache .coverage .hypothesis .import_linter_cache
	find alpacare_jax datagen tests -name __pycache__ -prune -exec rm -rf {} +

SHELL_SCRIPTS := $(wildcard launch/*.sh) .ci/run

$(VENV)/.installed: pyproject.toml
	@$(NEW_ENOUGH)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	[[ $$(uname -sm) != "Linux x86_64" ]] || $(BIN)/alpacare plan --fetch-gpu-compiler
	touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	touch $@

$(QUICKSTART_VENV)/.installed: pyproject.toml
	@$(NEW_ENOUGH)
	$(PYTHON) -m venv $(QUICKSTART_VENV)
	$(QUICKSTART_VENV)/bin/python -m pip install --quiet --editable .
	touch $@

$(BEAM_VENV)/.installed: pyproject.toml
	@$(NEW_ENOUGH)
	$(PYTHON) -m venv $(BEAM_VENV)
	$(BEAM_VENV)/bin/python -m pip install --quiet --editable ".[beam]" hypothesis pytest pytest-timeout
	touch $@
