# Everything in one command, each in the folder .venv: no other preparation, no graphics libraries.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test lint bench settings clean

run: .venv/installed  ## SLAM on the embedded sample; the results are in runs/latest
	$(BIN)/python -m vslam run --dataset tum

test: .venv/tested  ## all tests
	$(BIN)/python -m pytest

lint: .venv/tested  ## style and imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

bench: .venv/tested  ## every benchmark in turn
	for file in benchmarks/[a-z]*.py; do $(BIN)/python -m benchmarks.$$(basename $$file .py) || exit 1; done

settings: .venv/tested  ## configs/default.yaml from the defaults in vslam/config.py
	$(BIN)/python -m tests.packaging.default_settings

clean:  ## what was built; the user's cache and runs/ stay
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python setup.py
	$(BIN)/pip install -e .
	touch $@

.venv/tested: .venv/bin/python setup.py
	$(BIN)/pip install -e '.[test]'
	touch $@ .venv/installed
