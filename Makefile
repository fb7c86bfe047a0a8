# `make demo` and `make test` need Python 3.11 or later and make; everything else goes into .venv.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.PHONY: help demo fleet test test-slow test-examples fuzz chaos soak spot lint circles house format reference lock bench bench-quick bench-compare docs build release sbom version clean runtime venv venv-fuzz venv-bench venv-docs

# Tests start `snapferry`, `celery` and `rclone` by name: find those of .venv first.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# With it, each process that a test starts compiles everything again.
unexport PYTHONDONTWRITEBYTECODE
# PYTHON=/path/to/python3 selects the interpreter for .venv.
export PYTHON
# ARGS are passed to the command: make test ARGS="-k manifest -x"
ARGS =
# Processes that share the tests. More than there are cores, because most tests wait. JOBS=0 runs all tests in one process,
# for a debugger.
JOBS = 4

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 22

demo: runtime ## push a tree, copy it, break the copy, find and heal the damage, pull the tree and compare (seconds)
	@.ci/demo

fleet: runtime ## run a fleet with Flower, the dashboard and a sample store, until Ctrl-C
	@.ci/fleet

test: venv ## run the tests
	python -m pytest -n $(JOBS) --dist loadscope $(ARGS)

test-slow: venv venv-docs ## run the tests that take minutes, and all examples of property tests
	python -m pytest -m "slow or hypothesis" --hypothesis-profile=all --timeout=1800 $(ARGS)

test-examples: venv ## run the tests of the examples that need Airflow and Prefect, which are installed apart
	.ci/setup airflow --venv .venv-airflow
	.ci/setup prefect --venv .venv-prefect
	python -m pytest -m "slow or not slow" --timeout=1800 tests/integration/test_examples.py \
		tests/integration/test_airflow.py tests/integration/test_prefect.py $(ARGS)

# Seconds for all fuzz targets together.
FUZZ_SECONDS = 600

fuzz: venv-fuzz ## fuzz parsers of manifests, URLs, HTTP answers, messages and logs (10 minutes)
	python -m tests.fuzz --seconds $(FUZZ_SECONDS) $(ARGS)

# CHAOS_SEED selects the faults; the default is the current time.
CHAOS_MINUTES = 30
CHAOS_SEED =

chaos: venv ## inject random faults into a fleet, and check that nothing is lost (30 minutes)
	python -m tests.chaos --minutes $(CHAOS_MINUTES) $(if $(CHAOS_SEED),--seed $(CHAOS_SEED)) $(ARGS)

SOAK_MINUTES = 120

soak: venv ## run 10,000 small jobs, and check that nothing grows (2 hours; SOAK_MINUTES=20: jobs in proportion)
	python -m tests.endurance.soak --minutes $(SOAK_MINUTES) $(ARGS)

spot: venv ## measure what a fleet does again whose machines are taken away (20 minutes)
	python -m tests.endurance.spot $(ARGS)

lint: venv ## check style, types, imports and security
	ruff check
	ruff format --check
	mypy
	bandit --quiet --recursive --configfile pyproject.toml snapferry/*.py stores workers orchestrator
	lint-imports --no-logo
	python .ci/circles.py
	python .ci/house.py
	hadolint Dockerfile
	.ci/shell
	zizmor --offline --quiet --persona pedantic .github/workflows

circles: venv ## list circles of imports, including those under TYPE_CHECKING and in functions
	@python .ci/circles.py $(ARGS)

house: venv ## check the sizes of files and folders
	@python .ci/house.py

reference: venv ## write docs/commands.md, docs/man and docs/api.md from the code
	@python .ci/reference.py
	@python .ci/manual.py

format: venv ## format the code
	ruff check --fix
	ruff format

bench-quick: venv-bench ## run the benchmarks with little data (minutes)
	python -m benchmarks --quick $(ARGS)

bench: venv-bench ## run all benchmarks, and update docs/benchmarks.md (hours)
	python -m benchmarks --write $(ARGS)

bench-compare: venv-bench ## measure this tree beside an older one: make bench-compare REV=v1.0.0
	python -m benchmarks.against $(REV) $(ARGS)

docs: venv-docs ## build the site of the documentation into build/site; a broken link is an error
	@.venv-docs/bin/python .ci/site/build.py && echo "open build/site/index.html"

build: venv ## build the wheel and the source archive into dist/
	python -m hatchling build

release: venv ## make and check the files of a release in dist/, which must be empty
	@.ci/release dist

sbom: venv ## write a bill of materials (CycloneDX) of all that is installed, dist/snapferry-VERSION.cdx.json
	@work=$$(mktemp -d) && trap 'rm -rf "$$work"' EXIT && mkdir -p dist && python -m hatchling build -t wheel -d "$$work" && \
		.ci/sbom "$$work"/*.whl "dist/snapferry-$$(python .ci/version.py).cdx.json" && ls dist/*.cdx.json

# VERSION=1.0.0
VERSION =

version: venv ## write VERSION into all files and the changelog; make version VERSION=1.0.0
	@python .ci/version.py set "$(VERSION)"

# UPGRADE=--upgrade takes the newest versions that pyproject.toml allows. The default changes only what it must.
UPGRADE =
LOCK := UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-emit-find-links

lock: venv ## write exact versions and hashes to .ci/constraints*.txt
	$(LOCK) $(UPGRADE) pyproject.toml --extra all --group build --group test --group lint --group release \
		-o .ci/constraints.txt
	$(LOCK) pyproject.toml --extra all -c .ci/constraints.txt -o .ci/constraints-runtime.txt
	$(LOCK) --group build -c .ci/constraints.txt -o .ci/constraints-build.txt
	$(LOCK) --group fuzz -c .ci/constraints.txt -o .ci/constraints-fuzz.txt
	$(LOCK) $(UPGRADE) pyproject.toml --group build --group airflow -o .ci/constraints-airflow.txt
	$(LOCK) $(UPGRADE) pyproject.toml --group build --group prefect -o .ci/constraints-prefect.txt
	$(LOCK) --group bench -c .ci/constraints.txt -o .ci/constraints-bench.txt
	$(LOCK) --group docs -o .ci/constraints-docs.txt

clean: ## remove .venv, .venv-docs and all build products
	rm -rf .venv .venv-docs dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

runtime:
	@.ci/setup runtime

venv:
	@.ci/setup all

venv-fuzz:
	@.ci/setup fuzz

venv-bench:
	@.ci/setup bench

venv-docs:
	@.ci/setup docs
