"""Trained models at work on texts: class probabilities of one classifier or of several, document and token vectors."""
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from fastcore.script import CliError

from ..corpus.buckets import DocumentBatches
from ..corpus.store import Documents, of_texts
from ..kernels.pooling import joined
from ..text.tokenizer import Tokenizer
from .bundle import Bundle
from .classifier import Reading, class_probabilities, read

BATCH, TOKENS = 256, 80_000  # documents, padded tokens: many rows pay for one pass over the recurrent weights


def documents(bundle: Bundle, texts: Sequence[str]) -> Documents:
    "Texts as the bundle's tokenizer and vocabulary have them; an empty text is the empty document."
    return of_texts(texts, Tokenizer.from_dict(bundle.tokenizer), bundle.vocab)


def in_batches(bundle: Bundle, docs: Documents) -> DocumentBatches:
    return DocumentBatches(docs, bundle.vocab.pad, BATCH, TOKENS, backwards=bundle.backwards)


def probabilities(bundles: Sequence[Bundle], docs: Sequence[Documents], dtype: torch.dtype) -> np.ndarray:
    """Class probabilities (documents, classes); of several classifiers, forwards and backwards ones say, their mean.

    `docs` has the same documents once for each bundle, in its numbering.
    """
    for other in bundles[1:]:
        if other.classes != bundles[0].classes:
            raise CliError("these classifiers do not tell the same classes apart: "
                           f"{', '.join(bundles[0].classes)} and {', '.join(other.classes)}")
    return np.mean([class_probabilities(b.model, in_batches(b, d).batches(), len(d), dtype)
                    for b, d in zip(bundles, docs)], axis=0)


@torch.no_grad()
def vectors(bundle: Bundle, docs: Documents, layer: int, reading: Reading, dtype: torch.dtype,
            tokens: bool = False) -> Iterator[tuple[int, np.ndarray]]:
    """(row, vector) of each document, longest first.

    The vector is the concat pooling (3h) of a layer's outputs; with `tokens` it is all the outputs (t, h). A backwards
    model's token vectors are given in the text's own order, its start marker first.
    """
    encoder = bundle.model.encoder
    device = encoder.embedding.device
    if not -len(encoder.layers) <= layer < len(encoder.layers):
        raise CliError(f"--layer {layer}: the model has {len(encoder.layers)} layers, 0 … or -1 …")
    for batch in in_batches(bundle, docs).batches():
        outputs, kept = read(encoder, batch.ids.to(device), batch.lengths.to(device), reading, dtype=dtype, layer=layer)
        whole = joined(outputs, len(kept), encoder.embedding.dtype) if tokens else None
        found = ([whole[:n, j].cpu().numpy() for j, n in enumerate(kept)] if tokens
                 else encoder.kernels.pool(outputs, kept, encoder.embedding.dtype).vectors.cpu().numpy())
        if tokens and bundle.backwards:  # of a document that was not read whole the start marker is missing
            found = [v[::-1] if len(v) < n else
                     np.concatenate([v[:1], v[:0:-1]]) for v, n in zip(found, batch.lengths)]
        yield from zip(batch.rows.tolist(), found)
