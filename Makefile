# make demo: the main job, end to end. make test: everything that is checked. Both set up what they need.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
SHARED_DATA := $(wildcard $(CURDIR)/../shared/data)
ifndef HYBRIDALLOC_DATA
ifneq ($(SHARED_DATA),)
export HYBRIDALLOC_DATA := $(SHARED_DATA)
endif
endif
export OMP_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
export NO_MKDOCS_2_WARNING := 1
# tests start many processes: a module is translated once, not in each
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo full test lint bench docs docs-figures gallery notebooks constraints clean

demo: $(VENV)/.installed
	$(BIN)/hybridalloc compare

full: $(VENV)/.installed
	$(BIN)/hybridalloc compare --full

test: $(VENV)/.installed-dev
	$(MAKE) --no-print-directory -j 2 lint docs
	$(BIN)/python -m pytest -n 2 --dist worksteal --durations 40

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/step.py

docs: $(VENV)/.installed-dev
	$(BIN)/mkdocs build --strict --quiet

docs-figures: $(VENV)/.installed-dev
	$(BIN)/python docs/figures/runs.py

gallery: $(VENV)/.installed-dev
	$(BIN)/python docs/figures/gallery.py

notebooks: $(VENV)/.installed-dev
	$(BIN)/python notebooks/make.py

constraints: $(VENV)/.installed-dev
	(head -1 constraints.txt; $(BIN)/pip freeze --exclude-editable | sed 's/+cpu//') > constraints.new
	mv constraints.new constraints.txt

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[all]'
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[dev]'
	touch $(VENV)/.installed $@

clean:
	rm -rf $(VENV) site build dist *.egg-info runs mlflow.db mlruns report.html
