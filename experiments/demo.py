"""The demonstration: what transfer is worth on a few labels, in minutes, offline.

    make demo

Pretrains on the docstrings of the installed libraries, fine-tunes on the texts of some of them, and tells from a
sentence or two which library they document. Each seed draws other labelled documents. Figures go to
runs/demo/table.csv.
"""
import shutil, time
from pathlib import Path
from statistics import mean, stdev

from fastcore.script import call_parse

from ulmfit.classify import main as classify
from ulmfit.corpus.prepare import prepared
from ulmfit.corpus.store import LabelledHeldOut
from ulmfit.finetune_lm import main as finetune_lm
from ulmfit.model import bundle
from ulmfit.pretrain import main as pretrain
from ulmfit.text.tokenizer import Tokenizer
from ulmfit.training.files import write_text
from ulmfit.training.records import csv_text, read_record

from .baselines import bag_of_words, features


def test_error(run: Path) -> float: return read_record(run)["result"]["test_error"]


@call_parse
def main(
    dataset: str = "pydocs",  # the task
    corpus: str = "pydocs",  # general text
    preset: str = "demo",  # settings of all stages
    out: Path = Path("runs/demo"),  # folder of the runs
    labels: int = 60,  # labelled documents that a classifier learns from
    seeds: int = 5,  # draws of the labelled documents
    fresh: bool = True,  # begin anew, whatever is there
):
    "Pretrain, fine-tune, classify with transfer and without."
    began = time.monotonic()
    if fresh:
        for run in (r for name in ("pretrain", "finetune_lm", "transfer-*", "scratch-*") for r in out.glob(name)):
            shutil.rmtree(run)
    def heading(title: str): print(f"\n[{time.monotonic() - began:.0f} s] {title}", flush=True)

    heading("1  pretrain a language model on general text")
    pretrain(corpus=corpus, preset=preset, out=out / "pretrain")
    heading("2  fine-tune it on the target's text")
    finetune_lm(dataset=dataset, model=out / "pretrain", preset=preset, out=out / "finetune_lm")
    heading(f"3  fine-tune a classifier, with transfer and from scratch, {seeds} seeds each")
    errors = {"ULMFiT": [], "from scratch": [], "LM features + logistic regression": [],
              "bag of words + logistic regression": []}
    lm = bundle.load(out / "finetune_lm")
    data = prepared(dataset, "classification", Tokenizer.from_dict(lm.tokenizer))
    for seed in range(seeds):
        for name, scratch in (("ULMFiT", False), ("from scratch", True)):
            run = out / f"{'scratch' if scratch else 'transfer'}-{seed}"
            classify(dataset=dataset, model=str(out / "finetune_lm"), preset=preset, out=run, from_scratch=scratch,
                     seed=seed, split_seed=0, labelled=labels,
                     keep_best=False, validate_every=5)  # the last epoch: validation labels choose nothing
            errors[name].append(test_error(run))
        words = LabelledHeldOut(labelled=labels).apart(data.splits, 0, seed)
        known = {s: docs.through(lm.vocab.table(data.lexicon)) for s, docs in words.items()}
        errors["LM features + logistic regression"] += features(lm, known["train"], [known["test"]])
        errors["bag of words + logistic regression"] += bag_of_words(words["train"], [words["test"]])

    heading(f"test error, {labels} labelled texts, {len(words['test']):,} texts for testing")
    rows = [dict(method=name, test_error=f"{mean(e):.2f}", stdev=f"{stdev(e) if len(e) > 1 else 0:.2f}", seeds=len(e))
            for name, e in errors.items()]
    write_text(out / "table.csv", csv_text(rows))
    lines = (f"  {r['method']:36}  {r['test_error']:>6} ± {r['stdev']}" for r in rows)
    print(f"\n  {'':36}  test error (%)\n" + "\n".join(lines))
    print(f"\nin {time.monotonic() - began:.0f} seconds; "
          "next, your own: make classify DATASET=texts.csv   (README, Your own data)")
