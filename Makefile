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
CODE := $(wildcard poller_core integrations dags_examples tests benchmarks demo docs/conf.py)

# More for pytest, as in: make test ARGS="-k claim -x"
ARGS ?=
# Seconds that one test may take before it counts as hung.
TIMEOUT ?= 300

# What "make test-pythons" tries, by name or path.
PYTHONS ?= python3.12 python3.13 python3.14

# "make lock" keeps what is pinned unless it has to move; UPGRADE=1 takes the newest of all.
UPGRADE ?=

# What "make demo" shows: airflow, prefect, python (a program of one's own), or engine (what happens when it is killed).
HOST ?= airflow
# Each scheduler wants versions of its own, and so has an environment of its own.
AIRFLOW := $(VENV)-airflow/bin
PREFECT := $(VENV)-prefect/bin
BOTH := $(VENV)-both/bin
UV := $(VENV)-tools/bin/uv
# What imports a scheduler, and so is checked where both are. The rest is checked where none is installed.
NEEDS_HOSTS := integrations dags_examples tests/airflow tests/prefect tests/both tests/services \
	$(wildcard tests/packages/prefect* benchmarks/airflow* benchmarks/prefect* demo/airflow.py demo/prefect.py)
WITHOUT := poller_core tests benchmarks demo --exclude '(airflow|prefect|both)'

.PHONY: help venv demo lint format lock build clean docs pictures bench bench-airflow bench-prefect
.PHONY: test test-long test-core test-airflow test-airflow-oldest test-prefect test-prefect-oldest
.PHONY: test-both test-fast test-packages test-pythons
.NOTPARALLEL:

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

venv: ## The virtual environment for development, in .venv
	@.ci/venv dev

demo: ## A real Airflow starts, a file lands in ./inbox, a run works on it (HOST=prefect: a Prefect; HOST=python: a Python program)
ifeq ($(HOST),airflow)
	@.ci/venv airflow
	@$(AIRFLOW)/python -m demo.airflow $(ARGS)
else ifeq ($(HOST),prefect)
	@.ci/venv prefect
	@$(PREFECT)/python -m demo.prefect $(ARGS)
else ifneq ($(filter python engine,$(HOST)),)
	@.ci/venv run
	@$(BIN)/python -m demo.$(HOST) $(ARGS)
else
	@echo "error: HOST=$(HOST): expected airflow, prefect, python or engine" >&2; exit 2
endif

# Two lanes: each waits a good part of the time for servers and for clocks. What is in neither is in "make test-long".
test: lint docs ## All checks, and all tests that half an hour has room for
	@.ci/venv swift
	@.ci/lanes "test-core test-prefect-oldest test-both" "test-airflow test-prefect test-airflow-oldest"

test-long: ## What "make test" leaves out: the rest of what takes long, and all of it with the oldest releases
	@$(MAKE) --no-print-directory test-airflow NEWEST_AIRFLOW=tests/airflow/test_airflow_tutorial.py
	@$(MAKE) --no-print-directory test-prefect LONG=yes
	@$(MAKE) --no-print-directory test-airflow-oldest test-prefect-oldest LONG=yes

# With "-k …" in ARGS it may be that nothing is left to run in one of them: pytest's status is 5 then.
run_tests = echo "==> $(1)"; $(2)/python -m pytest --timeout=$(TIMEOUT) $(3) $(ARGS) || { s=$$?; [ -n "$(ARGS)" ] && [ $$s = 5 ]; }
# Empty: the heart of it. With the oldest releases that is what may be different in them.
LONG ?=
NEWEST_AIRFLOW := $(if $(LONG),tests/airflow,tests/airflow --ignore=tests/airflow/test_airflow_tutorial.py)
OLDEST_AIRFLOW := $(if $(LONG),tests/airflow,tests/airflow/test_airflow_sensors.py)
NEWEST_PREFECT := $(if $(LONG),tests/prefect -n 2 --dist loadfile,$(patsubst %,tests/prefect/test_prefect_%.py, \
	called direct triggered batches deployed pace parameters served with_secrets))
OLDEST_PREFECT := $(if $(LONG),tests/prefect,tests/prefect/test_prefect_called.py tests/prefect/test_prefect_direct.py)
HOSTS := --ignore=tests/airflow --ignore=tests/prefect --ignore=tests/both

test-core: ## The tests of the engine
	@.ci/venv dev
	@.ci/venv swift
	@$(call run_tests,pytest: the engine,$(BIN),$(HOSTS))

test-airflow: ## The tests of the Airflow adapter, with the newest Airflow (LONG=yes: the tutorial, too)
	@.ci/venv airflow
	@.ci/venv swift
	@$(call run_tests,pytest: the adapter with Airflow $$($(AIRFLOW)/airflow version),$(AIRFLOW),$(NEWEST_AIRFLOW))

test-airflow-oldest: ## The heart of them with the oldest one (LONG=yes: all but what is slow)
	@.ci/venv airflow-oldest
	@.ci/venv swift
	@$(call run_tests,pytest: the adapter with Airflow $$($(VENV)-airflow-oldest/bin/airflow version),$(VENV)-airflow-oldest/bin,$(OLDEST_AIRFLOW) -m "not slow")

