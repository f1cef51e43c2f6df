"""A prepared corpus: a folder of memory-mapped ids, documents' offsets, labels and a manifest.

    manifest.json        what it is: name, tokenizer, splits, classes, fingerprints; bytes and sha256 of each file
    lexicon.json         every distinct token of the corpus, most frequent first
    train.ids.npy        the documents one after another, each id an index into the lexicon
    train.offsets.npy    where each document starts; one longer than their number
    train.labels.npy     index of each document's class, for classification

The ids are those of the corpus's own complete lexicon. A stage chooses its vocabulary (its own size and minimum
frequency, or the one of the model that it starts from) and sees the ids through a table: nothing is prepared twice.
"""
import hashlib, json, os, sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fastcore.script import CliError

from ..text.rules import SPECIALS
from ..text.tokenizer import SUBWORDS, Tokenizer
from ..text.vocab import Vocab

FORMAT = 2
MANIFEST = "manifest.json"
AT_ONCE = 1 << 22  # ids in memory when all of them are gone through
Shard = tuple[int, int]  # which of how many, from 1


def smallest_type(n: int) -> np.dtype:
    "The narrowest unsigned type that holds 0 … n-1."
    return np.min_scalar_type(max(0, n - 1))


class EndToEnd:
    "Flat arrays as one, read where they lie: `ids[positions]` gathers from all, `len` is theirs together."
    def __init__(self, parts: Sequence[np.ndarray]):
        self.parts, self.ends = parts, np.cumsum([0, *map(len, parts)])

    def __len__(self) -> int: return int(self.ends[-1])

    def __getitem__(self, at: np.ndarray | slice) -> np.ndarray:
        if isinstance(at, slice): at = np.arange(*at.indices(len(self)))
        out, of = np.empty(at.shape, dtype=self.parts[0].dtype), np.searchsorted(self.ends, at, side="right") - 1
        for i in np.unique(of): out[of == i] = self.parts[i][at[of == i] - self.ends[i]]
        return out


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
        total, ends = np.zeros(size, dtype=np.int64), np.cumsum(self.lengths)
        borders = np.searchsorted(ends, np.arange(AT_ONCE, ends[-1] if len(self) else 0, AT_ONCE))
        for block in np.split(np.arange(len(self)), borders):
            if len(block): total += np.bincount(np.concatenate([self[i] for i in block]), minlength=size)
        return total

    def followed_by(self, other: "Documents") -> "Documents":
        "Two views in one numbering, one after the other; labels are dropped."
        return Documents(EndToEnd([self.ids, other.ids]),
                         np.concatenate([self.offsets, len(self.ids) + other.offsets[1:]]),
                         rows=np.concatenate([self.rows, len(self.offsets) - 1 + other.rows]), table=self.table)


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
    if not len(held):  # one at least, but no class's only example
        held = rng.permutation(np.array([i for g in groups if len(g) > 1 for i in g], dtype=np.int64))[:1]
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
    "Rows of `n` documents, each class in its proportion but for rounding (at least one of each), by seed."
    rng = np.random.default_rng([seed, 0x1ABE1])
    present, sizes = np.unique(docs.targets, return_counts=True)
    if n < len(present):
        raise CliError(f"{n} labelled documents cannot show {len(present)} classes; give at least {len(present)}")
    if n > len(docs): raise CliError(f"{n} labelled documents are asked for, {len(docs)} are there")
    share = np.maximum(1, np.floor(n * sizes / sizes.sum())).astype(int)
    while share.sum() > n:  # many small classes have more than theirs: the others give, in proportion
        share[np.argmax(np.where(share > 1, share / sizes, 0))] -= 1
    for i in np.argsort(-sizes):  # what rounding left over goes to the largest
        share[i] += min(sizes[i] - share[i], n - share.sum())
    drawn = [rng.permutation(np.flatnonzero(docs.targets == c))[:k] for c, k in zip(present, share)]
    return np.sort(np.concatenate(drawn))


@dataclass(frozen=True)
class HeldOut:
    "What is set apart of the training documents, by seed, where a corpus does not do so itself."
    valid_fraction: float = 0.1  # for validation

    def apart(self, splits: dict[str, Documents], seed: int) -> dict[str, Documents]:
        return with_held_out(splits, "valid", self.valid_fraction, seed)


