# make demo [IMAGES=folder]   pack, pretrain, evaluate; ends with runs/demo/report.html
# make test                   lint and every test that this machine can run
# make test-fast              the tests that need no system packages and little time
# make test-cluster           Slurm and S3 tests (Debian packages: .ci/install-system-packages)
# make bench-stream           the stream beside other loaders: images/s on one core (5 minutes)
# make bench-remote           the same from S3 behind latency, beside local disk (10 minutes)
# make bench-storm            a run on S3 killed thirty times: the same run still, and what a kill costs (6 minutes)
# make bench-chaos            an hour of kills, flipped bits, full disks and second writers over five commands (1 hour)
# make bench-shuffle          how well it mixes, what it asks of the store (10 seconds)
# make bench-scaling          two ranks against the model of many; what it says of 1 to 256 GPUs (4 minutes)
# make bench-train            the usual training loop, then ours, one saving at a time (20 minutes on two cores)
# make bench-pack [IMAGES=folder]   packing beside its bare work, its memory, kill -9 twenty times (25 minutes)
# make bench-pretraining [IMAGES=OCTDL]   does pretraining help on real images; what a bad run looks like (1 hour)
# make bench-checkpoint       how long a checkpoint stops a run, how slow it is until that is written (5 minutes)
# make bench-large            a list of 1.6 million images, 10,000 runs, pages and intervals of many predictions (5 minutes)
# make bench-eyes           central slice, mean of logits and attention, where few slices show the lesion (10 minutes)
# make bench-tasks            labels, a number and grades on generated images: no pretraining beside pretraining (30 minutes)
# make bench-augmentation     images that a core gives a step: fine-tuning beside pretraining (1 minute)
# make bench-gpu [SMALL=1]    all that needs a GPU, in pieces of under ten minutes: doctor, training, loader, saves (40 minutes)
# make mutants                faults in the core modules that the tests would not notice (45 minutes on two cores)
# make wheelhouse [TORCH=2.10.0] [PYTHON_VERSION=3.12]   all wheels for a machine without a network (launch/wheelhouse.sh)
# make test-lowest            the fast tests on the lowest versions that pyproject.toml allows (.venv-lowest)
# make docs                   the pages and figures in docs/ that are made by commands
# make docs-figures           docs/report.png: a small run, its report, a picture of it (3 minutes)
# make lint | setup | clean
#
# Needs Python 3.11+ with venv and pip, make and a C compiler. All else goes into .venv,
# which is kept and updated only when pyproject.toml or constraints.txt change.

PYTHON ?= python3
VENV ?= .venv
RUNS ?= runs
IMAGES ?=
TORCH ?=
WHEELHOUSE ?= wheelhouse
PYTHON_VERSION ?=

