# The commands a person types. Each makes .venv when it is missing and rebuilds what was edited; nothing needs root.
# Wanted on the machine: Python >= 3.11 with its headers, a C++17 compiler, make.
#
#   make reproduce   data -> train -> table -> report, profile quick (PROFILE=desk, CORES=n)
#   make test        lint, then the tests that take minutes at most (PYTEST_ARGS="-k convolution")
#   make test-all    lint, then all tests
#   make test-cntk   CNTK 2.7's own tests, by the runner CNTK_SUITE=...; fails where fewer pass than did (UPDATE=1 raises the counts)
#   make bench       speed beside peers, measured in the same run
#   make docs        docs/coming_from_cntk.md: CNTK's names one by one
#   make lint  make format  make build  make doctor  make sanitize  make sdist  make wheel  make clean

PYTHON ?= python3
PROFILE ?= quick
CORES ?= $(shell nproc 2>/dev/null || echo 2)
PYTEST_ARGS ?=
# A program that fetches CNTK 2.7's own tests and runs them against a package; it is no part of this repository.
CNTK_SUITE ?= ../shared/cntk_suite/run_suite.py
UPDATE ?=
CNTK_ARGS ?=

# With the repository's root on the path, `import layers` would load a second copy of cogkit.layers.
export PYTHONSAFEPATH = 1
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# cython-lint and snakemake call programs of the environment by name.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

BIN := .venv/bin
FOLDERS := $(wildcard core layers data parallel papers)
SOURCES := $(shell find $(FOLDERS) -name '*.pyx' -o -name '*.pxi' -o -name '*.h' -o -name '*.cpp')
PYX := $(filter %.pyx,$(SOURCES))
SNAKEFILES := $(wildcard Snakefile)
LINTED := setup.py $(wildcard core layers data parallel papers tests benchmarks docs examples)

.PHONY: help reproduce test test-all test-cntk pytest bench docs lint format types build doctor sanitize sdist wheel clean

reproduce: build
	$(BIN)/snakemake --cores $(CORES) --config profile=$(PROFILE)

test: lint build .venv/pycuda
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-all: lint build .venv/pycuda
	$(BIN)/python -m pytest -m "" $(PYTEST_ARGS)

# tests/ holds the package that has CNTK's module names; the counts are in tests/cntk_compat/counts.json.
test-cntk: build
	PYTHONPATH=tests $(BIN)/python -m cntk_compat.suite $(CNTK_SUITE) $(if $(UPDATE),--update) $(CNTK_ARGS)

# The lines at the top of this file.
help:
	@sed -n 's/^#   //p' Makefile

# benchmarks/ is no part of the installed package: it alone is found in the working directory.
bench: build
	PYTHONSAFEPATH= $(BIN)/python -m benchmarks $(BENCH_ARGS)

build: .venv/built

docs: build
	$(BIN)/python docs/coming_from_cntk.py

# Wants nothing to be built, not even .venv.
doctor:
	@$(firstword $(wildcard $(BIN)/python) $(PYTHON)) core/doctor.py

# All of them run, whichever fails first.
lint: .venv/installed
	@status=0; try() { echo "$$@"; "$$@" || status=1; }; \
	try ruff check -q $(LINTED); \
	try ruff format -q --check $(LINTED); \
	$(if $(PYX),try cython-lint $(PYX);) \
	$(if $(SNAKEFILES),try snakefmt --check $(SNAKEFILES);) \
	try make -s types; \
	[ $$status = 0 ] || { echo "make lint: failed (make format mends what a program can)"; exit 1; }

format: .venv/installed
	ruff check -q --fix-only $(LINTED)
	ruff format -q $(LINTED)
	$(if $(SNAKEFILES),snakefmt -q $(SNAKEFILES))

