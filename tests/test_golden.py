"""Golden runs: 100 steps of each stage give the losses that were recorded, so no change of them goes unseen.

    python tests/test_golden.py        records them anew in tests/golden/losses.json, where a change is meant

A stage starts from the model of the one before. Text is drawn by seed and its words are taken as they are: nothing
depends on spaCy or on what is installed.
"""
import json
import random
import tempfile
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from commands import write
from ulmfit import classify, finetune_lm, pretrain
from ulmfit.corpus.prepare import prepare
from ulmfit.corpus.source import Source
from ulmfit.text.tokenizer import Tokenizer
from ulmfit.training import loop

GOLDEN = Path(__file__).parent / "golden"
RECORDED = GOLDEN / "losses.json"
STAGES = dict(pretrain=pretrain, finetune_lm=finetune_lm, classify=classify)


def texts(n: int, seed: int, topics: int) -> list[tuple[str, str]]:
    "Documents of some topics: frequent words, and rarer ones of the topic that often come in the same order."
    rng = random.Random(seed)

    def words(topic: int):
        word = 0
        for _ in range(rng.randint(8, 30)):
            word = (word + 1) % 8 if rng.random() < 0.5 else int(8 * rng.random() ** 2)
            yield f"w{word}" if rng.random() < 0.6 else f"t{topic}.{word}"
    return [(" ".join(words(i % topics)), f"topic {i % topics}") for i in range(n)]


def corpora(root: Path) -> dict[str, Path]:
    "What the stages read: general text, and text of a task, with words that the first does not have."
    made = dict(general=("lm", texts(400, 0, 5)), task=("classification", texts(400, 1, 6)))
    for name, (kind, documents) in made.items():
        prepare(Source(name, kind, lambda: (("train", d) for d in documents)), Tokenizer("words"), root / name, 1)
    return {name: root / name for name in made}


def run(stage: str, root: Path, out: Path, **more) -> dict:
    "The stage's losses, each a mean of ten steps, and its final loss on validation."
    values, step = [], loop.step

    def noted(*args):
        values.append(step(*args))
        return values[-1]
    data = dict(pretrain=dict(corpus=str(root / "general")),
                finetune_lm=dict(dataset=str(root / "task"), model=root / "pretrain"),
                classify=dict(dataset=str(root / "task"), model=str(root / "finetune_lm")))
    with patch.object(loop, "step", noted):
        STAGES[stage].main(**data[stage] | dict(preset=str(GOLDEN / "settings.toml"), out=out, device="cpu") | more)
    means = [sum(values[i:i + 10]) / 10 for i in range(0, len(values), 10)]
    return dict(losses=means, valid_loss=json.loads((out / "run.json").read_text())["result"]["valid_loss"])


def record(root: Path) -> dict:
    "All golden runs, one after the other."
    corpora(root)
    return {stage: run(stage, root, root / stage) for stage in STAGES}


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder: found = record(Path(folder))
    write(RECORDED, json.dumps(found, indent=1) + "\n")
