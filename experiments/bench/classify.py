"""Classifier fine-tuning, an epoch over IMDb reviews with every layer learning; and predicting the classes of reviews.

    python -m experiments.bench classify --documents 256 --peer fastai
    python -m experiments.bench predict  --documents 512 --peer fastai

All contenders have the same network (the paper's sizes, random weights), the same vocabulary, batch, windows, longest
document, dropouts, AR and TAR, Adam and clipping. `ulmfit` computes in bf16 where the processor has it, `fp32` in
float32; `fastai` 2.8.12 has its own model, padding, order of documents and loop. To classify they begin with ids, to
predict with texts, which they tokenise as their users would.
"""
import json, os, sys, time
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

from .rounds import Contender, answer, beside_last, python_of, race, rates

SIZES = dict(vocab=30_000, emb=400, hidden=1150, layers=3, batch=64, bptt=72, max_length=1440)
DROPOUTS = dict(output_p=0.4, hidden_p=0.3, input_p=0.4, embed_p=0.05, weight_p=0.5)
OURS = dict(ulmfit="auto", fp32="fp32")


def reviews(documents: int) -> dict:
    "IMDb reviews drawn by chance, but always the same: texts, classes, vocabulary, ids."
    from ulmfit.corpus.registry import open_source
    from ulmfit.text.tokenizer import Tokenizer
    from ulmfit.text.vocab import Vocab
    found = [document for split, document in open_source("imdb").read() if split == "train"]
    texts, labels = zip(*(found[i] for i in np.random.default_rng(0).permutation(len(found))[:documents]))
    tokens = [*map(Tokenizer(), texts)]
    counts = Counter(t for doc in tokens for t in doc)
    vocab = Vocab.from_counts([*counts], [*counts.values()], SIZES["vocab"], 1)
    return dict(texts=texts, labels=[int(label == "pos") for label in labels], vocab=vocab.tokens,
                ids=[vocab.ids(t) for t in tokens])


def ours(work: dict, what: str, precision: str):
    "A function that does a round with this project, and the type that it computes in."
    import torch
    from ulmfit.corpus.buckets import DocumentBatches
    from ulmfit.corpus.store import Documents
    from ulmfit.model.bundle import Bundle
    from ulmfit.model.classifier import Classifier, HeadSettings, Reading
    from ulmfit.model.device import device_and_dtype
    from ulmfit.model.encoder import Architecture, ClassifierDropouts, Encoder
    from ulmfit.model.inference import documents, probabilities
    from ulmfit.model.language_model import Regularization
    from ulmfit.model.tasks import classifier_task
    from ulmfit.text.tokenizer import Tokenizer
    from ulmfit.text.vocab import Vocab
    from ulmfit.training.optimizers import Optimization, build
    from ulmfit.training.step import step
    torch.manual_seed(0)
    device, dtype = device_and_dtype("cpu", precision)
    vocab, sizes = Vocab(work["vocab"]), {k: SIZES[k] for k in ("emb", "hidden", "layers")}
    dropouts = ClassifierDropouts(**DROPOUTS | dict(output_p=0.0))  # the head's own stands there
    model = Classifier(Encoder(len(vocab), Architecture(**sizes), dropouts), 2, HeadSettings(),
                       Reading(SIZES["bptt"], SIZES["max_length"]))
    if what == "predict":
        bundle = Bundle(model.eval(), vocab, Tokenizer().to_dict(), classes=["neg", "pos"])
        return lambda: probabilities([bundle], [documents(bundle, work["texts"])], dtype), str(dtype)
    docs = Documents(np.concatenate(work["ids"]), np.cumsum([0, *map(len, work["ids"])]), np.array(work["labels"]))
    train = DocumentBatches(docs, vocab.pad, SIZES["batch"], shuffle=True)
    task = classifier_task(model.train(), train, train, Regularization(), dtype)
    optimizer, rng = build(task.groups, Optimization(lr=1e-4)), torch.Generator().manual_seed(0)

    def epoch():
        for batch in train.batches(): step(task.loss(batch, None, rng), optimizer, 1.0, "benchmark")
    return epoch, str(dtype)


