# Every target works on a fresh machine with Python 3.11 or newer, a C compiler and a package index.
# PYTHON picks the interpreter that the virtual environment is made from: make PYTHON=python3.12 test

PYTHON ?= python3
VENV ?= .venv
OUT ?= report
SCALE ?= quick
WORKERS ?= 2

BIN := $(VENV)/bin
# Compiling every file of every package takes longer than the rest of the set-up; Python compiles what it imports, once,
# as long as it may keep the result.
unexport PYTHONDONTWRITEBYTECODE
INSTALL := $(BIN)/python -m pip --disable-pip-version-check install --no-compile --quiet -c constraints.txt
BENCHMARKS := $(sort $(wildcard benchmarks/bench_*.py))

# Several test processes share the cores, so each keeps to one thread.
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help forecast test test-all lint types docs studies bench clean clean-all

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

forecast: $(VENV)/.package ## Set up, then forecast a small CNN on handwritten digits; the page is OUT/index.html
	$(BIN)/widthwise forecast --out $(OUT)
	@echo "The report is at $(OUT)/index.html"

test: $(VENV)/.test ## Run the tests (not the slow ones)
	$(TEST)

test-all: $(VENV)/.test ## Run every test, the slow ones too
	$(TEST) -m "slow or not slow"

lint: $(VENV)/.lint ## Style, format, and the floors that imports keep to
	$(BIN)/ruff check src tests benchmarks docs .ci
	$(BIN)/ruff format --check src tests benchmarks docs .ci
	$(BIN)/lint-imports --no-logo

types: $(VENV)/.lint ## Check the types
	$(BIN)/mypy

docs: $(VENV)/.docs ## Build the site into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "The site is at site/index.html"

studies: $(VENV)/.test ## Run every study that is ready (SCALE=quick or full)
	@slugs=$$($(BIN)/python .ci/ready_studies.py) && for slug in $$slugs; do \
	  echo "== study $$slug ($(SCALE))"; \
	  $(BIN)/widthwise study run "$$slug" --scale $(SCALE) || exit 1; \
	done
	@echo "The studies ran at scale $(SCALE)"

bench: $(VENV)/.test ## Side-by-side benchmarks against other libraries (builds their environments)
	PYTHON=$(PYTHON) bash benchmarks/peers/neural_tangents/make_env.sh
	@for script in $(BENCHMARKS); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean: ## Remove what the targets made, but not the environments
	rm -rf report site build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

clean-all: clean ## Remove the environments too
	rm -rf $(VENV) benchmarks/.peers

# Stamps: nothing is installed again until pyproject.toml or constraints.txt changes.

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is older than Python 3.11; choose another: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.package: pyproject.toml constraints.txt | $(VENV)/.made
	$(INSTALL) -e .
	@touch $@

$(VENV)/.test: $(VENV)/.package
	$(INSTALL) -e '.[test,data]'
	@touch $@

$(VENV)/.lint: $(VENV)/.test
	$(INSTALL) -e '.[lint]'
	@touch $@

$(VENV)/.docs: $(VENV)/.package
	$(INSTALL) -e '.[docs]'
	@touch $@
