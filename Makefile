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

# "make lock" keeps what is pinned unless it has to move; UPGRADE=1 takes the newest of all.
UPGRADE ?=

# What "make demo" shows: airflow, or engine (without a scheduler).
HOST ?= airflow
# Each scheduler wants versions of its own, and so has an environment of its own.
AIRFLOW := $(VENV)-airflow/bin
OLDEST := $(VENV)-airflow-oldest/bin
# What imports Airflow, and so is checked there. The rest is checked where no scheduler is installed.
NEEDS_AIRFLOW := integrations dags_examples tests/airflow tests/services $(wildcard benchmarks/airflow* demo/airflow.py)
WITHOUT := poller_core tests benchmarks demo --exclude airflow

.PHONY: help venv demo test test-core test-airflow test-airflow-oldest test-fast lint format bench bench-airflow
.PHONY: lock build clean
.NOTPARALLEL:

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

venv: ## The virtual environment for development, in .venv
	@.ci/venv dev

demo: ## A real Airflow starts, a file lands in ./inbox, a run works on it (HOST=engine: without Airflow)
ifeq ($(HOST),airflow)
	@.ci/venv airflow
	@$(AIRFLOW)/python -m demo.airflow $(ARGS)
else ifeq ($(HOST),engine)
	@.ci/venv run
	@$(BIN)/python -m demo.engine $(ARGS)
else
	@echo "error: HOST=$(HOST): expected airflow or engine" >&2; exit 2
endif

test: lint test-core test-airflow-oldest test-airflow ## All checks and all tests

# With "-k …" in ARGS it may be that nothing is left to run in one of them: pytest's status is 5 then.
run_tests = echo "==> $(1)"; $(2)/python -m pytest --timeout=$(TIMEOUT) $(3) $(ARGS) || { s=$$?; [ -n "$(ARGS)" ] && [ $$s = 5 ]; }

test-core: ## The tests of the engine
	@.ci/venv dev
	@.ci/venv swift
	@$(call run_tests,pytest: the engine,$(BIN),--ignore=tests/airflow)

test-airflow: ## The tests of the Airflow adapter, with the newest Airflow
	@.ci/venv airflow
	@.ci/venv swift
	@$(call run_tests,pytest: the adapter with $$($(AIRFLOW)/airflow version),$(AIRFLOW),tests/airflow)

test-airflow-oldest: ## The same with the oldest one, without what takes long
	@.ci/venv airflow-oldest
	@.ci/venv swift
	@$(call run_tests,pytest: the adapter with $$($(OLDEST)/airflow version),$(OLDEST),tests/airflow -m "not slow")

test-fast: ## Only the engine's tests that take less than ten seconds each
	@.ci/venv dev
	@.ci/venv swift
	@$(BIN)/python -m pytest --timeout=$(TIMEOUT) --ignore=tests/airflow -m "not slow" $(ARGS)

lint: ## Format, lint and types; changes nothing
	@.ci/venv dev
	@.ci/venv airflow
	@echo "==> ruff format --check"
	@$(BIN)/ruff format --check $(CODE)
	@echo "==> ruff check"
	@$(BIN)/ruff check $(CODE)
	@echo "==> mypy"
	@$(BIN)/mypy $(WITHOUT)
	@$(AIRFLOW)/mypy $(NEEDS_AIRFLOW)

format: ## Formats the code and mends what ruff can mend
	@.ci/venv dev
	@$(BIN)/ruff check --fix-only --quiet $(CODE)
	@$(BIN)/ruff format $(CODE)

bench: ## The benchmarks: ours, the bare walk and the peers in one run
	@.ci/venv bench
	@.ci/venv swift
	@$(BIN)/python -m benchmarks $(ARGS)

bench-airflow: ## From a file to a task, and what a triggerer takes for it: ours and Airflow's own, in one run
	@.ci/venv airflow
	@$(AIRFLOW)/python -m benchmarks.airflow $(ARGS)

# The widest set first; the others take their versions from it, so that they agree. All extras but airflow and its
# like go in: each scheduler is resolved by itself, as somebody who has one installs it.
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command "make lock"
EXTRAS = --extra postgres --extra swift --extra clouds
lock: ## The lock files in requirements/, from pyproject.toml (UPGRADE=1: the newest of all)
	@.ci/venv tools
	@$(COMPILE) $(if $(UPGRADE),--upgrade) pyproject.toml $(EXTRAS) --group bench -o requirements/bench.txt
	@$(COMPILE) pyproject.toml $(EXTRAS) --group dev -c requirements/bench.txt -o requirements/dev.txt
	@$(COMPILE) pyproject.toml --group build -c requirements/bench.txt -o requirements/run.txt
	@$(COMPILE) $(if $(UPGRADE),--upgrade) --group tools -o requirements/tools.txt
	@$(COMPILE) $(if $(UPGRADE),--upgrade) --group swift-server -o requirements/swift.txt
	@for name in airflow airflow-oldest prefect prefect-oldest both; do \
		case $$name in airflow*) extra="--extra airflow";; prefect*) extra="--extra prefect";; \
			*) extra="--extra airflow --extra prefect";; esac; \
		$(COMPILE) $(if $(UPGRADE),--upgrade) pyproject.toml $(EXTRAS) $$extra --group $$name \
			-o requirements/$$name.txt || exit 1; done
	@if grep -n '://' requirements/*.txt; then echo "error: a lock file names a host" >&2; exit 1; fi

build: ## The source distribution and the wheel, in dist/
	@.ci/venv tools
	@$(BIN)/uv build --build-constraints requirements/run.txt --require-hashes --clear

clean: ## Removes what the other targets made
	rm -rf $(VENV) $(VENV)-swift $(VENV)-airflow $(VENV)-airflow-oldest build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name .git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
