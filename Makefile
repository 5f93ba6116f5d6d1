# make search: from nothing to a winner.  make test: from nothing to a verdict.
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip install -qq --disable-pip-version-check -c constraints.txt
SPACE  ?= spaces/mnist.yaml
SIZE   ?= quick
# Where that study goes; one that is there already is resumed, a finished one shown again.
RUN    ?= runs/$(basename $(notdir $(SPACE)))$(SIZE:%=-%)

.PHONY: setup system search test test-cluster check audit ui bench bench-gpu clean
.DELETE_ON_ERROR:

setup: $(VENV)/.installed

# `search` needs only what runs a study; the tools for tests and checks come when first asked for.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PY) -m pip --version >/dev/null 2>&1 || { rm -rf $(VENV); $(PYTHON) -m venv $(VENV); }
	@echo "installing into $(VENV) (a few minutes the first time)" >&2
	@$(PIP) --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@$(PIP) --editable '.[test,check,bench]'
	@touch $@

# What the tests need of Debian; quick where it is there.
system:
	@scripts/system_packages.sh

search: $(VENV)/.installed
	@$(PY) -m search.run $(SPACE) $(SIZE:%=--size %) --output $(RUN) $(if $(wildcard $(RUN)/journal.jsonl),--resume)

# Three processes, a file of tests each, for those with Ray mostly wait. In the order of
# tests/conftest.py, for by itself xdist would begin the long files with Ray last.
test: $(VENV)/.installed-dev system
	$(PY) -m pytest -n 3 --dist loadfile --no-loadscope-reorder

# Three hosts of namespaces on this machine, which needs root; five minutes on two cores that have
# other work too.
test-cluster: $(VENV)/.installed-dev system
	$(PY) -m pytest tests/cluster -m cluster

check: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-cache

# Asks a service on the network which of the installed packages have known vulnerabilities.
audit: $(VENV)/.installed
	@$(PIP) --editable '.[audit]'
	$(VENV)/bin/pip-audit --local --skip-editable --progress-spinner off

ui: $(VENV)/.installed
	@echo "MLflow: http://127.0.0.1:5000/#/experiments?workflowType=machine_learning (Ctrl-C ends it)" >&2
	@mkdir -p runs
	@MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(VENV)/bin/mlflow ui --backend-store-uri sqlite:///runs/mlflow.db --host 127.0.0.1 --port 5000 --workers 1

bench: $(VENV)/.installed-dev
	$(PY) -m benchmarks.training
	$(PY) -m benchmarks.parzen

# A GPU machine may have no network, so without a virtual environment the Python at hand does.
bench-gpu:
	$(if $(wildcard $(PY)),$(PY),$(PYTHON)) -m benchmarks.gpu --minutes 8

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
