# Two commands for everybody: `make demo` draws two pictures, `make test` runs every test.
# `make test-quick` is for the inner loop: no browser, no Node, no processes, under a minute.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-quick test-engines interop-all check quick-replies bench soak clean

# Without the settings of the caller: a demo asks no service and spends nobody's pictures.
demo: $(VENV)/.installed
	@env -u ARTA_API_KEY ARTA_BACKEND=local $(BIN)/arta-mcp generate "a red fox in snow" --aspect-ratio 16:9 -n 2 -o pictures

test: $(VENV)/.tested check
	$(BIN)/python -m pytest

test-quick: $(VENV)/.tested
	$(BIN)/python -m pytest -q -m "not slow"

# every framework of docs/clients.md; the first run installs about 2 GB into .cache
interop-all: $(VENV)/.tested
	INTEROP_ALL=1 REQUIRE_ALL=1 $(BIN)/python -m pytest tests/interop/test_frameworks.py

# the published types of other programs, in an environment of their own
test-engines: $(VENV)/.tested .cache/engines/.made
	REQUIRE_ALL=1 $(BIN)/python -m pytest tests/engines

.cache/engines/.made:
	$(PYTHON) -m venv --clear .cache/engines
	.cache/engines/bin/python -m pip install --quiet "openai>=3.57,<4"
	touch $@

check: $(VENV)/.tested
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/pyright

# In the Python of any year, for it is what an old one runs.
CHECK_VERSION := -c 'import sys; v = "%d.%d" % sys.version_info[:2]; \
	sys.exit(sys.version_info < (3, 11) and "arta-mcp needs Python 3.11, this is %s; try: make PYTHON=python3.13 ..." % v or 0)'

# Checked before the environment is made: an old one would be in the way of the next try.
$(VENV)/.made:
	@$(PYTHON) $(CHECK_VERSION)
	$(PYTHON) -m venv --clear $(VENV)
	touch $@

$(VENV)/.installed: $(VENV)/.made pyproject.toml constraints.txt
	@$(BIN)/python $(CHECK_VERSION) || { rm -f $(VENV)/.made; exit 1; }
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
