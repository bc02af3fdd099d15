# Everything here works from a fresh checkout with Python 3.11 or newer, make and git.
# The virtual environment is made on the way, and is kept: see .ci/venv.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV ?= .venv
# Read by .ci/venv, from the environment or the command line.
export VENV PYTHON
BIN := $(VENV)/bin

# What the checks look at: all Python there is, without naming what is not there yet.
CODE := $(wildcard poller_core integrations dags_examples tests benchmarks demo)

# More for pytest, as in: make test ARGS="-k claim -x"
ARGS ?=
# Seconds that one test may take before it counts as hung.
TIMEOUT ?= 300
PYTEST := $(BIN)/python -m pytest --timeout=$(TIMEOUT)

# "make lock" keeps what is pinned unless it has to move; UPGRADE=1 takes the newest of all.
UPGRADE ?=

.PHONY: help venv demo test test-fast lint format bench lock build clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

venv: ## The virtual environment for development, in .venv
	@.ci/venv dev

demo: ## An inbox is watched, files are dropped in, events and state are shown
	@.ci/venv run
	@$(BIN)/python demo/demo.py

test: lint ## All checks and all tests
	@.ci/venv swift
	@echo "==> pytest"
	@$(PYTEST) $(ARGS)

test-fast: ## Only the tests that take less than ten seconds each
	@.ci/venv dev
	@.ci/venv swift
	@$(PYTEST) -m "not slow" $(ARGS)

lint: ## Format, lint and types; changes nothing
	@.ci/venv dev
	@echo "==> ruff format --check"
	@$(BIN)/ruff format --check $(CODE)
	@echo "==> ruff check"
	@$(BIN)/ruff check $(CODE)
	@echo "==> mypy"
	@$(BIN)/mypy $(CODE)

format: ## Formats the code and mends what ruff can mend
	@.ci/venv dev
	@$(BIN)/ruff check --fix-only --quiet $(CODE)
	@$(BIN)/ruff format $(CODE)

bench: ## The benchmarks: ours, the bare walk and the peers in one run
	@.ci/venv bench
	@.ci/venv swift
	@$(BIN)/python -m benchmarks $(ARGS)

# The widest set first; the others take their versions from it, so that all four agree.
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command "make lock"
lock: ## The lock files in requirements/, from pyproject.toml (UPGRADE=1: the newest of all)
	@.ci/venv tools
	@$(COMPILE) $(if $(UPGRADE),--upgrade) pyproject.toml --all-extras --group bench -o requirements/bench.txt
	@$(COMPILE) pyproject.toml --all-extras --group dev -c requirements/bench.txt -o requirements/dev.txt
	@$(COMPILE) pyproject.toml --group build -c requirements/bench.txt -o requirements/run.txt
	@$(COMPILE) $(if $(UPGRADE),--upgrade) --group tools -o requirements/tools.txt
	@$(COMPILE) $(if $(UPGRADE),--upgrade) --group swift-server -o requirements/swift.txt
	@if grep -n '://' requirements/*.txt; then echo "error: a lock file names a host" >&2; exit 1; fi

build: ## The source distribution and the wheel, in dist/
	@.ci/venv tools
	@$(BIN)/uv build --build-constraints requirements/run.txt --require-hashes --clear

clean: ## Removes what the other targets made
	rm -rf $(VENV) $(VENV)-swift build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name .git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
