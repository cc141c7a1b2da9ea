# `make demo` and `make test` work on a fresh machine with Python 3.11 or newer and nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?= -n 2
BENCH_ARGS ?=

.PHONY: help demo demo-rollback test guest-test image-test systemd-test cluster-test manifests lock api page-test fuzz unit lint fmt coverage bench bench-quick clean

help:
	@echo "make demo         watch a snapshot travel: directory, S3, daemon, shared cache, checkout"
	@echo "make demo-rollback  three nodes follow a model, a bad promotion, a rollback: how long it takes"
	@echo "make test         the whole test suite, real S3 server included"
	@echo "make lint         format, lint, types, import contracts"
	@echo "make page-test    the page in a real browser; needs Chromium (apt-get install chromium)"
	@echo "make fuzz         API, manifests and bodies fuzzed for about five minutes"
	@echo "make guest-test   sealed objects (fs-verity) in a small virtual machine; needs root and x86_64"
	@echo "make image-test   builds the image and runs daemon and job as containers; needs root"
	@echo "make systemd-test the units under a real systemd in a container; needs root"
	@echo "make cluster-test the same as pods of a real cluster, which it builds first; needs root"
	@echo "make manifests    the kustomize base, from the chart; make lock: the packages of the image"
	@echo "make bench        every target beside snapdir, s5cmd and a C program, about 20 minutes;"
	@echo "                  BENCH_ARGS='--only cold-http id' for some rows. make bench-quick: scaled down"

$(VENV)/.demo: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable . --group demo
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@

# Where the tests look for Prometheus if the machine has none; see tests/servers/prometheus.py.
$(VENV)/.prometheus: tests/servers/get_prometheus.sh $(VENV)/.dev
	@tests/servers/get_prometheus.sh $(VENV)/tools
	@touch $@

$(VENV)/.bench: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --editable . --group bench
	@touch $@

demo: $(VENV)/.demo
	@$(BIN)/python -m demo

demo-rollback: $(VENV)/.demo
	@$(BIN)/python -m demo.rollback

test: $(VENV)/.dev $(VENV)/.prometheus
	$(BIN)/python -m pytest $(PYTEST_ARGS)

page-test: $(VENV)/.dev
	$(BIN)/python -m pytest -m browser tests/page

FUZZ_EXAMPLES ?= 400
fuzz: $(VENV)/.dev
	SNAPSYNC_FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(BIN)/python -m pytest $(PYTEST_ARGS) --timeout 7200 tests/security

# The OpenAPI document of the repository, from the table of operations.
api: $(VENV)/.dev
	$(BIN)/python -m snapd.api.openapi > docs/api/openapi.json

guest-test: $(VENV)/.dev
	PYTHON=$(BIN)/python tests/guest/run.sh

image-test: $(VENV)/.dev
	PYTHON=$(BIN)/python tests/deploy/image.sh

systemd-test: $(VENV)/.dev
	PYTHON=$(BIN)/python tests/deploy/systemd.sh

cluster-test: $(VENV)/.dev
	PYTHON=$(BIN)/python tests/deploy/cluster.sh

# The kustomize base, from the chart.
manifests: $(VENV)/.dev
	$(BIN)/python deploy/kubernetes/render_base.py $(BIN)/helm

# The versions and hashes of what goes into the image.
lock: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --group release
	UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --quiet --universal --upgrade --no-annotate \
		--python-version 3.11 --generate-hashes --extra otel pyproject.toml -o deploy/requirements.lock
	UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --quiet --universal --upgrade --no-annotate \
		--python-version 3.11 --generate-hashes deploy/build.in -o deploy/build.lock

unit: $(VENV)/.dev $(VENV)/.prometheus
	$(BIN)/python -m pytest $(PYTEST_ARGS) tests/unit

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

coverage: $(VENV)/.dev $(VENV)/.prometheus
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine
	$(BIN)/coverage report

bench-quick: $(VENV)/.bench
	$(BIN)/python -m benchmarks --quick $(BENCH_ARGS)

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