@dataclass(frozen=True)
class LabelledHeldOut(HeldOut):
    "Likewise of labelled documents; the two later stages agree on them where these settings and seeds agree."
    test_fraction: float = 0.2  # for testing, before those for validation
    labelled: int = 0  # of the others learn from so many only, of each class in its proportion (0: all)
    tested: int = 0  # test on so many only, likewise (0: all)

    def apart(self, splits: dict[str, Documents], seed: int, draw: int = 0) -> dict[str, Documents]:
        "What is held out goes by `seed`, which of the others are labelled by `draw`; text without labels has no test."
        if "train" not in splits: raise CliError(f"there is no training split, only: {', '.join(splits)}")
        if splits["train"].labels is not None: splits = with_held_out(splits, "test", self.test_fraction, seed)
        elif self.labelled: raise CliError("--labelled: the training texts have no labels")
        splits = super().apart(splits, seed)
        for name, n, by in (("train", self.labelled, draw), ("test", self.tested, seed)):
            if n and name in splits: splits |= {name: splits[name].select(sample_labelled(splits[name], n, by))}
        return splits


def read_manifest(folder: Path) -> dict:
    "What a prepared corpus, or a shard of one, says of itself."
    path = Path(folder) / MANIFEST
    if not os.path.isfile(path): raise CliError(f"{folder} is not a prepared corpus: it has no {MANIFEST}")
    try: manifest = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise CliError(f"{path} is damaged; remove {folder} and prepare it again") from None
    if not isinstance(manifest, dict) or not {"format", "splits", "files"} <= set(manifest):
        raise CliError(f"{path} is not the manifest of a prepared corpus; give another folder")
    if manifest["format"] != FORMAT:
        raise CliError(f"{folder} has format {manifest['format']}, this version reads {FORMAT}: "
                       "remove it and prepare it again")
    return manifest


def check_files(folder: Path, files: dict[str, dict], contents: bool = False):
    "Refuse a corpus with a file that has not the size, or with `contents` the sha256, that it was written with."
    for name, about in files.items():
        path = Path(folder) / name
        if not path.is_file(): raise CliError(f"{path} is missing; remove {folder} and prepare it again")
        if (size := path.stat().st_size) != about["bytes"]:
            raise CliError(f"{path} is damaged ({size:,} bytes, {about['bytes']:,} were written); "
                           f"remove {folder} and prepare it again")
        if contents:
            with open(path, "rb") as f: found = hashlib.file_digest(f, "sha256").hexdigest()
            if found != about["sha256"]:
                raise CliError(f"{path} is damaged (its sha256 has changed); remove {folder} and prepare it again")


def describe(folder: Path) -> str:
    "What is in a prepared corpus or shard, a line each split."
    manifest = read_manifest(folder)
    lines = [f"{s}: {n['documents']:,} documents, {n['tokens']:,} tokens" for s, n in manifest["splits"].items()]
    classes = f", classes: {', '.join(manifest['classes'][:20])}" if manifest["classes"] else ""
    return "\n".join([*lines, f"{manifest['distinct_tokens']:,} distinct tokens{classes}; in {folder}"])


class Corpus:
    "A prepared corpus, opened."
    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        if shard := self.manifest["shard"]:
            raise CliError(f"{folder} is shard {shard[0]} of {shard[1]}; join them with python -m ulmfit.merge")
        check_files(self.folder, self.manifest["files"])
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
        "The vocabulary of these splits' documents; of subwords it is all that the tokenizer has."
        if missing := set(splits) - set(self.splits):
            raise CliError(f"{self.name} has no split {', '.join(missing)}; it has: {', '.join(self.splits)}")
        counts = sum(self.splits[s].counts(len(self.lexicon)) for s in splits)
        if self.tokenizer.kind == SUBWORDS: max_size, min_freq = len(SPECIALS) + len(self.lexicon), 0
        return Vocab.from_counts(self.lexicon, counts, max_size, min_freq)

    def words(self, vocab: Vocab) -> dict[str, Documents]:
        "Every split in the numbering of `vocab`."
        table = vocab.table(self.lexicon)
        return {s: d.through(table) for s, d in self.splits.items()}
