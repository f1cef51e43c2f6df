"""A corpus of the user's own: a file, or a folder of them, read by what it is called and how it begins."""
import re
from functools import partial
from pathlib import Path

from fastcore.script import CliError

from . import readers
from .source import Source, no_pages, pages_of

SPLITS = dict(train=("train", "training"), valid=("valid", "validation", "val", "dev", "eval"),
              test=("test", "testing"), unsup=("unsup", "unsupervised", "unlabelled", "unlabeled"))
KINDS = ("lm", "classification")


def split_name(path: Path) -> str | None:
    "Which split a file or folder of the user's is, by its name."
    stem = path.name.split(".")[0].lower()
    return next((s for s, names in SPLITS.items() if stem in names), None)


def split_of_table(path: Path) -> str | None:
    "Which split a table is: the name, or its first or last word, as in reviews_test.csv, says so."
    words = re.split(r"[\W_]+", path.name.split(".")[0])
    said = {s for word in (words[0], words[-1]) if (s := split_name(Path(word)))}
    return said.pop() if len(said) == 1 else None


def label_folders(split: str, folder: Path) -> list[tuple[str, Path, str | None]]:
    "(split, folder, label) of the folders of classes in a split's; what is unlabelled is so at any depth."
    if split == "unsup": return [(split, folder, None)]
    inside = sorted(filter(Path.is_dir, folder.iterdir()))
    return [("unsup", p, None) if split_name(p) == "unsup" else (split, p, p.name) for p in inside]


def open_path(path: Path, kind: str | None, text: str, label: str, encoding: str,
              leave_out: str | None = None) -> Source:
    "A corpus of the user's own: a file, or a folder of files, of `train/<label>/*.txt` or of WikiExtractor's output."
    if kind and kind not in KINDS: raise CliError(f"no kind is called {kind!r}; there are: {', '.join(KINDS)}")
    def is_wanted(p): return readers.is_table(p) or readers.is_text(p) or p.is_file() and p.name.startswith("wiki_")
    files = sorted(filter(is_wanted, path.rglob("*"))) if path.is_dir() else [path]
    if path.is_fifo(): raise CliError(f"{path} is a pipe, and a text is read more than once; write it to a file first")
    if not files: raise CliError(f"{path}: no .txt, .csv, .tsv or .jsonl file in it")
    tables = [*filter(readers.is_table, files)]
    inside = sorted(path.iterdir()) if path.is_dir() else []
    folders = any(p.is_dir() and split_name(p) == "train" for p in inside)
    kind = kind or ("classification" if tables or folders else "lm")
    notes = []

    def named(p):
        "The split that the name of the file tells, or of a folder within `path` that it is in."
        of_file = split_of_table(p) if p != path and readers.is_table(p) else split_name(p)
        return of_file or next((s for q in p.parents if path in q.parents and (s := split_name(q))), None)

    def split_of(p): return named(p) or "train"
    places = {str(p.relative_to(path)) if p != path else p.name: split_of(p) for p in files}  # names tell the form
    name, identity = path.name.split(".")[0], f"{kind} {text} {label} {encoding} {leave_out} {places}"

    def label_of(split): return label if kind == "classification" and split != "unsup" else None

    if (tables or kind == "classification") and leave_out is not None: raise no_pages(path)
    if tables and folders and kind == "classification":
        raise CliError(f"{path}: there are tables ({tables[0].name}) and folders of classes; give the one or the other")
    if tables:
        if rest := len(files) - len(tables): notes += [f"{path}: {rest:,} files that are no tables are not read"]
        if any(map(named, tables)):
            notes += [f"{p} is read as training data: its name is no split's" for p in tables if not named(p)]

        def read():
            return ((s, d) for p in tables for s in (split_of(p),)
                    for d in readers.read_table(p, text, label_of(s), encoding))
    elif kind == "classification":
        subfolders = [part for p in inside if p.is_dir() and (s := split_name(p)) for part in label_folders(s, p)]
        if not subfolders:
            raise CliError(f"{path}: for classification give a CSV, TSV or JSONL, or a folder with train/<label>/*.txt")
        read_from = {p for _, p, _ in subfolders}
        notes += [f"{p} is not read: it lies in no folder of a class" for p in files if not read_from & {*p.parents}]

        def read():
            return ((s, d) for s, p, of in subfolders for d in readers.read_label_folder(p, of, encoding))
    else:
        def read():
            for p in files:
                form = readers.sniff_text(p, encoding)
                if form is readers.read_wikiextractor: form = partial(form, leave_out=pages_of(leave_out))
                elif leave_out is not None: raise no_pages(p)
                # in a folder of plain texts a file is a document
                if form is readers.read_paragraphs and path.is_dir(): form = readers.read_book
                yield from ((split_of(p), d) for d in form(p, encoding))
    return Source(name, kind, read, files, identity, notes)
