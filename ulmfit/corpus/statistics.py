"""What one wants to see of a prepared corpus before training on it: sizes, classes, vocabulary, duplicates, documents.

Figures are plain numbers in dictionaries, by row and then by column of the table that `report` prints.
"""
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from itertools import islice
from textwrap import wrap
from unicodedata import category

import numpy as np

from ..text.rules import BOS, EOS, FLD, MAJ, UP
from ..text.vocab import Vocab
from .store import Corpus, Documents

Figures = dict[str, dict[str, int | float]]
QUANTILES = (0, 5, 25, 50, 75, 95, 100)  # of the lengths, in percent of the documents
WIDTH = 100  # columns of the printed text
MOST_CLASSES = 40  # that are printed; a corpus of more has often the wrong column as its label


def percent(part: int, whole: int) -> float: return 100 * float(part) / max(1, int(whole))


def lengths(docs: Documents, lexicon: Sequence[str]) -> dict[str, int | float]:
    "Documents, tokens, quantiles and mean of the lengths in tokens, and documents of marks and white space only."
    n = docs.lengths if len(docs) else np.zeros(1, dtype=np.int64)
    quantiles = np.quantile(n, np.array(QUANTILES) / 100).round().astype(int).tolist()
    names = ["min", *(f"{q}%" for q in QUANTILES[1:-1]), "max"]
    nothing = np.array([t in (BOS, EOS, FLD) or t.isspace() for t in lexicon], dtype=bool)
    return dict(documents=len(docs), tokens=int(n.sum()), **dict(zip(names, quantiles)), mean=float(n.mean()),
                empty=sum(bool(nothing[d].all()) for d in docs))


def class_balance(corpus: Corpus) -> Figures:
    "Documents of each class in each split that has labels, in number and percent of the split."
    counts = {s: np.bincount(d.targets, minlength=len(corpus.classes)).tolist()
              for s, d in corpus.splits.items() if d.labels is not None}
    return {c: {name: value for s, n in counts.items()
                for name, value in ((s, n[i]), (f"{s} %", percent(n[i], sum(n))))}
            for i, c in enumerate(corpus.classes)}


def vocabulary(corpus: Corpus, vocab: Vocab) -> Figures:
    "Of each split: distinct tokens, those that `vocab` keeps, those that occur once; running tokens, unknown ones."
    known = vocab.table(corpus.lexicon) != vocab.unk

    def figures(counts: np.ndarray) -> dict:
        distinct, once, unknown = (counts > 0).sum(), (counts == 1).sum(), counts[~known].sum()
        return {"distinct": int(distinct), "kept": int((known & (counts > 0)).sum()),
                "once": int(once), "once %": percent(once, distinct),
                "tokens": int(counts.sum()), "unknown": int(unknown), "unknown %": percent(unknown, counts.sum())}

    return {s: figures(d.counts(len(corpus.lexicon))) for s, d in corpus.splits.items()}


# --- duplicates ---

def loose(lexicon: Sequence[str]) -> np.ndarray:
    "A table (v) that gives tokens one number whatever their case; case marks, white space, punctuation are -1."
    def says_little(t): return t in (MAJ, UP) or all(c.isspace() or category(c)[0] == "P" for c in t)
    numbers: dict[str, int] = {}
    return np.array([-1 if says_little(t) else numbers.setdefault(t.lower(), len(numbers)) for t in lexicon],
                    dtype=np.int64)


def fingerprints(docs: Documents) -> np.ndarray:
    "64 bits (n) that stand for each document's ids; ids below 0 are left out."
    digests = (blake2b(d[d >= 0].tobytes(), digest_size=8).digest() for d in docs)
    return np.fromiter(map(int.from_bytes, digests), dtype=np.uint64, count=len(docs))


def first_equal(prints: np.ndarray, among: np.ndarray) -> np.ndarray:
    "For each of `prints` (n) the first row of `among` (m) that equals it, -1 where none does."
    distinct, first = np.unique(among, return_index=True)
    at = np.searchsorted(distinct, prints)
    return np.where(np.isin(prints, among), np.append(first, -1)[at], -1)


