# `make setup` and `make serve` are all that a newcomer needs; `make help` lists the rest.
PYTHON ?= python3
VENV ?= .venv
VLLM_VERSION ?= 0.32.0
VLLM ?= 0.28.0
MODEL ?= demo
PORT ?= 8000
ARGS ?=
JOBS ?= 2
FUZZ_SECONDS ?= 60
SUPPORTED ?= 0.28.0 0.29.0 0.30.0 0.31.0 0.32.0 0.33.0
RESULTS := vllm_vlinders/compat/results.json

BIN := $(VENV)/bin
SOURCES := $(wildcard vllm_vlinders tests benchmarks examples scripts setup.py)
export PYTHON
# With bytecode at hand each process of vLLM starts in half the time.
unexport PYTHONDONTWRITEBYTECODE
.DEFAULT_GOAL := help
.PHONY: help setup model deep-model serve release lint format typecheck unit pytest test test-upstream \
    test-policies fuzz \
    compat compat-check compat-oldest compat-scan compat-report metric-table dashboard prometheus bench scenarios \
    session-scenarios image-test dist clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile
	@echo "  Variables: PYTHON, VENV, VLLM_VERSION (setup), VLLM (release), MODEL, PORT, ARGS (serve), JOBS (pytest), FUZZ_SECONDS"

setup: ## make .venv with vLLM and vlinders in its bin
	@scripts/setup.sh --venv $(VENV) --vllm $(VLLM_VERSION)

model: setup ## make the tiny demo model and its LoRA adapter in .models
	@$(BIN)/python scripts/make_tiny_model.py

deep-model: setup
	@$(BIN)/python scripts/make_tiny_model.py --deep

serve: setup model ## serve the demo model, or MODEL=..., on PORT with ARGS, until Ctrl-C
	@exec $(BIN)/python scripts/serve.py --model "$(MODEL)" --port $(PORT) -- $(ARGS)

release: setup ## make .releases/VLLM, another vLLM release on the same environment
	@$(BIN)/python scripts/vllm_release.py $(VLLM)

lint: setup ## check style and formatting
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

format: setup ## format the sources and fix what can be fixed
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

typecheck: setup ## check the types
	$(BIN)/mypy

unit: setup ## run the tests that need no vLLM
	$(BIN)/python -m pytest tests/unit

pytest: setup deep-model release ## run the unit, patch, deployment and integration tests, the longest first
	$(BIN)/python -m pytest -n $(JOBS) --no-loadscope-reorder \
	    tests/integration tests/patches tests/deployment tests/unit

test: lint typecheck deep-model ## run every check: style, types, vLLM's own short tests, all of ours
	$(BIN)/vlinders compat test --vllm $(VLLM_VERSION) --only own
	@$(MAKE) --no-print-directory pytest

test-upstream: setup deep-model ## run all of vLLM's own tests that matter, stock and patched, and compare
	$(BIN)/vlinders compat test --vllm $(VLLM_VERSION) --only own --long
	VLINDERS_SCHEDULER__POLICY=fcfs $(BIN)/vlinders compat test --vllm $(VLLM_VERSION) --only own --long

test-policies: setup deep-model ## run vLLM's own short tests under each scheduling policy
	@$(BIN)/python scripts/test_policies.py $(VLLM_VERSION)

compat: compat-scan deep-model ## run every supported release too, and renew what is known of it
	$(BIN)/vlinders compat test --vllm $(SUPPORTED) --long --results $(RESULTS)
	@$(MAKE) --no-print-directory compat-report

compat-check: setup ## scan every supported release, with the example of a company's patches too
	$(BIN)/vlinders compat scan --recorded --brief
	PYTHONPATH=examples/acme_patches $(BIN)/vlinders compat scan --recorded --brief --patches acme_patches

compat-oldest: setup deep-model ## run vLLM's own tests on the oldest supported release
	$(BIN)/vlinders compat test --vllm $(firstword $(SUPPORTED)) --only own

compat-scan: setup ## scan every supported release and renew what is known of it
	$(BIN)/vlinders compat scan --recorded --brief --results $(RESULTS)
	@$(MAKE) --no-print-directory compat-report

metric-table: setup ## write the table of metrics into docs/operations.md
	@$(BIN)/python scripts/metric_table.py

dashboard: setup ## write the Grafana dashboard from its script
	@$(BIN)/python scripts/make_dashboard.py

prometheus: setup ## run a Prometheus on a live server (needs Debian's package prometheus); ARGS=--check asks every query
	@exec $(BIN)/python scripts/prometheus.py --target 127.0.0.1:$(PORT) $(ARGS)

compat-report: setup ## write COMPATIBILITY.md, the page and the badge from the table of results
	$(BIN)/vlinders compat report --markdown COMPATIBILITY.md --html docs/compatibility.html \
	    --badge docs/compatibility-badge.json

fuzz: setup ## fuzz requests through the whole pipeline, led by coverage, for FUZZ_SECONDS
	@$(BIN)/python -m pip install -q -c requirements/constraints-cpu.txt atheris
	$(BIN)/python tests/fuzz/fuzz_requests.py -max_total_time=$(FUZZ_SECONDS)

bench: setup model ## run the micro benchmarks
	$(BIN)/python -m pytest benchmarks -s --benchmark-columns=min,median,max,rounds

scenarios: setup deep-model ## run the scheduling scenarios, stock and ours in turns; write docs/benchmarks.md
	@$(BIN)/python -m pip install -q -c requirements/constraints-cpu.txt matplotlib
	cd benchmarks && ../$(BIN)/python -m scenarios --write ../docs

session-scenarios: setup model ## run the session scenarios, stock and ours in turns; write docs/benchmarks.md
	@$(BIN)/python scripts/make_tiny_model.py --wide
	@$(BIN)/python -m pip install -q -c requirements/constraints-cpu.txt matplotlib
	cd benchmarks && ../$(BIN)/python -m scenarios.sessions --write ../docs

image-test: setup model ## build the images on a base made by debootstrap and run them (root, buildah, debootstrap, podman)
	$(BIN)/python -m pytest tests/image -s

dist: setup ## build the wheel and the sdist, check them, and try the wheel in a clean environment
	@scripts/dist.sh $(BIN)/python

clean: ## remove everything that make made
	rm -rf .venv .models .releases .tools .upstream build dist *.egg-info .mypy_cache .pytest_cache \
	    .ruff_cache .benchmarks .hypothesis
