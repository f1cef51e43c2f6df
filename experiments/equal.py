"""Is our language model the one that others train? Against fastai 2.8.12, in its own environment (`make bench-peers`).

    python -m experiments.equal logits      the same weights give the same logits in evaluation
    python -m experiments.equal steps       the same start and no dropout: the same loss after 40 steps of training
    python -m experiments.equal train       WikiText-2, equal settings, three seeds each: validation perplexities
    python -m experiments.equal             all three; figures in experiments/results/equal.json

Words as WikiText has them, the 10,000 most frequent (it takes minutes, not hours). Architecture, batch, windows,
dropouts, AR and TAR, optimizer, schedule and number of steps are the same; the seeds' draws cannot be. Needs WikiText-2
(ULMFIT_DATA, or data/downloads).
"""
import json, shutil, subprocess
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch
from fastcore.script import call_parse

from ulmfit.corpus.prepare import prepared
from ulmfit.corpus.store import Documents
from ulmfit.corpus.stream import LanguageModelStream, Windows
from ulmfit.model.encoder import Architecture, Dropouts, Encoder
from ulmfit.model.language_model import LanguageModel, Regularization
from ulmfit.model.tasks import language_model_task
from ulmfit.pretrain import main as pretrain
from ulmfit.text.tokenizer import TextSettings, Tokenizer
from ulmfit.training.freezing import Unfreezing
from ulmfit.training.loop import Training, fit
from ulmfit.training.optimizers import Optimization
from ulmfit.training.records import Run, read_record
from ulmfit.training.schedules import Schedule

WORK, RESULT = Path("runs/equal"), Path(__file__).parent / "results" / "equal.json"
PEER = [".venv-peers/bin/python", "experiments/peer_fastai.py"]
SETTINGS = dict(vocab=10_000, emb=100, hidden=200, layers=2, batch=32, bptt=70, steps=200, lr=5e-3, beta1=0.8,
                beta2=0.99, eps=1e-8, weight_decay=0.0, clip=0.25, alpha=2.0, beta=1.0,
                dropouts=dict(output=0.1, hidden=0.15, input=0.25, embedding=0.02, weight=0.2),
                schedule="one_cycle", pct_start=0.25, div=25.0, div_final=1e5, bias=True, ar_on="dropped")
SEEDS = (0, 1, 2)


def same_logits() -> float:
    "Largest difference of logits between the two implementations: paper sizes, two windows, state carried."
    torch.manual_seed(0)
    model = LanguageModel(Encoder(5000, Architecture())).eval()
    torch.nn.init.normal_(model.decoder_bias)
    np.savez(WORK / "weights.npz", **{k: v.numpy() for k, v in model.state_dict().items()})
    ids = torch.randint(0, 5000, (40, 4))
    np.save(WORK / "ids.npy", ids.numpy())
    subprocess.run([*PEER, "logits", "--weights", WORK / "weights.npz", "--ids", WORK / "ids.npy",
                    "--out", WORK / "logits.npy"], check=True)
    with torch.no_grad(): ours, _ = model(ids)
    return float(np.abs(ours.numpy() - np.load(WORK / "logits.npy")).max())


def words() -> dict[str, np.ndarray]:
    "WikiText-2's splits as flat ids."
    data = prepared("wikitext-2", "lm", Tokenizer.named(TextSettings("words")))
    vocab = data.vocab(["train"], SETTINGS["vocab"], 1)
    return {split: docs.take(slice(None)) for split, docs in data.words(vocab).items()}


def peer_trains(settings: dict, train: np.ndarray, valid: np.ndarray, out: Path, *options) -> dict:
    "fastai's result, by the script in its own environment; kept in `out`."
    if not out.exists():
        for name, ids in (("train", train), ("valid", valid)): np.save(WORK / f"{name}.npy", ids)
        (WORK / "settings.json").write_text(json.dumps(settings))
        subprocess.run([*PEER, "train", "--train", WORK / "train.npy", "--valid", WORK / "valid.npy",
                        "--settings", WORK / "settings.json", "--out", out, *options], check=True)
    return json.loads(out.read_text())


