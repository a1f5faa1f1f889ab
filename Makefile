# vq: `make demo` shows it, `make test` proves it. Each target sets up what it needs in .venv; a second call is instant.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# a process per core and one more, for some tests wait for others they started; who is done takes tests from the others
WORKERS := $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --maxprocesses 8 --dist worksteal
READY := $(VENV)/.ready

.PHONY: demo test test-fast lint bench backup clean help

help:
	@echo "make demo       train a tokenizer and a generator on handwritten digits, write work_dirs/demo/report.html (4 minutes)"
	@echo "make test       lint, types and all tests (make test-fast: the fast tier)"
	@echo "make bench      all benchmarks in their quick form"
	@echo "make backup RUN=work_dirs/NAME TO=folder    hard links of a run: no space, and deleting the run keeps them"
	@echo "make clean      caches and builds (never runs, data or weights)"

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vq needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[dev]'
	touch $(READY)

demo: $(READY)
	$(BIN)/python -m vq.demo

test: $(READY) lint
	$(PYTEST)

test-fast: $(READY) lint
	$(PYTEST) -m 'not slow'

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	$(BIN)/codespell

bench: $(READY)
	for script in benchmarks/*.py; do case $$script in */_*) ;; *) $(BIN)/python $$script --quick || exit 1 ;; esac; done

backup: $(READY)
	@test -n "$(RUN)" -a -n "$(TO)" || { echo 'usage: make backup RUN=work_dirs/NAME TO=folder' >&2; exit 2; }
	@test -d "$(RUN)" || { echo 'there is no run $(RUN)' >&2; exit 2; }
	@test ! -e "$(TO)" || { echo '$(TO) exists already: choose another folder' >&2; exit 2; }
	@mkdir -p "$(dir $(TO))" && cp --archive --link "$(RUN)" "$(TO)" && echo 'linked $(RUN) to $(TO)'

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache *.egg-info
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -exec rm -rf {} +
