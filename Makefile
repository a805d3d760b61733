# One verb per chore; CI runs the same verbs (see .ci/run).
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
# Servers, commands and tools are processes of their own: what one has compiled, the next ones load.
unexport PYTHONDONTWRITEBYTECODE

VENV    := .venv
BIN     := $(VENV)/bin
STAMPS  := $(VENV)/.stamps
WHEELS  := src/bakehouse/build/wheels
PYTEST  := $(BIN)/python -m pytest
# Of what they test, most waits for processes and clocks: one more than the two cores that are common.
WORKERS ?= 3
# The engine's torch. TORCH_INDEX names a package index with the build for your device, for instance
# https://download.pytorch.org/whl/cu130; without it pip's own index decides.
TORCH       := torch==2.13.0
TORCH_INDEX ?=
SDKS    := infsh inferencesh inferlet
# Of these, apps get a wheel.
APP_SDKS := infsh inferencesh
# Everything that changes what must be installed, or what an SDK wheel holds.
PROJECTS    := pyproject.toml $(SDKS:%=sdk/%/pyproject.toml)
SDK_SOURCES := $(shell find sdk -type f \( -name '*.py' -o -name '*.toml' -o -name '*.md' -o -name '*.wit' -o -name 'py.typed' \) -not -path '*/.*' 2>/dev/null)
# The first interpreter that is new enough; `make PYTHON=... install` chooses another one.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v "$$p"; break; }; done)

.PHONY: help install base check fix test test-fast test-interop test-crash test-slow test-gpu demo serve bench-tasks \
	bench-engine bench-inferlets clean

help: ## List the verbs
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: base $(STAMPS)/engine ## Create .venv and everything in it; repeats nothing that is done

base: $(STAMPS)/install $(STAMPS)/wheels ## The same without torch and what else local models need

$(BIN)/uv:
	@test -n "$(PYTHON)" || { echo "Bakehouse needs Python 3.11 or newer; found $$(python3 --version 2>&1 || echo none)." \
		"Install one, or name it: make PYTHON=/path/to/python3.11 install" >&2; exit 1; }
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.5,<1'

$(STAMPS)/install: $(PROJECTS) | $(BIN)/uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python \
		--editable '.[dev,postgres,inferlets]' --editable 'sdk/infsh[cli]' --editable sdk/inferencesh \
		--editable 'sdk/inferlet[client]'
	@mkdir -p $(STAMPS) && touch $@

# Torch by pip: its builds for CPUs and for each CUDA live in indexes of their own, which uv would mix. A build that is
# there already will do, unless an index is named: then that one's replaces it.
TORCH_STAMP := $(STAMPS)/torch$(shell printf '%s' '$(TORCH_INDEX)' | tr -c 'A-Za-z0-9' '-')

$(TORCH_STAMP): | $(STAMPS)/install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		$(if $(TORCH_INDEX),--force-reinstall --index-url '$(TORCH_INDEX)') '$(TORCH)'
	@touch $@

$(STAMPS)/engine: $(PROJECTS) $(STAMPS)/install $(TORCH_STAMP)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[engine]' \
		--editable sdk/infsh --editable sdk/inferencesh --editable sdk/inferlet
	@touch $@

# The server puts these wheels into the environments that it builds for apps.
$(STAMPS)/wheels: $(SDK_SOURCES) $(STAMPS)/install
	@mkdir -p $(WHEELS) $(STAMPS) && rm -f $(WHEELS)/*.whl
	@for sdk in $(APP_SDKS); do $(BIN)/uv build --quiet --python $(BIN)/python --wheel sdk/$$sdk --out-dir $(WHEELS); done
	@rm -f $(WHEELS)/.gitignore && touch $@

check: install ## ruff, mypy --strict, import-linter, generated code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python sdk/inferlet/scripts/unasync.py --check

fix: install ## Let ruff repair what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# One process tree per test file keeps a file's server to itself, so files may run side by side. Their order is that of
# tests/conftest.py: what waits for processes first, what is over in a moment last.
FILES_APART := --dist loadfile --no-loadscope-reorder

test: install ## Every test but the long ones
	$(PYTEST) -n $(WORKERS) $(FILES_APART) -m "not slow and not gpu"

test-fast: install ## The tests that need neither Node nor other clients' environments
	$(PYTEST) -n $(WORKERS) $(FILES_APART) -m "not slow and not interop and not gpu"

test-interop: install ## The published clients against a real server
	$(PYTEST) -m interop tests/interop

test-crash: install ## kill -9 of the server, 100 times on each database, with a histogram
	BAKEHOUSE_KILLS=100 $(PYTEST) -s -p no:cacheprovider --timeout 3600 tests/crash

test-slow: install ## The long forms
	$(PYTEST) -n $(WORKERS) $(FILES_APART) --timeout 1800 -m slow

test-gpu: install ## The engine on CUDA; without a GPU its kernels in Triton's interpreter, where triton is installed
	$(PYTEST) -m gpu tests/engine/gpu

demo: base ## Start a server, deploy the examples, run one on a real file, stop
	$(BIN)/bakehouse demo

serve: base ## Start a server and keep it
	$(BIN)/bakehouse serve

bench-tasks: base ## Our server beside its peers; tables go to benchmarks/results/
	$(BIN)/python -m benchmarks.tasks

bench-engine: install ## Our engine beside transformers and llama.cpp; builds the latter once, which takes a while
	$(BIN)/python -m benchmarks.engine

bench-inferlets: install ## Launches, calls and messages of inferlets, and agentic work beside stateless requests
	$(BIN)/python -m benchmarks.inferlets

clean: ## Remove what the verbs made
	rm -rf $(VENV) .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis $(WHEELS)/*.whl
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
