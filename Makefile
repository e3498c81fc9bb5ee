# make demo   set-up, then a CNN on handwriting and an LSTM on source code, in about two minutes
# make test   set-up, then all tests              make test-all   with the slow ones
# make lint   style and types                     make bench      measurements side by side with the peers
# make sanitize   the tests of the recurrent kernels under AddressSanitizer and ThreadSanitizer (minutes; needs g++)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
NATIVE := $(wildcard src/twofold/kernels/cpu/*)
SIDE_BY_SIDE := --numprocesses auto --maxprocesses 4 --dist loadfile   # most tests keep one core busy; a file stays in one process

.PHONY: demo test test-all lint sanitize bench clean

# Torch first, pinned: a newer one would pull gigabytes of GPU packages. Then the package without build isolation, so that its
# kernels are built against this very torch. Without a C++ compiler they are skipped with one line.
$(VENV)/installed: pyproject.toml setup.py constraints.txt $(NATIVE)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Twofold needs Python 3.11 or later; name one: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt torch setuptools
	$(PIP) install --quiet --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	@$(BIN)/python -c 'from twofold import kernels; print("native kernels:", kernels.reason() or kernels.instruction_set())'
	@touch $@

demo: $(VENV)/installed
	$(BIN)/python -m twofold train digits --out runs/demo-digits --overwrite
	$(BIN)/python -m twofold train python-source --out runs/demo-python-source --overwrite
	@echo
	@echo "The LSTM goes on from 'def ':"
	@$(BIN)/python -m twofold sample runs/demo-python-source --prompt "def " --length 400 --temperature 0.6
	@echo
	@$(BIN)/python -m twofold evaluate runs/demo-digits | head -n 1 | sed 's/^/digits, test: /'
	@$(BIN)/python -m twofold evaluate runs/demo-python-source | head -n 1 | sed 's/^/python-source, test: /'
	@echo "runs:    runs/demo-digits  runs/demo-python-source"
	@echo "reports: runs/demo-digits/report.html  runs/demo-python-source/report.html"

test: $(VENV)/installed
	$(BIN)/python -m pytest -m "not slow" $(SIDE_BY_SIDE)

test-all: $(VENV)/installed
	$(BIN)/python -m pytest

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Built anew with -fsanitize into build/sanitize; the installed kernels stay as they are. One of the two: make sanitize SANITIZER=thread
sanitize: $(VENV)/installed
	$(BIN)/python tests/sanitize.py $(SANITIZER)

bench: $(VENV)/installed
	@for file in $(filter-out bench/side_by_side.py bench/recurrence_peers.py,$(wildcard bench/*.py)); do echo "== $$file"; $(BIN)/python $$file || exit 1; done

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info
	find src -name '*.so' -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
