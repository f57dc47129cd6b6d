# Two commands: `make demo` runs the whole job on phantoms, `make test` the tests.
# Each makes .venv and installs what it needs; a second call installs nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OLD := .venv-openmmlab

.PHONY: install demo demo-scratch demo-long model fuzz test tests test-openmmlab lint types dist reliability clean
.DELETE_ON_ERROR:

# Compiled at the end on all cores: pip would use one. A few files of packages are templates.
$(STAMP): setup.py lungdet_mmdet/versions.py constraints.txt constraints-gpu.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --no-compile -q -c constraints.txt torch
	$(BIN)/python -m pip install --disable-pip-version-check --no-compile -q -c constraints.txt -e ".[mm,dev]"
	$(BIN)/python -m compileall -qq -j 0 $(VENV) || true
	touch $@

install: $(STAMP)

# Two processes of one thread each; what one of them has left is taken by the other. Modules are
# compiled once, not anew in each of the hundreds of processes that the tests start.
TESTS = env -u PYTHONDONTWRITEBYTECODE OMP_NUM_THREADS=1 $(1)/python -m pytest -n 2 --dist worksteal

# mypy uses one core for most of a minute where it has no cache yet: the tests run beside it.
test: lint
	$(MAKE) --no-print-directory -j 2 types tests

tests: $(STAMP)
	$(call TESTS,$(BIN))

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/python -m mypy

# Tens of thousands of hostile files, tables and boxes; minutes. The second part needs atheris.
fuzz: $(STAMP)
	LUNGDET_FUZZ_EXAMPLES=1500 $(BIN)/python -m pytest tests/fuzz
	$(BIN)/python tests/fuzz/coverage_guided.py

# Minutes: phantoms, preparation, a short training on from the model in the box, test, one scan.
demo: $(STAMP)
	$(BIN)/lungdet demo demo

# The same from random weights, and for longer.
demo-scratch: $(STAMP)
	$(BIN)/lungdet demo demo --length scratch

demo-long: $(STAMP)
	$(BIN)/lungdet demo demo --length long

# The model in the box, trained anew, from the weights of the version before it as it was; empty
# MODEL_FROM= trains from random weights. MODEL_DATA are the options of `lungdet make-model` for data.
MODEL_FROM ?= 9721212
MODEL_STEPS = $(if $(MODEL_FROM),--load-from model/start.pth --iters 3000)
model: $(STAMP)
	mkdir -p model
	$(if $(MODEL_FROM),git show $(MODEL_FROM):lungdet_mmdet/weights/slab_dino_small.pth > model/start.part \
		&& mv model/start.part model/start.pth || { echo "the commit MODEL_FROM=$(MODEL_FROM) is not in this folder's history: git fetch --unshallow, in a clone"; exit 1; })
	$(BIN)/lungdet make-model model $(MODEL_STEPS) $(MODEL_DATA)

# The same tests on OpenMMLab's original packages, in a virtual environment of their own.
$(OLD)/.installed: constraints-openmmlab.txt constraints.txt constraints-gpu.txt setup.py lungdet_mmdet/versions.py
	$(PYTHON) -m venv $(OLD)
	$(OLD)/bin/python -m pip install --disable-pip-version-check -q -c constraints-openmmlab.txt torch
	$(OLD)/bin/python -m pip install --disable-pip-version-check -q -c constraints-openmmlab.txt \
		-e ".[openmmlab,dev]" psutil seaborn
	touch $@

test-openmmlab: $(OLD)/.installed
	$(call TESTS,$(OLD)/bin)

# Wheel and source archive, checked as a package index would.
dist:
	$(PYTHON) -m venv build/venv
	build/venv/bin/python -m pip install --disable-pip-version-check -q build twine
	rm -rf dist
	build/venv/bin/python -m build
	build/venv/bin/python -m twine check --strict dist/*

# Kills, full disks and all else that may go wrong; writes docs/reliability.md.
reliability: $(STAMP)
	$(BIN)/python tools/reliability.py

clean:
	rm -rf $(VENV) $(OLD) demo build dist *.egg-info