def fastai(work: dict, what: str):
    "The same with fastai: its classifier, its padding in sorted batches, its learner."
    import pandas as pd
    import torch
    from fastai.callback.core import Callback, CancelEpochException
    from fastai.callback.training import GradientClip
    from fastai.data.block import CategoryBlock, DataBlock
    from fastai.data.core import DataLoaders
    from fastai.data.transforms import ColReader, RandomSplitter
    from fastai.losses import CrossEntropyLossFlat
    from fastai.optimizer import Adam
    from fastai.text.data import Pad_Chunk, SortedDL, TensorText, TextBlock
    from fastai.text.learner import TextLearner
    from fastai.text.models.awdlstm import AWD_LSTM, awd_lstm_clas_config, awd_lstm_clas_split
    from fastai.text.models.core import get_text_classifier
    torch.manual_seed(0)

    class NoValidation(Callback):
        def after_train(self): raise CancelEpochException
    sizes = dict(emb_sz=SIZES["emb"], n_hid=SIZES["hidden"], n_layers=SIZES["layers"])
    config = awd_lstm_clas_config | sizes | DROPOUTS
    model = get_text_classifier(AWD_LSTM, len(work["vocab"]), 2, seq_len=SIZES["bptt"], config=config, drop_mult=1.0,
                                max_len=SIZES["max_length"])
    if what == "predict":
        table = pd.DataFrame(dict(text=work["texts"], label=work["labels"]))
        block = DataBlock((TextBlock.from_df("text", seq_len=SIZES["bptt"], vocab=work["vocab"]), CategoryBlock),
                          get_x=ColReader("text"), get_y=ColReader("label"), splitter=RandomSplitter())
        loaders = block.dataloaders(table, bs=SIZES["batch"], num_workers=0)
    else:
        items = [(TensorText(ids), torch.tensor(label)) for ids, label in zip(work["ids"], work["labels"])]
        loader = SortedDL(items, bs=SIZES["batch"], shuffle=True, sort_func=lambda item: len(item[0]), num_workers=0,
                          before_batch=[partial(Pad_Chunk(pad_idx=1, seq_len=SIZES["bptt"]))])
        loaders = DataLoaders(loader, loader)
    learner = TextLearner(loaders, model, loss_func=CrossEntropyLossFlat(), splitter=awd_lstm_clas_split,
                          opt_func=partial(Adam, mom=0.7, sqr_mom=0.99, wd=0.0), cbs=[GradientClip(1.0)])

    def epoch():
        with learner.no_bar(), learner.no_logging(): learner.fit(1, lr=1e-4, cbs=NoValidation())

    def predict():
        with learner.no_bar(): learner.get_preds(dl=learner.dls.test_dl(table, num_workers=0))
    return (predict if what == "predict" else epoch), "torch.float32"


def contend(name: str, what: str, path: Path):
    work = json.loads(path.read_text())
    run, dtype = fastai(work, what) if name == "fastai" else ours(work, what, OURS[name])

    def timed() -> dict:
        began = time.perf_counter()
        run()
        return dict(seconds=time.perf_counter() - began, documents=len(work["texts"]), dtype=dtype,
                    tokens=sum(map(len, work["ids"])))
    answer(timed)


def compare(what: str, documents: int, peer: str | None, rounds: int) -> list[dict]:
    "A row of figures for each contender."
    from ulmfit.training.files import write_text
    path = Path(f"runs/bench/reviews-{documents}.json")
    write_text(path, json.dumps(reviews(documents)))
    names, threads = [*OURS, *([peer] if peer else [])], len(os.sched_getaffinity(0))
    contenders = [Contender(n, [python_of(n), "-m", "experiments.bench.classify", n, what, str(path)], threads)
                  for n in names]
    race(contenders, rounds)
    rows = [dict(contender=c.name, dtype=c.rounds[0]["dtype"]) | SIZES
            | dict(documents=documents, tokens=c.rounds[0]["tokens"], threads=threads, rounds=rounds)
            | rates(c, "documents") | dict(peak_memory_bytes=max(r["peak_memory_bytes"] for r in c.rounds))
            for c in contenders]
    return beside_last(rows, "documents")


if __name__ == "__main__": contend(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
