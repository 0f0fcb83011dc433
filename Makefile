# Everything here works from a fresh clone with Python 3.11, make and the package registries.
PYTHON ?= python3.11
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1

.PHONY: demo test check clean

# torch goes first and under the constraints, so that no later step can bring another build of it.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

# Opens the quickstart in JupyterLab; HEADLESS=1 runs it and writes demo/quickstart.html instead.
demo: .venv/.installed
ifdef HEADLESS
	$(BIN)/jupyter nbconvert --to html --execute --output quickstart.html demo/quickstart.ipynb
else
	$(BIN)/jupyter lab demo/quickstart.ipynb
endif

test: .venv/.installed check
	$(BIN)/python -m pytest

check: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

clean:
	rm -rf .venv build dist
