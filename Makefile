# Every target creates what it needs. The environment lies in $(VENV); say another one to keep
# two Pythons side by side:  make test PYTHON=python3.13 VENV=.venv-3.13

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
EXTRAS ?=
ARGS ?=
DATASET ?=
CLAIM ?=
DATA_DIR ?= $(or $(TFDS_DATA_DIR),$(HOME)/tensorflow_datasets)
TENSORFLOW ?= tensorflow-cpu

PY := $(VENV)/bin/python
DEPS := pyproject.toml $(CONSTRAINTS)
EXPERIMENTS := $(subst _,-,$(basename $(notdir $(wildcard experiments/[a-z]*.py))))
export PIP_DISABLE_PIP_VERSION_CHECK = 1

# pip_install(environment, arguments): uv takes seconds where pip takes minutes; pip is the fallback.
define pip_install
if [ -x $(1)/bin/uv ] || $(1)/bin/python -m pip install -q uv; then \
	$(1)/bin/uv pip install -q --python $(1)/bin/python $(2) && exit 0; \
	echo "uv could not install; trying pip" >&2; \
fi; \
$(1)/bin/python -m pip install -q $(2)
endef

define check_python
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	echo "PYTHON=$(PYTHON) must be Python 3.11 or newer; name one: make PYTHON=python3.13 ..." >&2; exit 2; }
endef

# A Python asked for on the command line must be the one the environment was made with.
ifneq ($(filter command%,$(origin PYTHON)),)
ifneq ($(wildcard $(PY)),)
VERSION := import sys; print("%d.%d" % sys.version_info[:2])
ifneq ($(shell $(PYTHON) -c '$(VERSION)'),$(shell $(PY) -c '$(VERSION)'))
$(error $(VENV) holds another Python than $(PYTHON); keep both with VENV=.venv-other, or `make clean` first)
endif
endif
endif

.PHONY: help install install-dev test test-slow test-oldest lint format claims verify report \
	bench data constraints clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Experiments (python -m experiments says what each asks):"
	@echo "$(addprefix exp-,$(EXPERIMENTS))" | fold -s -w 94 | sed 's/^/  /'
	@echo "EXTRAS, one a call: $$(sed -n '/optional-dependencies/,/^\[tool/ s/^\([a-z0-9]*\) = .*/\1/p' pyproject.toml | xargs)"
	@echo 'What else there is: $(PY) -m vggbn'
	@echo 'Pass flags on with ARGS="...", for example: make exp-bn-ablation ARGS="--size smoke"'

install: $(VENV)/.installed$(addprefix -,$(EXTRAS))  ## make .venv with what experiments need (EXTRAS: see below)
	@:
install-dev: $(VENV)/.installed-dev  ## the same with the tools for tests and lint
	@:

$(PY):
	@$(check_python)
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(DEPS) | $(PY)
	@echo "Installing into $(VENV)"
	@$(call pip_install,$(VENV),-c $(CONSTRAINTS) -e .)
	@touch $@

$(VENV)/.installed-%: $(DEPS) | $(PY)
	@echo "Installing into $(VENV) with [$*]"
	@$(call pip_install,$(VENV),-c $(CONSTRAINTS) -e '.[$*]')
	@touch $@ $(VENV)/.installed

exp-%:  ## run an experiment: make exp-bn-ablation ARGS="--size full"
	@if [ ! -f experiments/$(subst -,_,$*).py ]; then \
		echo "There is no experiment '$*'; there are: $(EXPERIMENTS)" >&2; exit 2; fi
	@$(MAKE) --no-print-directory install
	@$(PY) -m experiments.$(subst -,_,$*) $(ARGS)

test: install-dev  ## the quick tests, a few minutes, on all cores (ARGS="-n 0": on one)
	@$(PY) -m pytest -n auto --dist worksteal $(ARGS)

test-slow: install-dev  ## the tests marked slow
	@$(PY) -m pytest -m slow $(ARGS)

test-oldest:  ## the quick tests with the oldest versions that pyproject.toml allows
	@$(MAKE) --no-print-directory test VENV=$(VENV)-oldest CONSTRAINTS=constraints-oldest.txt

lint: install-dev  ## ruff and pyright
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m pyright --pythonpath $(PY)

format: install-dev  ## let ruff put imports and layout in order
	@$(PY) -m ruff check --fix-only .
	@$(PY) -m ruff format .

claims: install  ## print the ledger of all claims of the papers
	@$(PY) -m vggbn claims $(ARGS)

verify:  ## check a claim with seeds of your own: make verify CLAIM=BN-16
	@if [ -z "$(CLAIM)" ]; then \
		echo "Say which claim: make verify CLAIM=BN-16 (make claims lists them)" >&2; exit 2; fi
	@$(MAKE) --no-print-directory install
	@$(PY) -m vggbn verify $(CLAIM) $(ARGS)

report: install  ## write RESULTS.md and docs/results anew from the committed results
	@$(PY) -m vggbn publish $(ARGS)

bench: install  ## training steps: this suite, stock Flax and, where installed, PyTorch
	@$(PY) -m benchmarks.bench $(ARGS)
	@$(PY) -m benchmarks.table

data:  ## prepare a TFDS set once: make data DATASET=cifar10 [DATA_DIR=...]
	@if [ -z "$(DATASET)" ]; then \
		echo "Say which set: make data DATASET=cifar10 [DATA_DIR=$(DATA_DIR)]" >&2; exit 2; fi
	@$(check_python)
	@echo "Preparing $(DATASET) in $(DATA_DIR); TensorFlow goes into .venv-prepare, removed afterwards"
	@trap 'rm -rf .venv-prepare' EXIT; \
	$(PYTHON) -m venv --clear .venv-prepare; \
	( $(call pip_install,.venv-prepare,$(TENSORFLOW) tensorflow-datasets importlib_resources pillow) ); \
	.venv-prepare/bin/python -m vggbn prepare $(DATASET) --data-dir "$(DATA_DIR)"

constraints: $(PY)  ## choose the newest versions for constraints.txt, write down the oldest
	@[ -x $(VENV)/bin/uv ] || $(PY) -m pip install -q uv
	@pin() { \
		{ echo "# $$2 \`make constraints\` writes this file."; \
		$(VENV)/bin/uv pip compile -q --universal --python-version 3.11 --no-header --no-annotate \
			"$${@:3}" pyproject.toml; } > constraints.tmp; \
		mv constraints.tmp "$$1"; \
	}; \
	pin constraints.txt "Tested versions for every supported Python, all extras." --all-extras; \
	pin constraints-oldest.txt "The oldest versions that pyproject.toml allows, with [dev]." \
		--extra dev --resolution lowest-direct

clean:  ## remove the environment and caches; results and runs stay
	rm -rf $(VENV) $(VENV)-oldest .venv-prepare build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
