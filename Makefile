# Everything a user or a developer runs. Each target sets up what it needs in a virtual environment of its own
# (.venv) and is quick the second time.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
DEMO := demo
MINUTES ?= 10
AZURITE := 3.37.0
PROMETHEUS_OPERATOR := 6.0.0

.DEFAULT_GOAL := help
.PHONY: help demo test test-next lint check faults surprises cases soak zoo format bench clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /make \1\t/' | expand -t 16

demo: BEGAN := $(shell date +%s)
demo: $(VENV)/demo.stamp ## score the handwritten digits on a local Ray with two workers, and draw the result
	@$(BIN)/python -m jobs.examples.digits prepare --folder $(DEMO)
	@$(BIN)/runner show $(DEMO)/model
	@$(BIN)/runner plan jobs/examples/digits.yaml
	@$(BIN)/runner run jobs/examples/digits.yaml
	@$(BIN)/python -m jobs.examples.digits report --folder $(DEMO)
	@echo "make demo: $$(( $$(date +%s) - $(BEGAN) )) s, set-up included"

# One process for each folder: Ray remembers tokens, and memory limits look at the process, so neighbours would disturb each other.
# Half of them start no Ray and need one core: they run beside the other half, and their output comes last.
SUITES ?= storage tf pure deploy cli cluster submit faults notebook gpu
BESIDE := storage tf pure deploy
test: $(VENV)/dev.stamp ## all tests; SUITES="pure tf" for some
	@failed="" log=$$(mktemp); trap 'kill $$beside 2> /dev/null; rm -f $$log $$log.failed' EXIT; trap 'exit 130' INT TERM; \
	{ trap 'kill $$child 2> /dev/null; exit 130' TERM; for suite in $(filter $(BESIDE),$(SUITES)); do \
		echo "tests/$$suite"; $(BIN)/python -m pytest tests/$$suite & child=$$!; wait $$child || echo "$$suite" >> $$log.failed; \
	done; } > $$log 2>&1 & beside=$$!; \
	for suite in $(filter-out $(BESIDE),$(SUITES)); do \
		echo "tests/$$suite"; $(BIN)/python -m pytest tests/$$suite || failed="$$failed $$suite"; \
	done; \
	wait $$beside; beside=""; cat $$log; if [ -e $$log.failed ]; then failed="$$failed $$(tr '\n' ' ' < $$log.failed)"; fi; \
	if [ -n "$$failed" ]; then echo "make test: failed in $$failed"; exit 1; fi

# The newest TensorFlow there is, be it a candidate, in an environment of its own that is brought up to date each time; outside CI.
# What is built for one minor of TensorFlow stays out of it: the tests that need TF-Text or ydf-tf are skipped, and say so.
NEXT ?= tests/tf/engine tests/tf/scan tests/tf/test_zoo.py tests/tf/test_origins.py tests/tf/test_guide.py
NEXT_PYTHON := $(VENV)/next/bin/python
test-next: $(VENV)/bin/python ## engine, zoo and guide on the newest pre-release of TensorFlow; NEXT="tests/tf" for more
	@[ -x $(NEXT_PYTHON) ] || $(BIN)/python -m venv $(VENV)/next
	@$(NEXT_PYTHON) -m pip --disable-pip-version-check install --quiet --upgrade --pre --no-deps tensorflow
	@grep -v '^tensorflow' constraints.txt > $(VENV)/next/constraints.txt
	@$(NEXT_PYTHON) -m pip --disable-pip-version-check install --quiet --compile --constraint $(VENV)/next/constraints.txt \
		--editable '.[demo,tfrecord]' pytest pytest-timeout hypothesis jax orbax-export
	@$(NEXT_PYTHON) -m runner --version
	$(NEXT_PYTHON) -m pytest $(NEXT)

