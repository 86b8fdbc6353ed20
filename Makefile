# The everyday commands. `make` alone lists them. None needs root or a running service.

VENV ?= .venv
STORY ?= good
# Test files run in parallel. Many tests wait for processes, so that each core has two jobs.
CORES := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
JOBS ?= $(shell echo $$((2 * $(CORES))))
# Where tests have their files: in memory if there is room, unless TMPDIR names a folder. Making a database takes a tenth
# of the time there. What a failed run keeps is removed by the next.
SCRATCH ?= $(or $(TMPDIR),$(shell test -w /dev/shm && findmnt -no OPTIONS -T /dev/shm | grep -qv noexec && \
	test "$$(df -Pk /dev/shm | awk 'NR == 2 { print $$4 }')" -gt 8000000 && \
	test "$$(awk '/^MemAvailable/ { print $$2 }' /proc/meminfo)" -gt 12000000 && echo /dev/shm),/tmp)
# By the alphabet whole releases come first: one of them at the end would run alone.
IN_ORDER := --dist loadfile --no-loadscope-reorder
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# The first Python on the path that is new enough; empty when there is none.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)

PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input

.DEFAULT_GOAL := help
.PHONY: help setup check test soak rehearse bench lock clean

help: ## List these commands
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-16s %s\n", $$1, $$2 }'

setup: $(READY) ## Create the virtual environment (VENV=.venv) with the locked packages

# Without dependencies, because the lock has them all: pip would take a newer SQLAlchemy for the extra that Prefect asks for.
# The stamp file lets every other target depend on the environment without installing it again.
$(READY): requirements.lock pyproject.toml
	@command -v git >/dev/null || { echo "git is missing: install it, then run make again" >&2; exit 1; }
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is missing: install it, or name it with make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than Python 3.11: name a newer one with make PYTHON=/path/to/python3" >&2; exit 1; }
	@test -x "$(BIN)/python" || $(PYTHON) -m venv "$(VENV)" || { echo "$(PYTHON) cannot make virtual environments: install its venv module (on Debian: python3-venv)" >&2; exit 1; }
	@echo "installing the locked packages into $(VENV) (about a minute)"
	@$(PIP) install --quiet --no-deps --require-hashes -r requirements.lock
	@$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@$(PIP) check >/dev/null || { $(PIP) check; echo "requirements.lock does not fit pyproject.toml: run make lock" >&2; exit 1; }
	@touch $@

check: $(READY) ## Check format, lint, strict types and the import contract
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(READY) ## Run all tests, on a real database, SSH and git (TESTS=tests/unit for a part)
	TMPDIR="$(SCRATCH)" $(BIN)/pytest -n $(JOBS) $(IN_ORDER) --durations=40 --durations-min=5 $(TESTS)

soak: $(READY) ## Run the proofs that take an hour, such as a kill at every point (TESTS=... for a part)
	TMPDIR="$(SCRATCH)" $(BIN)/pytest -n $(CORES) $(IN_ORDER) -m soak --timeout 3600 $(or $(TESTS),tests)

rehearse: $(READY) ## Run a whole release on a temporary target (STORY=sick for another story)
	$(BIN)/runbook rehearse $(STORY)

bench: $(READY) ## Run the benchmarks; results are ratios within one run
	@for bench in bench/[!_]*.py; do test -f "$$bench" || continue; echo "== $$bench"; $(BIN)/python "$$bench" || exit 1; done

# Universal, because Python versions differ in what they need (async-timeout only before 3.11.3).
lock: ## Regenerate requirements.lock from pyproject.toml, in a temporary environment
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is missing: name it with make PYTHON=/path/to/python3" >&2; exit 1; }
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && trap 'exit 1' INT TERM && \
	$(PYTHON) -m venv "$$folder" && \
	"$$folder/bin/python" -m pip --disable-pip-version-check install --quiet uv && \
	"$$folder/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --strip-extras \
		--no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make lock" \
		--extra charts --extra forge --extra machines --extra rehearsal --extra dev --output-file requirements.lock pyproject.toml

clean: ## Remove the virtual environment, caches and build leftovers
	rm -rf "$(VENV)" build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
