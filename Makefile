# The one door: `make help`. Needs make and Python 3.11 or newer; everything else comes from the locks.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
IMAGE  ?= equabot-broker:dev
AGENT_IMAGE ?= equabot-example-agent:dev
-include build/image.mk   # this machine's BASE_IMAGE, if deploy/ci/docker made one

STUBS      := clients/python
PROTO      := $(wildcard proto/equabot/broker/v1/*.proto)
PROTO_VENV := .venv-proto
DIST_VENV  := .venv-dist
PROTOC      = $(PROTO_VENV)/bin/python -m grpc_tools.protoc --proto_path=proto \
	--plugin=protoc-gen-mypy=$(PROTO_VENV)/bin/protoc-gen-mypy \
	--plugin=protoc-gen-mypy_grpc=$(PROTO_VENV)/bin/protoc-gen-mypy_grpc \
	--python_out=$(1) --grpc_python_out=$(1) --mypy_out=$(1) --mypy_grpc_out=$(1) $(PROTO:proto/%=%)
LOCK = UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-emit-package equabot-client $(LOCK_FLAGS)

# Tests wait more than they work, so that there are more workers than cores.
JOBS   ?= $(shell expr $$(nproc) + 1)
PYTEST  = $(BIN)/python -m pytest --numprocesses $(JOBS) --no-loadscope-reorder

BUILD_IMAGE = docker build $(BUILD_FLAGS) $(foreach arg,BASE_IMAGE PIP_NO_INDEX,$(if $($(arg)),--build-arg $(arg)=$($(arg))))

.DEFAULT_GOAL := help
.PHONY: help install run test test-fast check fmt proto proto-check lock image example-agent dist bench clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## the virtual environment, from requirements/dev.txt

run: install ## a broker and an agent that uses it, in this terminal
	$(BIN)/python deploy/demo.py

test-fast: install ## the tests that need no more than Python: no Docker, no Envoy, no cluster
	$(PYTEST) --only fast

test: $(if $(ARGS),install,test-fast) ## every tier this machine allows, the fast ones first; takes ARGS=, of pytest
	$(if $(ARGS),$(BIN)/python -m pytest $(ARGS),$(PYTEST) --only slow)

check: install proto-check ## lint, format, types, walls between the rooms, stale stubs
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: install ## format, and fix what ruff can fix
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

proto: $(PROTO_VENV)/.locked ## the stubs, from proto/
	rm -f $(STUBS)/equabot/broker/v1/*_pb2*.py*
	$(call PROTOC,$(STUBS))

proto-check: $(PROTO_VENV)/.locked
	@rm -rf build/stubs && mkdir -p build/stubs
	@$(call PROTOC,build/stubs) 2>build/stubs.log || { cat build/stubs.log; exit 1; }
	@diff -r -x __pycache__ -x __init__.py build/stubs/equabot/broker $(STUBS)/equabot/broker \
		|| { echo "The stubs are stale: run 'make proto' and commit them."; exit 1; }

lock: install ## requirements/*.txt anew; LOCK_FLAGS=--upgrade for newer versions
	$(LOCK) pyproject.toml --output-file requirements/runtime.txt
	$(LOCK) pyproject.toml --group dev --constraint requirements/runtime.txt --output-file requirements/dev.txt
	$(LOCK) --group build --constraint requirements/dev.txt --output-file requirements/build.txt
	$(LOCK) --group proto --output-file requirements/proto.txt
	$(LOCK) --group dist --output-file requirements/dist.txt
	$(LOCK) clients/python/pyproject.toml deploy/example-agent/requirements.in --constraint requirements/runtime.txt \
		--output-file requirements/agent.txt

image: ## the container image; takes IMAGE=name:tag, BASE_IMAGE=, PIP_NO_INDEX=1 (see Dockerfile)
	$(BUILD_IMAGE) --tag $(IMAGE) .

example-agent: ## the example agent's image; takes AGENT_IMAGE=name:tag and the same
	$(BUILD_IMAGE) --file deploy/example-agent/Dockerfile --tag $(AGENT_IMAGE) .

dist: install $(DIST_VENV)/.locked ## what a release consists of, into dist/: wheels, sdists, the chart, SBOM, notices, checksums
	deploy/release/dist

bench: install ## the benchmarks: JSON and a table
	$(BIN)/python -m benchmarks $(ARGS)

clean: ## all that make made
	rm -rf $(VENV) $(PROTO_VENV) $(DIST_VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A new lock makes a new environment: pip would leave behind what the lock no longer names.
define make_venv
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "This Python cannot make virtual environments. On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $<
	@touch $@
endef

$(VENV)/.locked: requirements/dev.txt
	$(make_venv)

$(PROTO_VENV)/.locked: requirements/proto.txt
	$(make_venv)

$(DIST_VENV)/.locked: requirements/dist.txt
	$(make_venv)

$(VENV)/.installed: $(VENV)/.locked pyproject.toml clients/python/pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . -e clients/python
	@touch $@
