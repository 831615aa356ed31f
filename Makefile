# make fit                    install into .venv, then train the default experiment
# make fit CONFIG=path.yaml   ... another one; ARGS="--trainer.max_epochs 3" overrides settings
# make test                   install with the tools for developers, then run every test
# make lint                   ruff and mypy
# make docs                   the documentation, in site/; warnings are errors
# make test-lowest            the tests on the lowest supported versions, in .venv-lowest
PYTHON ?= python3
CONFIG ?= experiments/deeplab_crf.yaml
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
# One process per core; an idle one takes over tests that another still has before it.
PARALLEL := --numprocesses auto --dist worksteal

.PHONY: fit test browser lint docs test-lowest clean

fit: $(VENV)/.installed
	@echo "== training $(CONFIG)"
	$(BIN)/python -m segment.fit --config $(CONFIG) $(ARGS)

test: $(VENV)/.installed-dev browser
	@echo "== running all tests"
	$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

# The report's page is tested in Debian's chromium; without it those tests fail.
browser:
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || { \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	echo "== installing chromium"; apt-get update -qq && \
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium chromium-driver >/dev/null; \
	else echo "chromium and chromedriver are missing: apt-get install chromium chromium-driver"; fi; }

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Material's notice about MkDocs 2 and its own successor is no warning about these pages.
docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "== open site/index.html"

# A stamp file per kind of installation; it is older than its sources only when one has changed.
$(VENV)/.installed: setup.cfg setup.py pyproject.toml $(wildcard segment/crf/cpp/*)
	@echo "== installing into $(VENV) (a few minutes and about 6 GB the first time)"
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or 3.12 is needed, this is " + sys.version.split()[0] + "; try make PYTHON=python3.12") if not (3, 11) <= sys.version_info < (3, 13) else 0'
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "== installing the tools for developers"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

# Every `>=` in setup.cfg becomes `==`.
test-lowest:
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	$(PYTHON) tests/lowest.py > .venv-lowest/constraints.txt
	.venv-lowest/bin/python -m pip install --quiet --constraint .venv-lowest/constraints.txt --editable '.[dev]'
	.venv-lowest/bin/python -m pytest $(PARALLEL) $(ARGS)

clean:
	rm -rf $(VENV) .venv-lowest build site *.egg-info
