# Each target sets up what it needs: one virtual environment in .venv, one stamp file per extra, so that a second run
# starts at once. `make PYTHON=python3.12 test` picks another interpreter.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# A BLAS kernel fixed by the environment would slow the dense rivals down: numpy chooses its own where times are compared.
FREE_BLAS := env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE

# What needs no torch: the lowest torch has no wheel for processors alone, so it is left out.
LOWEST := .venv-lowest
WITHOUT_TORCH := tests/linalg tests/graphs tests/adapters/test_dask.py tests/test_attention.py tests/test_imports.py \
  tests/test_plotting.py
# Old releases warn of what newer ones of their own dependencies have renamed.
OLD_WARNINGS := -W default::DeprecationWarning -W default::ImportWarning

# Plots are written to files; nothing may wait for a window.
export MPLBACKEND := Agg

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.SECONDARY:
.PHONY: help demo test lowest lint types docs bench clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(STAMP)-plot ## masked attention at work on real inputs: a table here, a page in build/
	@$(FREE_BLAS) $(BIN)/python -m demo

test: $(STAMP)-test ## all tests, doctests included
	$(BIN)/python -m pytest -n 2

lowest: $(LOWEST)/.installed ## part of the tests with the lowest versions that pyproject.toml admits
	$(LOWEST)/bin/python -m pytest -n 2 $(OLD_WARNINGS) $(WITHOUT_TORCH)
	$(LOWEST)/bin/python -m pytest -n 2 $(OLD_WARNINGS) tests/test_laws.py -k numba

lint: $(STAMP)-lint ## style, formatting, layers, spelling
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/codespell

types: $(STAMP)-lint ## mypy --strict
	$(BIN)/mypy

docs: $(STAMP)-docs ## the site, in build/docs/index.html
	$(BIN)/sphinx-build -W -n --keep-going -q -d build/doctrees docs build/docs
	@echo "structmask: open build/docs/index.html"

bench: $(STAMP)-test ## speed and memory against the dense computation and other libraries
	$(FREE_BLAS) $(BIN)/python -m benchmarks

clean: ## remove everything that the other targets made, .venv included
	rm -rf $(VENV) $(LOWEST) build .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.created:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "structmask: '$(PYTHON)' is not Python 3.11 or newer; name one with 'make PYTHON=...'" >&2; exit 1; }
	@echo "structmask: creating $(VENV) with $$("$(PYTHON)" --version)"
	@"$(PYTHON)" -m venv $(VENV)
	@touch $@

$(STAMP)-%: pyproject.toml constraints.txt | $(VENV)/.created
	@echo "structmask: installing the library and its extra '$*' into $(VENV) (once; this may take a few minutes)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[$*]'
	@touch $@

$(LOWEST)/.installed: pyproject.toml tests/lowest.py
	@echo "structmask: installing the lowest versions into $(LOWEST) (once; this may take a few minutes)"
	@"$(PYTHON)" -m venv $(LOWEST)
	@"$(PYTHON)" -m tests.lowest > $(LOWEST)/constraints.txt
	@$(LOWEST)/bin/python -m pip install -qq --disable-pip-version-check -c $(LOWEST)/constraints.txt -e '.[amg,dask,graphs,plot]' \
	  array-api-strict hypothesis mpmath pytest pytest-xdist threadpoolctl
	@touch $@
