"""The demonstration: what transfer is worth on a few labels, in minutes, offline.

    make demo

Pretrains on the docstrings of the installed libraries for a minute, fine-tunes that model and the English one in the
box on the texts of some of the libraries, and tells from a sentence or two which library they document. Each seed draws
other labelled documents. Figures go to runs/demo/table.csv.
"""
import json, shutil, time
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
from ulmfit.training.records import csv_text

from .baselines import bag_of_words, features

BOX = "en-small"


def test_error(run: Path) -> float: return json.loads((run / "run.json").read_text())["result"]["test_error"]


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
    if fresh: shutil.rmtree(out, ignore_errors=True)
    def heading(title: str): print(f"\n[{time.monotonic() - began:.0f} s] {title}", flush=True)

    heading("1  pretrain a language model on general text")
    pretrain(corpus=corpus, preset=preset, out=out / "pretrain")
    heading("2  fine-tune it on the target's text; then the English model in the box, which has read Wikipedia")
    bases = dict(pydocs=str(out / "pretrain"), box=BOX)
    for name, base in bases.items():
        finetune_lm(dataset=dataset, model=base, preset=preset, out=out / f"finetune_lm-{name}")
    heading(f"3  fine-tune classifiers, with transfer and from scratch, {seeds} seeds each")
    arms = {f"ULMFiT from {BOX}": ("box", False), "ULMFiT from the model of step 1": ("pydocs", False),
            "from scratch": ("box", True)}
    features_of, words = f"{BOX}'s features + logistic regression", "bag of words + logistic regression"
    errors = {name: [] for name in (*arms, features_of, words)}
    lm = bundle.load(out / "finetune_lm-box")
    data = prepared(dataset, "classification", Tokenizer.from_dict(lm.tokenizer))
    for seed in range(seeds):
        for name, (base, scratch) in arms.items():
            run = out / f"{'scratch' if scratch else 'transfer'}-{base}-{seed}"
            classify(dataset=dataset, model=str(out / f"finetune_lm-{base}"), preset=preset, out=run, seed=seed,
                     from_scratch=scratch, split_seed=0, labelled=labels,
                     keep_best=False)  # the last epoch: validation labels choose nothing
            errors[name].append(test_error(run))
        splits = LabelledHeldOut(labelled=labels).apart(data.splits, 0, seed)
        known = {s: docs.through(lm.vocab.table(data.lexicon)) for s, docs in splits.items()}
        errors[features_of] += features(lm, known["train"], [known["test"]])
        errors[words] += bag_of_words(splits["train"], [splits["test"]])

    heading(f"test error, {labels} labelled texts, {len(splits['test']):,} texts for testing")
    rows = [dict(method=name, test_error=f"{mean(e):.2f}", stdev=f"{stdev(e) if len(e) > 1 else 0:.2f}", seeds=len(e))
            for name, e in errors.items()]
    write_text(out / "table.csv", csv_text(rows))
    lines = (f"  {r['method']:36}  {r['test_error']:>6} ± {r['stdev']}" for r in rows)
    print(f"\n  {'':36}  test error (%)\n" + "\n".join(lines))
    print(f"\nin {time.monotonic() - began:.0f} seconds; "
          "next, your own: make classify DATASET=texts.csv   (README, Your own data)")
