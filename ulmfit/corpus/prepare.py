"""Preparation: a source's text becomes ids on disk, once; the stages only read ids.

The documents go in blocks to one process a core, each with a memory of what it has tokenised (`text/memo.py`). A
process sends back numbers of its memory and the tokens that are new in it, no other strings; here they become numbers
of the corpus's lexicon. Nothing grows with the text but the lexicon and a few bytes a document.
"""
import hashlib, json, os, signal, sys, time, unicodedata
from array import array
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Thread

import numpy as np
from fastcore.script import CliError
from tqdm import tqdm

from ..text.memo import Memo, Numbers
from ..text.subwords import tokens as subword_tokens
from ..text.tokenizer import SPACY, SUBWORDS, Tokenizer
from .readers import Document
from .registry import open_source
from .source import Source, in_data
from .store import FORMAT, MANIFEST, Corpus, Shard, check_files, read_manifest
from .writer import CorpusWriter

READING = 2  # another number whenever the same files come to give other tokens: readers, rules, learning of subwords
SPACY_USES = dict(ja=("sudachipy", "sudachidict-core"), ko=("natto-py",), th=("pythainlp",), vi=("pyvi",))
BLOCK, BLOCK_CHARACTERS = 512, 1 << 20  # a block ends with so many documents, or the one that makes it so long
HELD_OUT = ("valid", "test")  # no subwords are learnt from these splits
Block = tuple[str, list[Document]]  # split, documents


def cores() -> int:
    "That this process may use."
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@lru_cache
def memo(tokenizer: Tokenizer) -> Memo:
    "This process's memory."
    return Memo(tokenizer)


def follow_parent():
    "Ctrl-C is the parent's matter, and a process whose parent was killed ends as well."
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = os.getppid()

    def watch():
        while os.getppid() == parent: time.sleep(1)
        os._exit(1)
    Thread(target=watch, daemon=True).start()


def tokenise(texts: Sequence[str], tokenizer: Tokenizer) -> tuple[tuple[int, int], list[str], np.ndarray, np.ndarray]:
    "(which memory, its new tokens, numbers of all the texts' tokens, each text's number of tokens)."
    here = memo(tokenizer)
    numbers, lengths = here(texts)
    return (os.getpid(), here.begun), here.news(), numbers.astype(np.uint32), lengths


class Translation:
    "From the numbers of the processes' memories to those of the lexicon."
    def __init__(self, lexicon: Numbers): self.lexicon, self.tables = lexicon, {}

    def __call__(self, memory: tuple[int, int], news: Sequence[str], numbers: np.ndarray) -> np.ndarray:
        "Results of one process come in the order in which it gave them; a memory that began anew has a new table."
        process, begun = memory
        if self.tables.get(process, (None,))[0] != begun: self.tables[process] = begun, array("I")
        table = self.tables[process][1]
        table.extend(map(self.lexicon.__getitem__, news))
        return np.frombuffer(table, dtype=np.uint32)[numbers]


def blocks(documents: Iterable[tuple[str, Document]]) -> Iterator[Block]:
    "Documents of one split in a row, cut into blocks by themselves alone: the same ones for every run and shard."
    split, block, size = None, [], 0
    for of, document in documents:
        if block and (of != split or len(block) >= BLOCK or size >= BLOCK_CHARACTERS):
            yield split, block
            block, size = [], 0
        split = of
        block.append(document)
        size += len(document[0])
    if block: yield split, block


def of_shard(all_blocks: Iterable[Block], shard: Shard) -> Iterator[Block]:
    "Every n-th block of each split."
    seen, (i, n) = Counter(), shard
    for split, block in all_blocks:
        if seen[split] % n == i - 1: yield split, block
        seen[split] += 1


def tokenised(all_blocks: Iterable[Block], tokenizer: Tokenizer, workers: int) -> Iterator[tuple[Block, tuple]]:
    "Each block with its tokens, in order; no more than a few blocks are in memory."
    with ProcessPoolExecutor(workers, initializer=follow_parent) as pool:
        pending = deque()
        try:
            for block in all_blocks:
                pending.append((block, pool.submit(tokenise, [text for text, _ in block[1]], tokenizer)))
                if len(pending) > 2 * workers: yield pending[0][0], pending.popleft()[1].result()
            while pending: yield pending[0][0], pending.popleft()[1].result()
        except BrokenProcessPool:
            raise CliError("a process that tokenises was killed (is there too little memory?); "
                           "give fewer --workers") from None
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def libraries(tokenizer: Tokenizer) -> str:
    "What the tokens depend on beside this project: libraries, and Python's table of characters."
    names = {SPACY: ("spacy", *SPACY_USES.get(tokenizer.lang, ())), SUBWORDS: ("sentencepiece",)}
    found = [f"unicode {unicodedata.unidata_version}"]
    for name in names.get(tokenizer.kind, ()):
        try: found.append(f"{name} {version(name)}")
        except PackageNotFoundError: found.append(f"{name} (not installed)")
    return ", ".join(found)


def identity(source: Source, tokenizer: Tokenizer) -> dict:
    "What a prepared corpus is of: equal identities, equal ids."
    return dict(format=FORMAT, text=source.fingerprint, kind=source.kind, classes=source.classes,
                reading=READING, libraries=libraries(tokenizer)) | flat(tokenizer)


def flat(tokenizer: Tokenizer) -> dict:
    "A tokenizer's settings by name."
    model = hashlib.sha256(tokenizer.model).hexdigest() if tokenizer.model else None
    return dict(tokenizer=tokenizer.kind, lang=tokenizer.lang, **asdict(tokenizer.rules), subwords=tokenizer.size,
                model=model)


