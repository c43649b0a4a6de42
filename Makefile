PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test
setup: .venv/.stamp

.venv/.stamp: pyproject.toml
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/python -m pip install -q torch==2.13.0
	$(BIN)/python -m pip install -q -e ".[dev]"
	touch $@

demo: setup
	$(BIN)/python scripts/run_recipe.py recipes/countdown/demo.yaml $(ARGS)

test: setup
	$(BIN)/python -m pytest -q
