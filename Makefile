# Two commands do everything, set-up included: `make chat PROMPT="..."` and `make test`.

PYTHON ?= python3
PROMPT ?= Say hello in one short sentence.
MODEL ?=
# As it was typed: `$5` in a prompt is no variable of make's.
override export PROMPT := $(value PROMPT)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.PHONY: chat test check faults soak bench clis clean

# Where no model at all can answer (`health` is 1) it shows the way there with an echo.
chat: .venv/runtime
	@$(BIN)/runnerd chat $(if $(MODEL),-m '$(MODEL)') -- "$$PROMPT" || { \
	    code=$$?; $(BIN)/runnerd health >/dev/null 2>&1; \
	    if [ $$? -ne 1 ] || [ -n "$(MODEL)" ]; then exit $$code; fi; \
	    echo; $(BIN)/runnerd health; \
	    echo; echo 'No model can answer yet: the hint says what mends it. The way there works, an echo comes back (-m echo):'; \
	    $(BIN)/runnerd chat -m echo -- "$$PROMPT"; \
	}

test: clis
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

check: .venv/development
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# Every fault many times, half an hour: the table goes to tests/faults/RESULTS.md.
faults: .venv/development
	$(BIN)/python -m tests.faults --write

soak: clis
	RUNNERD_SOAK=2000 $(BIN)/python -m pytest --timeout 900 -rP tests/test_soak.py tests/live/test_claude_conversations.py

# What a chat costs through the daemon, against the same CLI by hand and through its vendor's SDK; less than ten minutes.
bench: .venv/bench clis
	$(BIN)/python -m tests.bench

# The vendors' real CLIs, in the versions that the tests pin, and the editors.
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

.venv/bench: .venv/development
	$(PIP) install --editable '.[bench]'
	@touch $@

clean:
	rm -rf .venv .clis
