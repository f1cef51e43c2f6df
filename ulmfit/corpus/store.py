"""A prepared corpus: a folder of memory-mapped ids, documents' offsets, labels and a manifest.

    manifest.json        what it is: name, tokenizer, splits, classes, fingerprints
    lexicon.json         every distinct token of the corpus, most frequent first
    train.ids.npy        the documents one after another, each id an index into the lexicon
    train.offsets.npy    where each document starts; one longer than their number
    train.labels.npy     index of each document's class, for classification

The ids are those of the corpus's own complete lexicon. A stage chooses its vocabulary (its own size and minimum
frequency, or the one of the model that it starts from) and sees the ids through a table: nothing is prepared twice.
"""
import hashlib, json, os, shutil, sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from fastcore.script import CliError

from ..text.tokenizer import Tokenizer
from ..text.vocab import Vocab

FORMAT = 1


def smallest_type(n: int) -> np.dtype:
    "The narrowest unsigned type that holds 0 … n-1."
    return np.min_scalar_type(max(0, n - 1))


class Documents:
    "Documents as ids: a view of one split, or of some of its rows, through a vocabulary's table."
    def __init__(self, ids: np.ndarray, offsets: np.ndarray, labels: np.ndarray | None = None,
                 rows: np.ndarray | None = None, table: np.ndarray | None = None):
        self.ids, self.offsets, self.labels, self.table = ids, offsets, labels, table
        self.rows = np.arange(len(offsets) - 1) if rows is None else rows

    def __len__(self) -> int: return len(self.rows)
    @property
    def starts(self) -> np.ndarray: return self.offsets[self.rows]
    @property
    def lengths(self) -> np.ndarray: return self.offsets[self.rows + 1] - self.starts
    @property
    def targets(self) -> np.ndarray: return self.labels[self.rows]

    def take(self, positions: np.ndarray) -> np.ndarray:
        "The ids that stand at `positions` of the flat array, in the vocabulary's numbering."
        raw = self.ids[positions]
        return raw.astype(np.int64) if self.table is None else self.table[raw]

    def __getitem__(self, i: int) -> np.ndarray:
        r = self.rows[i]
        return self.take(slice(self.offsets[r], self.offsets[r + 1]))

    def select(self, rows: np.ndarray) -> "Documents":
        "The documents at these rows of this view, in that order."
        return Documents(self.ids, self.offsets, self.labels, self.rows[np.asarray(rows, dtype=np.int64)], self.table)

    def through(self, table: np.ndarray) -> "Documents":
        "The same documents in another numbering."
        return Documents(self.ids, self.offsets, self.labels, self.rows, table)

    def counts(self, size: int) -> np.ndarray:
        "How often each of `size` ids occurs."
        total = np.zeros(size, dtype=np.int64)
        for block in np.array_split(np.arange(len(self)), max(1, len(self) // 10_000)):
            if len(block): total += np.bincount(np.concatenate([self[i] for i in block]), minlength=size)
        return total

    def followed_by(self, other: "Documents") -> "Documents":
        "Two views in one numbering, one after the other; labels are dropped."
        shift = len(self.ids)
        both = Documents(np.concatenate([self.ids, other.ids]),
                         np.concatenate([self.offsets, shift + other.offsets[1:]]), table=self.table)
        both.rows = np.concatenate([self.rows, len(self.offsets) - 1 + other.rows])
        return both


def of_texts(texts: Sequence[str], tokenizer: Tokenizer, vocab: Vocab) -> Documents:
    "Texts in memory as documents."
    docs = [np.asarray(vocab.ids(tokenizer(t)), dtype=np.int64) for t in texts]
    offsets = np.cumsum([0, *map(len, docs)])
    return Documents(np.concatenate(docs) if docs else np.zeros(0, dtype=np.int64), offsets)


def hold_out(docs: Documents, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    "Rows (kept, held out) of `docs`, by seed; of each class the same share where there are labels."
    rng = np.random.default_rng([seed, 0x5EED])
    groups = [np.flatnonzero(docs.targets == c) for c in np.unique(docs.targets)] if docs.labels is not None \
        else [np.arange(len(docs))]
    held = np.concatenate([rng.permutation(g)[:round(len(g) * fraction)] for g in groups])
    if not len(held) and len(docs) > 1: held = rng.permutation(len(docs))[:1]
    return np.setdiff1d(np.arange(len(docs)), held), np.sort(held)


def with_held_out(splits: dict[str, Documents], name: str, fraction: float, seed: int) -> dict[str, Documents]:
    "The splits, with `name` held out of the training documents where it is missing; that is said."
    if name in splits: return splits
    kept, held = hold_out(splits["train"], fraction, seed)
    if not len(held) or not len(kept):
        raise CliError(f"of {len(splits['train'])} training documents none can be held out "
                       f"as the {name} split; give one, or more documents")
    print(f"no {name} split: {len(held):,} of {len(kept) + len(held):,} training documents are held out (seed {seed})",
          file=sys.stderr)
    return splits | {"train": splits["train"].select(kept), name: splits["train"].select(held)}


def sample_labelled(docs: Documents, n: int, seed: int) -> np.ndarray:
    "Rows of `n` documents, each class in its proportion (at least one of each), by seed."
    rng = np.random.default_rng([seed, 0x1ABE1])
    present, sizes = np.unique(docs.targets, return_counts=True)
    if n < len(present):
        raise CliError(f"{n} labelled documents cannot show {len(present)} classes; give at least {len(present)}")
    if n > len(docs): raise CliError(f"{n} labelled documents are asked for, {len(docs)} are there")
    share = np.maximum(1, np.floor(n * sizes / sizes.sum())).astype(int)
    # what rounding left over goes to, or comes from, the largest classes
    for i in np.argsort(-sizes):
        if (left := n - share.sum()) == 0: break
        share[i] = min(sizes[i], max(1, share[i] + left))
    drawn = [rng.permutation(np.flatnonzero(docs.targets == c))[:k] for c, k in zip(present, share)]
    return np.sort(np.concatenate(drawn))


class Corpus:
    "A prepared corpus, opened."
    def __init__(self, folder: Path):
        self.folder = Path(folder)
        path = self.folder / "manifest.json"
        if not path.is_file(): raise CliError(f"{folder} is not a prepared corpus: it has no manifest.json")
        self.manifest = json.loads(path.read_text())
        if self.manifest["format"] != FORMAT:
            raise CliError(f"{folder} has format {self.manifest['format']}, this version reads {FORMAT}: "
                           "prepare it again")
        self.name, self.kind = self.manifest["name"], self.manifest["kind"]
        self.classes, self.fingerprint = self.manifest["classes"], self.manifest["fingerprint"]
        self.tokenizer = Tokenizer.from_dict(self.manifest["tokenizer"])
        self.lexicon = json.loads((self.folder / "lexicon.json").read_text())
        self.splits = {s: self._open(s) for s in self.manifest["splits"]}

    def _open(self, split: str) -> Documents:
        def read(part, mode=None): return np.load(self.folder / f"{split}.{part}.npy", mmap_mode=mode)
        labelled = (self.folder / f"{split}.labels.npy").exists()
        return Documents(read("ids", "r"), read("offsets"), read("labels") if labelled else None)

    def vocab(self, splits: Sequence[str], max_size: int, min_freq: int) -> Vocab:
        "The vocabulary of these splits' documents."
        if missing := set(splits) - set(self.splits):
            raise CliError(f"{self.name} has no split {', '.join(missing)}; it has: {', '.join(self.splits)}")
        counts = sum(self.splits[s].counts(len(self.lexicon)) for s in splits)
        return Vocab.from_counts(self.lexicon, counts, max_size, min_freq)

    def words(self, vocab: Vocab) -> dict[str, Documents]:
        "Every split in the numbering of `vocab`."
        table = vocab.table(self.lexicon)
        return {s: d.through(table) for s, d in self.splits.items()}


class CorpusWriter:
    """Writes a prepared corpus document by document; the folder appears only when it is complete.

    Ids arrive in order of first appearance; `finish` renumbers them by frequency and narrows their type.
    """
    def __init__(self, folder: Path):
        self.folder, self.part = Path(folder), Path(f"{folder}.part{os.getpid()}")
        there = self.folder.exists() and (self.folder.is_file() or any(self.folder.iterdir()))
        if there and not (self.folder / "manifest.json").is_file():
            raise CliError(f"{folder} is there already and is no prepared corpus; give another folder")
        shutil.rmtree(self.part, ignore_errors=True)
        self.part.mkdir(parents=True)
        self.index: dict[str, int] = {}
        self.splits: dict[str, tuple[list[int], list[int]]] = {}

    def add(self, split: str, types: Sequence[str], ids: np.ndarray, lengths: Sequence[int],
            labels: Sequence[int] | None):
        "A block of documents: `ids` point into `types`, `lengths` cut them into documents."
        known, seen = self.splits.setdefault(split, ([], []))
        numbers = (self.index.setdefault(t, len(self.index)) for t in types)
        local = np.fromiter(numbers, dtype=np.uint32, count=len(types))
        with open(self.part / f"{split}.raw", "ab") as f: local[ids].tofile(f)
        known.extend(lengths)
        if labels is not None: seen.extend(labels)

    def finish(self, **manifest):
        "Renumber, write the manifest, and put the folder in its place."
        files = {s: self.part / f"{s}.raw" for s in self.splits}
        raws = {s: np.fromfile(f, dtype=np.uint32) if not f.stat().st_size else
                np.memmap(f, dtype=np.uint32, mode="r") for s, f in files.items()}
        counts = sum(np.bincount(r, minlength=len(self.index)) for r in raws.values())
        tokens = list(self.index)
        order = sorted(range(len(tokens)), key=lambda i: (-counts[i], tokens[i]))
        rank = np.empty(len(order), dtype=smallest_type(len(order)))
        rank[order] = np.arange(len(order))
        digest, about = hashlib.sha256(), {}
        for split, raw in raws.items():
            lengths, labels = self.splits[split]
            path = self.part / f"{split}.ids.npy"
            ids = (np.lib.format.open_memmap(path, mode="w+", dtype=rank.dtype, shape=raw.shape)
                   if len(raw) else np.zeros(0, rank.dtype))
            for i in range(0, len(raw), 1 << 22): ids[i:i + (1 << 22)] = rank[raw[i:i + (1 << 22)]]
            if not len(raw): np.save(path, ids)
            offsets = np.cumsum([0, *lengths], dtype=np.int64)
            np.save(self.part / f"{split}.offsets.npy", offsets)
            if labels: np.save(self.part / f"{split}.labels.npy", np.asarray(labels, dtype=np.int32))
            for a in (ids, offsets, np.asarray(labels, dtype=np.int32)): digest.update(np.ascontiguousarray(a).data)
            about[split] = dict(documents=len(lengths), tokens=int(offsets[-1]))
            (self.part / f"{split}.raw").unlink()
        lexicon = json.dumps([tokens[i] for i in order])
        (self.part / "lexicon.json").write_text(lexicon)
        digest.update(lexicon.encode())
        manifest = dict(format=FORMAT, splits=about, fingerprint=digest.hexdigest(), **manifest)
        (self.part / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False))
        shutil.rmtree(self.folder, ignore_errors=True)
        self.part.rename(self.folder)

    def __enter__(self): return self
    def __exit__(self, *_): shutil.rmtree(self.part, ignore_errors=True)
