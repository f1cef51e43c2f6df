"""What transfer is measured against: linear classifiers on a bag of words and on a language model's frozen features.

    python -m experiments.baselines --dataset trec --labelled 500                         bag of words
    python -m experiments.baselines --dataset trec --labelled 500 --model runs/trec-lm    features of the language model

Documents are held out and labelled as `classify` does it, so that the figures compare. They are printed as JSON.
"""
import json

import numpy as np
from fastcore.script import call_parse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ulmfit.corpus.prepare import prepared
from ulmfit.corpus.store import Documents, LabelledHeldOut
from ulmfit.model import bundle
from ulmfit.model.bundle import Bundle
from ulmfit.model.classifier import Reading
from ulmfit.model.device import device_and_dtype
from ulmfit.model.inference import vectors
from ulmfit.text.tokenizer import Tokenizer
from ulmfit.training.settings import choose, flags


def unigrams_and_bigrams(ids: np.ndarray) -> list[str]:
    "A document's words and pairs of words."
    return [*map(str, ids), *(f"{a} {b}" for a, b in zip(ids, ids[1:]))]


def bag_of_words(train: Documents, others: list[Documents]) -> list[float]:
    "Errors (percent) of logistic regression on tf-idf of words and pairs; its strength chosen by cross-validation."
    return linear(TfidfVectorizer(analyzer=unigrams_and_bigrams, sublinear_tf=True), [*map(words, [train, *others])],
                  [d.targets for d in (train, *others)], strengths=(1, 10, 100))


def features(language_model: Bundle, train: Documents, others: list[Documents], layer: int = -1,
             reading: Reading = Reading()) -> list[float]:
    "Errors of logistic regression on a language model's document vectors: transfer without fine-tuning."
    def of(docs: Documents) -> np.ndarray:
        found = dict(vectors(language_model, docs, layer, reading, language_model.model.encoder.embedding.dtype))
        return np.stack([found[i] for i in range(len(docs))])
    return linear(StandardScaler(), [*map(of, [train, *others])], [d.targets for d in (train, *others)],
                  strengths=(0.001, 0.01, 0.1))


def words(docs: Documents) -> list[np.ndarray]: return [docs[i] for i in range(len(docs))]


def linear(kind, xs: list, ys: list, strengths) -> list[float]:
    """Errors (percent) of logistic regression on features of `kind`: learnt from the first of `xs`, on each other one.

    Its inverse penalty is the best of `strengths` by 4-fold cross-validation on the training documents.
    """
    (x, *others), (y, *truths) = xs, ys
    folds = np.arange(len(y)) % 4

    def score(c: float) -> float:
        wrong = 0
        for f in range(4):
            inside, outside = np.flatnonzero(folds != f), np.flatnonzero(folds == f)
            model = fitted(kind, [x[i] for i in inside], y[inside], c)
            wrong += (model.predict([x[i] for i in outside]) != y[outside]).sum()
        return wrong
    model = fitted(kind, list(x), y, min(strengths, key=score))
    return [100 * float((model.predict(list(z)) != truth).mean()) for z, truth in zip(others, truths)]


def fitted(kind, x, y, c: float): return make_pipeline(kind, LogisticRegression(C=c, max_iter=1000)).fit(x, y)


@call_parse
@flags(LabelledHeldOut, Reading)
def main(
    dataset: str = "pydocs",  # name or path, as `classify` has it
    model: str = None,  # language model whose features are taken (default: a bag of words)
    seed: int = 0,  # of the documents labelled
    split_seed: int = 0,  # of the documents held out
    **given,
):
    "Fit a linear classifier."
    where, _ = device_and_dtype("cpu", "fp32")
    lm = bundle.load(model, bundle.LANGUAGE_MODEL).to(where) if model else None
    data = prepared(dataset, "classification", Tokenizer.from_dict(lm.tokenizer) if lm else Tokenizer())
    splits = data.words(lm.vocab) if lm else data.splits
    held_out, reading = choose([LabelledHeldOut, Reading], {}, given)
    splits = held_out.apart(splits, split_seed, seed)
    others = [splits["valid"], splits["test"]]
    valid, test = (features(lm, splits["train"], others, reading=reading) if lm else
                   bag_of_words(splits["train"], others))
    print(json.dumps(dict(valid_error=valid, test_error=test, labelled=len(splits["train"]),
                          valid_documents=len(others[0]), test_documents=len(others[1]), data=data.fingerprint)))