test-prefect: ## The heart of the Prefect adapter's tests, with the newest Prefect (LONG=yes: all)
	@.ci/venv prefect
	@.ci/venv swift
	@$(call run_tests,pytest: the adapter with Prefect $$($(PREFECT)/prefect --version),$(PREFECT),$(NEWEST_PREFECT) $(if $(LONG),,-m "not slow"))

test-prefect-oldest: ## The heart of them with the oldest one (LONG=yes: all but what is slow)
	@.ci/venv prefect-oldest
	@.ci/venv swift
	@$(call run_tests,pytest: the adapter with Prefect $$($(VENV)-prefect-oldest/bin/prefect --version),$(VENV)-prefect-oldest/bin,$(OLDEST_PREFECT) -m "not slow")

test-both: ## Airflow and Prefect in one environment
	@.ci/venv both
	@.ci/venv swift
	@$(call run_tests,pytest: both adapters in one environment,$(BOTH),tests/both)

test-packages: ## The wheel as a user installs it, with the newest of all: each Python that is here, each extra
	@.ci/venv dev
	@.ci/venv tools
	@.ci/venv swift
	@$(BIN)/python -m tests.packages.matrix $(ARGS)

test-fast: ## Only the engine's tests that take less than ten seconds each
	@.ci/venv dev
	@.ci/venv swift
	@$(BIN)/python -m pytest --timeout=$(TIMEOUT) $(HOSTS) -m "not slow" $(ARGS)

# Each has an environment of its own, .venv-3.12 and so on; the Swift that they talk to stays as it is.
test-pythons: ## The same with other Pythons: those of PYTHONS="python3.12 python3.13 python3.14" that are here
	@.ci/venv swift
	@for python in $(PYTHONS); do \
		version=$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || \
			{ echo "==> there is no $$python here"; continue; }; \
		VENV=$(VENV)-$$version PYTHON=$$python .ci/venv dev; \
		echo "==> pytest: the engine with $$($(VENV)-$$version/bin/python --version)"; \
		POLLER_TEST_SWIFT_PYTHON=$(abspath $(VENV)-swift/bin/python) $(VENV)-$$version/bin/python -m pytest \
			--timeout=$(TIMEOUT) $(HOSTS) -m "not slow" $(ARGS); done

lint: ## Format, lint and types; changes nothing
	@.ci/venv dev
	@.ci/venv both
	@echo "==> ruff format --check"
	@$(BIN)/ruff format --check $(CODE)
	@echo "==> ruff check"
	@$(BIN)/ruff check $(CODE)
	@echo "==> mypy"
	@$(BIN)/mypy $(WITHOUT)
	@$(BOTH)/mypy $(NEEDS_HOSTS)

format: ## Formats the code and mends what ruff can mend
	@.ci/venv dev
	@$(BIN)/ruff check --fix-only --quiet $(CODE)
	@$(BIN)/ruff format $(CODE)

bench: ## The benchmarks: ours, the bare walk and the peers in one run
	@.ci/venv bench
	@.ci/venv swift
	@$(BIN)/python -m benchmarks $(ARGS)

bench-prefect: ## From a file to a run, and events and runs per second: ours and Prefect's own, in one run
	@.ci/venv prefect
	@$(PREFECT)/python -m benchmarks.prefect $(ARGS)

bench-airflow: ## From a file to a task, and what a triggerer takes for it: ours and Airflow's own, in one run
	@.ci/venv airflow
	@$(AIRFLOW)/python -m benchmarks.airflow $(ARGS)

# The widest set first; the others take their versions from it, so that they agree. All extras but airflow and its
# like go in: each scheduler is resolved by itself, as somebody who has one installs it.
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
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

docs: ## The pages of docs/, with the reference from the docstrings, in build/docs (strict)
	@.ci/venv both
	@$(BOTH)/python -m sphinx --fail-on-warning --keep-going --quiet -b html docs build/docs
	@echo "build/docs/index.html"

pictures: ## The pictures of docs/pictures, from the sources beside them (with graphviz)
	@command -v dot >/dev/null || { echo "error: dot is missing, which draws them: apt-get install graphviz" >&2; exit 1; }
	@for source in docs/pictures/*.dot; do \
		drawn=$$(dot -Tsvg "$$source" | sed -n '/<svg/,$$p' | sed '/^<!--.*-->$$/d'); \
		printf '<!-- made by "make pictures" from %s, sha256 %s -->\n%s\n' "$${source##*/}" \
			"$$(sha256sum <"$$source" | cut -d' ' -f1)" "$$drawn" >"$${source%.dot}.svg"; done

build: ## The source distribution and the wheel, in dist/ (tested by "make test-packages")
	@.ci/venv tools
	@$(UV) build --build-constraints requirements/run.txt --require-hashes --clear

clean: ## Removes what the other targets made
	rm -rf $(VENV) $(VENV)-3.* $(VENV)-{tools,swift,airflow,airflow-oldest,prefect,prefect-oldest,both} build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name .git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
