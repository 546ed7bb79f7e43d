# Everyday commands. `make` alone lists them.

# PYTHON makes .venv (3.11 or newer). ENV is the lock in envs/ that it is made from, cpu or cuda; without
# it, the one that .venv was made from before, or cpu. CORES are the processor cores for a run.
PYTHON ?= python3
ENV ?=
CORES ?= all

IN_VENV := .venv/bin/python

# Tests that compute with torch: their results could depend on the processor's kernels and threads.
COMPUTING := tests/ffmerge tests/experiment/evaluation tests/experiment/tasks tests/experiment/test_rehearsal.py \
             tests/test_benchmarks.py tests/test_check_gpu.py

.DEFAULT_GOAL := help
.PHONY: help demo demo-all rehearsal bench check-gpu test test-all test-cluster lint format environment lock images clean

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

demo: environment ## Compute Table 5 and Figures 2 and 4 on the embedded data (CORES=2 for fewer cores)
	@$(IN_VENV) workflow/run.py --cores $(CORES) --workflow-profile workflow/profiles/default
	@cat results/demo/tables/table5.txt

demo-all: environment ## Compute every table and figure on the embedded data, and the report page
	@$(IN_VENV) workflow/run.py everything --cores $(CORES) --workflow-profile workflow/profiles/default
	@tail -n +1 results/demo/tables/table[1-8].txt results/demo/tables/seeds.txt results/demo/tables/claims.txt

rehearsal: environment ## Run every stage at the paper's size with random weights (1.5 h, 16 GB of memory, 40 GB of disk)
	@$(IN_VENV) workflow/run.py results/rehearsal/stages.csv --cores $(CORES) --configfile config/rehearsal.yaml --workflow-profile workflow/profiles/default
	@cat results/rehearsal/stages.txt
	@$(IN_VENV) benchmarks/rehearsal_rates.py results/rehearsal
	@$(IN_VENV) benchmarks/compress_llama.py --scratch results/rehearsal

test: lint ## Check style, workflow and every promise of the README (10 minutes on two cores)
	@$(IN_VENV) -m pytest -m "not long" -n 2

test-all: environment ## Run the tests that take longer: dozens of kills, full size, other kernels of the processor
	@$(IN_VENV) -m pytest -m long -o faulthandler_timeout=3600 -n 2 --dist loadfile
	@ATEN_CPU_CAPABILITY=avx2 OMP_NUM_THREADS=1 $(IN_VENV) -m pytest $(COMPUTING) -m "not slow and not long" -n 2

test-cluster: environment ## Test the workflow on a SLURM of two nodes on this machine (root, Debian 12)
	@$(IN_VENV) -m pytest tests/cluster -rNfE

bench: environment ## Measure speed, and update docs/performance.md (15 minutes)
	@$(IN_VENV) benchmarks/run.py

check-gpu: environment ## Check results and speed on a GPU (at most 8 minutes; docs/performance.md)
	@$(IN_VENV) benchmarks/check_gpu.py

lint: environment ## Check style, imports and workflow without running anything
	@$(IN_VENV) -m ruff check --quiet
	@$(IN_VENV) -m ruff format --check --quiet
	@$(IN_VENV) -m snakefmt --check Snakefile workflow resources/demo/rebuild
	@$(IN_VENV) -m snakemake --lint
	@.venv/bin/lint-imports --no-logo --no-cache

format: environment ## Format code and rules
	@$(IN_VENV) -m ruff check --fix --quiet
	@$(IN_VENV) -m ruff format --quiet
	@$(IN_VENV) -m snakefmt Snakefile workflow resources/demo/rebuild

environment: ## Make .venv from the lock; the other commands do this first (ENV=cuda for a GPU)
	@$(PYTHON) envs/install.py $(ENV)

lock: environment ## Recompute the locks from envs/*.in (LOCK_FLAGS=--upgrade for newer versions)
	@$(IN_VENV) envs/lock.py $(LOCK_FLAGS)

images: ## Build the Apptainer image (ENV=cuda for GPUs; MIRROR=… for another Debian mirror)
	@$(PYTHON) envs/install.py
	@$(IN_VENV) containers/build.py $(or $(ENV),cpu) $(if $(MIRROR),--mirror $(MIRROR))

clean: ## Remove the demo's results and the tools' caches, but not .venv or other results
	@rm -rf results/demo .pytest_cache .ruff_cache .import_linter_cache
