PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo test lint bench format clean

demo: $(STAMP)  ## train a small network, put it on a chip, find a better chip
	$(BIN)/bitline demo

test: $(STAMP)  ## run the tests, on all cores
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

lint: $(STAMP)  ## style, types, import directions
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --project pyproject.toml
	$(BIN)/lint-imports
	$(BIN)/python experiments/tables.py --check

bench: $(STAMP)  ## speed against a plain forward
	$(BIN)/python benchmarks/mvm.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/chips.py --images 32 --batch-size 32
	$(BIN)/python benchmarks/cost.py
	$(BIN)/python benchmarks/zerorize.py
	$(BIN)/python benchmarks/pruned.py

format: $(STAMP)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

NATIVE := CMakeLists.txt $(wildcard src/bitline/mvm/native/*.?pp)

$(STAMP): pyproject.toml constraints.txt $(NATIVE)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv build src/*.egg-info
