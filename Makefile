# Every target sets up its own virtual environment in .venv when it is absent.
PYTHON ?= python3
# ArviZ 1.x needs Python 3.12.
PYTHON312 ?= $(shell .ci/find_python.sh)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test test-arviz1 test-gpu test-versions lint docs docs-full bench bench-full package clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    train on real digits and draw new ones (about seven minutes on two cores, installing included)"
	@echo "make test    run the tests"
	@echo "make test-arviz1   run the ArviZ tests under ArviZ 1.x and on files of either version, where there is a Python >= 3.12"
	@echo "make test-gpu   run everything on CUDA, where there is a device"
	@echo "make test-versions   smoke tests at the oldest versions declared and the newest (gigabytes, an hour)"
	@echo "make lint    style, types and import rules"
	@echo "make docs    build the documentation, its tutorials on small settings"
	@echo "make docs-full   build it with the tutorials in full (takes longer)"
	@echo "make package   build the sdist and the wheel, and check what is in them"
	@echo "make bench   time and check the package side by side with simpler code, in short"
	@echo "make bench-full   the same with all repeats, and the calibration of evidences (hours)"

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.ready-all: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --quiet --constraint constraints.txt --editable '.[all]'
	@touch $@

$(VENV)/.ready-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --quiet --constraint constraints.txt --editable '.[all,dev]'
	@touch $@

$(VENV)/.ready-docs: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --quiet --constraint constraints.txt --editable '.[all,dev,docs]'
	@touch $@

demo: $(VENV)/.ready-all
	$(BIN)/python -m pyro_tkam demo

test: $(VENV)/.ready-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# The ArviZ module needs no torch, so this environment has none.
ifeq ($(strip $(PYTHON312)),)
test-arviz1:
	@echo "NOT RUN: the tests under ArviZ 1.x, which needs Python >= 3.12: none found, set PYTHON312" >&2
else
$(VENV)-arviz1/.ready:
	$(PYTHON312) -m venv $(VENV)-arviz1
	$(VENV)-arviz1/bin/python -m pip --disable-pip-version-check install --quiet numpy 'arviz>=1' 'h5netcdf[h5py]' pytest
	@touch $@

test-arviz1: $(VENV)-arviz1/.ready $(VENV)/.ready-dev
	$(VENV)-arviz1/bin/python -m pytest --noconftest tests/test_arviz.py
	PYRO_TKAM_ARVIZ1_PYTHON=$(abspath $(VENV)-arviz1/bin/python) $(BIN)/python -m pytest tests/test_arviz_versions.py
endif

test-gpu: $(VENV)/.ready-dev
	$(BIN)/python -m pytest tests/test_devices.py

# Its table, docs/results/versions.json, is committed.
test-versions:
	$(PYTHON) .ci/test_versions.py $(VENV)-versions docs/results/versions.json

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Pages of tutorials are kept while their text and their settings stay the same.
docs: $(VENV)/.ready-docs
	test "$$(cat docs/tutorials/.settings 2>/dev/null)" = "full=$$PYRO_TKAM_FULL" || rm -rf docs/tutorials
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html
	@echo "full=$$PYRO_TKAM_FULL" > docs/tutorials/.settings
	$(BIN)/python .ci/check_links.py docs/_build/html
	$(BIN)/python .ci/check_reference.py docs/_build/html

docs-full: export PYRO_TKAM_FULL = 1
docs-full: docs
	$(BIN)/python .ci/check_times.py docs/tutorials/sg_execution_times.rst 300

bench: $(VENV)/.ready-dev
	$(BIN)/python -m benchmarks

bench-full: $(VENV)/.ready-dev
	$(BIN)/python -m benchmarks --full

package: $(VENV)/.ready-dev
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python .ci/check_package.py dist

clean:
	rm -rf $(VENV) $(VENV)-arviz1 $(VENV)-versions build dist docs/_build docs/tutorials
