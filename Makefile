# What a fresh machine needs: Python 3.11, make and a package registry. Everything else is fetched
# into .venvs/, so that nothing on the machine is changed and `make clean` leaves no trace; but for
# `servers`, below.

PYTHON ?= python3.11
# The newest patch of each supported minor version; scripts/matrix.py has the Pythons.
AIRFLOW_3 := 3.3.2
AIRFLOW_32 := 3.2.2
AIRFLOW_31 := 3.1.8
AIRFLOW_30 := 3.0.6
AIRFLOW_2 := 2.11.2

VENVS := .venvs
UV := $(VENVS)/uv/bin/uv
ENV_3 := $(VENVS)/airflow-3.3
ENV_31 := $(VENVS)/airflow-3.1
ENV_2 := $(VENVS)/airflow-2.11
ENV_LITELLM := $(VENVS)/litellm
ENV_BENCHMARK := $(VENVS)/benchmark
ENV_RELEASE := $(VENVS)/release
MATRIX := .matrix
PY_3 := $(ENV_3)/bin/python
PY_31 := $(ENV_31)/bin/python
PY_2 := $(ENV_2)/bin/python
EXTRAS := s3,media,sandbox,fast
SERVERS := postgresql redis-server

# Only the interpreter that was asked for: never one that uv would download by itself.
export UV_PYTHON_DOWNLOADS := never

# One Airflow for each kind of memory: the task state store (3.3), Variables through the API server (3.1), and
# Variables in the database (2.11).
CRASHES := tests/airflow/test_crash_points.py
# Three processes share the files of tests between them: most of their time is waiting.
SHARED := --numprocesses 3 --dist loadfile --no-loadscope-reorder

CODE := airflow_video_provider dags_examples scripts tests benchmarks

.PHONY: help demo playground demo-cluster test unit arch lint format test-3.3 test-2.11 test-system test-gateways test-ui docs matrix build benchmark-env benchmark-waiting servers nginx chromium envs constraints clean
.DEFAULT_GOAL := help
# Two Airflows at once on two cores would only make both of them slow.
.NOTPARALLEL:

help: ## this list
	@grep -hE '^[a-z0-9.-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(ENV_3)/.stamp ## three videos through a real Airflow and the sandbox, paying nobody
	@exec $(PY_3) -m scripts.demo

playground: $(ENV_3)/.stamp ## the demo's Airflow, sandbox and an S3 store to try things in, until Ctrl-C
	@exec $(PY_3) -m scripts.playground

demo-cluster: $(ENV_3)/.stamp servers ## a distributed Airflow (Celery, two of everything) to look at, until Ctrl-C
	@exec $(PY_3) -m scripts.demo_cluster

test: lint arch unit docs test-2.11 test-3.3 ## everything that CI runs

unit: $(ENV_3)/.stamp ## tests that need no Airflow
	$(PY_3) -m pytest $(SHARED) -p scripts.no_airflow tests/unit

arch: $(ENV_3)/.stamp ## who may import whom
	$(PY_3) -m pytest tests/test_architecture.py

test-3.3: $(ENV_3)/.stamp servers ## tests on Airflow 3.3, a real scheduler and triggerer among them
	$(PY_3) -m pytest $(SHARED) -m "not slow" tests/airflow tests/system

test-system: $(ENV_3)/.stamp $(ENV_31)/.stamp $(ENV_2)/.stamp servers ## the slow tests too: workers struck at each point, a distributed Airflow whose parts die (CLUSTER_SEEDS="1 2 3")
	$(PY_2) -m pytest $(CRASHES)
	$(PY_31) -m pytest $(CRASHES)
	$(PY_3) -m pytest tests/system $(CRASHES)

test-2.11: $(ENV_2)/.stamp ## tests on Airflow 2.11
	$(PY_2) -m pytest $(SHARED) -m "not slow" tests/airflow

test-gateways: $(ENV_3)/.stamp $(ENV_LITELLM)/.stamp nginx ## programs of others: a LiteLLM proxy, the openai client, FastAPI, Node, nginx
	GATEWAYS_PYTHON=$(ENV_LITELLM)/bin/python $(PY_3) -m pytest tests/gateways
	$(PY_3) -m pytest -p scripts.no_airflow tests/unit/gateway/test_real_servers.py

test-ui: $(ENV_3)/.stamp $(ENV_31)/.stamp chromium ## Airflow's UI in a real browser, on 3.3 and 3.1 (UI_SCREENSHOTS=docs renews the pictures)
	$(PY_3) -m pytest tests/ui
	UI_AIRFLOW_PYTHON=$(PY_31) $(PY_3) -m pytest tests/ui

benchmark-env: $(ENV_BENCHMARK)/.stamp ## the environment of benchmarks/: Airflow 3.3 with the peers, and matplotlib

benchmark-waiting: $(ENV_BENCHMARK)/.stamp $(ENV_2)/.stamp ## what a wait costs, beside its peers, into docs/waiting.md (half an hour, best on a quiet machine)
	$(ENV_BENCHMARK)/bin/python -m benchmarks.waiting --results docs/waiting.json --docs docs/waiting.md

matrix: | $(UV) ## tests/airflow on every Airflow and Python, and the table of docs/compatibility.md (ONLY="3.2/3.12 3.0/3.11")
	$(PYTHON) -m scripts.matrix --uv $(UV) --folder $(MATRIX) $(foreach pair,$(ONLY),--only $(pair))

