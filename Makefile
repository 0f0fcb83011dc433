# Everything here works from a fresh clone with Python 3.11, make and the package registries.
PYTHON ?= python3.11
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1

NPM := $(BIN)/python tools/npm.py
# A folder with an index is a widget, as in js/build.mjs.
SCRIPTS := $(patsubst js/src/%/index.ts,src/interp/widgets/static/%.js,$(wildcard js/src/*/index.ts))
SOURCES := $(wildcard js/*.*) $(shell find js/src -type f) src/interp/views/kit/palette.json \
  $(wildcard src/interp/views/kit/layout/*.css)

.PHONY: demo test quick browser docs check clean

# torch goes first and under the constraints, so that no later step can bring another build of it.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

js/node_modules/.installed: js/package-lock.json .venv/.installed
	$(NPM) ci --ignore-scripts --silent
	touch $@

# The install above builds the scripts; this builds them again when their sources change.
$(SCRIPTS): $(SOURCES) js/node_modules/.installed
	$(NPM) run --silent build
	touch $@

# Opens the quickstart in JupyterLab; HEADLESS=1 runs it and writes demo/quickstart.html instead.
demo: .venv/.installed
ifdef HEADLESS
	$(BIN)/jupyter nbconvert --to html --execute --ExecutePreprocessor.store_widget_state=False \
	  --output quickstart.html demo/quickstart.ipynb
else
	$(BIN)/jupyter lab demo/quickstart.ipynb
endif

# Ray gives its own processes some seconds to start: they have the machine to themselves.
RAY = tests/engine/pool/test_ray.py

# A process for each core, each with one thread for torch; the browser's tests come after, alone, for their waits.
test: check
	sh tools/need_chromium.sh
	$(NPM) test --silent
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --ignore=tests/browser --ignore=$(RAY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(RAY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/browser

# Between edits: style, the contracts, and the tests of what everything stands on; a technique's own are named beside:
# make quick ALSO=tests/methods/patching. It says how long.
QUICK = tests/test_*.py tests/magics tests/methods/_shared tests/views/kit tests/widgets tests/engine/transformer \
  $(addprefix tests/engine/model/test_,tokens.py loaded.py hooks.py interventions.py) tests/engine/test_memory.py
quick: .venv/.installed $(SCRIPTS)
	@start=$$(date +%s); $(BIN)/ruff check . && $(BIN)/ruff format --check . && \
	  OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile $(QUICK) $(ALSO) \
	    -m "not real and not slow and not browser"; \
	  status=$$?; echo "quick: $$(($$(date +%s) - start)) s"; exit $$status

# The tests in JupyterLab and Notebook 7 alone.
browser: .venv/.installed $(SCRIPTS)
	sh tools/need_chromium.sh
	$(BIN)/python -m pytest tests/browser

# The documentation, with pictures made by running the examples: build/site/index.html.
docs: .venv/.installed
	OMP_NUM_THREADS=1 $(BIN)/python tools/build_site.py

check: .venv/.installed $(SCRIPTS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(NPM) run --silent check

clean:
	rm -rf .venv build dist js/node_modules src/interp/widgets/static
