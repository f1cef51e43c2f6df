"""A corpus of the user's own: a file, or a folder of them, read by what it is called and how it begins."""
from functools import partial
from pathlib import Path

from fastcore.script import CliError

from . import readers
from .source import Source, no_pages, pages_of

TABLES, TEXTS = (".csv", ".tsv"), (".txt",)


def split_name(path: Path) -> str | None:
    "Which split a file or folder of the user's is, by its name."
    stem = path.name.split(".")[0].lower()
    known = dict(train=("train",), valid=("valid", "val", "dev"), test=("test",), unsup=("unsup", "unlabelled"))
    return next((s for s, names in known.items() if stem in names), None)


def label_folders(split: str, folder: Path) -> list[tuple[str, Path, str | None]]:
    "(split, folder, label) of the folders of classes in a split's; what is unlabelled is so at any depth."
    if split == "unsup": return [(split, folder, None)]
    inside = sorted(filter(Path.is_dir, folder.iterdir()))
    return [("unsup", p, None) if split_name(p) == "unsup" else (split, p, p.name) for p in inside]


def open_path(path: Path, kind: str | None, text: str, label: str, encoding: str,
              leave_out: str | None = None) -> Source:
    "A corpus of the user's own: a file, or a folder of files, of `train/<label>/*.txt` or of WikiExtractor's output."
    def is_wanted(p): return p.is_file() and (set(p.suffixes) & {*TABLES, *TEXTS} or p.name.startswith("wiki_"))
    files = sorted(filter(is_wanted, path.rglob("*"))) if path.is_dir() else [path]
    if path.is_fifo(): raise CliError(f"{path} is a pipe, and a text is read more than once; write it to a file first")
    if not files: raise CliError(f"{path}: no .txt, .csv or .tsv file in it")
    tables = [p for p in files if set(p.suffixes) & set(TABLES)]
    kind = kind or ("classification" if tables or (path / "train").is_dir() else "lm")
    places = [str(p.relative_to(path)) if p != path else p.name for p in files]  # they tell form and split
    notes = []
    name, identity = path.name.split(".")[0], f"{kind} {text} {label} {encoding} {leave_out} {places}"

    def split_of(p):
        "By the name of the file, or of a folder within `path` that it is in."
        return next((s for q in (p, *(q for q in p.parents if path in q.parents)) if (s := split_name(q))), "train")

    def splits(): return [(split_name(p) or "train", p) for p in (tables if path.is_dir() else files)]
    def label_of(split): return label if kind == "classification" and split != "unsup" else None

    if (tables or kind == "classification") and leave_out is not None: raise no_pages(path)
    if tables:
        def read(): return ((s, d) for s, p in splits() for d in readers.read_table(p, text, label_of(s), encoding))
    elif kind == "classification":
        inside = sorted(path.iterdir()) if path.is_dir() else []
        subfolders = [part for p in inside if p.is_dir() and (s := split_name(p)) for part in label_folders(s, p)]
        if not subfolders:
            raise CliError(f"{path}: for classification give a CSV or TSV, or a folder with train/<label>/*.txt")
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
