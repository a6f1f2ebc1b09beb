# Two commands do everything: `make chat PROMPT="..."` and `make test`. Each sets up what it needs.

PYTHON ?= python3
BIN := .venv/bin
PROMPT ?= Say hello in one short sentence.

.PHONY: chat test check clis clean

# A recipe that is broken off must not leave a half-made environment that looks whole.
.DELETE_ON_ERROR:

.venv/runtime: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "runnerd needs Python 3.11 or newer, make PYTHON=... names one")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

.venv/development: .venv/runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

chat: .venv/runtime
	@BIN=$(BIN) PROMPT='$(subst ','\'',$(PROMPT))' sh tests/../.ci/chat

clis: .venv/development
	@$(BIN)/python -m tests.live.install

test: clis
	$(BIN)/python -m pytest -n auto

check: .venv/development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .venv .clis