build: $(ENV_RELEASE)/.stamp ## a wheel and a source distribution in dist/, checked, and tried in a bare environment of each Airflow
	rm -rf dist
	$(UV) build --quiet --out-dir dist
	$(ENV_RELEASE)/bin/twine check --strict dist/*
	$(ENV_RELEASE)/bin/check-wheel-contents dist/*.whl
	$(PYTHON) -m scripts.bare --uv $(UV) --folder $(MATRIX) dist/*.whl

docs: $(ENV_3)/.stamp ## the documentation in docs/_build/html; a warning or a link to nowhere is an error
	$(PY_3) -m sphinx --fail-on-warning --keep-going --fresh-env --jobs 1 --quiet docs docs/_build/html
	@echo "docs/_build/html/index.html"

lint: $(ENV_3)/.stamp ## ruff and mypy --strict
	$(ENV_3)/bin/ruff check $(CODE)
	$(ENV_3)/bin/ruff format --check $(CODE)
	$(PY_3) -m mypy

format: $(ENV_3)/.stamp ## let ruff rewrite what it can
	$(ENV_3)/bin/ruff check --fix $(CODE)
	$(ENV_3)/bin/ruff format $(CODE)

# RUNLEVEL: the packages would start services of the machine, and tests start servers of their own.
servers: ## PostgreSQL and Redis for the distributed Airflow: root gets them installed, others are told
	@if ! command -v redis-server >/dev/null || ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then \
		if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
			echo "missing: PostgreSQL's and Redis' servers; apt-get install $(SERVERS)" >&2; exit 1; \
		fi; \
		apt-get -qq update && \
		RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends $(SERVERS); \
	fi

nginx: ## nginx for the tests with programs of others: root gets it installed, for others they are skipped
	@if ! command -v nginx >/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get -qq update && \
		RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends nginx-light; \
	fi

chromium: ## the browser of test-ui: root gets it installed, others are told
	@if ! command -v chromium >/dev/null; then \
		if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
			echo "missing: chromium; apt-get install chromium" >&2; exit 1; \
		fi; \
		apt-get -qq update && \
		DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends chromium; \
	fi

envs: $(ENV_3)/.stamp $(ENV_2)/.stamp ## both environments, and nothing else

$(UV):
	$(PYTHON) -m venv $(VENVS)/uv
	$(VENVS)/uv/bin/python -m pip install --quiet uv

# Airflow's version is named in each install: left out, uv would rather move to another Airflow
# than refuse a package that does not go with this one.
define build
	$(UV) venv --quiet --clear --python $(VENVS)/uv/bin/python $(@D)
	$(UV) pip install --python $(@D)/bin/python --constraints $< --editable '.[$(EXTRAS)]' \
		--group $(1) apache-airflow==$(2)
	@touch $@
endef

$(ENV_3)/.stamp: constraints/airflow-$(AIRFLOW_3).txt pyproject.toml | $(UV)
	$(call build,dev,$(AIRFLOW_3))

$(ENV_31)/.stamp: constraints/airflow-$(AIRFLOW_31).txt pyproject.toml | $(UV)
	$(call build,test,$(AIRFLOW_31))

$(ENV_2)/.stamp: constraints/airflow-$(AIRFLOW_2).txt pyproject.toml | $(UV)
	$(call build,test,$(AIRFLOW_2))

$(ENV_BENCHMARK)/.stamp: constraints/airflow-$(AIRFLOW_3).txt pyproject.toml | $(UV)
	$(call build,benchmark,$(AIRFLOW_3))

# Not Airflow's pins, and not our package: programs to talk to.
$(ENV_LITELLM)/.stamp: constraints/litellm.txt | $(UV)
	$(UV) venv --quiet --clear --python $(VENVS)/uv/bin/python $(@D)
	$(UV) pip install --python $(@D)/bin/python --requirements $<
	@touch $@

# Tools that a release needs and nothing else does.
$(ENV_RELEASE)/.stamp: constraints/release.txt | $(UV)
	$(UV) venv --quiet --clear --python $(VENVS)/uv/bin/python $(@D)
	$(UV) pip install --python $(@D)/bin/python --requirements $<
	@touch $@

define compile
	printf '%s\n' 'apache-airflow==$(2)' $(foreach pin,$(3),'$(pin)') | $(UV) pip compile --quiet --upgrade --universal --python-version 3.11 \
		--no-header --no-annotate $(foreach extra,s3 media sandbox fast,--extra $(extra)) \
		$(foreach group,$(1),--group $(group)) \
		--output-file constraints/airflow-$(2).txt pyproject.toml -
endef

# Airflow 3.0 and 3.2 do not work with later versions of these, and do not say so (3.1 and 3.3 do). svcs 26.2
# forgets the services of an app whose lifespan has ended: that of 3.2's `dag.test()` ends before its first task.
constraints: | $(UV) ## ask the registry for today's versions and pin them
	@mkdir -p constraints
	$(call compile,dev benchmark,$(AIRFLOW_3))
	$(call compile,test,$(AIRFLOW_32),fastapi<0.137 svcs<26.2)
	$(call compile,test,$(AIRFLOW_31))
	$(call compile,test,$(AIRFLOW_30),fastapi<0.118 pyjwt<2.11 universal-pathlib<0.3)
	$(call compile,test,$(AIRFLOW_2))
	printf 'check-wheel-contents\ntwine\n' | $(UV) pip compile --quiet --upgrade --universal --python-version 3.11 \
		--no-header --no-annotate --output-file constraints/release.txt -
	printf 'litellm[proxy]\nopenai\n' | $(UV) pip compile --quiet --upgrade --universal --python-version 3.11 \
		--no-header --no-annotate --output-file constraints/litellm.txt -

clean: ## remove the environments and everything that was made in them
	rm -rf $(VENVS) $(MATRIX) .demo dist docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
