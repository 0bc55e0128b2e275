# `make demo`, `make test`, `make docs` and `make examples`. Each makes all that it needs, in .venv.
# Needed beforehand: make, a C library and Python 3.11 or newer (`make PYTHON=python3.12 demo` names another one).

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
DEV := .venv/installed-dev
PINS := settings.ini setup.py pyproject.toml constraints.txt
PIP := $(BIN)/python -m pip install -qq --no-compile --disable-pip-version-check -c constraints.txt -e
# pip would compile all files one after the other, tests of the packages included
COMPILE := $(BIN)/python -m compileall -qq -j 2 -x '/tests?/' .venv/lib || true
SOURCES := nbs tests benchmarks synthmed_nb/templates setup.py .ci/docs

.PHONY: demo test docs examples lint sync notebooks browser clean
.DELETE_ON_ERROR:

demo: $(INSTALLED)
	$(BIN)/synthmed demo --out reports/demo

test: lint sync notebooks browser
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term:skip-covered

docs: $(DEV)
	$(BIN)/python .ci/docs/docs.py _docs

examples: $(INSTALLED) browser
	@bash .ci/examples

lint: $(DEV)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check --select F synthmed_nb

sync: $(DEV)
	@bash .ci/sync

notebooks: export OMP_NUM_THREADS := 1
notebooks: $(DEV)
	$(BIN)/nbdev_test --n_workers 2 --file_re '^[0-8]'
	$(BIN)/nbdev_test --path synthmed_nb/templates

browser:
	@bash .ci/browser

clean:
	rm -rf .venv _docs reports/demo build dist *.egg-info .coverage .pytest_cache .ruff_cache .hypothesis

.venv/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv .venv
	@touch $@

$(INSTALLED): .venv/made $(PINS)
	@echo "Installing into .venv (once; some minutes) ..."
	@$(PIP) .
	@$(COMPILE)
	@touch $@

$(DEV): .venv/made $(PINS)
	@echo "Installing into .venv (once; some minutes) ..."
	@$(PIP) '.[dev]'
	@$(COMPILE)
	@touch $(INSTALLED) $@
