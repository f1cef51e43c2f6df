# `make help` lists the targets. Variables: PRESET CORPUS DATASET FROM OUT DEVICE SEED.
PYTHON  ?= python3
PRESET  ?= demo
CORPUS  ?= pydocs
DATASET ?= pydocs
DEVICE  ?= auto
SEED    ?= 0
PY      := .venv/bin/python
COMMON   = --preset $(PRESET) --device $(DEVICE) --seed $(SEED)

.DEFAULT_GOAL := help
.PHONY: help setup demo test pretrain finetune-lm classify bench bench-peers equal small corpora soak fuzz clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "variables: PRESET=$(PRESET) CORPUS=$(CORPUS) DATASET=$(DATASET) FROM=… OUT=… DEVICE=$(DEVICE) SEED=$(SEED)"

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
	$(PY) -m pytest

pretrain: setup  ## stage 1: language model on CORPUS
	$(PY) -m ulmfit.pretrain --corpus $(CORPUS) --out $(or $(OUT),runs/pretrain) $(COMMON)

finetune-lm: setup  ## stage 2: the model FROM stage 1 reads DATASET
	$(PY) -m ulmfit.finetune_lm --dataset $(DATASET) --model $(or $(FROM),runs/pretrain) --out $(or $(OUT),runs/finetune_lm) $(COMMON)

classify: setup  ## stage 3: classifier for DATASET on the model FROM stage 2
	$(PY) -m ulmfit.classify --dataset $(DATASET) --model $(or $(FROM),runs/finetune_lm) --out $(or $(OUT),runs/classify) $(COMMON)

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

corpora: setup  ## what preparing each dataset costs (a quarter of an hour; needs the data)
	$(PY) -m experiments.corpora

equal: setup bench-peers  ## our language model against fastai's: same logits, same training (half an hour)
	$(PY) -m experiments.equal

small: setup  ## WikiText-2, TREC-6 and IMDb at the preset `small` (some hours; needs the data)
	$(PY) -m experiments.small

soak: setup  ## stages killed again and again must end where they end undisturbed (ten minutes)
	$(PY) -m experiments.soak

fuzz: setup  ## hostile input to whatever reads something, 10,000 cases (some minutes)
	$(PY) -m experiments.fuzz

clean:  ## remove runs and prepared corpora
	rm -rf runs data/prepared
