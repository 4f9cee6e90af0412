# Everything is set up from here on a machine with Python and make. `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := constraints.txt
# Also constrains the build back end, which pip installs in an environment of its own.
export PIP_CONSTRAINT := $(CURDIR)/$(CONSTRAINTS)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1
# Of the server that Prefect starts for a flow; its own 20 s are too few for a busy machine.
export PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS := 120

# Of tests. One that dies is not replaced: the next would begin with the very test that ended it, without end.
PROCESSES := -n 3 --max-worker-restart 0

.PHONY: help install peers demo test proofs exports lint format types docs picture screenshots bench scale crash rehearse kills mutants fuzz matrix fleet release audit site diagrams clean

help: ## List the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'

install: $(VENV)/.installed ## Create .venv with the package, its examples and the development tools

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --group dev --editable '.[postgres,examples,parquet,s3,turtle,rocrate,openlineage]'
	@touch $@

# The package and its examples alone, for who only wants to see them run.
$(VENV)/.demo: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[examples]'
	@touch $@

# The official clients and service SDKs, and the validator of RO-Crates, each in an environment of its own since their
# pins clash with Prefect's and each other's.
PEERS := ivcap-client provenaclient ivcap-service ivcap-ai-tool roc-validator
vpath %.txt tests tests/contract tests/sdk tests/exports docs

.venvs/%/.installed: INTERPRETER = $(PYTHON)
# The newest provenaclient asks for a Python that need not be the one the package is tested on.
.venvs/provenaclient/.installed: INTERPRETER = $(lastword $(PYTHON) $(shell $(PYTHON) tests/interpreters.py))
.venvs/%/.installed: %.txt
	$(INTERPRETER) -m venv .venvs/$*
	PIP_CONSTRAINT= .venvs/$*/bin/python -m pip install --quiet --requirement $<
	@touch $@

peers: $(PEERS:%=.venvs/%/.installed) ## Install the official clients, service SDKs and validators, to test against

# Ray, whose dependencies are many, with the package and its examples.
.venvs/ray/.installed: tests/fleet/ray.txt pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv .venvs/ray
	.venvs/ray/bin/python -m pip install --quiet --requirement $< --editable '.[postgres,examples]'
	@touch $@

# Where the development tools are installed, they include what the demo needs. Its Prefect has a home of its own: that of
# the user may belong to another version.
demo: export PREFECT_HOME := $(abspath $(VENV))/prefect
demo: $(if $(wildcard $(VENV)/.installed),install,$(VENV)/.demo) ## Run the main job on the embedded platforms
	@$(BIN)/ivcap-flows local register flows/services/coastal_el_nino_index.yaml
	@$(BIN)/ivcap-flows run flows/coastal_el_nino.py:coastal_el_nino
	@printf '\nWhere results/2010-12/events.csv comes from:\n'
	@$(BIN)/ivcap-flows trace results/2010-12/events.csv

PYTEST := $(BIN)/python -m pytest $(PROCESSES) --dist loadgroup --no-loadscope-reorder

# Many tests wait, so two cores have time for four.
test: install peers ## Run the tests, each guarantee in a short form
	$(PYTEST) -n 4 $(ARGS)

proofs: install peers .venvs/site/.installed ## Run the long proofs
	$(PYTEST) -m long $(ARGS)

exports: install peers ## Export runs of every example and ordinary flow in every format, validate them, print counts
	IVCAP_FLOWS_TEST_EXPORTS=all $(BIN)/python -m pytest tests/exports -m '' -q -rP --show-capture=stdout -k 'valid or read_back or one_id'
	IVCAP_FLOWS_TEST_EXPORTS=all $(BIN)/python -m pytest tests/capture/ordinary -m '' -q

lint: install ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: install ## Apply the formatter and the safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: install ## Check types (mypy, strict)
	$(BIN)/mypy

docs: install ## Write the reference pages that are generated from the code
	$(BIN)/python docs/generate.py

site: .venvs/site/.installed ## Build the documentation site in site/, links checked
	NO_MKDOCS_2_WARNING=1 .venvs/site/bin/mkdocs build --strict $(ARGS)

diagrams: install ## Draw the Mermaid diagrams that have changed for the site, in a Chromium, with npm
	$(BIN)/python docs/diagrams.py

picture: install ## Draw the order pipeline's trace anew for the documentation, in a Chromium
	$(BIN)/python docs/picture.py

screenshots: install ## Take the documentation's pictures of Prefect's web interface anew, in a Chromium
	IVCAP_FLOWS_TEST_PICTURES=docs/images $(BIN)/python -m pytest tests/e2e/test_web_interface.py -m ''

bench: install peers ## Run every benchmark; each prints one JSON line
	@for name in imports recording upload download resume many_uploads listing registration parking waiting submitting outbox trace; do $(BIN)/python -m benchmarks.$$name || exit 1; done
	$(BIN)/python -m benchmarks.journal_size --runs 10000

scale: install ## Run the benchmarks of fleets and of large journals; each takes some minutes up to an hour
	$(BIN)/python -m benchmarks.fleet
	$(BIN)/python -m benchmarks.parked
	$(BIN)/python -m benchmarks.journal_size
	$(BIN)/python -m benchmarks.journal_size --postgresql
	$(BIN)/python -m benchmarks.journal_move
	$(BIN)/python -m benchmarks.journal_upgrade
	$(BIN)/python -m benchmarks.large_files
	$(BIN)/python -m benchmarks.batch_rows

fleet: install .venvs/ray/.installed ## Run flows on several machines with PostgreSQL, Dask and Ray, kill some; print a table
	$(BIN)/python -m pytest -m fleet -q tests/fleet $(ARGS)

crash: install ## Kill and disturb a pipeline in drawn scenarios, print what came of it: make crash N=200 SEED=1 ONLY=s1-7
	CRASH_SEED=$(SEED) CRASH_ONLY=$(ONLY) $(BIN)/python -m pytest tests/crash/test_scenarios.py -m long -q -k drawn --crash-rounds $(or $(N),200)

rehearse: install ## Run the example flows on platforms that are as slow as production
	$(BIN)/python -m pytest tests/flows/test_like_production.py -m long --production-speed 1 --timeout 3600 --durations 0

kills: install ## Repeat each single kill test: make kills N=20
	$(BIN)/python -m pytest tests/crash tests/e2e -m '' -k '(kill or park) and not scenarios' $(PROCESSES) --crash-rounds $(or $(N),20)

mutants: install ## Take one guarantee after the other out of the package, print which test finds it missing
	$(PYTEST) -q -m mutant --mutants $(ARGS)

fuzz: install ## Ask the embedded platforms, and try effects, in thousands of ways: make fuzz N=100
	$(BIN)/python tests/local/fuzz.py --examples $(or $(N),100)
	$(BIN)/python -m pytest tests/durable/test_intent_machine.py -m long -k unrecorded --crash-rounds $(or $(N),100)

matrix: install peers ## Run the tests on every Python here, and with other versions: make matrix ARGS="--only 3.12"
	$(BIN)/python tests/matrix.py $(ARGS)

release: install ## Build sdist and wheel in dist/, and check all that would be published: make release ARGS=--long
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python tests/release.py $(ARGS)

audit: .venvs/pip-audit/.installed ## Look up the pins among known vulnerabilities; fails without the network, too
	.venvs/pip-audit/bin/pip-audit --strict --no-deps --disable-pip --requirement $(CONSTRAINTS)

clean: ## Remove what the targets above made
	rm -rf .venv .venvs dist build site .pytest_cache .mypy_cache .ruff_cache
