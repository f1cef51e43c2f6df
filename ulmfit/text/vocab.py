"""The vocabulary: which tokens have an id, and what happens when it changes between stages."""
import hashlib, json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from .rules import BOS, PAD, SPECIALS, UNK


@dataclass(frozen=True)
class VocabSettings:
    "Which tokens get an id."
    max_vocab: int = 60_000  # tokens at most, the special ones included
    min_freq: int = 3  # a token that is rarer is xxunk


@dataclass(frozen=True)
class TargetVocab(VocabSettings):
    "Likewise of the target's text, for a model that has a vocabulary already."
    keep_words: bool = False  # the model's words that are not in it follow, in the model's order, while there is room


class Vocab:
    "An ordered list of tokens; the special tokens come first, xxunk is 0 and xxpad is 1."
    def __init__(self, tokens: Sequence[str]):
        self.tokens = list(tokens)
        if tuple(self.tokens[:len(SPECIALS)]) != SPECIALS:
            raise ValueError("a vocabulary starts with the special tokens")
        self.index = {t: i for i, t in enumerate(self.tokens)}
        if len(self.index) != len(self.tokens): raise ValueError("a token stands twice in the vocabulary")
        self.unk, self.pad, self.bos = self.index[UNK], self.index[PAD], self.index[BOS]

    @classmethod
    def from_counts(cls, tokens: Sequence[str], counts: Sequence[int], max_size: int = 60_000,
                    min_freq: int = 3) -> "Vocab":
        """The `max_size` most frequent tokens (special ones included) that occur at least `min_freq` times.

        Ties go by the token itself, so the same counts give the same vocabulary in any order.
        """
        special = set(SPECIALS)
        kept = sorted((-int(c), t) for t, c in zip(tokens, counts) if c >= min_freq and t not in special)
        return cls([*SPECIALS, *(t for _, t in kept[:max(0, max_size - len(SPECIALS))])])

    def filled_up(self, other: "Vocab", max_size: int) -> "Vocab":
        "With tokens of `other` that are missing here, in their order, up to `max_size` in all."
        return Vocab([*self.tokens, *(t for t in other.tokens if t not in self.index)][:max(len(self), max_size)])

    def __len__(self) -> int: return len(self.tokens)
    def __eq__(self, other) -> bool: return isinstance(other, Vocab) and self.tokens == other.tokens

    def ids(self, tokens: Iterable[str]) -> list[int]:
        "The id of each token; xxunk's for one that the vocabulary lacks."
        return [self.index.get(t, self.unk) for t in tokens]

    def table(self, tokens: Sequence[str]) -> np.ndarray:
        "An array that turns ids of the list `tokens` into ids of this vocabulary."
        return np.fromiter((self.index.get(t, self.unk) for t in tokens), dtype=np.int64, count=len(tokens))

    @cached_property
    def fingerprint(self) -> str:
        "sha256 of the ordered tokens."
        return hashlib.sha256(json.dumps(self.tokens).encode()).hexdigest()

    def save(self, path: Path): Path(path).write_text(json.dumps(self.tokens, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Vocab": return cls(json.loads(Path(path).read_text(encoding="utf-8")))


def sources(new: Vocab, old: Vocab) -> np.ndarray:
    "For each token of `new` its row in `old`, or -1: the plan by which weights follow a change of vocabulary."
    return np.fromiter((old.index.get(t, -1) for t in new.tokens), dtype=np.int64, count=len(new))


def coverage(new: Vocab, old: Vocab, counts: np.ndarray) -> str:
    "One line on how much of `new` was in `old`: types, running tokens (by `counts` per id of `new`), what is missing."
    missing = sources(new, old) < 0
    known = 100 * (1 - counts[missing].sum() / max(1, counts.sum()))
    top = sorted(np.flatnonzero(missing), key=lambda i: -counts[i])[:8]
    lack = f"; most frequent new ones: {' '.join(repr(new.tokens[i])[1:-1] for i in top)}" if top else ""
    return f"vocabulary: {(~missing).sum():,} of {len(new):,} tokens were known, {known:.1f}% of the running text{lack}"
