# make demo: the main job, end to end. make test: everything that is checked. Both set up what they need.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SHARED_DATA := $(wildcard $(CURDIR)/../shared/data)
ifndef HYBRIDALLOC_DATA
ifneq ($(SHARED_DATA),)
export HYBRIDALLOC_DATA := $(SHARED_DATA)
endif
endif
export OMP_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1
export MKL_NUM_THREADS := 1

.PHONY: demo full test lint bench docs notebooks clean

demo: $(VENV)/.installed
	$(BIN)/hybridalloc compare

full: $(VENV)/.installed
	$(BIN)/hybridalloc compare --full

test: $(VENV)/.installed-dev lint
	$(BIN)/python -m pytest -n 2

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/step.py

docs: $(VENV)/.installed-docs
	$(BIN)/mkdocs build --strict

notebooks: $(VENV)/.installed-dev
	$(BIN)/python notebooks/make.py

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) site build *.egg-info runs mlflow.db mlruns report.html
