# Everything a contributor runs. `make` alone lists it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
PEERS := .venv-peers
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check --no-input

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo clouds test lint types bench bench-pubsub bench-servicebus bench-sqs simulate mutants kill lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z.-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(STAMP) ## run a real worker on a week of earthquakes, on the embedded queue
	@$(BIN)/python examples/quakes/demo.py

CLOUDS := pubsub servicebus sqs
clouds: $(STAMP) ## run the demo on the local server of each cloud
	@for cloud in $(CLOUDS); do $(BIN)/python examples/quakes/demo.py $$cloud || exit 1; done

test: $(STAMP) ## run the tests (all but the heavy ones, which .ci/run adds)
	@$(BIN)/python -m pytest -q -m "not heavy" -n auto --dist loadfile

lint: $(STAMP) ## check style and formatting
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

types: $(STAMP) ## check types
	@$(BIN)/mypy

bench: $(STAMP) ## measure the cost of an event
	@$(BIN)/python -m bench

bench-sqs: $(STAMP) $(PEERS)/.requirements ## measure the cost of an event on SQS, beside a loop by hand and Celery
	@$(BIN)/python -m bench.sqs

bench-pubsub: $(STAMP) ## measure the cost of an event on Pub/Sub, beside a loop by hand and Google's threaded client
	@$(BIN)/python -m bench.pubsub

bench-servicebus: $(STAMP) ## measure the cost of an event on Service Bus, beside loops by hand
	@$(BIN)/python -m bench.servicebus

simulate: SEEDS ?= 1000
simulate: SIZE ?= large
simulate: $(STAMP) ## run workers in simulated worlds full of faults (make simulate SEEDS=100000 SIZE=small)
	@$(BIN)/python -m eventkit.testing.simulation --seeds $(SEEDS) --size $(SIZE) --trio-every 10

mutants: $(STAMP) ## break the core in every known way, and see that the simulation notices
	@$(BIN)/python -m tests.simulation.mutants

kill: N ?= 100
kill: $(STAMP) ## kill, stop and drain real workers, N times (make kill N=2000)
	@$(BIN)/python -m tests.process.deaths --kills $(N) --terms $$(($(N) / 2)) --stops $$(($(N) / 10))

lock: ## write requirements/dev.txt from requirements/dev.in (needs uv)
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-header --annotation-style line --upgrade -o requirements/dev.txt requirements/dev.in

clean: ## remove everything that can be made again
	@rm -rf $(VENV) $(PEERS) build dist .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv: $(STAMP)

$(STAMP): $(VENV)/.requirements pyproject.toml
	@echo "[3/3] installing eventkit, editable"
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.requirements: requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "eventkit needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1); try: make PYTHON=python3.12" >&2; exit 1; }
	@echo "[1/3] $(VENV) with $$($(PYTHON) -V)"
	@$(PYTHON) -m venv $(VENV)
	@echo "[2/3] installing requirements/dev.txt, hashes checked"
	@$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@

$(PEERS)/.requirements: bench/peers/celery.txt
	@echo "$(PEERS), to measure Celery: installing bench/peers/celery.txt, hashes checked"
	@$(PYTHON) -m venv $(PEERS)
	@$(subst $(BIN),$(PEERS)/bin,$(PIP)) install --require-hashes -r bench/peers/celery.txt
	@touch $@
