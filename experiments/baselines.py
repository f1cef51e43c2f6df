"""What transfer is measured against: linear classifiers on a bag of words and on a language model's frozen features."""
import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ulmfit.corpus.store import Documents
from ulmfit.model.bundle import Bundle
from ulmfit.model.classifier import Reading
from ulmfit.model.inference import vectors


def unigrams_and_bigrams(ids: np.ndarray) -> list[str]:
    "A document's words and pairs of words."
    return [*map(str, ids), *(f"{a} {b}" for a, b in zip(ids, ids[1:]))]


def bag_of_words_error(train: Documents, test: Documents) -> float:
    "Test error (percent) of logistic regression on tf-idf of words and pairs; its strength chosen by cross-validation."
    return linear_error(TfidfVectorizer(analyzer=unigrams_and_bigrams, sublinear_tf=True),
                        [train[i] for i in range(len(train))], train.targets,
                        [test[i] for i in range(len(test))], test.targets, strengths=(1, 10, 100))


def features_error(language_model: Bundle, train: Documents, test: Documents, layer: int = -1) -> float:
    "Test error (percent) of logistic regression on a language model's document vectors: transfer without fine-tuning."
    def of(docs: Documents) -> np.ndarray:
        found = dict(vectors(language_model, docs, layer, Reading(), language_model.model.encoder.embedding.dtype))
        return np.stack([found[i] for i in range(len(docs))])
    return linear_error(StandardScaler(), of(train), train.targets, of(test), test.targets,
                        strengths=(0.001, 0.01, 0.1))


def linear_error(features, x, y, x_test, y_test, strengths) -> float:
    """Test error of logistic regression on `features`.

    Its inverse penalty is the best of `strengths` by 4-fold cross-validation on the training documents.
    """
    folds = np.arange(len(y)) % 4

    def score(c: float) -> float:
        wrong = 0
        for f in range(4):
            inside, outside = np.flatnonzero(folds != f), np.flatnonzero(folds == f)
            model = fitted(features, [x[i] for i in inside], y[inside], c)
            wrong += (model.predict([x[i] for i in outside]) != y[outside]).sum()
        return wrong
    best = min(strengths, key=score)
    return 100 * float((fitted(features, list(x), y, best).predict(list(x_test)) != y_test).mean())


def fitted(features, x, y, c: float): return make_pipeline(features, LogisticRegression(C=c, max_iter=1000)).fit(x, y)
