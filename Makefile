# make study      the phantom study: cohort, ten experiments, comparison; the same command again goes on where it stopped
# make study PARAMS=params/phantom-full.yaml SEEDS="0 1 2"      another study, other seeds
# make study PROFILE=slurm PARAMS=...                           on a Slurm cluster (workflow/profiles/slurm)
# make report PARAMS=...   tables, figures and page of the runs that are complete, even if others failed
# make test       lint, unit tests, the smoke study, every notebook
# make lab        JupyterLab on copies of the notebooks in lab/, reachable from this machine only; in a container LAB=--ip=0.0.0.0
# make lock       requirements.lock and environment.yml from pyproject.toml
# PYTHON=python3.12 and TORCH=torch==2.11.0 choose another interpreter and torch for a new .venv.
# VENV=active uses the active environment, of conda or venv, instead of .venv; nothing is installed there.

PARAMS ?= params/phantom.yaml
SEEDS ?=
PROFILE ?= local
CORES ?=
SNAKEMAKE_OPTIONS ?=
LAB ?= --ip=127.0.0.1
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV = .venv
ACTIVE := $(or $(VIRTUAL_ENV),$(CONDA_PREFIX))
BIN := $(if $(filter active,$(VENV)),$(ACTIVE),.venv)/bin
STAMP := .venv/installed-$(shell { echo '$(TORCH)'; cat requirements.lock pyproject.toml; } | cksum | cut -d ' ' -f 1)

ifeq ($(VENV),active)
$(if $(ACTIVE),,$(error VENV=active needs an active environment, and none is: conda activate lungmtl, or source bin/activate of a venv))
$(if $(wildcard $(BIN)/lungmtl),,$(error VENV=active needs lungmtl in the active environment, and $(ACTIVE) has none: pip install -e .[dev]))
else ifneq ($(VENV),.venv)
$(error VENV is active or .venv, not $(VENV))
endif

.DEFAULT_GOAL := study
.PHONY: study report test lab setup lock
.NOTPARALLEL:

study: setup
	@$(BIN)/python -m lungmtl study $(PARAMS) --seeds "$(SEEDS)" --profile $(PROFILE) $(if $(CORES),--cores $(CORES)) -- $(SNAKEMAKE_OPTIONS)

report: setup
	@$(BIN)/python -m lungmtl report $(PARAMS) --seeds "$(SEEDS)"

test: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadscope --durations=10 --nbval-lax --nbval-current-env tests notebooks

# git ignores the copies, so running and saving them changes no tracked file; if an original is newer than its copy, it is
# copied again and the old copy is kept as NAME.ipynb.old
lab: setup
	@mkdir -p lab
	@for original in notebooks/*.ipynb; do \
		copy=lab/$${original##*/}; \
		if [ -e $$copy ] && [ $$original -nt $$copy ]; then mv $$copy $$copy.old; fi; \
		[ -e $$copy ] || cp $$original $$copy; \
	done
	@test "$$(id -u)" != 0 || echo "You are root, as in a container: JupyterLab is told to allow it. To reach it from outside: make lab LAB=--ip=0.0.0.0"
	$(BIN)/jupyter lab --notebook-dir=lab $$(test "$$(id -u)" != 0 || echo --allow-root) $(LAB)

setup: $(if $(filter active,$(VENV)),,$(STAMP))

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("lungmtl needs Python 3.11 or newer. Found %d.%d in $(PYTHON); choose another: make PYTHON=python3.12" % v[:2])'
	@echo "Setting up .venv: about two minutes and 2 GB, once."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install $(TORCH)
	$(BIN)/python -m pip install --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@rm -f .venv/installed-*
	@touch $@

lock: setup
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --extra dev --extra lock --universal --python-version 3.11 \
		--fork-strategy fewest --generate-hashes --no-header --no-annotate --no-emit-index-url \
		--no-emit-find-links --no-emit-package torch --quiet --output-file requirements.lock
	@{ sed '/# pins:/q' environment.yml; sed -nE "s/^([a-z0-9].*[^ \\]) *\\\\?$$/      - \"\1\"/p" requirements.lock; } > environment.new
	@mv environment.new environment.yml
