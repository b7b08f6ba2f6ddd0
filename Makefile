# Needs make and a Python from 3.11 on, nothing else. The first target makes .venv (a few minutes); later ones start at once.
# Another Python: make PYTHON=/path/to/python3 test

SHELL := /bin/sh
BIN := .venv/bin
INSTALLED := .venv/.installed
DEMO_INSTALLED := .venv/.demo-installed
PLUGINS := $(patsubst %/pyproject.toml,%,$(wildcard plugins/*/pyproject.toml))

# Two processes, each with whole files: tests wait more than they compute.
SIDE_BY_SIDE := -n 2 --dist loadfile

# The tests are of what is installed, not of a path that the caller's shell happens to have.
unexport PYTHONPATH

.PHONY: demo test test-quick lint docs bench wheel-smoke clean

# What a user sees.
demo: $(DEMO_INSTALLED)
	DATA="$(DATA)" $(BIN)/python examples/digits_demo.py

# Everything that has to hold, strangers' servers (in .peers/) included.
test: lint
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)
	$(MAKE) docs
	$(MAKE) wheel-smoke

# What is left waits even more.
test-quick: $(INSTALLED)
	$(BIN)/python -m pytest -n 3 --dist loadfile -q -m 'not slow and not peer'

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry aiaas_sdk

docs: $(INSTALLED)
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html

# Ratios against what others use, in the same run; nothing of it is a test. Some minutes.
bench: $(INSTALLED)
	PYTHON=$(BIN)/python scripts/peers.sh triton
	$(BIN)/python benchmarks/imports.py
	$(BIN)/python benchmarks/local.py
	$(BIN)/python benchmarks/onnx_overhead.py
	PYTHON=$(BIN)/python $(BIN)/python benchmarks/hf.py
	$(BIN)/python benchmarks/remote.py
	$(BIN)/python benchmarks/grpc_calls.py
	PYTHON=$(BIN)/python scripts/peers.sh openai3
	$(BIN)/python benchmarks/streaming.py
	$(BIN)/python benchmarks/mapping.py
	$(BIN)/python benchmarks/inflight.py
	$(BIN)/python benchmarks/policies.py
	$(BIN)/python benchmarks/language.py
	$(BIN)/python benchmarks/training.py
	PYTHON=$(BIN)/python scripts/peers.sh keras
	$(BIN)/python benchmarks/training_keras.py
	$(BIN)/python benchmarks/training_workers.py
	$(BIN)/python benchmarks/first_token.py
	$(BIN)/python benchmarks/fleet.py
	PYTHONPATH=. $(BIN)/python benchmarks/soak.py
	for peer in mlserver kserve litserve bentoml; do PYTHON=$(BIN)/python scripts/peers.sh $$peer || exit 1; done
	$(BIN)/python benchmarks/servers.py
	$(BIN)/python benchmarks/overload.py
	PYTHONPATH=. $(BIN)/python benchmarks/server_soak.py

wheel-smoke: $(INSTALLED)
	PYTHON=$(BIN)/python scripts/wheel-smoke.sh

clean:
	rm -rf build dist docs/_build demo-output .coverage .cache
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find aiaas_sdk tests docs -name __pycache__ -type d -prune -exec rm -rf {} +

# Made again whenever what is to be installed has changed.
$(INSTALLED): pyproject.toml constraints.txt aiaas_sdk/_version.py $(PLUGINS:%=%/pyproject.toml)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	  for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11 python; do \
	    if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	      echo "$$python -m venv .venv"; exec "$$python" -m venv .venv; \
	    fi; \
	  done; \
	  echo 'No Python from 3.11 on was found. Install one, or name it: make PYTHON=/path/to/python3' >&2; exit 1; }
	$(BIN)/python -m pip install -q -e '.[all,dev,docs]' $(PLUGINS:%=-e %) -c constraints.txt
	@touch $@

$(DEMO_INSTALLED): $(INSTALLED) examples/requirements.txt
	$(BIN)/python -m pip install -q --no-deps -r examples/requirements.txt
	@touch $@
