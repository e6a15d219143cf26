# On a machine with python3 and make alone: `make demo` installs into .venv and runs the main job.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
SOURCES := fastbptt kernels tests bench docs examples setup.py

# Types are checked on a copy laid out as installed: kernels/ is fastbptt.kernels there.
TYPED := $(VENV)/typed
MYPY := ../bin/mypy --config-file ../../pyproject.toml --cache-dir ../mypy

# Tests and benchmarks against PyTorch and JAX run wherever these import and are skipped, by name,
# where they do not. CI always installs both and fails if it cannot. Elsewhere they are left out,
# since PyTorch as most indexes serve it brings gigabytes of CUDA libraries; PEERS=1 asks for them.
PEERS ?= $(filter true 1,$(CI))
TORCH := torch==2.13.0
PEERS_STAMP := $(if $(PEERS),$(VENV)/peers.stamp)

.PHONY: demo test fuzz ptx pythons bench docs lint format clean

demo: $(VENV)/cli.stamp
	$(BIN)/python -m fastbptt demo $(ARGS)

# The CUDA kernels run in Numba's simulator, which a process has from its start or not at all.
test: $(VENV)/test.stamp $(PEERS_STAMP)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --ignore tests/cuda $(ARGS)
	$(if $(ARGS),,NUMBA_ENABLE_CUDASIM=1 $(BIN)/python -m pytest --numprocesses 2 tests/cuda)

# Random calls against the oracle, or one again: make fuzz MINUTES=60, SEED=7, CASE=7:123.
MINUTES ?= 5
fuzz: $(VENV)/test.stamp
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(if $(CASE),--case $(CASE))

# The CUDA kernels' PTX on the CPU, or one sweep of it again: make ptx MINUTES=60, CASE=7:123.
ptx: $(VENV)/test.stamp $(PEERS_STAMP)
	$(BIN)/python -m tests.cuda.ptx --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(if $(CASE),--case $(CASE))

# The core of the suite in every other Python from 3.10 to 3.14 that is here.
pythons:
	PYTHON=$(PYTHON) .ci/pythons core

bench: $(VENV)/test.stamp $(PEERS_STAMP)
	$(BIN)/python -m pytest bench/bench_*.py --benchmark-only -o 'python_functions=bench_*' $(ARGS)
	$(BIN)/python -m fastbptt bench --json bench/results/lengths.json --out bench/results/lengths.png
	$(BIN)/python -m bench.compare
	$(if $(PEERS),$(BIN)/python -m bench.torch_modules)
	$(if $(PEERS),$(BIN)/python -m bench.jax_calls)
	$(BIN)/python -m bench.roofline
	$(BIN)/python -m bench.claims
	$(BIN)/python -m bench.lengths
	$(BIN)/python -m bench.load
	$(BIN)/python -m bench.steps
	$(BIN)/python -m bench.predicted
	$(BIN)/python -m bench.distributed
	$(BIN)/python -m bench.examples

# Warnings are errors: mkdocs.yml says strict. Nothing is fetched.
docs: $(VENV)/docs.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "build/site/index.html"

lint: $(VENV)/lint.stamp
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	rm -rf $(TYPED) && mkdir -p $(TYPED)
	cp -r fastbptt $(TYPED) && cp -r kernels $(TYPED)/fastbptt
	cd $(TYPED) && $(MYPY) -p fastbptt && $(MYPY) ../../examples ../../tests/typed_use.py

format: $(VENV)/lint.stamp
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

clean:
	rm -rf $(VENV) .venv-* build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .benchmarks
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp for each set of packages: made again when the lists of packages change.
$(VENV)/venv.stamp:
	$(PYTHON) -m venv --clear $(VENV)
	touch $@

$(VENV)/cli.stamp $(VENV)/docs.stamp $(VENV)/lint.stamp $(VENV)/test.stamp: $(VENV)/venv.stamp pyproject.toml setup.py
	@echo "installing fastbptt[$(basename $(@F))] into $(VENV)"
	@$(INSTALL) --editable '.[$(basename $(@F))]'
	@touch $@

$(VENV)/peers.stamp: $(VENV)/venv.stamp pyproject.toml setup.py Makefile
	@echo "installing $(TORCH) and fastbptt[bench] into $(VENV)"
	@$(INSTALL) $(TORCH)
	@$(INSTALL) --editable '.[bench]'
	$(BIN)/python -c "import jax, torch"
	@touch $@
