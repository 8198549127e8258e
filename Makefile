# Every target sets up what it needs in .venv and is quick when nothing changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: demo test lint bench soak docs docs-site docs-serve clean
.DELETE_ON_ERROR:

demo: $(VENV)/.product          ## three nodes, four prompts, one death: the main job in half a minute
	@$(BIN)/python -m examples.demo

test: $(VENV)/.dev lint         ## all checks: ruff, mypy strict, import rules, pytest
	@$(BIN)/python -m pytest -q -n 3 --dist worksteal

lint: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

bench: $(VENV)/.dev             ## every benchmark; results in bench/results
	@$(BIN)/python -m bench all

soak: $(VENV)/.dev              ## what takes too long for `make test`
	@$(BIN)/python -m pytest -q -m soak --timeout 20000
	@$(BIN)/python -m pytest -q tests/mesh tests/models tests/transport --hypothesis-profile=default

docs: $(VENV)/.dev              ## the pages of docs/ that are written from the program itself
	@$(BIN)/python -m tools.docs

docs-site: $(VENV)/.dev         ## the documentation as a site, in site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --clean

docs-serve: $(VENV)/.dev        ## the same, to be read and searched at http://127.0.0.1:8000
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve --dev-addr 127.0.0.1:8000

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Atmosphere needs Python 3.11 or later; $$($(PYTHON) -V) is too old. Set PYTHON=/path/to/python3.11."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "No venv module: install your system's python3-venv package."; exit 1; }
	@touch $@

$(VENV)/.product: $(VENV)/.python pyproject.toml
	@echo "Setting up $(VENV) ..."
	@$(PIP) install -e .
	@touch $@

# llama-cpp-python is compiled for this machine, which takes minutes; without a compiler its tests are skipped and say so.
$(VENV)/.dev: $(VENV)/.product
	@$(PIP) install -e '.[dev]'
	@if command -v cc >/dev/null && command -v c++ >/dev/null; then \
	   $(BIN)/python -c 'import llama_cpp' 2>/dev/null || { \
	     echo "Compiling llama-cpp-python (some minutes, once) ..."; \
	     $(PIP) install -e '.[llama-cpp-python]' || echo "llama-cpp-python did not compile: its tests will be skipped."; }; \
	 else echo "No C++ compiler: llama-cpp-python is left out and its tests are skipped."; fi
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist site
