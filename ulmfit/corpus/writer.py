"""Writing a prepared corpus: block by block in flat memory, whole or absent.

Everything is written into `.<folder>.part`, which takes the folder's place at the end. Ids arrive as numbers of the
writer's lexicon, 4 bytes each; `finish` numbers the tokens by frequency and narrows the ids, so that the result depends
on the documents alone, not on the blocks, processes or shards that they came by.
"""
import hashlib, io, json, os, shutil
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
from fastcore.script import CliError

from ..locks import alone
from ..text.memo import Numbers
from .store import AT_ONCE, FORMAT, MANIFEST, Shard, smallest_type

ORDER = ("train", "valid", "test", "unsup")  # of splits in the manifest; others follow


def sync(folder: Path):
    "Have the disk know of the folder's entries before anything relies on them (where folders can be opened)."
    if os.name != "posix": return
    entries = os.open(folder, os.O_RDONLY)
    try: os.fsync(entries)
    finally: os.close(entries)


class Split:
    "A split as it is being written: raw ids in a file, lengths and labels of the documents in memory."
    def __init__(self, path: Path):
        self.path, self.file = path, open(path, "wb")
        self.lengths, self.labels, self.blocks = array("q"), array("i"), array("q")

    def add(self, ids: np.ndarray, lengths: Sequence[int], labels: Sequence[int] | None):
        "A block of documents: lexicon numbers of all their tokens, the documents' lengths, numbers of their classes."
        self.file.write(ids.astype(np.uint32).data)
        self.lengths.extend(lengths)
        self.blocks.append(len(lengths))
        if labels is not None: self.labels.extend(labels)

    @property
    def has_text(self) -> bool: return any(self.lengths)

    def read(self) -> Iterator[np.ndarray]:
        "The raw ids, piece by piece."
        self.file.flush()
        with open(self.path, "rb") as f:
            while len(ids := np.fromfile(f, dtype=np.uint32, count=AT_ONCE)): yield ids


