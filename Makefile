# Two commands for everybody: `make demo` draws two pictures, `make test` runs every test.
# `make test-quick` is for the inner loop: no browser, no Node, no processes, under a minute.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-quick interop-all check quick-replies bench soak clean

demo: $(VENV)/.installed
	@$(BIN)/arta-mcp generate "a red fox in snow" --aspect-ratio 16:9 -n 2 -o pictures

test: $(VENV)/.tested check
	$(BIN)/python -m pytest

test-quick: $(VENV)/.tested
	$(BIN)/python -m pytest -q -m "not slow"

# every framework of docs/clients.md; the first run installs about 2 GB into .cache
interop-all: $(VENV)/.tested
	INTEROP_ALL=1 REQUIRE_ALL=1 $(BIN)/python -m pytest tests/interop/test_frameworks.py

check: $(VENV)/.tested
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/pyright

$(VENV)/.made:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.installed: $(VENV)/.made pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev
	touch $@

clean:
	rm -rf $(VENV) .cache pictures

quick-replies: $(VENV)/.tested
	$(BIN)/python tools/write_quick_replies.py

bench: $(VENV)/.tested
	for file in startup schedule call load; do $(BIN)/python benchmarks/$$file.py || exit 1; done

soak: $(VENV)/.tested
	$(BIN)/python tools/soak.py
