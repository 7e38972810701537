# Everything here works on a machine with only Python (3.11 or newer) and make; set-up happens on first use.
PYTHON ?= python3
WORKERS ?= 2
TORCH := torch==2.13.0
CPU_INDEX := https://download.pytorch.org/whl/cpu
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
READY := $(VENV)/.ready

# Answers within 8 s whether the CPU wheels can be reached; pip alone may wait for each address in turn.
PROBE := import signal, urllib.request as u; signal.alarm(8); u.urlopen("$(CPU_INDEX)/torch/", timeout=6).read(1)

.DEFAULT_GOAL := help
PORT ?= 7860
# Sizes of what `make streamworld` measures: distances up to 6 h of one stream, then every kind of question on three.
ABLATION ?= --seeds 1 --per-cell 40 --longest 21600 --tail 300
STREAMWORLD ?= --seeds 3 --per-cell 12 --longest 600 --tail 120 --watches 8 --clips 60 --full-capacity 40960
RUNS ?= runs
.PHONY: help setup demo chat streamworld test test-browser check lint types layering clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## create .venv and install everything into it

$(READY): pyproject.toml
	@command -v $(PYTHON) >/dev/null 2>&1 || { echo "StreamVLM needs Python 3.11 or newer: $(PYTHON) was not found" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("StreamVLM needs Python 3.11 or newer: $(PYTHON) is %d.%d (try: make PYTHON=python3.12 setup)" % v[:2])'
	@$(BIN)/python -c 'import pip' >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) \
		|| { echo "could not create $(VENV) (on Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
	$(PIP) install --quiet --upgrade pip
	@$(PIP) show --quiet $(firstword $(subst ==, ,$(TORCH))) >/dev/null 2>&1 || $(MAKE) --no-print-directory $(VENV)/torch
	$(PIP) install --quiet --editable '.[dev]'
	@touch $@

# PyPI's Linux build of torch brings several GB of CUDA libraries: without an NVIDIA driver take the CPU build.
# --no-deps, because only torch itself should come from that index; its dependencies follow with the project's.
.PHONY: $(VENV)/torch
$(VENV)/torch:
	@if ! command -v nvidia-smi >/dev/null 2>&1 && $(BIN)/python -c '$(PROBE)' >/dev/null 2>&1; then \
		echo "installing $(TORCH) (CPU build)"; \
		$(PIP) install --quiet --no-deps --retries 1 --timeout 15 --index-url $(CPU_INDEX) $(TORCH) \
			|| $(PIP) install --quiet $(TORCH); \
	else \
		echo "installing $(TORCH)"; $(PIP) install --quiet $(TORCH); \
	fi

demo: setup ## watch the shipped sample video and answer ten questions about it
	$(BIN)/python -m streamvlm.demo

chat: setup ## open the live chat on http://127.0.0.1:7860
	$(BIN)/streamvlm chat --port $(PORT)

streamworld: setup ## measure what StreamWorld asks for the README, hours back too (an hour; goes on after a kill)
	$(BIN)/python -m streamvlm.benchmarks.ablation $(ABLATION) --threads 1 --out $(RUNS)/ablation --save
	$(BIN)/python -m streamvlm.benchmarks.streamworld $(STREAMWORLD) --threads 1 --out $(RUNS)/streamworld \
		--far benchmarks/results/ablation.json --picture docs/streamworld.svg --save
	$(BIN)/python -m streamvlm.benchmarks.tables

test: setup ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_ARGS)

test-browser: setup ## run the chat's tests in headless Chromium (installs Debian's if there is none)
	@command -v chromium >/dev/null 2>&1 || command -v google-chrome >/dev/null 2>&1 \
		|| { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } \
		|| { echo "no Chromium was found, and installing it needs apt-get and root" >&2; exit 1; }
	@$(BIN)/python -c 'import playwright' 2>/dev/null || $(PIP) install --quiet --editable '.[browser]'
	OMP_NUM_THREADS=1 STREAMVLM_BROWSER=required $(BIN)/python -m pytest -m browser tests/test_chat_browser.py $(PYTEST_ARGS)

check: lint types layering ## ruff, mypy and the layering test

lint: setup ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## mypy --strict over the package and the tests
	$(BIN)/mypy
	$(BIN)/mypy tests

layering: setup ## who may import whom
	$(BIN)/python -m pytest -q tests/test_layering.py

clean: ## remove caches and build outputs (.venv stays)
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