SHELL := /bin/bash
BIN := $(abspath $(VENV))/bin
STAMP := $(VENV)/.installed
SCRIPTS := .ci/run .ci/install-system-packages $(wildcard launch/*.sh launch/slurm/*.sbatch launch/slurm/*.sh launch/kubernetes/*.sh tests/cluster/infra/*.sh)

# DeepSpeed compiles a small operator on first use: it looks for ninja on PATH.
export PATH := $(BIN):$(PATH)
export VENV RUNS IMAGES TORCH WHEELHOUSE PYTHON_VERSION PYTHON

.PHONY: docs docs-figures demo test test-fast test-lowest test-cluster lint setup wheelhouse bench-stream bench-shuffle bench-remote bench-scaling bench-storm bench-chaos bench-checkpoint bench-train bench-pack bench-pretraining bench-large bench-eyes bench-tasks bench-augmentation bench-gpu mutants clean

demo: $(STAMP)
	@launch/demo.sh

# Two tests at a time, on one thread each: most of them wait for imports, for processes and for stores.
# tests/conftest.py puts the long groups first, and xdist keeps this order.
# They start hundreds of processes: without bytecode files each would compile the package anew.
SIDE_BY_SIDE := env -u PYTHONDONTWRITEBYTECODE OMP_NUM_THREADS=1 pytest -n 2 --dist loadgroup --no-loadscope-reorder

test: lint
	$(SIDE_BY_SIDE) --durations=15

test-fast: $(STAMP)
	$(SIDE_BY_SIDE) -m "not slow and not cluster"

test-cluster: $(STAMP)
	pytest -m cluster --durations=15

lint: $(STAMP)
	ruff check .
	mypy
	@if command -v shellcheck >/dev/null; then echo shellcheck; shellcheck -x $(SCRIPTS); \
	else echo "shellcheck is not installed: the shell scripts were not read"; test -z "$$CI"; fi

docs: $(STAMP)
	python -m retfound_dist.config.generated_docs

docs-figures: $(STAMP)
	launch/figures.sh

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	|| { echo "$(PYTHON) is older than Python 3.11: give a newer one, make PYTHON=python3.11"; exit 1; }
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV) \
	|| { echo "cannot make $(VENV): install Python's venv (Debian: python3-venv), remove $(VENV), try again"; exit 1; }
	@echo "[setup] installing into $(VENV): some 6 GB and 3 minutes the first time"
	@launch/constraints.sh > $(VENV)/constraints.txt
	DS_BUILD_OPS=0 $(VENV)/bin/python -m pip install -qq --disable-pip-version-check -c $(VENV)/constraints.txt -e ".[dev]"
	@touch $@

wheelhouse:
	@launch/wheelhouse.sh

LOWEST := $(VENV)-lowest
$(LOWEST)/.installed: pyproject.toml constraints-lowest.txt
	@test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	@echo "[setup] installing the lowest versions into $(LOWEST): some 7 GB and 4 minutes the first time"
	DS_BUILD_OPS=0 $(LOWEST)/bin/python -m pip install -qq --disable-pip-version-check -c constraints-lowest.txt -e ".[dev]"
	@touch $@

test-lowest: $(LOWEST)/.installed
	PATH=$(abspath $(LOWEST))/bin:$$PATH $(SIDE_BY_SIDE) -m "not slow and not cluster"

# The peers want an older numpy than constraints.txt: they get an environment of their own on top of $(VENV).
BENCH := $(VENV)-bench
$(BENCH)/.installed: $(STAMP)
	@test -x $(BENCH)/bin/python || $(PYTHON) -m venv $(BENCH)
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	> $$($(BENCH)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/base.pth
	@echo "[setup] installing the other loaders into $(BENCH): some 0.8 GB and 2 minutes the first time"
	$(BENCH)/bin/python -m pip install -qq --disable-pip-version-check -e ".[bench]" \
	|| echo "[setup] not all of them can be had: the benchmark leaves out and names what is missing"
	@touch $@

bench-stream: $(BENCH)/.installed
	$(BENCH)/bin/python -m benchmarks.stream_throughput

bench-shuffle: $(STAMP)
	python -m benchmarks.shuffle_quality

bench-remote: $(STAMP)
	python -m benchmarks.remote_stream

bench-scaling: $(STAMP)
	python -m benchmarks.scaling

bench-storm: $(STAMP)
	python -m benchmarks.storm

bench-chaos: $(STAMP)
	python -m benchmarks.chaos $(if $(MINUTES),--minutes $(MINUTES))

bench-train: $(STAMP)
	python -m benchmarks.train_speed

REAL := $(or $(IMAGES),$(or $(RETFOUND_TEST_DATA),../shared/data)/octdl)

bench-pack: $(STAMP)
	python -m benchmarks.pack_throughput $(REAL)
	python -m benchmarks.pack_throughput $(REAL) --workers
	python -m benchmarks.pack_memory
	python -m benchmarks.pack_storm
	python -m benchmarks.pack_storm --append
	python -m benchmarks.pack_storm --s3

bench-pretraining: $(STAMP)
	python -m benchmarks.does_pretraining_help --images $(REAL)

bench-checkpoint: $(STAMP)
	python -m benchmarks.checkpoint_stall

bench-large: $(STAMP)
	python -m benchmarks.large

bench-eyes: $(STAMP)
	python -m benchmarks.eye_level

bench-tasks: $(STAMP)
	python -m benchmarks.other_tasks

bench-augmentation: $(STAMP)
	python -m benchmarks.augmentation

bench-gpu: $(STAMP)
	python -m benchmarks.gpu_hour $(if $(SMALL),--small)

mutants: $(STAMP)
	python -m benchmarks.mutants

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path "./$(VENV)/*" -prune -exec rm -rf {} +
