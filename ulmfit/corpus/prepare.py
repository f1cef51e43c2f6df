"""Preparation: a source's text becomes ids on disk, once; the stages only read ids.

Documents are tokenised by all cores in blocks; a worker sends back the block's distinct tokens and ids into them.
"""
import hashlib, os, sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import groupby, islice
from pathlib import Path

import numpy as np
from fastcore.script import CliError
from tqdm import tqdm

from ..text.tokenizer import Tokenizer
from .registry import ROOT, Source, open_source
from .store import FORMAT, Corpus, CorpusWriter

BLOCK = 512  # documents a worker takes at a time


def tokenise(texts: list[str], tokenizer: Tokenizer) -> tuple[list[str], np.ndarray, list[int]]:
    "A block of texts: its distinct tokens, ids into them, and each text's number of tokens."
    index: dict[str, int] = {}
    docs = [[index.setdefault(t, len(index)) for t in tokenizer(text)] for text in texts]
    return list(index), np.fromiter((i for d in docs for i in d), dtype=np.uint32), list(map(len, docs))


def blocks(documents: Iterator, size: int = BLOCK) -> Iterator[list]:
    while block := list(islice(documents, size)): yield block


def class_index(source: Source, label: str, classes: dict[str, int], split: str) -> int:
    "The label's number; classes are those of the training documents, which come first."
    if split == "train": return classes.setdefault(label, len(classes))
    if label not in classes: raise CliError(f"{source.name}: class {label!r} in {split} has no example in train")
    return classes[label]


def ordered_splits(source: Source) -> Iterator[tuple[str, Iterator]]:
    "The documents by split, train before the others (as its classes must be known first)."
    later = []
    for split, part in groupby(source.read(), key=lambda pair: pair[0]):
        documents = (document for _, document in part)
        if split == "train" or not source.kind == "classification": yield split, documents
        else: later.append((split, list(documents)))
    for split, documents in later: yield split, iter(documents)


def prepare(source: Source, tokenizer: Tokenizer, out: Path, workers: int | None = None) -> Corpus:
    "Write `source` as a prepared corpus into the folder `out`."
    for note in source.notes: print(f"note: {note}", file=sys.stderr)
    classes: dict[str, int] = {}
    workers = workers or os.cpu_count()
    bar = tqdm(desc=f"preparing {source.name}", unit=" documents", disable=not sys.stderr.isatty(), leave=False)
    with CorpusWriter(out) as writer, ProcessPoolExecutor(workers) as pool:
        for split, documents in ordered_splits(source):
            pending = []

            def take():
                labels, future = pending.pop(0)
                writer.add(split, *future.result(), labels)
                bar.update(len(future.result()[2]))

            for block in blocks(documents):
                texts, labels = zip(*block)
                numbers = None if labels[0] is None else [class_index(source, x, classes, split) for x in labels]
                pending.append((numbers, pool.submit(tokenise, list(texts), tokenizer)))
                if len(pending) > 2 * workers: take()
            while pending: take()
        bar.close()
        if not any(lengths for lengths, _ in writer.splits.values()):
            raise CliError(f"{source.name}: there is no text in it")
        if source.kind == "classification": check_labels(source, writer, classes)
        order = source.classes or sorted(classes)
        for c in sorted(set(order) ^ set(classes)):
            what = "has no example" if c in order else f"is not one of the card's: {', '.join(order)}"
            raise CliError(f"{source.name}: class {c!r} {what}")
        renumber = {n: order.index(c) for c, n in classes.items()}
        for _, labels in writer.splits.values(): labels[:] = [renumber[n] for n in labels]
        for split, n in source.expected.items():
            found = len(writer.splits.get(split, ([], []))[0])
            if found != n: raise CliError(f"{source.name}: {found:,} documents in {split}, the card says {n:,}")
        writer.finish(name=source.name, kind=source.kind, classes=list(order) if classes else [],
                      tokenizer=tokenizer.to_dict(), notes=source.notes, source=source.fingerprint())
    return Corpus(out)


def check_labels(source: Source, writer: CorpusWriter, classes: dict[str, int]):
    "Classification needs two classes or more."
    if "train" not in writer.splits: raise CliError(f"{source.name}: it has no training split")
    if len(classes) < 2:
        raise CliError(f"{source.name}: one class only ({', '.join(classes) or 'none'}): nothing to tell apart")


def prepared(name_or_path: str, kind: str | None, tokenizer: Tokenizer, text: str = "text", label: str = "label",
             encoding: str = "utf-8", of_model: bool = False) -> Corpus:
    "A stage's corpus: a prepared folder as it is, anything else prepared under `data/prepared/`, once for its content."
    if (Path(name_or_path) / "manifest.json").is_file():
        corpus = Corpus(Path(name_or_path))
        if kind == "classification" and corpus.kind != kind:
            raise CliError(f"{name_or_path} has no labels: it was prepared for a language model")
        if of_model and corpus.tokenizer != tokenizer:
            raise CliError(f"{name_or_path} was prepared with {corpus.tokenizer}, "
                           f"the model learnt with {tokenizer}; prepare it with the same")
        return corpus
    source = open_source(name_or_path, kind, text, label, encoding)
    key = hashlib.sha256(f"{FORMAT} {source.kind} {source.fingerprint()} {tokenizer}".encode()).hexdigest()[:12]
    out = ROOT / "prepared" / f"{source.name}-{source.kind}-{key}"
    return Corpus(out) if (out / "manifest.json").is_file() else prepare(source, tokenizer, out)
