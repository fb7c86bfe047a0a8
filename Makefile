# `make demo` and `make test` need Python 3.11 or later and make; everything else goes into .venv.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.PHONY: help demo fleet test test-slow fuzz chaos lint circles house format lock bench bench-quick build clean runtime venv venv-bench

# The scripts of the environment first: the tests start `snapferry`, `celery` and `rclone` by name.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# PYTHON=/path/to/python3 chooses the interpreter that .venv is made with.
export PYTHON
# ARGS are handed on: make test ARGS="-k manifest -x"
ARGS =
# How many processes share the tests. More than there are cores: most tests wait. JOBS=0 runs all in one process, which
# starts at once, and in which a debugger can stop.
JOBS = 4

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 22

demo: runtime ## copy a sample snapshot from one store to another, and look at the result (seconds)
	@.ci/demo

fleet: runtime ## run a fleet on this machine, with Flower, the dashboard and a store to try it with, until Ctrl-C
	@.ci/fleet

test: venv ## run the tests
	python -m pytest -n $(JOBS) --dist loadscope $(ARGS)

test-slow: venv ## run the tests that take minutes
	python -m pytest -m slow --timeout=1800 $(ARGS)

# How long all targets are fuzzed together.
FUZZ_SECONDS = 600

fuzz: venv-fuzz ## fuzz manifests, URLs, answers, listings, messages and redaction (10 minutes)
	python -m tests.fuzz --seconds $(FUZZ_SECONDS) $(ARGS)

# CHAOS_SEED chooses the faults; without one the time does.
CHAOS_MINUTES = 20
CHAOS_SEED =

chaos: venv ## random faults on a real fleet, and a check that nothing is lost (20 minutes)
	python -m tests.chaos --minutes $(CHAOS_MINUTES) $(if $(CHAOS_SEED),--seed $(CHAOS_SEED)) $(ARGS)

lint: venv ## check style, types, the direction of imports, and what bandit takes for unsafe
	ruff check
	ruff format --check
	mypy
	bandit --quiet --recursive --configfile pyproject.toml stores workers orchestrator
	lint-imports --no-logo

circles: venv ## list circles of imports between files, under TYPE_CHECKING and inside functions too
	@python .ci/circles.py $(ARGS)

house: venv ## check the sizes of files and folders
	@python .ci/house.py

format: venv ## put the code into its format
	ruff check --fix
	ruff format

bench-quick: venv-bench ## run the benchmarks in small (minutes)
	python -m benchmarks --quick $(ARGS)

bench: venv-bench ## run the benchmarks, and write docs/benchmarks.md (hours)
	python -m benchmarks --write $(ARGS)

build: venv ## build the wheel and the source archive into dist/
	python -m hatchling build

# UPGRADE=--upgrade takes the newest versions that pyproject.toml allows; without it, only what must change does.
UPGRADE =
LOCK := UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-emit-find-links

lock: venv ## write exact versions and hashes to .ci/constraints*.txt
	$(LOCK) $(UPGRADE) pyproject.toml --group build --group test --group lint -o .ci/constraints.txt
	$(LOCK) pyproject.toml -c .ci/constraints.txt -o .ci/constraints-runtime.txt
	$(LOCK) --group build -c .ci/constraints.txt -o .ci/constraints-build.txt
	$(LOCK) --group fuzz -c .ci/constraints.txt -o .ci/constraints-fuzz.txt
	$(LOCK) --group bench -c .ci/constraints.txt -o .ci/constraints-bench.txt

clean: ## remove everything that was made here
	rm -rf .venv dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

runtime:
	@.ci/setup runtime

venv:
	@.ci/setup all

venv-fuzz:
	@.ci/setup fuzz

venv-bench:
	@.ci/setup bench
