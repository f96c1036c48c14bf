# Two commands: `make demo` shows what the project is about, `make test` checks it. Each sets up .venv first.
SHELL := /bin/bash
PYTHON ?= python3
TORCH ?= $(shell grep '^torch==' constraints.txt)
BIN := .venv/bin
MAMBA := mamba-ssm==2.3.2.post1

DEFAULT := 'not slow and not gpu and not reference and not slurm and not faults and not paper and not docs'
.PHONY: help install demo demo-full test test-slow test-oldest test-gpu test-reference test-paper test-docs test-faults test-slurm slurm-up slurm-down soak lint format \
	bench bench-gpu rehearse-gpu wheel docs clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

install: .venv/installed ## set up .venv with everything (make install TORCH='torch' for another build of torch)

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet '$(TORCH)'
	grep -v '^torch==' constraints.txt > .venv/constraints.txt
	$(BIN)/pip install --quiet --constraint .venv/constraints.txt --editable '.[dev]'
	touch $@

demo: install ## train, evaluate and show the failure and both repairs, a quarter of an hour on 2 cores with AVX-512
	@echo "G(2,5): one Transformer, three objectives. Each edge is one token instead of three, and the model has a short"
	@echo "convolution: with them teacherless training takes minutes. docs/repair.md says what each of them does."
	$(BIN)/nextfail-train experiment=demo
	@echo "Mamba, on the published prompt:"
	$(BIN)/nextfail-train experiment=demo_mamba
	$(BIN)/nextfail-report runs/demo runs/demo_mamba --out runs/demo/report

demo-full: demo ## also the published prompt, Mamba without a teacher, three arms: hours
	$(BIN)/nextfail-train experiment=demo_published
	$(BIN)/nextfail-train experiment=demo_teacherless
	$(BIN)/nextfail-train experiment=demo_mamba_teacherless
	$(BIN)/nextfail-train experiment=demo_full
	$(BIN)/nextfail-report runs/demo runs/demo_{mamba,published,teacherless,mamba_teacherless,full} --out runs/demo_full/report

test: lint ## lint and the default suite, about ten minutes on 2 cores
	$(BIN)/pytest -n 2 -m $(DEFAULT)

test-slow: install ## what the default suite has no time for: the built wheel, from another folder
	$(BIN)/pytest -n 2 -m slow

test-oldest: ## the fast tests with the lowest versions of the dependencies, in .venv-oldest
	test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/pip install --quiet '$(TORCH)'
	$(PYTHON) tests/oldest.py > .venv-oldest/constraints.txt
	.venv-oldest/bin/pip install --quiet --constraint .venv-oldest/constraints.txt --editable '.[dev]'
	.venv-oldest/bin/python -m pytest -n 2 -m $(DEFAULT) --ignore=tests/e2e --ignore=tests/test_reference.py
	.venv-oldest/bin/python -m pytest tests/e2e/test_train.py tests/e2e/test_sweep.py -m $(DEFAULT) -n 2

test-gpu: install ## what needs a CUDA GPU, with mamba-ssm on it (make install TORCH='torch' first)
	$(BIN)/pip install --quiet --no-build-isolation '.[gpu]'
	$(BIN)/pytest -m gpu

test-reference: install ## Mamba against mamba-ssm's own code, which is built without CUDA
	$(BIN)/pip install --quiet einops triton setuptools wheel
	MAMBA_SKIP_CUDA_BUILD=TRUE MAMBA_FORCE_BUILD=TRUE \
		$(BIN)/pip install --quiet --no-deps --no-build-isolation '$(MAMBA)'
	$(BIN)/pytest -m reference

test-paper: install ## every claim at the published scale for two steps, pretrained models, the page in chromium
	$(BIN)/pytest -n 2 -m paper

docs: install ## the documentation as a site, in site/; a warning is an error
	$(BIN)/python docs/site.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

test-docs: docs ## the site in a browser: no dead link, no error on the console, figures load
	$(BIN)/pytest -n 2 -m docs

test-faults: install ## runs, workers and commands are killed and gone on with
	$(BIN)/pytest -n 2 -m faults

slurm-up: ## a real SLURM of one node on this machine, for tests (as root; Debian's slurm-wlm munge slurmdbd mariadb-server)
	$(PYTHON) tests/slurm/cluster.py up

slurm-down: ## stop that SLURM and remove its folder
	$(PYTHON) tests/slurm/cluster.py down

test-slurm: install ## sweeps on a real SLURM: brings it up, and down again
	$(PYTHON) tests/slurm/cluster.py up
	trap '$(PYTHON) tests/slurm/cluster.py down' EXIT; $(BIN)/pytest -m slurm

soak: install ## kill runs at random moments, and count what is lost (KILLS=300 SWEEPS=20)
	$(BIN)/python tests/soak.py --kills $(or $(KILLS),300) --sweeps $(or $(SWEEPS),20)

lint: install ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install ## speed against peers in the same run; writes benchmarks/results.json
	$(BIN)/python -m benchmarks

bench-gpu: install ## everything worth knowing about one GPU, in eight minutes; writes results/gpu/
	$(BIN)/python -m benchmarks.gpu

rehearse-gpu: install ## every part of bench-gpu with tiny sizes on a CPU
	$(BIN)/python -m benchmarks.gpu --rehearse

wheel: install ## build dist/*.whl and *.tar.gz
	$(BIN)/python -m build --outdir dist .

clean: ## remove what was built, but neither .venv nor runs
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