def same_training(steps: int = 40) -> dict:
    "Validation loss after some steps from the same weights, dropout off, in both implementations."
    s = SETTINGS | dict(steps=steps, dropouts=dict.fromkeys(SETTINGS["dropouts"], 0.0))
    whole = 1 + s["batch"] * s["bptt"] * steps  # a stream that the columns share without a rest
    train, valid = (ids[:whole] for ids in (words()["train"], words()["valid"]))
    torch.manual_seed(0)
    nothing = Dropouts(0.0, 0.0, 0.0, 0.0, 0.0)
    model = LanguageModel(Encoder(s["vocab"], Architecture(s["emb"], s["hidden"], s["layers"]), nothing))
    np.savez(WORK / "start.npz", **{k: v.numpy() for k, v in model.state_dict().items()})
    peer = peer_trains(s, train, valid, WORK / "steps.json", "--seed", "0", "--init", WORK / "start.npz")

    def stream(ids): return LanguageModelStream(Documents(ids, np.array([0, len(ids)])), s["batch"], Windows(s["bptt"]))
    penalties = Regularization(s["alpha"], s["beta"])
    task = language_model_task(model, stream(train), stream(valid), penalties, torch.float32)
    optimization = Optimization("adamw", s["lr"], s["beta1"], s["beta2"], s["eps"], s["weight_decay"], clip=s["clip"])
    shutil.rmtree(WORK / "steps", ignore_errors=True)
    run = Run(WORK / "steps", "pretrain", [], 0, torch.device("cpu"))
    schedule = Schedule("one_cycle", pct_start=s["pct_start"], div=s["div"], div_final=s["div_final"])
    figures = fit(task, optimization, schedule, Unfreezing(), Training(), run, torch.Generator())
    return dict(steps=steps, ulmfit=figures["valid_loss"], fastai=peer["valid_loss"])


def ours(seed: int) -> dict:
    "A run of this project."
    s, d, out = SETTINGS, SETTINGS["dropouts"], WORK / f"ours-{seed}"
    same = ("emb", "hidden", "layers", "batch", "bptt", "lr", "beta1", "beta2", "eps", "weight_decay", "clip",
            "alpha", "beta", "ar_on", "schedule", "pct_start", "div", "div_final")
    pretrain(corpus="wikitext-2", preset=str(Path(__file__).parent / "presets" / "awd.toml"), out=out, seed=seed,
             precision="fp32", shuffle=False, draw="fixed", scale_rate=False, optimizer="adam", decay_vectors=True,
             max_vocab=s["vocab"], max_steps=s["steps"], epochs=1 + s["steps"] // 400,
             output_p=d["output"], hidden_p=d["hidden"], input_p=d["input"], embed_p=d["embedding"],
             weight_p=d["weight"], keep_best=False, decoder_bias=s["bias"], schedule_over="run",
             **{k: s[k] for k in same})
    record = read_record(out)
    return dict(contender="ulmfit", seed=seed, versions=record["versions"], commit=record["commit"],
                seconds=record["seconds"]) | record["result"]


def theirs(seed: int) -> dict:
    "A run of fastai on the same words."
    splits = words()
    return peer_trains(SETTINGS, splits["train"], splits["valid"], WORK / f"fastai-{seed}.json", "--seed", str(seed))


@call_parse(pos=["what"])
def main(
    what: str = "all",  # logits | steps | train | all
):
    "Compare with fastai."
    WORK.mkdir(parents=True, exist_ok=True)
    report = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    if what in ("logits", "all"): report["largest_difference_of_logits"] = same_logits()
    if what in ("steps", "all"): report["valid_loss_from_the_same_start"] = same_training()
    if what in ("train", "all"):
        runs = [run(seed) for seed in SEEDS for run in (theirs, ours)]
        for r in runs: r.pop("train_losses", None)
        found = {c: [r["valid_perplexity"] for r in runs if r["contender"] == c] for c in ("fastai", "ulmfit")}
        perplexity = {c: dict(mean=mean(v), stdev=stdev(v), seeds=v) for c, v in found.items()}
        report |= dict(settings=SETTINGS, valid_perplexity=perplexity, runs=runs)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({k: v for k, v in report.items() if k != "runs"}, indent=1))