def duplicates(splits: Mapping[str, Documents]) -> Figures:
    """Documents that repeat an earlier one of their split, and those of the other splits that stand in train.

    `other class`: those of them whose class is not that of the first such document.
    """
    prints = {s: fingerprints(d) for s, d in splits.items()}

    def figures(split: str, of: str) -> dict:
        docs, first = splits[split], first_equal(prints[split], prints[of])
        rows = np.flatnonzero(first != np.arange(len(docs)) if split == of else first >= 0)
        found = dict(documents=len(docs), repeated=len(rows), percent=percent(len(rows), len(docs)))
        if docs.labels is None or splits[of].labels is None: return found
        return found | {"other class": int((docs.targets[rows] != splits[of].targets[first[rows]]).sum())}

    pairs = [(s, s) for s in splits] + [(s, "train") for s in splits if s != "train"]
    return {f"within {s}" if s == of else f"{s} in {of}": figures(s, of) for s, of in pairs}


# --- as text ---

def cell(value: int | float | None) -> str:
    return "" if value is None else f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"


def table(title: str, rows: Figures) -> str:
    "Figures in aligned columns, the names cut where the table would be wider than WIDTH."
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    lines = [columns, *([cell(row.get(c)) for c in columns] for row in rows.values())]
    widths = [2 + max(map(len, column)) for column in zip(*lines)]
    names = [title, *map(shown, rows)]
    room = max(1, min(max(map(len, names)), WIDTH - sum(widths)))
    return "\n".join((f"{name[:room]:{room}}" + "".join(f"{x:>{w}}" for x, w in zip(line, widths))).rstrip()
                     for name, line in zip(names, lines))


def shown(token: str, unknown: bool = False) -> str:
    "A token as it is printed: line ends and control characters written out, an unknown one between « and »."
    token = token if token.isprintable() else repr(token)[1:-1]
    return f"«{token}»" if unknown else token


def example(corpus: Corpus, row: int, unknown: np.ndarray, lines: int = 3) -> str:
    "A training document as tokens, cut to so many lines; `unknown` (v) says which of the lexicon are xxunk."
    docs = corpus.splits["train"]
    ids = docs[row]
    of_class = "" if docs.labels is None else f", {shown(corpus.classes[docs.targets[row]])[:WIDTH // 2]}"
    # a token and its blank take two columns at least
    text = " ".join(shown(corpus.lexicon[i], unknown[i]) for i in ids[:lines * WIDTH // 2 + 1])
    parts = wrap(text, WIDTH, max_lines=lines, placeholder=" …", break_on_hyphens=False,
                 initial_indent="  ", subsequent_indent="  ")
    return "\n".join([f"document {row:,}{of_class}, {cell(len(ids))} tokens", *parts])


def examples(corpus: Corpus, vocab: Vocab, n: int, seed: int = 0) -> list[str]:
    "`n` training documents, drawn by seed."
    unknown, size = vocab.table(corpus.lexicon) == vocab.unk, len(corpus.splits["train"])
    rows = np.random.default_rng(seed).choice(size, min(n, size), replace=False)
    return [example(corpus, int(row), unknown) for row in rows]


def report(corpus: Corpus, vocab: Vocab, documents: int = 3, seed: int = 0) -> str:
    "All of this as plain text; `vocab` is usually that of the training documents."
    numbers, balance = loose(corpus.lexicon), class_balance(corpus)
    more = len(balance) - MOST_CLASSES
    parts = [
        table("lengths", {s: lengths(d, corpus.lexicon) for s, d in corpus.splits.items()}),
        balance and table("classes", dict(islice(balance.items(), MOST_CLASSES))),
        more > 0 and f"… and {more:,} more classes",
        table("vocabulary", vocabulary(corpus, vocab))
        + f"\nkept, unknown: by a vocabulary of {len(vocab):,} tokens; once: occur once in the split",
        table("identical documents", duplicates(corpus.splits)),
        table("alike but for case, white space, punctuation",
              duplicates({s: d.through(numbers) for s, d in corpus.splits.items()})),
        documents and "documents of train, unknown tokens between « and »",
        *examples(corpus, vocab, documents, seed)]
    return "\n\n".join(filter(None, parts))
