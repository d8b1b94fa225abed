# Every target does its own set-up: all it needs is make and Python 3.11 or newer.

.DEFAULT_GOAL := help
.NOTPARALLEL:

BIN := .venv/bin
READY := .venv/.ready
EXTRAS ?= dev

# Workers for the tests: as many as there are cores, but few enough to start quickly.
PYTEST ?= $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

# What holds Python, of these folders; mypy refuses a folder without any.
TYPED := $(sort $(patsubst %/,%,$(dir $(wildcard actorflow/*.py examples/*.py benchmarks/*.py tests/*.py))))

# Pyright is bundled in its wheel and runs on the node of another wheel: nothing is looked up or downloaded elsewhere.
export PYRIGHT_PYTHON_GLOBAL_NODE := 0
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# The first Python that is new enough and can make a virtual environment. PYTHON=... chooses another.
FITS := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3 python3.11 python3.12 python3.13 python3.14 python; do \
	if $$python -c '$(FITS)' >/dev/null 2>&1; then echo $$python; break; fi; done)

.PHONY: help venv demo test check lint layout mypy pyright complete coverage mutants mutate leaks soak yardstick bench bench-quick clean

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

venv: $(READY) ## Make .venv with everything in it

demo: $(READY) ## Kill a real job with SIGKILL, and watch it go on
	@$(BIN)/actorflow demo

test: $(READY) ## Run the tests and the examples in the docstrings
	@$(PYTEST)

check: lint layout mypy pyright complete test ## Run the whole gate: the five below, then the tests

lint: $(READY) ## Check style
	$(BIN)/ruff check .

layout: $(READY) ## Check that the code is formatted
	$(BIN)/ruff format --check .

mypy: $(READY) ## Check types with mypy, strict
	$(BIN)/mypy $(TYPED)

pyright: $(READY) ## Check types with pyright, strict
	$(BIN)/pyright

complete: $(READY) ## Check that every public name has its type
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pyright --verifytypes actorflow --ignoreexternal

coverage: $(READY) ## Run the tests under branch coverage; fail below 95 % in any of the four rooms (twice the time)
	@$(BIN)/coverage erase
	@$(PYTEST) --cov=actorflow --cov-report=
	@for room in kernel policies stores runtime; do \
		$(BIN)/coverage report --include="actorflow/$$room/*" --fail-under=95 || failed=1; done; test -z "$$failed"

mutants: $(READY) ## Plant bugs that each break a law, and see that a test notices (2 minutes)
	@$(BIN)/python -m tests.mutants

mutate: $(READY) ## Change the pure rooms a little, here and there, and print what no test notices (MINUTES=10)
	@$(BIN)/python -m tests.mutate --minutes $(or $(MINUTES),10)

leaks: $(READY) ## See that nothing in memory grows over 100,000 runs (RUNS=... for another number)
	@$(BIN)/python -m tests.leaks --runs $(or $(RUNS),100000)

soak: $(READY) ## Soak a service in load and random faults, and print a verdict (FOR=10m, SEED=...)
	@$(BIN)/python -m tests.soak --for $(or $(FOR),10m) $(if $(SEED),--seed $(SEED))

yardstick: $(READY) ## Fetch the conformance cases of another system and print how many pass (ARGS=--help)
	@$(BIN)/python -m tests.yardstick $(ARGS)

bench: $(READY) ## Run all benchmarks beside the peers that are installed, and write a report (half an hour; ARGS=--help)
	@$(BIN)/python -m benchmarks $(ARGS)

bench-quick: $(READY) ## The same with small sizes and one round (2 minutes)
	@$(BIN)/python -m benchmarks --quick $(ARGS)

clean: ## Remove .venv and all caches
	rm -rf .venv .hypothesis .mypy_cache .ruff_cache .coverage* build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml
	@$(BIN)/python -c '$(FITS)' 2>/dev/null || { \
		test -n "$(PYTHON)" || { echo "actorflow needs Python 3.11 or newer with its venv module (Debian: apt install python3-venv)." \
			"Found none; install one, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }; \
		echo "making .venv with $$($(PYTHON) --version)"; $(PYTHON) -m venv --clear .venv; }
	@$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	@touch $@
