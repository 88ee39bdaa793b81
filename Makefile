# Two commands for everybody: `make demo` draws two pictures, `make test` runs every test.
# `make test-quick` is for the inner loop: no browser, no Node, no processes, a minute or two.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
# What is installed is pinned; `make test CONSTRAINTS=` takes the newest of everything instead.
CONSTRAINTS ?= constraints.txt
PINS := $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))

.PHONY: demo test test-quick test-engines test-diffusers conformance interop-all docs dist bundle container hosts roads check check-fast coverage quick-replies bench bench-environment replicas soak clean

# Without the settings of the caller: a demo asks no service and spends nobody's pictures.
demo: $(VENV)/.installed
	@env -u ARTA_API_KEY ARTA_BACKEND=local $(BIN)/arta-mcp generate "a red fox in snow" --aspect-ratio 16:9 -n 2 -o pictures

test: check
	$(BIN)/python -m pytest

test-quick: $(VENV)/.tested
	$(BIN)/python -m pytest -q -m "not slow"

# the official suite against `serve --http`, under a minute; the first run installs 200 MB into .cache
conformance: $(VENV)/.tested
	PYTHONPATH=tests $(BIN)/python tools/run_conformance.py

# which branches no test takes, in processes of ours too; without the tests of foreign programs and
# installations, which run another copy, and of what is loaded when, where the measuring is seen.
# In a new clone with PYTHON=python3.12 or later: 3.11 stops tracing a frame once a coroutine below
# it was cancelled.
NOT_COVERED := interop roads test_packaging.py test_startup.py
coverage: $(VENV)/.tested
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest -q $(NOT_COVERED:%=--ignore=tests/%)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

# every client of docs/clients.md, whose tables it writes; the first run installs 3 GB into .cache
interop-all: $(VENV)/.tested
	INTEROP_ALL=1 REQUIRE_ALL=1 $(BIN)/python -m pytest tests/interop/test_frameworks.py
	$(BIN)/python tools/write_clients.py

# the pages as a site; fails on a dead link, and on a table that differs from the code
docs: $(VENV)/.tested
	$(BIN)/python tools/build_site.py .cache/site

# what is released: wheel, sdist, bundle, what a registry is told of them, checksums
dist: $(VENV)/.tested
	$(BIN)/python tools/build_dist.py dist $(if $(CONTAINER),--container $(CONTAINER))

# the bundle for Claude Desktop, validated and packed by the official tool, which npm brings
bundle: dist

# Claude Code, Codex and Gemini CLI read what docs/hosts.md says; the first run installs 740 MB
hosts: $(VENV)/.tested
	ROADS_ALL=1 REQUIRE_ALL=1 $(BIN)/python -m pytest tests/roads/test_host_programs.py

# the image of the Dockerfile, built and run without an engine: needs root, buildah and debootstrap
container: $(VENV)/.tested
	ROADS_ALL=1 REQUIRE_ALL=1 $(BIN)/python -m pytest tests/roads/test_container.py

# each way in that the README names, on each Python of this machine: some minutes
roads: $(VENV)/.tested
	ROADS_ALL=1 REQUIRE_ALL=1 $(BIN)/python -m pytest tests/roads tests/test_packaging.py \
		--ignore=tests/roads/test_container.py --ignore=tests/roads/test_host_programs.py

# the published types and a picture server of others, each in an environment of its own (1.3 GB)
test-engines: $(VENV)/.tested .cache/engines/.made .cache/aquiles/.made
	REQUIRE_ALL=1 $(BIN)/python -m pytest tests/engines

.cache/engines/.made:
	$(PYTHON) -m venv --clear .cache/engines
	.cache/engines/bin/python -m pip install --quiet "openai>=3.57,<4"
	touch $@

.cache/aquiles/.made: tests/engines/aquiles.txt
	$(PYTHON) -m venv --clear .cache/aquiles
	.cache/aquiles/bin/python -m pip install --quiet --requirement tests/engines/aquiles.txt
	.cache/aquiles/bin/python -m pip install --quiet --no-deps aquiles-image==0.8.3
	touch $@

# Pipelines with random weights, in an environment of their own of 1.3 GB. A processor's torch is
# enough: where an index has one, `make TORCH=...` names it. One thread: with models as small as
# these more of them only wait for each other, which on a busy machine takes ten times as long.
TORCH ?= torch==2.13.0

test-diffusers: .cache/diffusers-env/.made
	OMP_NUM_THREADS=1 REQUIRE_ALL=1 .cache/diffusers-env/bin/python -m pytest -k diffusers \
		tests/engines/test_diffusers.py tests/engines/test_engine_contract.py

.cache/diffusers-env/.made: pyproject.toml
	$(PYTHON) -m venv --clear .cache/diffusers-env
	.cache/diffusers-env/bin/python -m pip install --quiet "$(TORCH)" "pytest>=9" --editable ".[diffusers,redis]"
	touch $@

check: check-fast
	$(BIN)/pyright

# The replies first: a source of theirs that changed makes every start slow, and says so nowhere else.
check-fast: $(VENV)/.tested
	@$(BIN)/python tools/write_quick_replies.py --check
	$(BIN)/ruff format --check
	$(BIN)/ruff check

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
	$(BIN)/python -m pip install --quiet $(PINS) --editable .
	touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet $(PINS) --upgrade pip
	$(BIN)/python -m pip install --quiet $(PINS) --group dev
	touch $@

clean:
	rm -rf $(VENV) .cache pictures dist

quick-replies: $(VENV)/.tested
	$(BIN)/python tools/write_quick_replies.py

# What people install: a wheel and the newest of all that it needs, anew at each run.
bench-environment:
	rm -rf .cache/bench
	$(PYTHON) -m venv .cache/bench
	.cache/bench/bin/python -m pip install --quiet .

# some 25 minutes on a machine that does nothing else; `make bench BENCH=--quick` takes three
bench: $(VENV)/.tested bench-environment
	$(BIN)/python benchmarks/run_all.py $(BENCH)

# replicas behind nginx on Redis and on Valkey, killed under 400 calls, as is their store: a minute
replicas: $(VENV)/.tested
	$(BIN)/python tools/replicas.py

soak: $(VENV)/.tested
	$(BIN)/python tools/soak.py
	$(BIN)/python tools/replicas.py --seeds 10
