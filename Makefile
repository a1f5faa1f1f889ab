# vq: `make demo` shows it, `make test` proves it. Each target sets up what it needs; a second call is instant.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# a process per core and one more, because some tests wait for processes they start; idle workers steal tests from the others
CORES := $(shell getconf _NPROCESSORS_ONLN)
WORKERS := $(shell expr $(CORES) + 1)
PYTEST = -m pytest --numprocesses $(WORKERS) --maxprocesses 8 --dist worksteal
PIP := -m pip install --quiet --disable-pip-version-check
# index: pip brings torch. system: the torch that $(PYTHON) has, of whatever build, is used, and none is downloaded
TORCH ?= index

ifeq ($(TORCH),system)
PIN_TORCH := $(PYTHON) tools/system_torch.py $(VENV)
else ifeq ($(TORCH),index)
PIN_TORCH := cp constraints.txt $(VENV)/constraints.txt
else
$(error TORCH is index or system, not $(TORCH))
endif

.PHONY: demo demo-layout test test-fast test-xla test-oldest lint bench backup clean help

help:
	@echo "make demo         train a tokenizer and a generator on handwritten digits, write work_dirs/demo/report.html (4 minutes)"
	@echo "make demo-layout  train a UNet that draws digits where boxes ask for them, for the page of vq web (8 minutes)"
	@echo "                  TORCH=system uses the torch that the interpreter has (PYTHON=...), in place of a download"
	@echo "make test         lint, types and all tests (make test-fast: the fast tier)"
	@echo "make test-xla     tests of the XLA strategy on the CPU, in .venv-xla: torch_xla needs a torch of its own"
	@echo "make test-oldest  the fast tier with the oldest supported packages, in .venv-oldest"
	@echo "make bench        all benchmarks in their quick form"
	@echo "make backup RUN=work_dirs/NAME TO=folder    hard links of a run: no space, and deleting the run keeps them"
	@echo "make clean        caches and builds (never runs, data or weights)"

# .venv holds what running needs, and what testing needs once `make test` was called; the others are apart

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vq needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(PIN_TORCH)
	$(BIN)/python $(PIP) -c $(VENV)/constraints.txt --editable .
	touch $@

$(VENV)/.ready-test: $(VENV)/.ready
	$(BIN)/python $(PIP) -c $(VENV)/constraints.txt --editable '.[dev]'
	touch $@

.venv-xla/.ready: pyproject.toml constraints-xla.txt
	$(PYTHON) -m venv .venv-xla
	.venv-xla/bin/python $(PIP) -c constraints-xla.txt --editable '.[xla]' pytest pytest-xdist hypothesis
	touch $@

.venv-oldest/.ready: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python $(PIP) -c constraints-oldest.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/.ready
	$(BIN)/python -m vq.demo

demo-layout: $(VENV)/.ready
	$(BIN)/python -m vq.demo layout

test: $(VENV)/.ready-test lint
	$(BIN)/python $(PYTEST)

# tests of the fast tier wait for nothing, and each process more collects all tests once more
test-fast test-oldest: WORKERS := $(CORES)

test-fast: $(VENV)/.ready-test lint
	$(BIN)/python $(PYTEST) -m 'not slow'

test-xla: .venv-xla/.ready
	.venv-xla/bin/python -m pytest -m xla tests/strategies/test_xla.py tests/strategies/test_xla_diffusion.py

test-oldest: .venv-oldest/.ready
	.venv-oldest/bin/python $(PYTEST) -m 'not slow'

lint: $(VENV)/.ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	$(BIN)/codespell

bench: $(VENV)/.ready-test
	for script in benchmarks/*.py; do case $$script in */_*) ;; *) $(BIN)/python $$script --quick || exit 1 ;; esac; done

backup: $(VENV)/.ready
	@test -n "$(RUN)" -a -n "$(TO)" || { echo 'usage: make backup RUN=work_dirs/NAME TO=folder' >&2; exit 2; }
	@test -d "$(RUN)" || { echo 'there is no run $(RUN)' >&2; exit 2; }
	@test ! -e "$(TO)" || { echo '$(TO) exists already: choose another folder' >&2; exit 2; }
	@mkdir -p "$(dir $(TO))" && cp --archive --link "$(RUN)" "$(TO)" && echo 'linked $(RUN) to $(TO)'

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache *.egg-info
	find . -name __pycache__ -type d -not -path './.venv*' -exec rm -rf {} +
