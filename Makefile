# Two commands do everything, set-up included: `make chat PROMPT="..."` and `make test`.

PYTHON ?= python3
PROMPT ?= Say hello in one short sentence.
MODEL ?=
# As it was typed: `$5` in a prompt is no variable of make's.
override export PROMPT := $(value PROMPT)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.PHONY: chat test check clis clean

# Uses the daemon that runs, else one of its own for this one chat.
chat: .venv/runtime
	@if ! $(BIN)/runnerd status >/dev/null 2>&1; then \
	    $(BIN)/runnerd serve --log-level warning & daemon=$$!; \
	    trap 'kill $$daemon; wait $$daemon' EXIT; \
	    tries=100; \
	    until $(BIN)/runnerd status >/dev/null 2>&1; do \
	        kill -0 $$daemon 2>/dev/null || { trap - EXIT; exit 1; }; \
	        tries=$$((tries - 1)); [ $$tries -gt 0 ] || { echo 'The daemon does not answer.' >&2; exit 1; }; \
	        sleep 0.1; \
	    done; \
	fi; \
	if [ -n "$(MODEL)" ] || $(BIN)/runnerd health >/dev/null; then \
	    $(BIN)/runnerd chat $(if $(MODEL),-m '$(MODEL)') -- "$$PROMPT"; \
	else \
	    $(BIN)/runnerd health; \
	    echo; echo 'No model can answer yet: the hint says what mends it. The way there works, an echo comes back (-m echo):'; \
	    $(BIN)/runnerd chat -m echo -- "$$PROMPT"; \
	fi

test: clis
	$(BIN)/python -m pytest -n auto --dist loadfile

check: .venv/development
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# The vendors' real CLIs, in the versions that the tests pin.
clis: .venv/development
	@$(BIN)/python -m tests.live.install

.venv/runtime: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("runnerd needs Python 3.11 or newer: make PYTHON=...") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv .venv
	$(PIP) install --editable .
	@touch $@

.venv/development: .venv/runtime
	$(PIP) install --editable '.[dev]'
	@touch $@

clean:
	rm -rf .venv .clis
