PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo test lint hashes bench coverage format clean

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

hashes: $(STAMP)  ## constraints-hashes.txt from constraints.txt: the same versions with the hashes of their files
	$(BIN)/python -m venv build/pip-tools
	build/pip-tools/bin/pip install --quiet 'pip-tools>=7.4,<8'
	build/pip-tools/bin/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-annotate --no-header \
		--no-emit-options --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
		--output-file constraints-hashes.txt constraints.txt

bench: $(STAMP)  ## speed against a plain forward
	$(BIN)/python benchmarks/mvm.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/chips.py --images 32 --batch-size 32
	$(BIN)/python benchmarks/cost.py
	$(BIN)/python benchmarks/zerorize.py
	$(BIN)/python benchmarks/pruned.py
	$(BIN)/python benchmarks/threads.py
	$(BIN)/python benchmarks/growth.py

COVERAGE := build/coverage

coverage: $(STAMP)  ## which networks of torchvision, timm and transformers convert; an environment of its own, hours
	test -x $(COVERAGE)/bin/python || $(BIN)/python -m venv $(COVERAGE)
	$(COVERAGE)/bin/python -m pip install --quiet torch==2.14.1 torchvision==0.29.1 timm==1.0.31 transformers==5.24.0 \
		--editable .
	$(COVERAGE)/bin/python benchmarks/coverage.py

format: $(STAMP)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

NATIVE := CMakeLists.txt $(wildcard src/bitline/mvm/native/*.?pp)

$(STAMP): pyproject.toml constraints.txt $(NATIVE)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv: 2 GB, some minutes; pip says what it does"
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv build src/*.egg-info