# mypy does not follow an editable install's hook: links give the folders their installed shape.
types: .venv/installed
	@rm -rf build/types && mkdir -p build/types/cogkit
	@ln -s $(CURDIR)/core/* build/types/cogkit/
	@ln -s $(addprefix $(CURDIR)/,$(filter-out core,$(FOLDERS))) build/types/cogkit/
	cd build/types && mypy --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache -p cogkit

# --- environment -----------------------------------------------------------------------------------------------------------

.venv/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "make: expected Python >= 3.11, found no '$(PYTHON)'; name one: make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.version_info >= (3, 11) or sys.exit(f"make: expected Python >= 3.11, \
	found {v}; name another: make PYTHON=/path/to/python")'
	@$(PYTHON) -c 'import os, sys, sysconfig; h = os.path.join(sysconfig.get_path("include"), "Python.h"); os.path.exists(h) or \
	sys.exit(f"make: expected the header {h} of this Python, found none; install it (Debian: python3-dev) or name another: make PYTHON=...")'
	@command -v $(firstword $(CXX)) >/dev/null || { echo "make: expected a C++17 compiler, found no '$(CXX)'; install g++ or set CXX"; exit 1; }
	@if $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then $(PYTHON) -m venv .venv; \
	elif $(PYTHON) -c 'import venv, pip' 2>/dev/null; then \
		$(PYTHON) -m venv --without-pip .venv && $(PYTHON) -m pip --python .venv/bin/python install -q pip; \
	else echo "make: this Python cannot make a virtual environment: it has no ensurepip and no pip; install one of them (Debian:" \
		"python3-venv or python3-pip) or name another Python: make PYTHON=/path/to/python"; exit 1; fi

# What the build needs is installed into .venv too (pyproject.toml names it once): extensions are then built in place, once, and
# again when edited; the install itself builds none.
.venv/installed: pyproject.toml setup.py | .venv/bin/python
	@echo "make: installing what pyproject.toml names into .venv"
	@$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
		> .venv/build-requirements.txt
	@$(BIN)/python -m pip install -qq -r .venv/build-requirements.txt
	@COGKIT_ONLY=none $(BIN)/python -m pip install -qq --no-build-isolation -e '.[dev,papers,parallel]'
	@touch $@

.venv/built: .venv/installed $(SOURCES)
	@echo "make: building $(words $(PYX)) extensions"
	@$(BIN)/python setup.py -q build_ext --inplace
	@touch $@

# For the tests of the CUDA engine, which an emulated driver runs on any machine; nothing else wants it. Where it cannot be built those
# tests are skipped and say so.
.venv/pycuda: core/engine/cuda/build_pycuda.py | .venv/installed
	@if $(BIN)/python $<; then touch $@; else echo "make: no PyCUDA (the reason is above): the tests in tests/cuda will be skipped"; fi

# --- checks that have a tree of their own ----------------------------------------------------------------------------------

# Bounds checks, address and undefined-behaviour sanitizers, in build/sanitize; PYTHONPATH goes before the editable install.
# The sanitizer's library and the C++ one must be there before Python; Python itself leaks on purpose.
SANITIZE_TESTS ?= $(filter-out tests/papers tests/test_packaging.py tests/test_imports.py tests/conftest.py tests/__pycache__,$(wildcard tests/*))
sanitize: .venv/installed
	COGKIT_SANITIZE=1 $(BIN)/python setup.py -q build --build-base build/sanitize
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 PYTHONMALLOC=malloc CUDACPU_SANITIZE=1 \
	PYTHONPATH="$$(echo $(CURDIR)/build/sanitize/lib.*)" $(BIN)/python -m pytest $(PYTEST_ARGS) $(SANITIZE_TESTS)

# With the CUDA kernels compiled ahead where nvcc is there.
wheel: .venv/installed
	$(if $(shell command -v $${COGKIT_NVCC:-nvcc} 2>/dev/null),COGKIT_FATBINS=1) $(BIN)/python -m pip wheel -q --no-deps --no-build-isolation -w dist .

sdist: .venv/installed
	$(BIN)/python setup.py -q sdist

# What was trained (results, and checkpoints under build/papers) and data stay.
clean:
	rm -rf build/cython* build/cuda* build/lib* build/temp* build/bdist* build/sanitize build/types dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .venv/built
	find $(FOLDERS) -name '*.so' -delete
	find $(FOLDERS) $(wildcard tests benchmarks) -name __pycache__ -type d -exec rm -rf {} +
