# Two commands: `make demo` shows the main job, `make test` checks it. Each sets itself up in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BASE := $(VENV)/.base
READY := $(VENV)/.ready

.PHONY: demo test acceptance lint perf docs table clean

$(BASE): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --upgrade pip
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e .
	touch $(BASE)

$(READY): $(BASE)
	$(BIN)/pip install -q -c constraints.txt -e '.[dev,eval,cluster,gguf]'
	touch $(READY)

demo: $(BASE)
	$(BIN)/unremember demo

test: $(READY)
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not full"

acceptance: $(READY)
	$(BIN)/pip install -q -c constraints.txt -e '.[quant]'
	$(BIN)/python -m pytest -n auto --dist loadfile tests/acceptance tests/engine/test_contracts.py tests/test_processes.py

lint: $(READY)
	$(BIN)/ruff check src tests perf
	$(BIN)/ruff format --check src tests perf
	$(BIN)/mypy
	$(BIN)/lint-imports

perf: $(READY)
	$(BIN)/python perf/all.py

table: $(READY)
	$(BIN)/python docs/make_table.py

docs: $(READY)
	$(BIN)/pip install -q -c constraints.txt -e '.[docs]'
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) runs site build
