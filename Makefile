# `make demo` trains a small model on stories, `make test` tests it. Both create .venv first; to use an
# environment of your own: make demo PYTHON=python

PYTHON = .venv/bin/python
RUNTIME = $(if $(filter .venv/%,$(PYTHON)),.venv/installed)
DEVELOPMENT = $(if $(filter .venv/%,$(PYTHON)),.venv/installed-dev)

.PHONY: demo test test-slow lint docs fuzz faults interop bench guard

demo: $(RUNTIME)
	$(PYTHON) examples/demo.py

test: $(DEVELOPMENT)
	$(PYTHON) -m pytest -n 2 --dist worksteal --durations 10 -m "not slow"

# Tests of more than a few seconds: whole trainings, conversions, several processes, kills, a browser.
test-slow: $(DEVELOPMENT)
	$(PYTHON) -m pytest -n 2 --dist worksteal --durations 10 -m slow

lint: $(DEVELOPMENT)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

# The pages of docs/ as a website in site/; a broken link is an error.
docs: $(DEVELOPMENT)
	$(PYTHON) tools/make_command_reference.py
	$(PYTHON) -m mkdocs build --strict

# Every reader of foreign files reads 100,000 malformed or generated ones; takes about an hour.
fuzz: $(DEVELOPMENT)
	$(PYTHON) -m tests.fuzz.run
	$(PYTHON) -m tests.fuzz.request_bodies

# Every command that writes is killed at random moments, and every system call of a save fails once.
faults: $(DEVELOPMENT)
	$(PYTHON) -m tests.faults.run

# Other programs in an environment of their own: for comparisons of files and of speed.
PEERS = .venv-peers/bin/python

# They read our models, and we read theirs; docs/interop.md.
interop: $(DEVELOPMENT) .venv-peers/installed
	$(PYTHON) tools/interop_matrix.py --peers $(PEERS) --docs docs/interop.md
	$(PYTHON) tools/interop_formats.py --peers $(PEERS) --docs docs/interop.md

# All benchmarks, which takes hours: tables in docs/benchmarks and the README.
bench: $(DEVELOPMENT)
	$(PYTHON) benchmarks/all.py $(if $(wildcard $(PEERS)),--peers $(PEERS))

# Two minutes: is anything slower than in the previous commit?
guard: $(DEVELOPMENT)
	$(PYTHON) benchmarks/guard.py

.venv-peers/installed:
	python3 -m venv .venv-peers
	$(PEERS) -m pip install torch transformers tokenizers ctranslate2 llama-cpp-python
	touch $@

.venv/installed: requirements.txt
	python3 -m venv .venv
	$(PYTHON) -m pip install -r requirements.txt
	touch $@

.venv/installed-dev: requirements-dev.txt .venv/installed
	$(PYTHON) -m pip install -r requirements-dev.txt
	touch $@