# What `make test` leaves out because it takes minutes: nodes that sleep, drain and die, networks that lose.
faults: $(VENV)/dev.stamp ## every row of the fault matrix, the slow ones too; prints the time
	$(BIN)/python -m pytest --durations=10 -m "faults or not faults" tests/faults tests/submit tests/cli/test_interruptions.py \
		tests/storage/output/test_publish.py tests/storage/store/test_store_contract.py tests/storage/output/test_epoch.py tests/pure/test_each_step.py tests/deploy/test_slurm.py

# Arrays beyond 2 GiB, 5,000 columns, 100,000 row groups: up to 20 GiB of memory. One process for each folder.
surprises: $(VENV)/dev.stamp ## what needs much memory or minutes of the tests of what surprises; prints what it saw
	@failed=""; for suite in pure storage tf cli; do \
		echo "tests/$$suite"; $(BIN)/python -m pytest -q --durations=0 -m surprises tests/$$suite || failed="$$failed $$suite"; \
	done; if [ -n "$$failed" ]; then echo "make surprises: failed in$$failed"; exit 1; fi

# Files of Spark, Polars, ClickHouse and others, written by them: they are installed in an environment of their own.
CASES ?=
cases: $(VENV)/dev.stamp $(VENV)/cases.stamp ## situations that users met, with the programs that they had; one line each; CASES="..." for some
	@CASE_WRITERS=$(VENV)/cases/bin/python $(BIN)/python tests/support/cases.py $(CASES)

soak: $(VENV)/dev.stamp ## jobs on an S3 server while workers, nodes and drivers are killed: make soak MINUTES=10
	$(BIN)/python tests/support/soak.py --minutes $(MINUTES)

lint: $(VENV)/dev.stamp ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint ## the same, and the fast tests
	$(BIN)/python -m pytest -q tests/pure

format: $(VENV)/dev.stamp ## let ruff format and mend what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

WORKLOADS ?= vector wide jax topk image text example sequence tiny many wide-plan memory
BENCH ?=
bench: $(VENV)/dev.stamp ## all benchmarks against the plain loop and Ray Data; BENCH=--quick for a few minutes
	@rm -f benchmarks/.cache/results.jsonl && mkdir -p benchmarks/.cache
	$(BIN)/python benchmarks/bench.py $(WORKLOADS) $(BENCH) --out benchmarks/.cache/results.jsonl
	$(BIN)/python benchmarks/render.py benchmarks/.cache/results.jsonl benchmarks

zoo: $(VENV)/dev.stamp ## every kind of SavedModel there is: what the scan, the engines and Arrow make of it
	@PYTHONPATH=. $(BIN)/python tests/support/zoo.py

clean: ## remove the environment, the demo and all caches
	rm -rf $(VENV) $(DEMO) .pytest_cache .mypy_cache .ruff_cache .hypothesis benchmarks/.cache

$(VENV)/cases.stamp: tests/cases/writers.txt | $(VENV)/bin/python
	$(BIN)/python -m venv $(VENV)/cases
	$(VENV)/cases/bin/python -m pip --disable-pip-version-check install --quiet --requirement $<
	@touch $@

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info < (3, 14) or sys.exit("Python 3.11 to 3.13 is needed; $(PYTHON) is " + sys.version.split()[0] + ". Name another: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

# Bytecode is compiled at once, whatever the environment says: an uncompiled TensorFlow or Ray takes three times as
# long to import.
$(VENV)/demo.stamp: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) install --quiet --compile --constraint constraints.txt --editable '.[demo]'
	@$(BIN)/python -m compileall -q runner jobs connectors
	@touch $@

$(VENV)/dev.stamp: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) install --quiet --compile --constraint constraints.txt --editable '.[dev]'
	@command -v npm > /dev/null && npm install --silent --no-fund --no-audit --prefix $(VENV)/azurite \
		azurite@$(AZURITE) @kubernetes-models/prometheus-operator@$(PROMETHEUS_OPERATOR) \
		|| echo "no Azure emulator, no schemas of Prometheus' operator: npm is not there, or could not install them; their tests will be skipped"
	@touch $@ $(VENV)/demo.stamp