class CorpusWriter:
    """A prepared corpus in the making, as a context; `lexicon` and `classes` give numbers to tokens and labels.

    CliError where the folder is there already, another process is writing it, or the disk is full.
    """
    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.part, self.lock = (self.folder.with_name(f".{self.folder.name}.{end}") for end in ("part", "lock"))
        self.held = ExitStack()
        self.lexicon, self.classes, self.splits, self.files = Numbers(), Numbers(), {}, {}

    def __enter__(self):
        with self.writing():
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=self.folder.parent): pass  # a lock that cannot be written looks like a busy one
            self.held.enter_context(alone(self.lock, f"{self.folder} is being prepared by another process"))
        try:
            if self.folder.is_file() or self.folder.is_dir() and any(self.folder.iterdir()):
                raise CliError(f"{self.folder} is there already; give another folder, or remove it")
            shutil.rmtree(self.part, ignore_errors=True)  # of a preparation that was killed
            with self.writing(): self.part.mkdir()
        except BaseException:
            self.held.close()
            raise
        return self

    def __exit__(self, *_):
        for split in self.splits.values():
            try: split.file.close()
            except OSError: pass  # the disk is full, and that is said already
        shutil.rmtree(self.part, ignore_errors=True)
        self.held.close()

    @contextmanager
    def writing(self):
        "What fails to be written, for want of space say, is one line."
        try: yield
        except OSError as e:
            raise CliError(f"{self.folder} cannot be written ({e.strerror or e}); nothing is left of it") from e

    def add(self, split: str, ids: np.ndarray, lengths: Sequence[int], labels: Sequence[int] | None):
        "A block of a split's documents, see `Split.add`."
        with self.writing():
            if split not in self.splits: self.splits[split] = Split(self.part / f"{split}.raw")
            self.splits[split].add(ids, lengths, labels)

    def documents(self) -> dict[str, dict[str, int]]:
        "How many documents there are, by split and class (None: without a label)."
        classes = self.classes.order
        return {name: dict(zip(classes, np.bincount(split.labels, minlength=len(classes)).tolist()))
                if split.labels else {None: len(split.lengths)} for name, split in self.splits.items()}

    def finish(self, classes: Sequence[str], always: Iterable[str] = (), shard: Shard | None = None, **about):
        """Number tokens by frequency and classes in the order of `classes`; write the files, put the folder in place.

        Tokens in `always` are part of the lexicon even where no document has them. A shard also keeps where its blocks
        end. `about` goes into the manifest.
        """
        rank, lexicon = self.by_frequency(always)
        table = np.array([classes.index(c) for c in self.classes.order], dtype=np.int32)
        splits = sorted(self.splits, key=lambda s: (ORDER.index(s) if s in ORDER else len(ORDER), s))
        with self.writing():
            for name in splits: self.write_split(name, rank, table, shard is not None)
            self.write("lexicon.json", [json.dumps(lexicon).encode()])
            sizes = {s: dict(documents=len(x.lengths), tokens=sum(x.lengths)) for s, x in self.splits.items()}
            contents = json.dumps([self.files, list(classes)]).encode()
            manifest = dict(format=FORMAT, splits={s: sizes[s] for s in splits}, classes=list(classes), shard=shard,
                            distinct_tokens=len(lexicon),
                            fingerprint=hashlib.sha256(contents).hexdigest(), files=self.files, **about)
            # what is no text in a file's name is an escape of JSON as well
            self.write(MANIFEST, [json.dumps(manifest, indent=1, ensure_ascii=False).encode(errors="backslashreplace")])
            sync(self.part)
            self.part.rename(self.folder)
            sync(self.folder.parent)

    def by_frequency(self, always: Iterable[str]) -> tuple[np.ndarray, list[str]]:
        "Each raw id's place among the tokens, most frequent first and ties by the token, and the tokens in that order."
        wanted = [self.lexicon[t] for t in always]
        tokens = self.lexicon.order
        counts = np.zeros(len(tokens), dtype=np.int64)
        for split in self.splits.values():
            for ids in split.read(): counts += np.bincount(ids, minlength=len(counts))
        used = counts > 0  # a process also learns tokens that no document ends up with
        used[wanted] = True
        by_name = np.array(sorted(range(len(tokens)), key=tokens.__getitem__), dtype=np.int64)
        by_name = by_name[used[by_name]]
        order = by_name[np.argsort(-counts[by_name], kind="stable")]
        rank = np.zeros(len(tokens), dtype=smallest_type(len(order)))
        rank[order] = np.arange(len(order))
        return rank, [tokens[i] for i in order]

    def write_split(self, name: str, rank: np.ndarray, table: np.ndarray, is_shard: bool):
        "A split's files; its raw ids are removed."
        split = self.splits[name]
        offsets = np.append(0, np.cumsum(np.asarray(split.lengths))).astype(np.int64)
        self.write_array(f"{name}.ids.npy", rank.dtype, int(offsets[-1]), (rank[ids] for ids in split.read()))
        self.write_array(f"{name}.offsets.npy", offsets.dtype, len(offsets), [offsets])
        if labels := split.labels:
            self.write_array(f"{name}.labels.npy", table.dtype, len(labels), [table[np.asarray(labels)]])
        if is_shard: self.write_array(f"{name}.blocks.npy", np.int64, len(split.blocks), [np.array(split.blocks)])
        split.file.close()
        split.path.unlink()

    def write_array(self, name: str, dtype: np.dtype, size: int, blocks: Iterable[np.ndarray]):
        "A one-dimensional .npy file of `size` numbers."
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, dict(descr=np.lib.format.dtype_to_descr(np.dtype(dtype)), fortran_order=False, shape=(size,)))
        def parts():
            yield header.getvalue()
            for block in blocks: yield np.ascontiguousarray(block, dtype=dtype).data
        self.write(name, parts())

    def write(self, name: str, parts: Iterable[bytes | memoryview]):
        "One file, and what the manifest says of it."
        digest, size = hashlib.sha256(), 0
        with open(self.part / name, "wb") as f:
            for part in parts:
                f.write(part)
                digest.update(part)
                size += memoryview(part).nbytes
            f.flush()
            os.fsync(f.fileno())
        self.files[name] = dict(bytes=size, sha256=digest.hexdigest())
