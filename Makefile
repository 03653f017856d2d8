# Everything people and CI start. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The lock that .venv was made from, requirements.lock at first. On a CUDA machine: make setup LOCK=requirements-gpu.lock PYTHON=python3.12
LOCK ?= $(or $(notdir $(wildcard .venv/installed/*.lock)),requirements.lock)
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	"$$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo "$$p" && break; done)
EXPERIMENT ?=
UPGRADE ?=
# Writes the locks, and is in none of them; pinned, so that the same pyproject.toml gives the same locks.
INSTALL_UV := python -m pip install --quiet --no-deps --disable-pip-version-check uv==0.13.9

export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help
help:  ## list the targets
	@grep -hE '^[a-z%-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "make %-16s %s\n", $$1, $$2 }'

.PHONY: setup
setup:  ## make .venv from the lock, if it was made from another one
	@cmp -s $(LOCK) .venv/installed/$(LOCK) || { \
		[ -n "$(PYTHON)" ] || { echo "setup: no Python 3.11, 3.12 or 3.13 found; install one, or name it: make setup PYTHON=/path/to/python" >&2; exit 2; }; \
		"$(PYTHON)" -m tools.setup $(LOCK); }

.PHONY: run
run: setup  ## the pipeline as conf/ has it; EXPERIMENT=smoke: with conf/experiment/smoke.yaml
	$(if $(EXPERIMENT),dvc exp run -S experiment=$(EXPERIMENT),@python -m finetune params && dvc repro)

.PHONY: params
params: setup  ## compose conf/ into params.yaml, for `dvc repro`
	@python -m finetune params

.PHONY: test
test: setup  ## the tests that take minutes, with tiny models
	python -m pytest -m "not slow"

.PHONY: test-slow
test-slow: setup  ## the other tests: real processes, the real model, queue, browser
	python -m pytest -m slow

.PHONY: coverage
coverage: setup  ## all tests, and no less than 90 % of finetune/ and stages/ run by them
	python -m pytest --cov --cov-report=term-missing:skip-covered --cov-fail-under=90

.PHONY: lint
lint: setup  ## ruff and mypy
	ruff check .
	ruff format --check .
	mypy

.PHONY: verify
verify: lint check-pythons figure-coverage figure-pipeline figures  ## everything: lint, locks, all tests, the pipeline in full, the figures

.PHONY: figures
figures: setup  ## judge the measured figures: OK, SHORT, STALE or MISSING
	python -m benchmarks.figures

.PHONY: figure-%
figure-%: setup  ## measure one figure anew, into benchmarks/results/
	python -m benchmarks.figures $*

.PHONY: lock
lock: setup  ## pyproject.toml → the two locks; UPGRADE=1: the newest versions that fit
	@$(INSTALL_UV)
	python -m tools.lock $(if $(UPGRADE),--upgrade)

.PHONY: check-pythons
check-pythons: setup  ## resolve pyproject.toml for Python 3.11, 3.12 and 3.13, and compare with the locks
	@$(INSTALL_UV)
	python -m tools.lock --check

.PHONY: clean
clean:  ## remove caches of tools and Python; results, .venv and the DVC cache stay
	rm -rf .pytest_cache .mypy_cache .ruff_cache .coverage .coverage.* htmlcov
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
