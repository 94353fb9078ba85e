# `make help` lists what can be made.

# The first Python that the course supports; another one: make lab PYTHON=/path/to/python3.12
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c '$(SUPPORTED)' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
READY := .venv/.ready
UV := uv==0.13.9

# A cell may take five minutes on a busy machine; at the scale `quick` the longest takes one.
NBVAL := $(BIN)/pytest -p no:cacheprovider --nbval-lax --nbval-current-env --nbval-cell-timeout=300

ifdef CHAPTER
NAME := $(basename $(notdir $(firstword $(wildcard chapters/ch$(CHAPTER)_*.ipynb))))
ifeq ($(NAME),)
$(error CHAPTER=$(CHAPTER) is no chapter; there are: $(patsubst chapters/ch%.ipynb,%,$(wildcard chapters/ch*.ipynb)))
endif
SUBJECT := $(NAME:ch$(CHAPTER)_%=%)
CODE := lmcourse/$(SUBJECT)
UNIT_TESTS := $(wildcard tests/test_$(SUBJECT).py tests/test_$(SUBJECT)_*.py)
PROOFS := -k $(NAME)
NOTEBOOKS := $(wildcard chapters/$(NAME).ipynb exercises/$(NAME).ipynb solutions/$(NAME).ipynb)
else
CODE := lmcourse
UNIT_TESTS := $(filter-out tests/test_exercises.py,$(wildcard tests/test_*.py))
PROOFS :=
NOTEBOOKS := $(wildcard chapters/*.ipynb exercises/*.ipynb solutions/*.ipynb)
endif

.DEFAULT_GOAL := help
.PHONY: help setup lab test test-fast test-slow lint unit proofs notebooks chapters exercises lock leaderboard clean

# Every number and every committed output is that of the smallest scale.
test test-fast test-slow unit proofs notebooks chapters exercises: export LMCOURSE_SCALE := quick

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Written last: a set-up that was interrupted is taken up again by the next call.
$(READY): requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed, and none is on the path." \
		"Install one, or name it: make lab PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c '$(SUPPORTED)' || { echo "Python 3.11, 3.12 or 3.13 is needed;" \
		"PYTHON=$(PYTHON) is $$($(PYTHON) --version 2>&1)." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments:" \
		"install its venv module (Debian and Ubuntu: apt-get install python3-venv)." >&2; exit 1; }
	@$(BIN)/python -c '$(SUPPORTED)' 2>/dev/null && $(BIN)/python -m pip --version >/dev/null 2>&1 || { \
		echo "Setting up .venv with $$($(PYTHON) --version): a few minutes, 2.7 GB."; \
		$(PYTHON) -m venv --clear .venv; }
	$(BIN)/python -m pip install -r requirements.txt
	$(BIN)/python -m pip install --no-deps --editable .
	$(BIN)/python -m ipykernel install --sys-prefix --name lmcourse --display-name lmcourse
	@touch $@

setup: $(READY) ## only set up .venv

lab: $(READY) ## open JupyterLab on the chapters; ARGS="--no-browser --port 8899" goes to JupyterLab
	@$(BIN)/python -m lmcourse lab $(ARGS)

test: lint unit proofs notebooks ## everything a change needs to pass; CHAPTER=03 for one chapter

test-fast: lint unit ## what takes no notebook: lint, unit tests, examples in docstrings

test-slow: $(READY) ## what takes minutes a test
	$(BIN)/pytest tests -m slow

lint: $(READY) ## style, formatting, and imports that point backwards only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

unit: $(READY)
	$(BIN)/pytest -m "not slow" --doctest-modules --ignore=lmcourse/grading/checks $(CODE) $(UNIT_TESTS)

proofs: $(READY) # every stub red, every solution green, every wrong answer caught
	$(BIN)/pytest -m "not slow" tests/test_exercises.py $(PROOFS)

notebooks: $(READY)
	$(NBVAL) $(NOTEBOOKS)

chapters: $(READY) ## run chapters and solutions again and keep their outputs; CHAPTER=03 for one
	$(BIN)/python -m tools.notebooks execute $(filter-out exercises/%,$(NOTEBOOKS))

exercises: $(READY) ## make exercises/ from solutions/; CHAPTER=03 for one
	$(BIN)/python -m tools.make_exercises $(CHAPTER)

leaderboard: $(READY) ## make README's table and picture from data/results/
	$(BIN)/python -m tools.leaderboard
	$(BIN)/python -m tools.pictures

lock: $(READY) ## write requirements.txt from pyproject.toml's ranges
	$(BIN)/python -m pip install --quiet $(UV)
	$(BIN)/uv pip compile pyproject.toml --extra notebook --extra dev --universal --python-version 3.11 --no-annotate \
		--custom-compile-command "make lock" --output-file requirements.txt

clean: ## remove .venv and everything else that can be made again; never my/
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis .import_linter_cache .grimp_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
