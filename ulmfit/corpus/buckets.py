"""Batches of whole documents, right-padded; documents of like length go together.

As with the stream, a batch is a pure function of (seed, epoch, number of the batch).
"""
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from .store import Documents


@dataclass(frozen=True)
class Batching:
    "How documents become batches for a classifier."
    batch: int = 64  # documents
    train_tokens: int = 100_000  # padded tokens learnt from in a batch, at most (but two documents): bounds the memory
    eval_tokens: int = 40_000  # padded tokens in a batch of evaluation, at most (but one document)


@dataclass
class DocumentBatch:
    """`ids` (t, b) padded at the end, `lengths` (b), `targets` (b) or None, `rows` (b): their places in the split.

    Where processes share a batch, `ids` are of the documents `here`, and the others are of all.
    """
    ids: torch.Tensor
    lengths: torch.Tensor
    targets: torch.Tensor | None
    rows: np.ndarray
    here: slice


class DocumentBatches:
    """Length-bucketed batches of at most `batch` documents and `tokens` padded tokens.

    Of a document only `longest` tokens count, the others are not kept in memory. For training (`shuffle`) pools of 50
    batches are drawn at random, sorted by length and cut; the batches come in random order. They are of equal size give
    or take one, so that none has a single document (batch norm needs two); one of too many tokens is cut again.
    `part(n)` says which of a batch's `n` documents are read: all of them, `[:n]`, if there is one process.
    """
    def __init__(self, docs: Documents, pad: int, batch: int = 64, tokens: int | None = None, shuffle: bool = False,
                 backwards: bool = False, seed: int = 0, longest: int | None = None,
                 part: Callable[[int], slice] = slice):
        self.docs, self.pad, self.batch, self.tokens, self.longest = docs, pad, batch, tokens, longest
        self.shuffle, self.backwards, self.seed, self.part = shuffle, backwards, seed, part

    def plan(self, epoch: int = 0) -> list[np.ndarray]:
        "The rows of each batch."
        lengths, n = np.minimum(self.docs.lengths, self.longest or np.inf), len(self.docs)
        if self.shuffle:
            rng = np.random.default_rng([self.seed, epoch, 3])
            pools = np.array_split(rng.permutation(n), max(1, -(-n // (50 * self.batch))))
            batches = []
            for pool in pools:
                by_length = pool[np.argsort(lengths[pool], kind="stable")]
                parts = max(1, min(-(-len(pool) // self.batch), len(pool) // 2))
                batches += [b for part in np.array_split(by_length, parts) for b in self.within_tokens(part, lengths)]
            return [batches[i] for i in rng.permutation(len(batches))]
        # longest first: what does not fit into memory fails at once
        batches, order = [], np.argsort(-lengths, kind="stable")
        while len(order):
            longest = max(1, lengths[order[0]])
            size = self.batch if self.tokens is None else int(max(1, min(self.batch, self.tokens // longest)))
            batches.append(order[:size])
            order = order[size:]
        return batches

    def within_tokens(self, rows: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
        "A batch of training as one of `tokens` at most, or several."
        if self.tokens is None or not len(rows): return [rows]
        parts = -(-len(rows) * lengths[rows].max() // self.tokens)
        return np.array_split(rows, int(max(1, min(parts, len(rows) // 2))))

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[DocumentBatch]:
        all_lengths = np.maximum(1, self.docs.lengths)
        for rows in self.plan(epoch)[start:]:
            here = self.part(len(rows))
            docs = [self._document(i) for i in rows[here]]
            lengths = torch.from_numpy(all_lengths[rows])
            ids = torch.full((int(lengths[here].max()), len(docs)), self.pad, dtype=torch.int64)
            for j, d in enumerate(docs): ids[:len(d), j] = torch.from_numpy(d)
            targets = None if self.docs.labels is None else torch.from_numpy(self.docs.targets[rows].astype(np.int64))
            yield DocumentBatch(ids, lengths, targets, rows, here)

    def _document(self, i: int) -> np.ndarray:
        ids = self.docs[i]
        # an empty document is a start marker's worth of nothing: one pad
        if not len(ids): return np.array([self.pad])
        return np.concatenate([ids[:1], ids[:0:-1]]) if self.backwards else ids
