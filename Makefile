# Everything runs from a virtual environment of its own (.venv); nothing else is needed than Python 3.11+ and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
EXTRA ?= test

.PHONY: help demo test check format proto proto-check test-pythons clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# One stamp an extra: installing again happens only when pyproject.toml changed.
$(VENV)/.installed-%: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Penstock needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "installing penstock[$*] into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

demo: $(VENV)/.installed-node ## start a three-node cluster, publish, consume, kill a leader, count what is left
	@$(BIN)/python -m deploy.demo

test: $(VENV)/.installed-test ## run the tests
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(VENV)/.installed-dev proto-check ## lint, types, import rules, generated code
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@$(BIN)/mypy -p penstock
	@$(BIN)/mypy tests
	@$(BIN)/mypy -p deploy

format: $(VENV)/.installed-dev ## format and mend what can be mended
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format --quiet .

proto: $(VENV)/.installed-dev ## generate the stubs anew
	@$(BIN)/python proto/generate.py

proto-check: $(VENV)/.installed-dev ## are the committed stubs those of the .proto files? buf lint
	@$(BIN)/python proto/generate.py --check

test-pythons: ## run the tests on each Python from 3.11 on that is found
	@$(PYTHON) tests/pythons.py $(PYTEST_ARGS)

clean: ## remove the virtual environments and what was built
	@rm -rf $(VENV) .venv-* build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
