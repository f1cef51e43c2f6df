# `make help` lists the targets. Variables: PRESET CORPUS DATASET FROM OUT DEVICE SEED SCALE TABLE.
PYTHON  ?= python3
PRESET  ?= demo
CORPUS  ?= pydocs
DATASET ?= pydocs
DEVICE  ?= auto
SEED    ?= 0
SCALE   ?= small
TABLE   ?=
PY      := .venv/bin/python
COMMON   = --preset $(PRESET) --device $(DEVICE) --seed $(SEED)
NAME    := $(if $(filter pydocs,$(DATASET)),,$(basename $(notdir $(DATASET:/=)))-)
LM      := runs/$(NAME)finetune_lm
# where FROM is not given: the run before where there is one, else the model in the box
found    = $(if $(wildcard $(1)/model),$(1),en-small)

.DEFAULT_GOAL := help
.PHONY: help setup demo test pretrain finetune-lm classify tables report release-model bench bench-peers equal precision corpora soak fuzz clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "variables: PRESET=$(PRESET) CORPUS=$(CORPUS) DATASET=$(DATASET) FROM=… OUT=… DEVICE=$(DEVICE) SEED=$(SEED) SCALE=$(SCALE) TABLE=…"

.venv/ready: setup.cfg constraints.txt
	$(PYTHON) -m venv .venv
	$(PY) -m pip install -q -c constraints.txt "torch==$$(sed -n 's/^torch==//p' constraints.txt)"
	$(PY) -m pip install -q -c constraints.txt -e ".[demo,subwords,plot,test]"
	@touch $@

.venv/kernels: .venv/ready ulmfit/kernels/native.cpp ulmfit/kernels/build.py
	$(PY) -m ulmfit.kernels.build
	@touch $@

setup: .venv/ready .venv/kernels  ## .venv with pinned dependencies and the package

demo: setup  ## all three stages on pydocs, then with transfer against without
	$(PY) -m experiments.demo

test: setup  ## the test suite
	$(PY) -m pytest -n 2 --dist loadfile

pretrain: setup  ## stage 1: language model on CORPUS
	$(PY) -m ulmfit.pretrain --corpus $(CORPUS) --out $(or $(OUT),runs/pretrain) $(COMMON)

finetune-lm: setup  ## stage 2: the model FROM stage 1 reads DATASET
	$(PY) -m ulmfit.finetune_lm --dataset $(DATASET) --model $(or $(FROM),$(call found,runs/pretrain)) --out $(or $(OUT),$(LM)) $(COMMON)

classify: setup  ## stage 3: classifier for DATASET on the model FROM stage 2
	$(PY) -m ulmfit.classify --dataset $(DATASET) --model $(or $(FROM),$(call found,$(LM))) --out $(or $(OUT),runs/$(NAME)classify) $(COMMON)

tables: setup  ## the paper's tables and figures at SCALE (smoke, small, paper), one with TABLE=7
	$(PY) -m experiments.run $(TABLE) --scale $(SCALE)

report: setup  ## page and pictures from the figures that there are
	$(PY) -m experiments.report

release-model: setup  ## the English model in the box, from Wikipedia to its card (hours; needs the data)
	$(PY) -m experiments.release

bench-peers: .venv-peers/ready  ## fastai in an environment of its own, to compare with
.venv-peers/ready: constraints-peers.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install -q "torch==$$(sed -n 's/^torch==//p' constraints.txt)"
	.venv-peers/bin/python -m pip install -q -c constraints-peers.txt fastcore spacy numpy pandas fastprogress fastdownload \
		fasttransform matplotlib scikit-learn scipy pillow pyyaml psutil packaging
	.venv-peers/bin/python -m pip install -q --no-deps -c constraints-peers.txt fastai
	@touch $@

bench: setup bench-peers  ## tokenisation (IMDb; needs the data) and a training step against fastai
	$(PY) -m experiments.bench tokenize --input imdb --peer fastai --save
	$(PY) -m experiments.bench lm --peer fastai --save

precision: setup  ## does training pay for bf16? WikiText-2, three seeds (half an hour; needs the data)
	$(PY) -m experiments.precision

corpora: setup  ## what preparing each dataset costs (a quarter of an hour; needs the data)
	$(PY) -m experiments.corpora

equal: setup bench-peers  ## our language model against fastai's: same logits, same training (half an hour)
	$(PY) -m experiments.equal

soak: setup  ## stages killed again and again must end where they end undisturbed (ten minutes)
	$(PY) -m experiments.soak

fuzz: setup  ## hostile input to whatever reads something, 10,000 cases (some minutes)
	$(PY) -m experiments.fuzz

clean:  ## remove runs and prepared corpora
	rm -rf runs data/prepared
