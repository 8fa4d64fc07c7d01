# make demo, make test: each sets up what it needs in .venv, from a bare clone.
PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= dev,triton
DEMO_FLAGS ?= --preset quick
PYTEST_FLAGS ?=

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SOURCES := $(shell find csrc -type f 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help venv demo test lint bench clean

help:
	@echo "make demo    train a small certified network (DEMO_FLAGS=$(DEMO_FLAGS))"
	@echo "make test    run every test (PYTEST_FLAGS=...)"
	@echo "make lint    check style, formatting and types"
	@echo "make bench   measure speed"
	@echo "make venv    only set up $(VENV) (PYTHON=$(PYTHON))"
	@echo "make clean   remove what the build and the tools have written, but not $(VENV)"

venv: $(INSTALLED)

# Installed again when the requirements or the native sources change; only stale objects are compiled.
$(INSTALLED): pyproject.toml setup.py constraints.txt $(SOURCES)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "glsk needs Python 3.11 or newer; set PYTHON=")'
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt setuptools wheel pybind11
	$(BIN)/python -m pip install -c constraints.txt --no-build-isolation --editable '.[$(EXTRAS)]'
	$(BIN)/python -m glsk.info
	touch $@

demo: venv
	$(BIN)/glsk train $(DEMO_FLAGS) $$(test ! -d runs/quick/checkpoints || echo --resume)

test: venv
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: venv
	$(BIN)/python -m pytest bench $(PYTEST_FLAGS)

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	rm -f glsk/_C*.so glsk/_CUDA*.so $(INSTALLED)
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
