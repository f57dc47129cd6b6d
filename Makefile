# Two commands: `make demo` runs the whole job on phantoms, `make test` the tests.
# Each makes .venv and installs what it needs; a second call installs nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo demo-long test lint clean
.DELETE_ON_ERROR:

$(STAMP): setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt torch
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e ".[dev]"
	touch $@

install: $(STAMP)

test: lint
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

demo: $(STAMP)
	$(BIN)/python tools/demo.py demo

demo-long: $(STAMP)
	$(BIN)/python tools/demo.py demo --long

clean:
	rm -rf $(VENV) demo build dist *.egg-info
