# Two commands for a fresh machine: `make demo` shows the toolkit at work, `make test` tests it.
# Both make .venv first; with an environment of your own: make demo PYTHON=python

PYTHON = .venv/bin/python

.PHONY: demo test lint fuzz faults

demo: $(if $(filter .venv/%,$(PYTHON)),.venv/installed)
	$(PYTHON) examples/demo.py

test: $(if $(filter .venv/%,$(PYTHON)),.venv/installed-dev)
	$(PYTHON) -m pytest -n 2 --dist loadfile

lint: $(if $(filter .venv/%,$(PYTHON)),.venv/installed-dev)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

# Every reader of foreign files reads 100,000 of them that are broken or made up; an hour.
fuzz: $(if $(filter .venv/%,$(PYTHON)),.venv/installed-dev)
	$(PYTHON) -m tests.fuzz.run

# Every command that writes is killed at random moments, and every call of a save fails once.
faults: $(if $(filter .venv/%,$(PYTHON)),.venv/installed-dev)
	$(PYTHON) -m tests.faults.run

.venv/installed: requirements.txt
	python3 -m venv .venv
	$(PYTHON) -m pip install -r requirements.txt
	touch $@

.venv/installed-dev: requirements-dev.txt .venv/installed
	$(PYTHON) -m pip install -r requirements-dev.txt
	touch $@
