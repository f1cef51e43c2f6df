"""Real corpora on two CPU cores, preset `small`: WikiText-2, then TREC-6 and IMDb, with transfer and from scratch.

    python -m experiments.small                    everything (needs ULMFIT_DATA, or the files in data/downloads)
    python -m experiments.small --only trec

TREC-6: all of it, three seeds. IMDb: 2,000 labelled training documents, the language model fine-tuned on a share of the
training texts, all 25,000 test documents. Runs are kept in runs/small, so a broken-off experiment continues; figures,
with wall time and peak memory, go to experiments/results/small.csv.
"""
import json
from pathlib import Path

from fastcore.script import call_parse

from ulmfit.classify import main as classify
from ulmfit.corpus.prepare import prepared
from ulmfit.corpus.store import sample_labelled, with_held_out
from ulmfit.finetune_lm import main as finetune_lm
from ulmfit.model import bundle
from ulmfit.pretrain import main as pretrain
from ulmfit.text.tokenizer import Tokenizer
from ulmfit.training.files import write_text
from ulmfit.training.records import csv_text

from .baselines import bag_of_words_error, features_error

RESULT = Path(__file__).parent / "results" / "small.csv"
DATASETS = dict(trec=dict(finetune=dict(epochs=8, batch=8), classify={}, seeds=(0, 1, 2)),
                imdb=dict(finetune=dict(epochs=1, max_steps=900),
                          classify=dict(labelled=2000, max_length=350, epochs=6, valid_fraction=0.04), seeds=(0,)))


def figures(run: Path, dataset: str, method: str) -> dict:
    "A row of the table from what the run recorded."
    record = json.loads((run / "run.json").read_text())
    result = record["result"]
    kept = ("valid_perplexity", "valid_error", "test_error", "labelled", "train_tokens", "tokens_per_second",
            "documents_per_second")
    numbers = {k: round(result[k], 3) for k in kept if k in result}
    return dict(dataset=dataset, method=method, seed=record["seed"]) | numbers | dict(
        seconds=round(record["seconds"]), peak_memory_mib=result["peak_memory_bytes"] >> 20, dtype=record["dtype"],
        commit=(record["commit"] or "")[:12])


@call_parse
def main(
    out: Path = Path("runs/small"),  # folder of the runs
    only: str = "trec,imdb",  # which datasets
    precision: str = "bf16",  # of training: fp32 on a processor without bf16
):
    "Pretrain on WikiText-2, then fine-tune and classify."
    pretrain(corpus="wikitext-2", preset="small", out=out / "pretrain", precision=precision)
    rows = [figures(out / "pretrain", "wikitext-2", "pretrain")]
    for name in only.split(","):
        about = DATASETS[name]
        finetune_lm(dataset=name, model=out / "pretrain", preset="small", out=out / f"{name}-lm",
                    precision=precision, **about["finetune"])
        rows.append(figures(out / f"{name}-lm", name, "finetune_lm"))
        lm = bundle.load(out / f"{name}-lm")
        data = prepared(name, "classification", Tokenizer.from_dict(lm.tokenizer))
        for seed in about["seeds"]:
            for method, scratch in (("ULMFiT", False), ("from scratch", True)):
                run = out / f"{name}-{'scratch' if scratch else 'transfer'}-{seed}"
                classify(dataset=name, model=str(out / f"{name}-lm"), preset="small", out=run, seed=seed,
                         split_seed=0, from_scratch=scratch, precision=precision, **about["classify"])
                rows.append(figures(run, name, method))
            fraction = json.loads((run / "run.json").read_text())["settings"]["valid_fraction"]
            all_words = with_held_out(data.splits, "valid", fraction, 0)
            train = all_words["train"]
            labelled = about["classify"].get("labelled")
            if labelled: train = train.select(sample_labelled(train, labelled, seed))
            known, test = (d.through(lm.vocab.table(data.lexicon)) for d in (train, all_words["test"]))
            rows.append(dict(dataset=name, method="bag of words + logistic regression", seed=seed,
                             test_error=round(bag_of_words_error(train, all_words["test"]), 3)))
            rows.append(dict(dataset=name, method="LM features + logistic regression", seed=seed,
                             test_error=round(features_error(lm, known, test), 3)))
    write_text(RESULT, csv_text(rows))
    print(csv_text(rows))
