"""How good a model is on a split: perplexity of a language model, error of a classifier or of several together.

    python -m ulmfit.evaluate runs/wt103 --corpus wikitext-103 --split test
    python -m ulmfit.evaluate runs/imdb --dataset imdb
    python -m ulmfit.evaluate runs/imdb runs/imdb-bwd --dataset imdb     (mean of a forward and a backward classifier)

Without `--corpus`/`--dataset` it is the run's own, read as the run did. Of a table of one's own that the run has not
seen `--split train` is all of it. The figures are printed as JSON.
"""
import json, math
from pathlib import Path
from typing import Annotated

import numpy as np
from fastcore.script import CliError, call_parse

from .corpus.prepare import prepared
from .corpus.store import Corpus, Documents, HeldOut, LabelledHeldOut, sample_labelled
from .corpus.stream import LanguageModelStream, Windows
from .model import bundle
from .model.bundle import CLASSIFIER, LANGUAGE_MODEL, Bundle
from .model.classifier import log_loss, percent_wrong, predictions as predicted
from .model.device import device_and_dtype
from .model.inference import probabilities
from .model.language_model import mean_loss
from .text.tokenizer import Tokenizer
from .training.files import write_text
from .training.records import as_read, csv_text, read_record
from .training.settings import check


def read_split(data: Corpus, of: Bundle, split: str, record: dict, tested: int = 0) -> Documents:
    """A split in the bundle's numbering; one that was held out for the run is found again by the run's seed.

    For a classifier `tested` documents of it, if not 0: those that a run which tests on so many takes.
    """
    splits, settings = data.words(of.vocab), record.get("settings", {})
    seed = record.get("split_seed", record.get("seed", 0))
    if data.fingerprint == record.get("data") and (split == "train" or split not in splits):
        kind = LabelledHeldOut if "test_fraction" in settings else HeldOut
        fractions = {k: settings[k] for k in ("valid_fraction", "test_fraction") if k in settings}
        splits = kind(**fractions).apart(splits, seed)
    if split not in splits:
        raise CliError(f"{data.name} has no split {split}; it has: {', '.join(splits)} (--split)")
    docs = splits[split]
    if of.kind == CLASSIFIER:
        if docs.labels is None: raise CliError(f"{data.name}: the split {split} has no labels")
        if other := set(data.classes) - set(of.classes):
            raise CliError(f"{data.name} has classes that the model does not know: {', '.join(sorted(other))}")
        if tested: docs = docs.select(sample_labelled(docs, tested, seed))
        docs.labels = np.array([of.classes.index(c) for c in data.classes])[docs.labels]  # by name
    return docs


def language_model_figures(of: Bundle, docs: Documents, batch: int, dtype) -> dict:
    """Loss and perplexity, and the share of tokens that the vocabulary lacks.

    Perplexities of different vocabularies do not compare.
    """
    stream = LanguageModelStream(docs, batch, Windows(), backwards=of.backwards,
                                 device=of.model.encoder.embedding.device)
    loss, tokens = mean_loss(of.model, stream.batches(), dtype)
    unknown = docs.counts(len(of.vocab))[of.vocab.unk] / stream.tokens
    return dict(loss=loss, perplexity=math.exp(loss), tokens=tokens, unknown_percent=100 * float(unknown))


def classifier_figures(p: np.ndarray, targets: np.ndarray, classes: list[str]) -> dict:
    "Error and loss, errors of each class, and the confusion matrix (rows: true)."
    confusion = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(confusion, (targets, p.argmax(axis=1)), 1)
    of_class = {c: round(100 * float(1 - confusion[i, i] / n), 3) if (n := confusion[i].sum()) else None
                for i, c in enumerate(classes)}
    return dict(error=percent_wrong(p, targets), loss=log_loss(p, targets), documents=len(targets),
                error_of_class=of_class, confusion=confusion.tolist())


@call_parse
def main(
    runs: Annotated[str, "run or bundle; of several classifiers, the mean of their probabilities", dict(nargs="+")],
    corpus: str = None,  # language model: name, path or prepared corpus (default: the run's)
    dataset: str = None,  # classifier: likewise
    split: str = "test",  # train | valid | test | unsup
    tested: int = 0,  # classifier: so many documents only, of each class in its proportion (0: all)
    predictions: Path = None,  # classifier: CSV to write, true and predicted class of each document
    batch: int = 64,  # columns of the language model's stream
    text_column: str = None,  # of one's own table; several: title+body (default: the run's, else text)
    label_column: str = None,  # of one's own table (the run's, else label)
    encoding: str = None,  # of one's own files (the run's, else utf-8)
    device: str = "auto",  # cpu, cuda, cuda:1 …
    precision: str = "fp32",  # fp32 | bf16 | auto
):
    "Evaluate a model, or an ensemble of classifiers."
    check("batch", batch)
    where, dtype = device_and_dtype(device, precision)
    paths = [Path(r) for r in ([runs] if isinstance(runs, (str, Path)) else runs)]
    bundles = [bundle.load(p, CLASSIFIER if len(paths) > 1 else None).to(where) for p in paths]
    records = [read_record(p) or {} for p in paths]
    record = records[0]
    name = dataset or corpus or record.get("corpus")
    if not name: raise CliError("which data? give --corpus or --dataset")
    if bundles[0].kind == LANGUAGE_MODEL and (predictions or tested):
        raise CliError(f"{paths[0]} is a language model: --predictions and --tested are for classifiers")
    kind = "classification" if bundles[0].kind == CLASSIFIER else None
    if kind is None and (corpus or not dataset and record.get("stage") == "pretrain"): kind = "lm"

    own = as_read(record, text_column=text_column, label_column=label_column, encoding=encoding)
    data = [prepared(name, kind, Tokenizer.from_dict(b.tokenizer), **own, of_model=True) for b in bundles]
    docs = [read_split(d, b, split, r, tested) for d, b, r in zip(data, bundles, records)]
    if not all(np.array_equal(d.rows, docs[0].rows) for d in docs):
        raise CliError(f"each of these runs has held out other documents as the {split} split, and learnt from the "
                       "others'; train them with one --split-seed")
    if bundles[0].kind == LANGUAGE_MODEL: figures = language_model_figures(bundles[0], docs[0], batch, dtype)
    else:
        p = probabilities(bundles, docs, dtype)
        figures = classifier_figures(p, docs[0].targets, bundles[0].classes)
        if predictions: write_text(predictions, csv_text(predicted(p, docs[0].targets, bundles[0].classes)))
    print(json.dumps(dict(runs=[str(p) for p in paths], data=name, split=split) | figures))
