# Everyday commands. `make` alone lists them.

# The Python that makes .venv (3.11 or newer); the lock in envs/ that it is made from (cpu or cuda; if
# neither is named, what it was made from before, at first cpu); the processor cores for the demo.
PYTHON ?= python3
ENV ?=
CORES ?= all

IN_VENV := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help demo demo-all rehearsal bench test test-cluster lint format environment lock images clean

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

demo: environment ## Recompute Table 5, Figures 2 and 4 on the embedded data (CORES=2 for fewer cores)
	@$(IN_VENV) workflow/run.py --cores $(CORES) --workflow-profile workflow/profiles/default
	@cat results/demo/tables/table5.txt

demo-all: environment ## Recompute every table and figure on the embedded data
	@$(IN_VENV) workflow/run.py everything --cores $(CORES) --workflow-profile workflow/profiles/default
	@tail -n +1 results/demo/tables/table[1-8].txt results/demo/tables/claims.txt

rehearsal: environment ## Every stage at the paper's size, weights random (1 h, 16 GB of memory, 40 GB of disk)
	@$(IN_VENV) workflow/run.py results/rehearsal/stages.csv --cores $(CORES) --configfile config/rehearsal.yaml --workflow-profile workflow/profiles/default
	@cat results/rehearsal/stages.txt
	@$(IN_VENV) -m experiment.planning.measured results/rehearsal

test: lint ## Check everything
	@$(IN_VENV) -m pytest

test-cluster: environment ## Run the workflow on a SLURM of two nodes on this machine (root, Debian 12)
	@$(IN_VENV) -m pytest tests/cluster -rNfE

bench: environment ## Measure speed against the naive way and this machine (docs/performance.md; 15 minutes)
	@$(IN_VENV) benchmarks/run.py

lint: environment ## Check style and workflow without running them
	@$(IN_VENV) -m ruff check --quiet
	@$(IN_VENV) -m ruff format --check --quiet
	@$(IN_VENV) -m snakefmt --check Snakefile workflow resources/demo/rebuild
	@$(IN_VENV) -m snakemake --lint
	@.venv/bin/lint-imports --no-logo --no-cache

format: environment ## Bring code and rules into the project's style
	@$(IN_VENV) -m ruff check --fix --quiet
	@$(IN_VENV) -m ruff format --quiet
	@$(IN_VENV) -m snakefmt Snakefile workflow resources/demo/rebuild

environment: ## Make .venv from the lock (the others do this by themselves; ENV=cuda for a GPU)
	@$(PYTHON) envs/install.py $(ENV)

lock: environment ## Recompute the locks from envs/*.in (LOCK_FLAGS=--upgrade for newer versions)
	@$(IN_VENV) envs/lock.py $(LOCK_FLAGS)

images: ## Build the image for Apptainer (ENV=cuda for GPUs; MIRROR=… for another Debian mirror)
	@$(PYTHON) envs/install.py
	@$(IN_VENV) containers/build.py $(or $(ENV),cpu) $(if $(MIRROR),--mirror $(MIRROR))

clean: ## Remove the demo's results and the tools' caches; .venv and the paper's results stay
	@rm -rf results/demo .pytest_cache .ruff_cache .import_linter_cache
