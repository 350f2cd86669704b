# Two commands matter: `make book` (install, train small networks, render the site) and `make test` (every check).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SITE := book/_build/html
FASTER := $(addprefix tests/test_,$(addsuffix .py,cli wheel spec records claims verdicts engine checkpoints data figures untrusted escaping kernels proximal))
WORKERS ?= 2

# One thread a process: checks run in parallel, networks are small, and fixed threads fix the last digits of every sum.
export OMP_NUM_THREADS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Notebooks see none of the user's kernels, settings and start-up files.
export IPYTHONDIR := $(CURDIR)/local/jupyter
export JUPYTER_DATA_DIR := $(IPYTHONDIR)
export JUPYTER_CONFIG_DIR := $(IPYTHONDIR)
export JUPYTER_PREFER_ENV_PATH := 1
export PYTHONSTARTUP :=

# When a cell ran says nothing about what it shows, and would change with every execution.
define WITHOUT_TIMES
import sys, nbformat
for path in sys.argv[1:]:
    notebook = nbformat.read(path, 4)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    nbformat.write(notebook, path)
endef
export WITHOUT_TIMES

# What pyproject.toml says is the oldest that will do, of each package that it names.
define LOWEST
import re, tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
for line in [*project["dependencies"], *project["optional-dependencies"]["test"]]:
    print("==".join(re.match(r"([\w.-]+)(?:\[.*\])?>=([\w.]+)", line).groups()))
endef
export LOWEST

.DEFAULT_GOAL := help
.PHONY: help book test lint unit nbval lowest cluster fakecuda notebooks site tested picture lock clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

book: $(READY)  ## train small networks on the embedded digits and render the site
	$(BIN)/thrifty run --preset smoke
	$(MAKE) --no-print-directory site
	@echo "The book: $(SITE)/book/index.html"

test: lint unit nbval  ## every check

lint: $(READY)  ## style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

unit: $(READY)  ## pytest: the package, each notebook's smoke run, the strict site in a headless browser
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup

nbval: $(READY)  ## every committed notebook, compared output by output
	$(BIN)/python -m pytest --nbval --nbval-current-env -n $(WORKERS) --dist loadfile notebooks

lowest:  ## the faster tests with the lowest versions that pyproject.toml allows, in an environment of their own
	@mkdir -p local
	$(PYTHON) -c "$$LOWEST" > local/lowest.txt
	$(PYTHON) -m venv local/lowest
	local/lowest/bin/python -m pip install --quiet --constraint local/lowest.txt --editable '.[test]'
	local/lowest/bin/python -m pytest -n $(WORKERS) --dist loadgroup $(FASTER)

cluster: $(READY)  ## the workflow's tests, with Snakemake and, where it is installed, SLURM; not part of make test
	$(BIN)/python -m pip install --quiet --upgrade --target local/cluster 'snakemake>=9'
	PYTHONPATH=local/cluster $(BIN)/python -m pytest -rs tests/test_workflow.py

fakecuda: $(READY)  ## networks, data, augmentation and evaluation on a CUDA that is not there; apart, since PyTorch may crash
	THRIFTY_FAKE_CUDA=1 $(BIN)/python -m pytest tests/test_fake_cuda.py

notebooks: $(READY)  ## execute the committed notebooks anew, after a change of records or figures
	$(BIN)/jupyter execute --inplace notebooks/*.ipynb
	@$(BIN)/python -c "$$WITHOUT_TIMES" notebooks/*.ipynb

site: $(READY)  ## the site alone, from what is recorded
	$(BIN)/thrifty book

tested: $(READY)  ## the README's sentence on how much is tested so far, from the records
	$(BIN)/python -m thriftylib.evidence.coverage README.md

picture: site tested  ## the README's picture of the scoreboard, by a headless Chromium, and its sentence
	chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir=$$(mktemp -d) --window-size=1280,960 \
	  --virtual-time-budget=5000 --screenshot=book/_static/scoreboard.png "file://$(CURDIR)/$(SITE)/book/index.html"

# The environment is made once, and again only when what it is made from changes.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else "Python 3.11 to 3.13 is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@

lock: $(READY)  ## write the versions of the environment into constraints.txt
	$(BIN)/python -m pip freeze --all --exclude-editable --exclude pip | sed -E 's/\+[a-z0-9.]+$$//' > constraints.new
	mv constraints.new constraints.txt
	@touch $(READY)

clean:  ## remove the site and what this machine made for itself; the environment stays
	rm -rf book/_build local build dist .pytest_cache .ruff_cache .hypothesis