def differences(there: dict, here: dict) -> str:
    "Where two identities differ, in words."
    names = [k for k in {**there, **here} if there.get(k) != here.get(k)]
    return ", ".join(f"{k}: {there.get(k)} there, {here.get(k)} here" for k in names)


def say(notes: Sequence[str]):
    "What the user should know of the data, whenever they are used."
    for note in notes: print(f"note: {note}", file=sys.stderr)


def prepare(source: Source, tokenizer: Tokenizer, out: Path, workers: int | None = None,
            shard: Shard | None = None) -> Corpus | None:
    """Write `source` as a prepared corpus into the folder `out`, or a shard of it (of which there is no `Corpus`).

    If it is there already it stays. CliError where another is there, or the source is not what it should be.
    """
    say(source.notes)
    stamps = source.stamps()  # before the text is hashed: a change after that is seen
    about = identity(source, tokenizer)
    if is_there(Path(out), about, shard): return None if shard else Corpus(out)
    workers = workers or cores()
    with CorpusWriter(out) as writer:
        if tokenizer.untrained:
            tokenizer = tokenizer.trained(text for split, (text, _) in source.read() if split not in HELD_OUT)
        translation, found = Translation(writer.lexicon), blocks(source.read())
        if shard: found = of_shard(found, shard)
        with tqdm(desc=f"preparing {source.name}", unit=" tokens", unit_scale=True, leave=False,
                  disable=not sys.stderr.isatty()) as bar:
            for (split, documents), (memory, news, numbers, lengths) in tokenised(found, tokenizer, workers):
                labels = [writer.classes[label] for _, label in documents] if documents[0][1] is not None else None
                writer.add(split, translation(memory, news, numbers), lengths, labels)
                bar.update(len(numbers))
        for path, before, after in zip(source.files, stamps, source.stamps()):
            if before != after: raise CliError(f"{path} was changed while it was read; prepare it again")
        finish(writer, shard, name=source.name, kind=source.kind, tokenizer=tokenizer.to_dict(), notes=source.notes,
               identity=about, promised=dict(classes=source.classes, documents=source.expected))
    return None if shard else Corpus(out)


def is_there(out: Path, about: dict, shard: Shard | None) -> bool:
    "Whether the corpus that is to be made is in the folder already; CliError where it is another one."
    try:
        if not (out / MANIFEST).is_file(): return False
    except OSError: return False  # the writer will say what is wrong with it
    manifest = read_manifest(out)
    there, here = (a | dict(shard="/".join(map(str, s)) if s else None)
                   for a, s in ((manifest["identity"], manifest["shard"]), (about, shard)))
    if there != here:
        raise CliError(f"{out} holds another corpus ({differences(there, here)}); give another folder, or remove it")
    check_files(out, manifest["files"])
    return True


def finish(writer: CorpusWriter, shard: Shard | None, **about):
    "Write the files; a whole corpus must be what was promised of it."
    promised, name = about["promised"], about["name"]
    classes = sorted(writer.classes)
    if shard is None: classes = checked(writer, promised, name, about["kind"])
    always = subword_tokens(Tokenizer.from_dict(about["tokenizer"]).model) if about["tokenizer"]["size"] else ()
    writer.finish(classes, always, shard, **about)


def checked(writer: CorpusWriter, promised: dict, name: str, kind: str) -> list[str]:
    "The classes in order; CliError where documents or classes are not what they should be."
    found = writer.documents()
    if not any(split.has_text for split in writer.splits.values()): raise CliError(f"{name}: there is no text in it")
    classes = promised["classes"] or sorted(writer.classes)
    if kind == "classification" and "train" in found:  # of others, a model knows the classes
        of_train = {c for c, n in found["train"].items() if n and c is not None}
        for split, counts in found.items():
            for c, n in counts.items():
                if n and c is not None and c not in of_train:
                    raise CliError(f"{name}: class {c!r} in {split} has no example in train")
        if len(of_train) < 2:
            raise CliError(f"{name}: one class only ({', '.join(of_train) or 'none'}): nothing to tell apart")
    for c in sorted(set(classes) ^ set(writer.classes)):
        what = "has no example" if c in classes else f"is not one of the card's: {', '.join(classes)}"
        raise CliError(f"{name}: class {c!r} {what}")
    for split, expected in promised["documents"].items():
        for c, n in expected.items() if isinstance(expected, dict) else [(None, expected)]:
            counts = found.get(split, {})
            there, of = (sum(counts.values()), "") if c is None else (counts.get(c, 0), f" of class {c}")
            if there != n: raise CliError(f"{name}: {there:,} documents{of} in {split}, the card says {n:,}")
    return classes


def prepared(name_or_path: str, kind: str | None, tokenizer: Tokenizer, text_column: str = "text",
             label_column: str = "label", encoding: str = "utf-8", of_model: bool = False) -> Corpus:
    "A stage's corpus: a prepared folder as it is, anything else prepared under `data/prepared/`, once for its content."
    if os.path.isfile(Path(name_or_path) / MANIFEST):
        corpus = Corpus(Path(name_or_path))
        say(corpus.manifest["notes"])
        if kind == "classification" and corpus.kind != kind:
            raise CliError(f"{name_or_path} has no labels: it was prepared for a language model")
        if of_model and corpus.tokenizer != tokenizer:
            raise CliError(f"{name_or_path} is not tokenised as the model learnt it "
                           f"({differences(flat(corpus.tokenizer), flat(tokenizer))}); prepare it with the same")
        return corpus
    source = open_source(name_or_path, kind, text_column, label_column, encoding)
    about = identity(source, tokenizer)
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]
    out = in_data("prepared") / f"{source.name}-{source.kind}-{key}"
    return prepare(source, tokenizer, out)
