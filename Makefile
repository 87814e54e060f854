# Two commands do everything on a machine with Python 3.11 or newer:
#   make demo   install and score the sample photographs
#   make test   install with the dev extra; lint, types and the tests that are quick
# `make test-slow` runs the slow tests, also transformers' own, which it brings from the package index, and `make test-all`
# all of them, those that take minutes too (those in a browser need Chromium, and say so). `make docs` builds the site of
# documents into build/site. `make card` writes the model card anew from hub_card/results.json, `make results` the page
# docs/results.md from studies/results/. `make audit` looks the pinned packages up among the known vulnerabilities,
# `make test-lowest` tests with the lowest versions that setup.cfg admits, and `make coverage` says which lines of the
# package the quick tests run; they take about half as long again with it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PYTEST := $(BIN)/python -m pytest
# Files of tests are shared out among the cores, and each process computes on one thread.
PARALLEL := --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
test test-slow test-all coverage: export OMP_NUM_THREADS = 1

.PHONY: demo test test-slow test-all coverage test-lowest lint format audit docs card results space clean

demo: $(VENV)/.installed
	$(BIN)/metaqap score space/examples --sort best

test: lint
	$(PYTEST) -m "not slow and not long" $(PARALLEL)

test-slow: $(VENV)/.installed-dev
	$(BIN)/python tests/bring_common_tests.py
	$(PYTEST) -m slow $(PARALLEL)

test-all: test test-slow
	$(PYTEST) -m long $(PARALLEL)

# Lines of processes that tests start count as well. setup.cfg says what is measured.
coverage: $(VENV)/.installed-dev
	$(INSTALL) pytest-cov
	$(PYTEST) -m "not slow and not long" $(PARALLEL) --cov --cov-report=term-missing:skip-covered

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The lowest versions that setup.cfg admits, in an environment of its own. Tests of what only the dev extra brings are
# left out.
test-lowest: export OMP_NUM_THREADS = 1
test-lowest:
	$(PYTHON) -m venv build/lowest
	build/lowest/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-lowest.txt \
		-e ".[train,space]" pytest pytest-xdist hypothesis
	build/lowest/bin/python -m pytest -m "not slow and not long" $(PARALLEL) tests/contract tests/test_*_metaqap.py \
		tests/test_shipped_checkpoint.py tests/test_checkpoint_reading.py tests/data tests/training tests/inference \
		tests/fusion tests/evaluation tests/cli tests/demo/test_app.py

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Needs the network. In an environment of its own, so that the auditor's packages are not among the audited ones.
audit:
	$(PYTHON) -m venv build/audit
	@build/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1 || \
		{ echo "audit: nothing was looked up, since pip-audit cannot be installed from here."; exit 2; }
	@build/audit/bin/python .ci/audit.py

# A broken link fails. Material's advertisement for its successor is not shown.
docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=true $(BIN)/python -m mkdocs build --strict --quiet

card: $(VENV)/.installed-dev
	$(BIN)/python scripts/make_card.py

results: $(VENV)/.installed-dev
	$(BIN)/python studies/make_results.py

# What the repository of the Space holds: its own files and the package next to them, links followed; the examples are
# in the package. MODEL=you/model
# names the published checkpoint in the front matter, so that the Hub links the two.
space:
	rm -rf build/space
	mkdir -p build/space
	cp -RL space/. modeling_metaqap build/space
	rm -r build/space/examples
	$(if $(MODEL),sed -i.old 's|^tags:|models:\n  - $(MODEL)\ntags:|' build/space/README.md && rm build/space/README.md.old)
	find build/space -name __pycache__ -prune -exec rm -rf {} +

clean:
	rm -rf $(VENV) build dist *.egg-info

# The stamps make a second run start in seconds; a change of the dependencies installs again.
$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing MetaQAP into $(VENV) (a minute or two the first time) ..."
	$(INSTALL) -e .
	touch $@

$(VENV)/.installed-dev: setup.cfg pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing MetaQAP and its dev extra into $(VENV) (a few minutes the first time) ..."
	$(INSTALL) -e ".[dev]"
	touch $@ $(VENV)/.installed

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "MetaQAP needs Python 3.11 or newer; name one with make PYTHON=/path/to/python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
