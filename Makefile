# What a fresh machine needs: Python 3.11, make and a package registry. Everything else is fetched
# into .venvs/, so that nothing on the machine is changed and `make clean` leaves no trace; but for
# `servers`, below.

PYTHON ?= python3.11
AIRFLOW_3 := 3.3.2
AIRFLOW_31 := 3.1.8
AIRFLOW_2 := 2.11.2

VENVS := .venvs
UV := $(VENVS)/uv/bin/uv
ENV_3 := $(VENVS)/airflow-3.3
ENV_31 := $(VENVS)/airflow-3.1
ENV_2 := $(VENVS)/airflow-2.11
ENV_LITELLM := $(VENVS)/litellm
PY_3 := $(ENV_3)/bin/python
PY_31 := $(ENV_31)/bin/python
PY_2 := $(ENV_2)/bin/python
EXTRAS := s3,media,sandbox
SERVERS := postgresql redis-server

# Only the interpreter that was asked for: never one that uv would download by itself.
export UV_PYTHON_DOWNLOADS := never

# One Airflow for each kind of memory: the task state store (3.3), Variables through the API server (3.1), and
# Variables in the database (2.11).
CRASHES := tests/airflow/test_crash_points.py

CODE := airflow_video_provider dags_examples scripts tests benchmarks

.PHONY: help demo demo-cluster test unit arch lint format test-3.3 test-2.11 test-system test-gateways test-ui servers nginx chromium envs constraints clean
.DEFAULT_GOAL := help
# Two Airflows at once on two cores would only make both of them slow.
.NOTPARALLEL:

help: ## this list
	@grep -hE '^[a-z0-9.-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(ENV_3)/.stamp ## three videos through a real Airflow and the sandbox, paying nobody
	@exec $(PY_3) -m scripts.demo

demo-cluster: $(ENV_3)/.stamp servers ## a distributed Airflow (Celery, two of everything) to look at, until Ctrl-C
	@exec $(PY_3) -m scripts.demo_cluster

test: lint arch unit test-2.11 test-3.3 ## everything that CI runs

unit: $(ENV_3)/.stamp ## tests that need no Airflow
	$(PY_3) -m pytest -p scripts.no_airflow tests/unit

arch: $(ENV_3)/.stamp ## who may import whom
	$(PY_3) -m pytest tests/test_architecture.py

test-3.3: $(ENV_3)/.stamp servers ## tests on Airflow 3.3, a real scheduler and triggerer among them
	$(PY_3) -m pytest -m "not slow" tests/airflow tests/system

test-system: $(ENV_3)/.stamp $(ENV_31)/.stamp $(ENV_2)/.stamp servers ## the slow tests too: workers struck at each point, a distributed Airflow whose parts die (CLUSTER_SEEDS="1 2 3")
	$(PY_2) -m pytest $(CRASHES)
	$(PY_31) -m pytest $(CRASHES)
	$(PY_3) -m pytest tests/system $(CRASHES)

test-2.11: $(ENV_2)/.stamp ## tests on Airflow 2.11
	$(PY_2) -m pytest -m "not slow" tests/airflow

test-gateways: $(ENV_3)/.stamp $(ENV_LITELLM)/.stamp nginx ## programs of others: a LiteLLM proxy, the openai client, FastAPI, Node, nginx
	GATEWAYS_PYTHON=$(ENV_LITELLM)/bin/python $(PY_3) -m pytest tests/gateways
	$(PY_3) -m pytest -p scripts.no_airflow tests/unit/gateway/test_real_servers.py

test-ui: $(ENV_3)/.stamp $(ENV_31)/.stamp chromium ## Airflow's UI in a real browser, on 3.3 and 3.1 (UI_SCREENSHOTS=docs renews the pictures)
	$(PY_3) -m pytest tests/ui
	UI_AIRFLOW_PYTHON=$(PY_31) $(PY_3) -m pytest tests/ui

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

# Not Airflow's pins, and not our package: programs to talk to.
$(ENV_LITELLM)/.stamp: constraints/litellm.txt | $(UV)
	$(UV) venv --quiet --clear --python $(VENVS)/uv/bin/python $(@D)
	$(UV) pip install --python $(@D)/bin/python --requirements $<
	@touch $@

define compile
	echo apache-airflow==$(2) | $(UV) pip compile --quiet --upgrade --universal --python-version 3.11 \
		--no-header --no-annotate $(foreach extra,s3 media sandbox,--extra $(extra)) --group $(1) \
		--output-file constraints/airflow-$(2).txt pyproject.toml -
endef

constraints: | $(UV) ## ask the registry for today's versions and pin them
	@mkdir -p constraints
	$(call compile,dev,$(AIRFLOW_3))
	$(call compile,test,$(AIRFLOW_31))
	$(call compile,test,$(AIRFLOW_2))
	printf 'litellm[proxy]\nopenai\n' | $(UV) pip compile --quiet --upgrade --universal --python-version 3.11 \
		--no-header --no-annotate --output-file constraints/litellm.txt -

clean: ## remove the environments and everything that was made in them
	rm -rf $(VENVS) .demo dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
