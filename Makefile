# Run `make help` first. The targets need make and Python 3.11 or newer. The locks install the rest.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
IMAGE  ?= equabot-broker:dev
AGENT_IMAGE ?= equabot-example-agent:dev
-include build/image.mk   # the BASE_IMAGE of this machine, if deploy/ci/docker made one

STUBS      := clients/python
TYPESCRIPT := clients/typescript
PROTO      := $(wildcard proto/equabot/broker/v1/*.proto)
PROTO_VENV := .venv-proto
BUF_VERSION := 1.75.0
BUF        := build/buf-$(BUF_VERSION)/node_modules/.bin/buf
PROTO_BASELINE := proto/baseline.binpb
DIST_VENV  := .venv-dist
DOCS_VENV  := .venv-docs
PROTOC      = $(PROTO_VENV)/bin/python -m grpc_tools.protoc --proto_path=proto \
	--plugin=protoc-gen-mypy=$(PROTO_VENV)/bin/protoc-gen-mypy \
	--plugin=protoc-gen-mypy_grpc=$(PROTO_VENV)/bin/protoc-gen-mypy_grpc \
	--python_out=$(1) --grpc_python_out=$(1) --mypy_out=$(1) --mypy_grpc_out=$(1) $(PROTO:proto/%=%)
LOCK = UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-emit-package equabot-client $(LOCK_FLAGS)

MKDOCS = NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs

# Tests mostly wait, so there are more workers than cores.
JOBS   ?= $(shell expr $$(nproc) + 1)
# A test that ends its process ends the run: pytest-xdist would wait forever for the tests that it had.
PARALLEL = --numprocesses $(JOBS) --no-loadscope-reorder --max-worker-restart 0
PYTEST  = $(BIN)/python -m pytest $(PARALLEL)

# What `make test` runs first. `FAST=coverage` runs the same tests, and fails if they cover less than before.
FAST ?= test-fast

PYTHON_VERSION ?= 3.14
OTHER_PYTHON    = build/python-$(PYTHON_VERSION)

BUILD_IMAGE = docker build $(BUILD_FLAGS) $(foreach arg,BASE_IMAGE PIP_NO_INDEX,$(if $($(arg)),--build-arg $(arg)=$($(arg))))

.DEFAULT_GOAL := help
.PHONY: help install run test test-fast coverage check fmt proto proto-check proto-lint proto-baseline reference lock image example-agent dist release docs docs-serve test-python bench clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## Create the virtual environment from requirements/dev.txt.

run: install ## Run a broker and an agent that uses it, in this terminal.
	$(BIN)/python deploy/demo.py

test-fast: install ## Run the tests that need only Python: no Docker, no Envoy, no cluster.
	$(PYTEST) --only fast

coverage: install ## Run the fast tests, and fail if they cover less of broker and client than pyproject.toml asks for.
	$(PYTEST) --only fast --cov --cov-report=term:skip-covered

test: $(if $(ARGS),install,$(FAST)) ## Run every test tier that this machine supports, the fast ones first. ARGS= sets pytest arguments.
	$(if $(ARGS),$(BIN)/python -m pytest $(ARGS),$(PYTEST) --only slow)

test-python: install ## Run the fast tests on another Python, which uv finds or fetches. PYTHON_VERSION=3.14 names it.
	$(BIN)/uv venv --quiet --clear --python $(PYTHON_VERSION) $(OTHER_PYTHON)
	$(BIN)/uv pip sync --quiet --python $(OTHER_PYTHON) --require-hashes requirements/dev.txt
	$(BIN)/uv pip install --quiet --python $(OTHER_PYTHON) --no-deps --no-build-isolation -e . -e clients/python
	$(OTHER_PYTHON)/bin/python -m pytest -p no:cacheprovider $(or $(ARGS),$(PARALLEL) --only fast)

check: install proto-check ## Check lint, format, types, import contracts, and that generated files are not stale.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python deploy/reference --check

fmt: install ## Format the code, and fix what ruff can fix.
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

proto: $(PROTO_VENV)/.locked ## Generate the stubs from proto/, for Python and for TypeScript. The latter need npm.
	rm -f $(STUBS)/equabot/broker/v1/*_pb2*.py*
	$(call PROTOC,$(STUBS))
	[ -d $(TYPESCRIPT)/node_modules ] || (cd $(TYPESCRIPT) && npm ci --ignore-scripts --no-audit --no-fund)
	PROTOC="$(CURDIR)/$(PROTO_VENV)/bin/python -m grpc_tools.protoc" sh $(TYPESCRIPT)/scripts/generate.sh $(TYPESCRIPT)/src/gen

proto-check: $(PROTO_VENV)/.locked
	@rm -rf build/stubs && mkdir -p build/stubs
	@$(call PROTOC,build/stubs) 2>build/stubs.log || { cat build/stubs.log; exit 1; }
	@diff -r -x __pycache__ -x __init__.py build/stubs/equabot/broker $(STUBS)/equabot/broker \
		|| { echo "The stubs are stale: run 'make proto' and commit them."; exit 1; }

proto-lint: $(BUF) ## Check proto/ with buf, also for breaks since the last release. The first run needs npm.
	$(BUF) lint proto
	$(BUF) breaking proto --against $(PROTO_BASELINE)

proto-baseline: $(BUF) ## Make proto/ as it is now the API that later changes must not break. A release does this.
	$(BUF) build proto --exclude-source-info --output $(PROTO_BASELINE)

reference: install ## Generate docs/reference and the list of providers of the command line from the code.
	$(BIN)/python deploy/reference

lock: install ## Update requirements/*.txt. LOCK_FLAGS=--upgrade selects newer versions.
	$(LOCK) pyproject.toml --output-file requirements/runtime.txt
	$(LOCK) pyproject.toml --group dev --constraint requirements/runtime.txt --output-file requirements/dev.txt
	$(LOCK) --group build --constraint requirements/dev.txt --output-file requirements/build.txt
	$(LOCK) --group proto --output-file requirements/proto.txt
	$(LOCK) --group dist --output-file requirements/dist.txt
	$(LOCK) --group docs --output-file requirements/docs.txt
	$(LOCK) clients/python/pyproject.toml deploy/example-agent/requirements.in --constraint requirements/runtime.txt \
		--output-file requirements/agent.txt

image: ## Build the container image. IMAGE=name:tag, BASE_IMAGE= and PIP_NO_INDEX=1 apply (see Dockerfile).
	$(BUILD_IMAGE) --tag $(IMAGE) .

example-agent: ## Build the image of the example agent. AGENT_IMAGE=name:tag, BASE_IMAGE= and PIP_NO_INDEX=1 apply.
	$(BUILD_IMAGE) --file deploy/example-agent/Dockerfile --tag $(AGENT_IMAGE) .

dist: install $(DIST_VENV)/.locked ## Build the files of a release in dist/: wheels, sdists, chart, SBOM, notices, checksums.
	deploy/release/dist

release: install ## Set VERSION=x.y.z in every place that names the version, commit and tag. Pushes nothing.
	deploy/release/tag $(VERSION)

docs: $(DOCS_VENV)/mermaid.min.js ## Build the documentation as a site in build/site. A broken link is an error.
	$(MKDOCS) build --strict

docs-serve: $(DOCS_VENV)/mermaid.min.js ## Serve the documentation on http://127.0.0.1:8000 and rebuild it on every change.
	$(MKDOCS) serve --strict

bench: install ## Run the benchmarks, and print JSON and a table.
	$(BIN)/python -m benchmarks $(ARGS)

clean: ## Remove everything that make created.
	rm -rf $(VENV) $(PROTO_VENV) $(DIST_VENV) $(DOCS_VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# At a terminal pip shows its progress.
PIP_SHOWS = $(if $(MAKE_TERMOUT),,--quiet)

# A changed lock needs a new environment: pip would keep packages that the lock no longer names.
define make_venv
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "This Python cannot make virtual environments. On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "Installing $$(grep -c '==' $<) packages ($<) into $(@D). This takes about a minute, and happens again when the lock changes."
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install $(PIP_SHOWS) --disable-pip-version-check --require-hashes --requirement $<
	@touch $@
endef

$(VENV)/.locked: requirements/dev.txt
	$(make_venv)

$(PROTO_VENV)/.locked: requirements/proto.txt
	$(make_venv)

$(DIST_VENV)/.locked: requirements/dist.txt
	$(make_venv)

$(DOCS_VENV)/.locked: requirements/docs.txt
	$(make_venv)

# Mermaid draws the diagrams in the browser. It is an npm package; the site carries this copy and fetches nothing.
$(DOCS_VENV)/mermaid.min.js: $(DOCS_VENV)/.locked deploy/docs/mermaid
	deploy/docs/mermaid $@

$(BUF):
	npm install --silent --no-audit --no-fund --prefix build/buf-$(BUF_VERSION) @bufbuild/buf@$(BUF_VERSION)

$(VENV)/.installed: $(VENV)/.locked pyproject.toml clients/python/pyproject.toml
	$(BIN)/python -m pip install $(PIP_SHOWS) --disable-pip-version-check --no-deps --no-build-isolation -e . -e clients/python
	@touch $@
