# Two commands for a fresh machine: make demo, make test. Both make their own venv; PYTHON names the interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
DEMO = build/demo
MODEL = mobilenet_v2_alias

export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: demo test test-all lint mutants clean

demo: $(VENV)/.installed
	rm -rf $(DEMO)
	mkdir -p $(DEMO)
	@echo "Building $(MODEL) ..."
	@$(BIN)/python testdata/make_testdata.py $(DEMO) $(MODEL) 2> $(DEMO)/build.log || (cat $(DEMO)/build.log; exit 1)
	$(BIN)/tpu-convert --input_model_dir=$(DEMO)/$(MODEL) --output_model_dir=$(DEMO)/converted --overwrite \
	  --report_json=$(DEMO)/report.json --converter_options_file=testdata/demo_options.txt
	$(BIN)/tpu-convert verify $(DEMO)/$(MODEL) $(DEMO)/converted

test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

# Adds the models of real size. What the TPU runtime and the TPU compiler say of converted models is asked by hand:
# docs/testing.md.
test-all: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal

# make mutants MODULES="captures passes/batch": small breaks of these modules (all, without MODULES) that no test sees.
mutants: $(VENV)/.installed
	$(BIN)/python tests/mutation $(MODULES) $(MUTANTS_FLAGS)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --config setup.cfg --no-cache

$(VENV)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	@echo "Installing TensorFlow and what else is needed into $(VENV): about 2 GB, some minutes ..."
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@# Without setuptools' warning of what an editable installation is.
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) build
