# The two commands that matter: `make demo` and `make test`. Either may come first; both set everything up in .venv.

PYTHON ?= $(shell for candidate in python3.11 python3 python3.12 python3.13; do \
	"$$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$candidate" && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
SETUP_FILES := pyproject.toml constraints.txt

DEMO_DATA ?= demo-data
DEMO_OUT ?= demo-out
DEMO_RESOLUTION ?= 1.25

# Ends a test run that hangs; `timeout` is part of GNU coreutils and simply left out where there is none.
TEST_LIMIT ?= 30m
TIMEOUT := $(if $(shell command -v timeout),timeout $(TEST_LIMIT))

.PHONY: help demo test test-faults mutation lint docs hooks boutiques container-test slurm-test clean
.DELETE_ON_ERROR:

help:
	@echo 'make demo    set up .venv, make the demo dataset, run the app on it, say where the report is'
	@echo 'make test    set up .venv, check style and types, run the tests'
	@echo 'make test-faults     end, starve and crowd whole runs, and see that nothing is lost (under half an hour)'
	@echo 'make mutation        break the code in small ways and list what no test notices (ten minutes)'
	@echo 'make lint    style and types only'
	@echo 'make docs    set up .venv, build the documentation into docs/_build/html'
	@echo 'make hooks   check style and types before each commit, by pre-commit'
	@echo 'make boutiques       write the Boutiques descriptor anew, after options have changed'
	@echo 'make container-test  build and run Dockerfile and singularity.def without a Docker engine (root, Debian 12)'
	@echo 'make slurm-test      run the examples for clusters in a SLURM of this computer alone (root, Debian 12)'
	@echo 'make clean   remove everything these commands made'

demo: $(VENV)/.demo-installed $(DEMO_DATA)
	$(BIN)/bids_sr $(DEMO_DATA) $(DEMO_OUT) participant --output-resolution $(DEMO_RESOLUTION)
	@echo
	@echo 'Report:            $(abspath $(DEMO_OUT))/sub-01.html'
	@echo 'Your own dataset:  $(abspath $(BIN))/bids_sr /path/to/bids /path/to/output participant --output-resolution 1.25'

test: lint
	$(TIMEOUT) $(BIN)/python -m pytest

test-faults: $(VENV)/.test-installed
	$(TIMEOUT) $(BIN)/python -m pytest -m faults tests/faults

mutation: $(VENV)/.test-installed
	$(BIN)/python .ci/mutation.py

lint: $(VENV)/.test-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.docs-installed
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo 'Documentation: $(abspath docs/_build/html)/index.html'

hooks: $(VENV)/.dev-installed
	$(BIN)/pre-commit install

boutiques: $(VENV)/.test-installed
	$(BIN)/python .ci/make_boutiques.py

# Compared with a run outside, so the program is installed too; the image itself is built from nothing.
container-test: $(VENV)/.demo-installed
	BIN=$(BIN) .ci/container-test

slurm-test: $(VENV)/.demo-installed
	BIN=$(BIN) .ci/slurm-test

clean:
	rm -rf $(VENV) $(DEMO_DATA) $(DEMO_OUT) work docs/_build build dist
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis

# bids-sr-demo leaves a whole dataset or none, so the folder itself is the target.
$(DEMO_DATA): | $(VENV)/.demo-installed
	$(BIN)/bids-sr-demo $@

$(BIN)/python:
	@test -n '$(PYTHON)' || { echo 'No Python 3.11 or newer with venv was found; name one: make PYTHON=/path/to/python3.11' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# One stamp per set of extras: nothing is installed again until what is asked for changes.
$(VENV)/.%-installed: $(SETUP_FILES) | $(BIN)/python
	@echo 'Installing into $(VENV) (some minutes the first time) ...'
	$(INSTALL) -e '.[$*]'
	@touch $@
