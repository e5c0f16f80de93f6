# Everything runs from a virtual environment of its own (.venv); nothing else is needed than Python 3.11+ and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
EXTRA ?= test

.PHONY: help demo test chaos bench simulate replay shrink mutants check format proto proto-check test-pythons clean
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

# The proxies of the chaos suite's links. Nothing fails without them: what needs them is skipped and says how to get them.
TOXIPROXY_VERSION := 2.12.0
TOXIPROXY_SOURCE := github.com/Shopify/toxiproxy/v2/cmd/server@v$(TOXIPROXY_VERSION)
TOXIPROXY := $(VENV)/.toxiproxy-$(TOXIPROXY_VERSION)

$(TOXIPROXY): | $(VENV)/.installed-test
	@if command -v toxiproxy-server >/dev/null; then exit; fi; \
	if ! command -v go >/dev/null; then \
		echo "no toxiproxy-server on PATH and no Go to build it: tests that need it are skipped. Install Go, or put the binary of https://github.com/Shopify/toxiproxy/releases/tag/v$(TOXIPROXY_VERSION) on PATH as toxiproxy-server" >&2; exit; \
	fi; \
	echo "building toxiproxy-server $(TOXIPROXY_VERSION) into $(VENV)"; \
	folder=$$(mktemp -d) || exit; \
	if GOBIN=$$folder go install $(TOXIPROXY_SOURCE) && mv "$$folder/server" $(BIN)/toxiproxy-server; then touch $@; \
	else echo "toxiproxy-server could not be built (no network?): tests that need it are skipped. Try again: make $@; or put the binary of https://github.com/Shopify/toxiproxy/releases/tag/v$(TOXIPROXY_VERSION) on PATH as toxiproxy-server" >&2; fi; \
	rm -rf "$$folder"

demo: $(VENV)/.installed-node ## start a three-node cluster, publish, consume, kill a leader, count what is left
	@$(BIN)/python -m deploy.demo

# A file's tests stay in one process: what is dear (a cluster, a scenario) is then not there twice at a time.
TEST_JOBS ?= 2
test: $(VENV)/.installed-test $(TOXIPROXY) ## run the tests: TEST_JOBS=N processes (2), PYTEST_ARGS='tests/storage -x'
	@$(BIN)/python -m pytest --numprocesses $(TEST_JOBS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

# $(call option,flag,value): --flag value, if there is a value.
option = $(if $(2),--$(1) $(2))
RUNNER := $(BIN)/python -m tests.simulation.runner

chaos: $(VENV)/.installed-test $(TOXIPROXY) ## faults against real nodes: SCENARIO=name SEED=N SEEDS=A:B DURATION=s FAULTS=a,b RESULTS=file OUT=folder
	@$(BIN)/penstock-chaos run $(call option,scenario,$(SCENARIO)) $(call option,seed,$(SEED)) $(call option,seeds,$(SEEDS)) $(call option,duration,$(DURATION)) $(call option,faults,$(FAULTS)) $(call option,results,$(RESULTS)) $(call option,out,$(OUT))

bench: $(VENV)/.installed-bench ## Penstock, its ceiling and what peers can be had, below 10 minutes: SYSTEMS=a,b WORKLOADS=a,b REPEATS=N OUT=folder
	@$(BIN)/python -m benchmarks run --quick --minutes 9.5 $(call option,systems,$(SYSTEMS)) $(call option,workloads,$(WORKLOADS)) $(call option,repeats,$(REPEATS)) $(call option,out,$(OUT))

simulate: $(VENV)/.installed-test ## run simulated worlds: SEEDS=A:B WORLD=cluster|consensus|all JOBS=N RESULTS=file
	@$(RUNNER) simulate $(call option,seeds,$(SEEDS)) $(call option,world,$(WORLD)) $(call option,jobs,$(JOBS)) $(call option,results,$(RESULTS))

replay: $(VENV)/.installed-test ## run one simulated world again: SEED=N WORLD=name, or PLAN=file; TRACE=file; TWICE=1 compares
	@$(RUNNER) replay $(call option,seed,$(SEED)) $(call option,world,$(WORLD)) $(call option,plan,$(PLAN)) $(call option,trace,$(TRACE)) $(call option,twice,$(TWICE))

shrink: $(VENV)/.installed-test ## look for a smaller plan that fails alike: SEED=N WORLD=name, or PLAN=file; TO=file SECONDS=N
	@$(RUNNER) shrink $(call option,seed,$(SEED)) $(call option,world,$(WORLD)) $(call option,plan,$(PLAN)) $(call option,to,$(TO)) $(call option,seconds,$(SECONDS))

mutants: $(VENV)/.installed-test ## prove that the simulation finds deliberate bugs: MUTANT=name WORLD=table JOBS=N MARKDOWN=file
	@$(RUNNER) mutants $(if $(MUTANT),--mutant '$(MUTANT)') $(call option,world,$(WORLD)) $(call option,jobs,$(JOBS)) $(call option,markdown,$(MARKDOWN))

check: $(VENV)/.installed-dev proto-check ## lint, types, import rules, generated code
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@$(BIN)/mypy -p penstock
	@$(BIN)/mypy tests
	@$(BIN)/mypy -p deploy
	@$(BIN)/mypy -p benchmarks

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
	@rm -rf $(VENV) .venv-* build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .simulation
