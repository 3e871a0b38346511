# make book    render the book from the stored outputs of its chapters
# make pdf    print the book: one file with contents, page numbers and working links (chromium prints it)
# make linkcheck   ask every public source that the rendered book links to whether it is still there (asks other hosts)
# make serve   serve the rendered book on this machine, for this machine only
# make test    everything that must hold: gates, unit and property tests, every chapter, the rendered pages
# make quick   what a contributor needs within a minute: gates, and the tests that are short
# make thorough   everything of make test, and the long runs that it samples
# make lab     read the chapters live in JupyterLab
# make chapters   execute every chapter again and store its outputs
# make coverage   run the tests and store which clauses they exercised
# make bench   how fast the machine runs (a report, not a test)
# make mutants changes the code in small ways and says which changes no test notices (a report, not a test)
# make fuzz    coverage-guided fuzzing of everything that takes bytes from outside (a report, not a test)

PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
READY   = $(VENV)/.ready
BOOK    = _build/html/index.html
JOBS   ?= 2
PORT   ?= 8000
BENCH   = $(wildcard tools/bench.py)


.PHONY: book pdf linkcheck serve test quick thorough mutants lab chapters coverage bench clean help
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# make/make/p' Makefile

# The stamp follows the files that say what is installed; a second run needs no network.
$(READY): requirements.txt requirements-read.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

# A failed build leaves nothing behind: a page that once gave a warning must give it again.
book: $(READY)
	@$(BIN)/python tools/chapters.py check
	@$(BIN)/python tools/questions.py check
	@$(BIN)/jupyter-book build . -W --keep-going -q || { rm -rf _build; exit 1; }
	@echo "The book is rendered. Open file://$(abspath $(BOOK)), or say make serve to run its cells"

pdf: book
	@$(BIN)/python tools/pdf.py

linkcheck: book
	@$(BIN)/python tools/linkcheck.py

serve: $(READY)
	@test -f $(BOOK) || $(MAKE) book
	@$(BIN)/python tools/serve.py $(PORT)

test: $(READY)
	$(BIN)/python -m pytest -n $(JOBS)

quick: $(READY)
	@$(BIN)/python -m ruff check --quiet .
	@$(BIN)/python -m mypy --strict --no-error-summary
	@$(BIN)/lint-imports >/dev/null || $(BIN)/lint-imports
	@$(BIN)/python -m pytest -q -n $(JOBS) --quick tests

thorough: $(READY)
	SEAMREF_THOROUGH=1 $(BIN)/python -m pytest -n $(JOBS)

mutants: $(READY)
	@$(BIN)/python -c "import cosmic_ray, coverage" 2>/dev/null || $(BIN)/python -m pip install --quiet "cosmic-ray>=8.3,<9" coverage
	$(BIN)/python tools/mutants.py

coverage: $(READY)
	SEAMREF_WRITE_COVERAGE=1 $(BIN)/python -m pytest -n $(JOBS)

lab: $(READY)
	@$(BIN)/jupyter trust book/*.ipynb book/*/*.ipynb >/dev/null  # else their pictures are not shown
	@$(BIN)/python tools/jupyter_lab.py

chapters: $(READY)
	$(BIN)/python tools/chapters.py execute -j $(JOBS)
	$(BIN)/python tools/chapters.py check

bench: $(READY)
	@test -n "$(BENCH)" || { echo "no benchmark: tools/bench.py is not there"; exit 1; }
	$(BIN)/python $(BENCH)

# Not among the requirements: it needs a compiler where no wheel fits.
fuzz: $(READY)
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/python -m pip install --quiet atheris
	$(BIN)/python tools/fuzz.py

clean:
	rm -rf _build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
