# Two commands: `make train` sets everything up and trains, `make test` sets everything up and tests.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
ORACLES ?= .venv-oracles

# Debian ships Python without its venv module; as root it can be had here and now.
INSTALL_VENV := apt-get update -qq && apt-get install -y -qq python3-venv

.PHONY: train test test-fast test-oracles test-install check setup setup-dev clean

train: $(VENV)/.run
	$(BIN)/photonloop train examples/digits.toml

# Two processes: many tests wait for processes that they start.
test: $(VENV)/.dev
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

# Apart from the rest, so that `make test` shows every time that nothing needs JAX: about a gigabyte.
test-oracles: $(ORACLES)/.oracles
	$(ORACLES)/bin/python -m pytest -q tests/oracles

# A wheel and an sdist, each in a bare environment and used from an empty folder.
test-install: $(VENV)/.dev
	.ci/check-install $(BIN)/python

# Tests that start no process: about a minute.
test-fast: $(VENV)/.dev
	$(BIN)/python -m pytest -q -m "not slow"

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

setup: $(VENV)/.run

setup-dev: $(VENV)/.dev

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("photonloop needs Python 3.11 or later, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); $(INSTALL_VENV) && $(PYTHON) -m venv $(VENV); }

$(VENV)/.run: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@ $(VENV)/.run

$(ORACLES)/.oracles: pyproject.toml | $(BIN)/python
	$(BIN)/python -m venv $(ORACLES)
	$(ORACLES)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[oracles]' pytest pytest-timeout hypothesis
	touch $@

clean:
	rm -rf $(VENV) $(ORACLES) build *.egg-info .pytest_cache .ruff_cache .hypothesis
