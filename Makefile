# Both main targets, reproduce and test, do all their own set-up: a virtual environment in .venv with pinned packages.
# Nothing is installed again while requirements.txt stays the same.

PROFILE ?= smoke
NOTEBOOKS ?=
JOBS ?= 1
# Processes of tests, whole files each; WORKERS=0 tests in one, for debuggers.
WORKERS ?= 2
# The first interpreter on the path that is new enough; choose another with: make install PYTHON=/path/to/python3.12
PYTHON ?= $(shell for one in python3 python3.13 python3.12 python3.11; do \
	$$one -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$one && break; done)

VENV := .venv
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/installed-requirements.txt

.DEFAULT_GOAL := help
.PHONY: help install reproduce test lab lint clean

help:
	@echo "make reproduce [PROFILE=smoke|lab|paper] [NOTEBOOKS='03 05'] [JOBS=1]   execute the notebooks, print the results"
	@echo "make test [WORKERS=2]                                                 run the whole test suite in so many processes"
	@echo "make lab                                                              train the shipped checkpoints from scratch"
	@echo "make install | lint | clean"

install:
	@cmp -s requirements.txt $(INSTALLED) || $(MAKE) --no-print-directory $(VENV)/fresh

# The copy of requirements.txt is written last, so an interrupted installation is begun again.
.PHONY: $(VENV)/fresh
$(VENV)/fresh:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer was found; give one with PYTHON=..."; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo ".venv has a Python older than 3.11: make clean first"; exit 1; }
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@cp requirements.txt $(INSTALLED)

reproduce: install
	$(PY) -m kinelib run $(NOTEBOOKS) --profile $(PROFILE) --jobs $(JOBS)

test: install
	$(PY) -m pytest -n $(WORKERS) --dist loadfile

lab: install
	$(PY) -m kinelib train zipmo --profile lab --resume

lint: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports

clean:
	rm -rf $(VENV) runs *.egg-info .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find kinelib tests -name __pycache__ -type d -prune -exec rm -rf {} +
