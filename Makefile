# Two commands matter: `make demo` and `make test`. Both set everything up first, into .venv and the model cache.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LEGACY := .venv-legacy
MODEL := smollm2-135m-instruct

.PHONY: demo test lint serve setup clean

demo: setup  ## tune a model on 200 tickets and compare it with its base
	$(BIN)/python examples/demo.py

test: setup $(LEGACY)/done  ## every test
	$(BIN)/python -m pytest -n auto --maxprocesses 2 --dist loadfile

lint: setup  ## style, types, imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

serve: setup  ## the server, on http://127.0.0.1:8000/v1
	$(BIN)/pegbox serve

setup: $(VENV)/done  ## virtual environment, pinned packages, base model
	@$(BIN)/pegbox models pull $(MODEL)

$(VENV)/done: pyproject.toml constraints.txt
	@echo "== setting up $(VENV) (torch is large: a few minutes on the first run)"
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 15) else "pegbox needs Python 3.11 to 3.14; set PYTHON=python3.12, say")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade --constraint constraints.txt pip setuptools
	@# setuptools warns about every editable install; nothing follows from it
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,tables,test,lint]'
	@touch $@

# The 2023 client can't live beside today's, so it has an environment of its own.
$(LEGACY)/done: tests/legacy/requirements.txt
	@echo "== setting up $(LEGACY) (openai 0.28 and 0.27, for the tests of old scripts)"
	$(PYTHON) -m venv $(LEGACY)
	$(LEGACY)/bin/python -m pip install --quiet --requirement tests/legacy/requirements.txt
	$(LEGACY)/bin/python -m pip install --quiet --no-deps --upgrade --target $(LEGACY)/openai-0.27 openai==0.27.0
	@touch $@

clean:  ## remove what the other targets made here (the model cache stays)
	rm -rf $(VENV) $(LEGACY) demo-output build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
