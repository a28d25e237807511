# Everything a contributor does, one word each. `make` alone lists them.
#
# PYTHON=python3.12   the interpreter that .venv is made with (3.11 or newer)
# ARGS="…"            passed on: make run ARGS="--port 9443", make test ARGS="tests/unit -x"
# LANES=2             processes that run tests; LANES=0 for one that can be talked to (make test LANES=0 ARGS="… --pdb")

PYTHON ?= python3
ARGS ?=
LANES ?= 2
BIN := .venv/bin
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help setup run test check format bench golden chaos fixtures lock image screenshots clean

help: ## list these words
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## make .venv with the gateway and what it needs
	@scripts/dev/system-packages.sh python
	@scripts/dev/environment.sh runtime

run: setup ## start the gateway: https://localhost:8443
	@exec $(BIN)/riva-gateway serve $(ARGS)

test: ## install what the tests need (a browser included) and run them all
	@scripts/dev/system-packages.sh python
	@scripts/dev/environment.sh dev
	@scripts/dev/environment.sh clients
	@scripts/dev/system-packages.sh shell
	@scripts/dev/system-packages.sh curl
	@scripts/dev/system-packages.sh sounds
	@scripts/dev/system-packages.sh prometheus
	@scripts/dev/system-packages.sh machines
	@scripts/dev/system-packages.sh containers
	@CHROMIUM="$$(scripts/dev/system-packages.sh browser)" && NODE="$$(scripts/dev/system-packages.sh node)" && \
		POSTGRES="$$(scripts/dev/system-packages.sh postgres)" && \
		export CHROMIUM NODE POSTGRES && $(BIN)/python -m pytest -n $(LANES) $(ARGS)

check: ## style, types, import directions, shell scripts, secrets, unsafe code, dependencies
	@scripts/dev/system-packages.sh python
	@scripts/dev/environment.sh dev
	@scripts/dev/check.sh

format: ## put the code into the house style
	@scripts/dev/environment.sh dev
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format --quiet .
	@scripts/dev/system-packages.sh shell
	@find scripts .ci -type f \( -name "*.sh" -o -name "*.bash" -o -path ".ci/run" \) -exec shfmt -i 4 -w {} +

bench: ## measure the gateway on this machine (figures: docs/performance.md)
	@scripts/dev/system-packages.sh python
	@scripts/dev/environment.sh dev
	@$(BIN)/python load/bench.py $(ARGS)

golden: setup ## score the golden set: words, latencies, limits (ARGS="--server URL --html report.html"; docs/golden.md)
	@exec $(BIN)/riva-gateway golden $(ARGS)

chaos: ## the long fault tier: ten times the kills, an hour's soak in three minutes and more (docs/reliability.md)
	@scripts/dev/system-packages.sh python
	@scripts/dev/environment.sh dev
	@CHAOS_LONG=1 CHAOS_KILLS=10000 $(BIN)/python -m pytest tests/chaos tests/memory/test_resilience.py $(ARGS)

fixtures: ## speak and mix the clips of the golden set anew (ARGS=--check only compares)
	@scripts/dev/system-packages.sh python
	@scripts/dev/system-packages.sh sounds
	@scripts/dev/environment.sh dev
	@$(BIN)/python tests/fixtures/make.py $(ARGS)

lock: ## pin all dependencies anew in requirements/ (ARGS=--upgrade for newer versions)
	@scripts/dev/lock.sh $(ARGS)

image: ## build the container image with docker, as riva-gateway:latest (ARGS="--target laptop" for one that needs no Riva)
	@docker build --build-arg REVISION="$$(git rev-parse HEAD)" \
		--build-arg SOURCE_DATE_EPOCH="$$(git log -1 --format=%ct)" --tag riva-gateway $(ARGS) .

screenshots: ## take the pictures of the page that the documents show
	@scripts/dev/system-packages.sh python
	@scripts/dev/environment.sh dev
	@CHROMIUM="$$(scripts/dev/system-packages.sh browser)" && export CHROMIUM && $(BIN)/python scripts/dev/screenshots.py $(ARGS)

clean: ## throw away .venv and all caches
	@rm -rf .venv .venv-clients .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
