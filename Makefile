# `make search`: a real search on this machine. `make test`: the whole suite. Both set up .venv first.
PYTHON ?= python3
BIN := .venv/bin
MINUTES ?= 10
MAX_EPOCHS ?= 8
# More at once wait for each other; a file's tests share what they set up, so they stay together.
TESTERS ?= $(shell n=`nproc 2>/dev/null || echo 2`; [ $$n -lt 4 ] && echo $$n || echo 4)

.PHONY: search test check rehearse install lock clean

search: .venv/installed
	$(BIN)/cnn-search run --minutes $(MINUTES) --max-epochs $(MAX_EPOCHS)

test: .venv/installed-dev
	$(BIN)/python -m pytest --numprocesses $(TESTERS) --dist loadfile --no-loadscope-reorder

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(MAKE) test

# docker-compose.yml with real containers, killed and restarted; takes some minutes.
rehearse:
	deploy/rehearse

install: .venv/installed

# Versions stand in the locks alone; pip refuses any file whose hash is not there.
.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	  || { echo "cnn-search needs Python 3.11, 3.12 or 3.13, $(PYTHON) is `$(PYTHON) -V 2>&1`; try make PYTHON=python3.12" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

.venv/installed-dev: .venv/installed requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock -r requirements-dev.lock
	touch $@

COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock"
BESIDES = --constraint requirements.lock $$(sed -n 's/^\([a-z0-9._-]*\)==.*/--no-emit-package \1/p' requirements.lock)

# The other locks hold only what the first one does not: for development, and for the two images.
lock: .venv/installed-dev
	$(COMPILE) pyproject.toml --output-file requirements.lock
	$(COMPILE) --group dev --output-file requirements-dev.lock $(BESIDES)
	sed -n 's/^tensorflow==\([^ ]*\).*/tensorflow-cpu==\1/p' requirements.lock \
	  | $(COMPILE) - --output-file requirements-cpu.lock $(BESIDES)
	$(COMPILE) pyproject.toml --extra gpu --output-file requirements-gpu.lock $(BESIDES)

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
